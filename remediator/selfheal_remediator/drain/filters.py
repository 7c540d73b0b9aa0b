"""Which pods of a node go, in which wave, and which stay and why. Pure.

The meaning follows `kubectl drain` (mirror, DaemonSet, emptyDir, unmanaged), with one change:
a pod that may not go is reported and does not stop the others. One predicate, one reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from selfheal_remediator.config import Drain
from selfheal_remediator.drain.topology import tolerated
from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.kube.objects import Taint
from selfheal_remediator.kube.placement import Terms
from selfheal_remediator.kube.pods import SAFE_TO_EVICT, Pod
from selfheal_remediator.owner_kinds import is_one_of, owner_kind

#: PriorityClasses at or above this value are reserved for the system.
SYSTEM_PRIORITY = 2_000_000_000
#: A priority is an int32; no wave is negative.
_LOWEST_PRIORITY, _LAST_WAVE = -(2**31), 2**32


class Fate(Enum):
    """What a drain does with a pod; the value is the bounded label for metrics."""

    EVICT = "evict"
    IGNORE = "ignore"  # belongs to the node, or is over: does not count
    STAY = "stay"  # should go but may not: reported
    WAIT = "wait"  # may end by itself until a time, and goes then


@dataclass(frozen=True, slots=True)
class Sorting:
    """A pod's fate. wave: see wave_of. until: when it is to
    be sorted again, None = not by time."""

    fate: Fate
    reason: str = ""
    wave: int = 0
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What must be known beside the pod.

    daemon_sets: (namespace, name, uid) of those that exist, None = not known (then every one
    counts as existing). gone_daemon_sets: uids of those that a later read did not find;
    unknown_daemon_sets: uids of those that cannot be read. local_claims: claims (namespace, name)
    whose volume can be used on no other schedulable node. unknown_claims: those that cannot be
    read.
    """

    drain: Drain
    own_uid: str = ""
    daemon_sets: frozenset[tuple[str, str, str]] | None = None
    local_claims: frozenset[tuple[str, str]] = field(default_factory=frozenset)
    unknown_claims: frozenset[tuple[str, str]] = field(default_factory=frozenset)
    gone_daemon_sets: frozenset[str] = field(default_factory=frozenset)
    unknown_daemon_sets: frozenset[str] = field(default_factory=frozenset)
    #: Of the claims that were read: the nodes that the volume can be used on, None = any.
    claim_terms: Mapping[tuple[str, str], Terms | None] = field(default_factory=dict)
    #: Seconds since the epoch; -inf = no completion is waited for.
    drain_began: float = float("-inf")
    #: Whether the node is Ready: what no kubelet observes does not complete.
    ready: bool = True
    #: The taint that the node has instead of a cordon.
    taint: Taint | None = None


Predicate = Callable[[Pod, Surroundings], Sorting | None]


def _mirror(pod: Pod, _: Surroundings) -> Sorting | None:
    return Sorting(Fate.IGNORE, "mirror pod of the kubelet") if pod.mirror else None


def _finished(pod: Pod, _: Surroundings) -> Sorting | None:
    return Sorting(Fate.IGNORE, f"finished ({pod.phase})") if pod.finished else None


def of_daemon_set(pod: Pod) -> bool:
    """Whether a DaemonSet put the pod here."""
    return pod.owner_kind == "DaemonSet" and pod.owner_api.startswith("apps/")


def _daemon(pod: Pod, around: Surroundings) -> Sorting | None:
    if not of_daemon_set(pod):
        return None
    known = around.daemon_sets
    if known is None or (pod.namespace, pod.owner_name, pod.owner_uid) in known:
        return Sorting(Fate.IGNORE, f"DaemonSet {pod.owner_name}")
    if pod.owner_uid in around.unknown_daemon_sets:
        why = f"its DaemonSet {pod.owner_name} cannot be read: it may exist"
        return Sorting(Fate.STAY, why)
    return None  # its DaemonSet is gone: nothing would bring it back here


def of_kept_owner(pod: Pod, drain: Drain) -> bool:
    """Whether its controller is of a kind in `drain.keepOwners`."""
    return is_one_of(pod.owner_api, pod.owner_kind, drain.keep_owners)


def _kept_owner(pod: Pod, around: Surroundings) -> Sorting | None:
    if not of_kept_owner(pod, around.drain):
        return None
    kind = owner_kind(pod.owner_api, pod.owner_kind)
    return Sorting(Fate.IGNORE, f"{kind} {pod.owner_name} (drain.keepOwners)")


