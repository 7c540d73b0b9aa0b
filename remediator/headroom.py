"""Whether what must move fits elsewhere: requests against free allocatable. Pure.

A first-fit of the largest pods first, with the scheduler's plainest filters (node selector,
taints, requests, number of pods). It errs on the side of "does not fit": a drain that could
not end is worse than one that waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from remediator.snapshot import Capacity, Node, Pod

#: Labels and taints by which a cluster shows that nodes are made when pods need them.
_AUTOSCALER_LABELS = ("karpenter.sh/nodepool", "karpenter.sh/provisioner-name")
_AUTOSCALER_TAINTS = ("DeletionCandidateOfClusterAutoscaler", "ToBeDeletedByClusterAutoscaler")


@dataclass(slots=True)
class Room:
    """What is free on one node; shrinks as pods are placed."""

    node: Node
    cpu: int
    memory: int
    pods: int

    @classmethod
    def of(cls, node: Node, pods: Iterable[Pod]) -> Room:
        """The node's allocatable less what its unfinished pods request."""
        free = node.allocatable
        room = cls(node, free.cpu, free.memory, free.pods)
        for pod in pods:
            if not pod.finished:
                room.take(pod.requests)
        return room

    def take(self, request: Capacity) -> None:
        """Something is placed here."""
        self.cpu -= request.cpu
        self.memory -= request.memory
        self.pods -= 1

    def holds(self, pod: Pod) -> bool:
        """Whether the pod could be placed here."""
        request = pod.requests
        if request.cpu > self.cpu or request.memory > self.memory or self.pods < 1:
            return False
        labels = self.node.labels
        if any(labels.get(key) != value for key, value in pod.node_selector.items()):
            return False
        return all(
            taint.effect == "PreferNoSchedule"
            or tolerated(pod, taint.key, taint.value, taint.effect)
            for taint in self.node.taints
        )


def tolerated(pod: Pod, key: str, value: str, effect: str) -> bool:
    """Whether one of the pod's tolerations matches the taint."""
    for wanted_key, operator, wanted_value, wanted_effect in pod.tolerations:
        if wanted_effect not in ("", effect):
            continue
        if operator == "Exists" and wanted_key in ("", key):
            return True
        if operator == "Equal" and wanted_key == key and wanted_value == value:
            return True
    return False


def usable(node: Node) -> bool:
    """Whether new pods may go to the node."""
    return node.ready and not node.unschedulable and not node.deleting


def place(pods: Iterable[Pod], room: Room) -> list[Pod]:
    """Place what fits, the largest first; returns what is left over."""
    left = []
    for pod in sorted(pods, key=lambda pod: (-pod.requests.cpu, -pod.requests.memory)):
        if room.holds(pod):
            room.take(pod.requests)
        else:
            left.append(pod)
    return left


def autoscaled(nodes: Iterable[Node]) -> bool:
    """Whether the cluster shows that it makes nodes by itself."""
    return any(
        any(label in node.labels for label in _AUTOSCALER_LABELS)
        or any(taint.key in _AUTOSCALER_TAINTS for taint in node.taints)
        for node in nodes
    )


def describe(left: list[Pod], looked_at: int) -> str:
    """What does not fit, for an Event."""
    names = ", ".join(pod.id for pod in left[:3]) + (", …" if len(left) > 3 else "")
    cpu = sum(pod.requests.cpu for pod in left)
    memory = sum(pod.requests.memory for pod in left) / 2**20
    return (
        f"{len(left)} pods ({names}; {cpu}m CPU, {memory:.0f} MiB requested) fit on none of "
        f"{looked_at} usable nodes"
    )
