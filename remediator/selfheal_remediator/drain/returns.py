"""Counts the pods that an owner puts on a node again despite its cordon. Pure.

The counts are stored in the node's annotation, so that the next leader continues from them. A pod
is evicted again only after its return is recorded there.
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field

from selfheal_remediator.kube.pods import Pod

#: How often an owner may put its pods on a cordoned node again before they are left there.
MAX_RETURNS = 3
#: Owners counted by themselves on one node; those beyond share one count. The annotation is
#: bounded by this, and so are the evictions of pods whose owners cannot be distinguished.
MAX_OWNERS = 16
#: The key of the count that all other owners share.
OTHERS = ""
#: Owners of which it is known that they lost a pod; beyond, all count so.
MAX_LOST = 1000
#: Seconds by which the API server's clock may be ahead of that of who began the drain.
CLOCK_TOLERANCE = 5.0
CORDON_TAINT = "node.kubernetes.io/unschedulable"
_HASH_LABELS = ("pod-template-hash", "rollouts-pod-template-hash")
#: Kinds whose names people choose: nothing of them is generated.
_NAMED_BY_PEOPLE = ("Deployment", "StatefulSet", "DaemonSet")
#: The end of a generated name: numbers, hashes, and the characters of the API's generateName.
_GENERATED = re.compile(r"[-.](?:[a-z0-9]*\d[a-z0-9]*|[bcdfghjklmnpqrstvwxz2456789]{5,10})$")
_HASH = re.compile(r"(?=[a-z]*\d)[a-z0-9]{8,}")

#: Counts by owner as in the annotation, and which pod was counted last.
Counts = tuple[tuple[str, int], ...]


def workload(pod: Pod) -> str:
    """The key of the pod's count, without uid: a recreated owner keeps its count.

    The ReplicaSets of one Deployment count together, so do the Jobs of one CronJob, and so do all
    owners, or pods without one, whose names differ in a generated end only.
    """
    name = pod.owner_name or pod.generate_name or pod.name
    hashed = False
    for label in _HASH_LABELS:
        value = pod.labels.get(label)
        if value:
            name, hashed = name.removesuffix(f"-{value}"), True
    if not hashed and pod.owner_kind not in _NAMED_BY_PEOPLE:
        name = _stem(name)
    return f"{pod.namespace}/{pod.owner_kind}/{name}"


def _stem(name: str) -> str:
    """The name without the ends that are generated; none is left of one that is all generated."""
    name = name.rstrip("-.")
    while match := _GENERATED.search(name):
        name = name[: match.start()]
    return "" if _HASH.fullmatch(name) else name


def _short(text: str) -> str:
    """Six characters for any text."""
    return urlsafe_b64encode(hashlib.sha256(text.encode()).digest())[:6].decode()


def tolerates_cordon(pod: Pod) -> bool:
    """Whether the scheduler may put the pod on a cordoned node."""
    return any(
        effect in ("", "NoSchedule") and (key == CORDON_TAINT or (not key and operator == "Exists"))
        for key, operator, _, effect in pod.tolerations
    )


@dataclass(slots=True)
class Returns:
    """The owners that lost a pod to the drain, and how often each put one there again.

    counts: by the owner's key, at most MAX_RETURNS + 1. latest: the youngest pod that was counted.
    saved: what the annotation says of both, None = they are not kept there (dry-run).
    """

    counts: dict[str, int] = field(default_factory=dict)
    latest: str = ""
    saved: tuple[Counts, str] | None = None
    _lost: set[str] = field(default_factory=set)
    #: Of a predecessor: whom it counted, up to which pod, and when it began the drain.
    _before: frozenset[str] = frozenset()
    _up_to: tuple[float, str] = (float("-inf"), "")
    _began: float = float("inf")

    def restore(self, counts: Counts, latest: str, began: float | None) -> None:
        """Continue from the annotation. began: when the drain did, in seconds since the epoch, if
        another process or an earlier term began it: whose pods it evicted is not known."""
        self.counts, self.latest, self.saved = dict(counts), latest, (counts, latest)
        self._before, self._up_to = frozenset(self.counts), _parsed(latest)
        self._began = float("inf") if began is None else began

    @property
    def to_save(self) -> tuple[Counts, str]:
        """What the annotation is to say."""
        return tuple(self.counts.items()), self.latest

    @property
    def unsaved(self) -> bool:
        """Whether a return is to be written down before the pod is evicted again."""
        return self.saved is not None and self.saved != self.to_save

    def lost(self, pod: Pod) -> None:
        """The pod leaves the node: what its owner puts here from now on has returned."""
        if len(self._lost) < MAX_LOST:
            self._lost.add(workload(pod))

    def has_lost(self, pod: Pod) -> bool:
        """Whether a pod of the same owner has left (all count so once there are too many)."""
        return workload(pod) in self._lost or len(self._lost) >= MAX_LOST

    def returned_before(self, pod: Pod) -> bool:
        """Whether it was made since a predecessor began the drain: it came past the cordon."""
        if pod.created is None:
            return False
        if self._key(pod) in self._before:
            # Its owner has done so before. Our clock may be ahead of the one that made the pods.
            return pod.created >= min(self._began, self._up_to[0])
        return pod.created >= self._began + CLOCK_TOLERANCE

    def refused(self, pod: Pod, drained: bool) -> str:
        """Count a pod that returned; says why it is left there, empty = it is evicted again."""
        if self._count(pod) <= MAX_RETURNS:
            return ""
        owner = f"{pod.namespace}/{pod.owner_kind}/{pod.owner_name or pod.name}"
        node = "drained" if drained else "cordoned"
        why = " (it tolerates the cordon)" if tolerates_cordon(pod) else ""
        return f"scheduled to the {node} node repeatedly by {owner}{why}"

    def _count(self, pod: Pod) -> int:
        """How often its owner has put pods here, this one counted once, whoever leads."""
        key = self._key(pod)
        count = self.counts.get(key, 0)
        made = (pod.created or 0.0, _short(pod.uid))
        known = made[0] < self._up_to[0] or made == self._up_to
        if count > MAX_RETURNS or (known and pod.created is not None):
            return count
        self.counts[key] = count + 1
        if made[0] >= _parsed(self.latest)[0]:
            self.latest = f"{made[0]:.0f}/{made[1]}"
        return count + 1

    def _key(self, pod: Pod) -> str:
        key = _short(workload(pod))
        if key in self.counts:
            return key
        return OTHERS if OTHERS in self.counts or len(self.counts) >= MAX_OWNERS else key


def _parsed(latest: str) -> tuple[float, str]:
    moment, _, pod = latest.partition("/")
    return (float(moment), pod) if moment.isdecimal() else (float("-inf"), "")
