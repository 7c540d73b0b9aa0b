"""Persistent volumes for the evaluation broker: folders of this machine that every node sees."""

import json
import shutil
from typing import Any

from ci.cluster.layout import Layout

STORAGE_CLASS = "shared"
COUNT = 4
_SIZE = "10Gi"


def manifests(layout: Layout) -> str:
    """The default StorageClass and COUNT empty volumes, as a JSON List."""
    items = [storage_class(), *(volume(layout, name) for name in names())]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def names() -> list[str]:
    """`shared-1` and so on."""
    return [f"{STORAGE_CLASS}-{number}" for number in range(1, COUNT + 1)]


def storage_class() -> dict[str, Any]:
    """Nothing provisions: a claim takes one of the volumes that are there."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "reclaimPolicy": "Retain",
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def volume(layout: Layout, name: str) -> dict[str, Any]:
    """One volume without node affinity: a pod finds its data again on the other node."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "storageClassName": STORAGE_CLASS,
            "capacity": {"storage": _SIZE},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(layout.volumes / name), "type": "Directory"},
        },
    }


def make_folder(layout: Layout, name: str) -> None:
    """An empty folder, writable by any user: host paths know no fsGroup."""
    folder = layout.volumes / name
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    folder.chmod(0o777)


def released(listed: str) -> list[str]:
    """Our volumes whose claim is gone, from `kubectl get persistentvolumes -o json`."""
    return [
        item["metadata"]["name"]
        for item in json.loads(listed)["items"]
        if item["metadata"]["name"] in names() and item["status"].get("phase") == "Released"
    ]
