"""Counts the pods that an owner puts on a node again past its cordon. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from remediator.snapshot import Pod

#: How often an owner may put its pods on a cordoned node again before they are left there.
MAX_RETURNS = 3
#: Owners counted on one node; those beyond share one count, so that memory is bounded.
MAX_OWNERS = 1000
CORDON_TAINT = "node.kubernetes.io/unschedulable"
_HASH_LABELS = ("pod-template-hash", "rollouts-pod-template-hash")
_SCHEDULED_JOB = re.compile(r"-\d{8,}$")


def workload(pod: Pod) -> str:
    """What the pod is counted under, without uid: an owner made anew keeps its count.

    The ReplicaSets of one Deployment count together, and so do the Jobs of one CronJob.
    """
    name = pod.owner_name or pod.name
    for label in _HASH_LABELS:
        value = pod.labels.get(label)
        if value:
            name = name.removesuffix(f"-{value}")
    if pod.owner_kind == "Job":
        name = _SCHEDULED_JOB.sub("", name)
    return f"{pod.namespace}/{pod.owner_kind}/{name}"


def tolerates_cordon(pod: Pod) -> bool:
    """Whether the scheduler may put the pod on a cordoned node."""
    return any(
        effect in ("", "NoSchedule") and (key == CORDON_TAINT or (not key and operator == "Exists"))
        for key, operator, _, effect in pod.tolerations
    )


@dataclass(slots=True)
class Returns:
    """The owners that lost a pod to the drain, and how often each put one there again."""

    counts: dict[str, int] = field(default_factory=dict)
    _lost: set[str] = field(default_factory=set)

    def lost(self, pod: Pod) -> None:
        """The pod leaves the node: what its owner puts here from now on has returned."""
        if len(self._lost) < MAX_OWNERS:
            self._lost.add(workload(pod))

    def has_lost(self, pod: Pod) -> bool:
        """Whether a pod of the same owner has left (all count so once there are too many)."""
        return workload(pod) in self._lost or len(self._lost) >= MAX_OWNERS

    def refused(self, pod: Pod, drained: bool) -> str:
        """Count a pod that returned; says why it is left there, empty = it is evicted again."""
        key = workload(pod)
        if key not in self.counts and len(self.counts) >= MAX_OWNERS:
            key = "other owners"
        self.counts[key] = self.counts.get(key, 0) + 1
        if self.counts[key] <= MAX_RETURNS:
            return ""
        owner = f"{pod.namespace}/{pod.owner_kind}/{pod.owner_name or pod.name}"
        node = "drained" if drained else "cordoned"
        why = " (it tolerates the cordon)" if tolerates_cordon(pod) else ""
        return f"put on the {node} node again and again by {owner}{why}"
