"""Nodes that are only pretended, by KWOK: objects with heartbeats, on which pods become Running."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ci.cluster import kubeconfig, processes
from ci.cluster.layout import Layout, Network
from ci.cluster.network import CONTROL_PLANE

PART = "kwok"
ANNOTATION = "kwok.x-k8s.io/node"
LABEL = "type"
_STAGES = ("node/fast", "node/heartbeat-with-lease", "pod/fast")


def start(layout: Layout, network: Network, programs: Mapping[str, Path]) -> None:
    """Starts KWOK; it manages every node that has the annotation, whoever made it."""
    config = layout.certificates / "kwok.kubeconfig"
    kubeconfig.write(layout, network, "kwok", config)
    stages = layout.certificates.parent / "kwok-stages.yaml"
    stages.write_text(_stages(programs["kwok-stages"]))
    command: list[str | Path] = [
        programs["kwok"],
        f"--config={stages}",
        f"--kubeconfig={config}",
        "--manage-all-nodes=false",
        f"--manage-nodes-with-annotation-selector={ANNOTATION}=fake",
        # It renews after a quarter of it, twice within the 50 s after which a node counts as away:
        # the 500 renewals a second of 5,000 nodes with kubelet's 10 s would be all that is done.
        "--node-lease-duration-seconds=90",
        "--cidr=10.245.0.0/16",
    ]
    processes.start(layout, PART, command, inside=CONTROL_PLANE)


def _stages(folder: Path) -> str:
    """How pretended nodes and pods behave: ready at once, heartbeats by Lease, deleted at once."""
    files = [path for name in _STAGES for path in sorted((folder / name).glob("*.yaml"))]
    return "\n---\n".join(path.read_text() for path in files if path.name != "kustomization.yaml")


def nodes(count: int) -> str:
    """A List of `count` nodes (`kwok-0` …), as JSON, for `kubectl apply`."""
    items = [node(f"kwok-{index}") for index in range(count)]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def node(name: str) -> dict[str, Any]:
    """One pretended node of 32 cores. Tainted, so that only what tolerates it is sent there."""
    capacity = {"cpu": "32", "memory": "256Gi", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {ANNOTATION: "fake"},
            "labels": {
                LABEL: "kwok",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
            },
        },
        "spec": {"taints": [{"key": ANNOTATION, "value": "fake", "effect": "NoSchedule"}]},
        "status": {"allocatable": capacity, "capacity": capacity},
    }