def stays_by_taint(pod: Pod, around: Surroundings) -> bool:
    """Whether the scheduler would put it on the node again: it tolerates what stands there for the
    cordon. Karpenter leaves such pods too (kubernetes-sigs/karpenter#641)."""
    return around.taint is not None and tolerated(pod, around.taint)


def _stays_by_taint(pod: Pod, around: Surroundings) -> Sorting | None:
    if around.taint is None or not stays_by_taint(pod, around):
        return None
    return Sorting(Fate.IGNORE, f"tolerates the taint {around.taint.key}")


def _completes(pod: Pod, around: Surroundings) -> Sorting | None:
    """One that has not begun loses nothing; one that requests to stay has its own time; on a node
    that is not Ready none would be seen to complete."""
    settings = around.drain.wait_for_completion
    if not around.ready or pod.phase != "Running" or pod.keep_reason:
        return None
    if pod.on_completion:
        why = f"annotation {SAFE_TO_EVICT}=on-completion"
    elif is_one_of(pod.owner_api, pod.owner_kind, settings.owners):
        why = f"{owner_kind(pod.owner_api, pod.owner_kind)} {pod.owner_name}"
    else:
        return None
    until = around.drain_began + settings.max
    if not settings.max or until == float("-inf"):
        return None
    return Sorting(Fate.WAIT, f"may complete until {time_text(until)}: {why}", until=until)


def _unmanaged(pod: Pod, around: Surroundings) -> Sorting | None:
    if pod.owner_kind or around.drain.unmanaged_pods == "evict":
        return None
    return Sorting(Fate.STAY, "unmanaged: no controller would replace it")


def _kept(pod: Pod, _: Surroundings) -> Sorting | None:
    if not pod.keep_reason:
        return None
    return Sorting(Fate.STAY, pod.keep_reason, until=pod.keep_until)


def _empty_dir(pod: Pod, around: Surroundings) -> Sorting | None:
    if pod.empty_dir and not around.drain.delete_empty_dir:
        return Sorting(Fate.STAY, "emptyDir data would be lost (drain.deleteEmptyDir: false)")
    return None


def _pinned(pod: Pod, around: Surroundings) -> Sorting | None:
    if pod.pinned:
        return Sorting(Fate.STAY, "pinned to this node by its nodeSelector or affinity")
    for claim in pod.claims:
        if (pod.namespace, claim) in around.local_claims:
            return Sorting(Fate.STAY, f"its volume (claim {claim}) is on this node only")
        if (pod.namespace, claim) in around.unknown_claims:
            why = f"its claim {claim} cannot be read: the volume may be on this node only"
            return Sorting(Fate.STAY, why)
    return None


PREDICATES: tuple[Predicate, ...] = (
    _mirror,
    _finished,
    _daemon,
    _kept_owner,
    _stays_by_taint,
    _completes,
    _unmanaged,
    _kept,
    _empty_dir,
    _pinned,
)


def sort_pod(pod: Pod, around: Surroundings, now: float = float("-inf")) -> Sorting:
    """The pod's fate: that of the first predicate that matches, otherwise it is evicted.

    Without `now` a pod that requests to stay for a time stays: its time counts as not over.
    """
    if pod.keep_until is not None and pod.keep_until <= now:
        pod = replace(pod, keep_reason="", keep_until=None)
    if pod.deletion is not None and not pod.mirror:
        # Already terminating, whoever deleted it; a DaemonSet's pod still does not count.
        of_node = _daemon(pod, around) or _kept_owner(pod, around) or _stays_by_taint(pod, around)
        return of_node or Sorting(Fate.EVICT, "terminating", wave_of(pod, around))
    for predicate in PREDICATES:
        sorting = predicate(pod, around)
        if sorting is not None and (sorting.until is None or sorting.until > now):
            return sorting
    return Sorting(Fate.EVICT, "", wave_of(pod, around))


def wave_of(pod: Pod, around: Surroundings) -> int:
    """Ordinary pods first (0), the system's next (1; DNS, CSI, webhooks serve the others), we last.

    With `drain.order: priority` one wave for each priority, the lowest first.
    """
    ours = bool(around.own_uid) and pod.uid == around.own_uid
    if around.drain.order == "priority":
        return _LAST_WAVE if ours else pod.priority - _LOWEST_PRIORITY
    if ours:
        return 2
    return 1 if pod.priority >= SYSTEM_PRIORITY else 0
