"""Small readings of Kubernetes objects as JSON (pure)."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

Object = dict[str, Any]


def labelled(pods: Iterable[Object], release: str, component: str) -> list[Object]:
    """The pods of one component of a release."""
    wanted = {"app.kubernetes.io/instance": release, "app.kubernetes.io/component": component}
    return [p for p in pods if wanted.items() <= p["metadata"].get("labels", {}).items()]


def is_ready(pod: Object) -> bool:
    """Condition Ready is True and the pod is not on its way out."""
    return not is_leaving(pod) and condition(pod, "Ready") == "True"


def is_leaving(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def condition(thing: Object, kind: str) -> str | None:
    """The status of one condition of a pod, node or other object; None when it is not there."""
    for one in thing.get("status", {}).get("conditions", []):
        if one["type"] == kind:
            return str(one["status"])
    return None


def node_of(pod: Object) -> str:
    """The node's name, or empty while the pod has none."""
    return str(pod["spec"].get("nodeName", ""))


def by_node(pods: Iterable[Object]) -> str:
    """`node-1: 2, node-2: 1` of the pods that have a node."""
    counts = Counter(node_of(p) for p in pods if node_of(p))
    return ", ".join(f"{node}: {count}" for node, count in sorted(counts.items()))


def to_move(pods: Iterable[Object], node: str) -> list[Object]:
    """The pods on `node` that a drain moves: neither of a DaemonSet, nor static, nor finished."""
    return [p for p in pods if node_of(p) == node and not _stays(p)]


def _stays(pod: Object) -> bool:
    owners = {owner["kind"] for owner in pod["metadata"].get("ownerReferences", [])}
    finished = pod["status"].get("phase") in ("Succeeded", "Failed")
    return finished or bool(owners & {"DaemonSet", "Node"})


def restarts(pod: Object) -> int:
    """Container restarts of the pod so far."""
    return sum(c.get("restartCount", 0) for c in pod["status"].get("containerStatuses", []))


def is_cordoned(node: Object) -> bool:
    return bool(node["spec"].get("unschedulable"))
