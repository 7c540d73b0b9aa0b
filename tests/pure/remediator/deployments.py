"""A Deployment of one replica whose owner wants a surge, its ReplicaSet and its pod, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfheal_remediator.kube.pods import Pod
from tests.pure.remediator import builders

Json = dict[str, Any]
WANTED = {"selfheal.dev/surge": "true"}
#: What the API server fills in.
DEFAULTS = {"maxSurge": "25%", "maxUnavailable": "25%"}


def deployment(
    *,
    annotations: Mapping[str, str] | None = WANTED,
    template: Mapping[str, str] | None = None,
    strategy: Json | None = None,
    meta: Json | None = None,
    status: Json | None = None,
    progressing: tuple[str, str] = ("True", "NewReplicaSetAvailable"),
    **spec: Any,
) -> Json:
    """Rolled out; what is given is different."""
    pods: Json = {"labels": {"app": "web"}}
    if template is not None:
        pods["annotations"] = dict(template)
    made: Json = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "namespace": "default",
            "name": "web",
            "uid": "web-uid",
            "resourceVersion": "7",
            "generation": 3,
            **(meta or {}),
        },
        "spec": {
            "replicas": 1,
            "progressDeadlineSeconds": 600,
            "strategy": strategy or {"type": "RollingUpdate", "rollingUpdate": DEFAULTS},
            "template": {"metadata": pods, "spec": {}},
            **spec,
        },
        "status": {
            "observedGeneration": 3,
            "replicas": 1,
            "updatedReplicas": 1,
            "availableReplicas": 1,
            "conditions": [
                {"type": "Progressing", "status": progressing[0], "reason": progressing[1]}
            ],
            **(status or {}),
        },
    }
    if annotations is not None:
        made["metadata"]["annotations"] = dict(annotations)
    return made


def rolling(**rollingUpdate: Any) -> Json:  # noqa: N803
    """A strategy RollingUpdate."""
    return {"type": "RollingUpdate", "rollingUpdate": {**DEFAULTS, **rollingUpdate}}


def replica_set(**meta: Any) -> Json:
    """Of the Deployment."""
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "web-uid"}
    return {
        "metadata": {
            "namespace": "default",
            "name": "rs",
            "uid": "rs-uid",
            "ownerReferences": [{**owner, "controller": True}],
            **meta,
        }
    }


def pod(**more: Any) -> Pod:
    """Its only one, on node `n`."""
    return builders.pod("web-1", **more)
