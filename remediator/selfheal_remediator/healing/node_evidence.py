"""What unhealthy pods say about their node, and what is still to be learned of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from selfheal_remediator.healing.correlation import OWNERS, Observation
from selfheal_remediator.healing.plan import Around, Finding
from selfheal_remediator.healing.pod_health import Cause, Health, WatchedPod
from selfheal_remediator.healing.policy_state import Group, Ward

#: Seconds that restarts wait at most for a policy whose pods are not listed yet.
LISTED_WITHIN = 60.0
#: Seconds that a restart waits at most until other owners' pods on its node are certain.
CERTAIN_WITHIN = 120.0


def observations(
    wards: Iterable[Ward],
    findings: Mapping[str, Finding],
    settles: Callable[[Ward, WatchedPod], bool],
    silent: Callable[[Ward, WatchedPod], bool],
    now: float,
    interval: float,
) -> Iterator[Observation]:
    """All pods that have a controller and are unhealthy, or may be.

    settles: the pod's node was in trouble lately. silent: the pod has still to say how its work
    goes. A paused policy gives no evidence, but what is known of its pods keeps a finding.
    """
    for ward in wards:
        mute = ward.policy.paused or bool(ward.problem)
        for group in ward.groups.values():
            for pod in group.alive:
                found = ward.sights[pod.uid].diagnosis
                if not pod.node or not pod.owner_uid:
                    continue
                if found.health not in (Health.ILL, Health.POOR) and not silent(ward, pod):
                    continue
                evidence = (
                    not mute
                    and group.owner is not None
                    and pod in group.ill
                    and (pod.node in findings or not settles(ward, pod))
                    and _only_here(ward, group, pod, now, interval)
                )
                yield Observation(pod.node, group.key, f"{pod.name} ({found.name})", evidence)


def complete(wards: Iterable[Ward], now: float) -> bool:
    """Whether the pods of all policies are known, or are not waited for any more."""
    return all(
        ward.known or ward.problem or now >= ward.unlisted_at + LISTED_WITHIN for ward in wards
    )


def unlisted(wards: Iterable[Ward], around: Around, now: float, since: float) -> str:
    """Whose pods are not known yet, empty = all are; since: when that began to matter."""
    if not around.listed and now < since + LISTED_WITHIN:
        return "the policies are not all listed yet"
    for ward in wards:
        if not complete((ward,), now):
            return f"the pods of policy {ward.policy.key} are not listed yet"
    return ""


def undecided(
    wards: Iterable[Ward], group: Group, node: str, now: float, since: float, interval: float
) -> str:
    """Which pod may yet show that the node is at fault, empty = none.

    since: when the group's pod could have been restarted; pods that are not certain, or have not
    said how their work goes, so long after it are not waited for any more.
    """
    suspects = {}
    for ward in wards:
        looks = ward.policy.failure_threshold
        if now >= since + min(CERTAIN_WITHIN, (looks + 2) * interval):
            continue
        for other in ward.groups.values():
            for pod in other.alive:
                if pod.node != node or not pod.owner_uid or not ward.elsewhere(other, pod):
                    continue
                if _looks_unhealthy(ward, pod, now) or unasked(ward, pod, now, interval):
                    suspects[other.key] = pod.name
    others = [name for key, name in suspects.items() if key != group.key]
    if not others or len({*suspects, group.key}) < OWNERS:
        return ""
    return f"it is not certain yet whether {others[0]}, of another owner, is unhealthy there too"


def _only_here(ward: Ward, group: Group, pod: WatchedPod, now: float, interval: float) -> bool:
    """Whether the owner's pods elsewhere are well for certain, by what they said since.

    Pods on node after node may hang within seconds (a fail-over of their broker).
    """
    due = ward.sights[pod.uid].due
    elsewhere = ward.elsewhere(group, pod)
    return bool(elsewhere) and all(
        ward.surely_well(other)
        and not unasked(ward, other, now, interval)
        and (
            ward.policy.progress is None
            or ward.answers.get(other.uid, (due, 0.0))[0] >= due
            or now >= due + 2 * interval
        )
        for other in elsewhere
    )


def _looks_unhealthy(ward: Ward, pod: WatchedPod, now: float) -> bool:
    sight = ward.sights[pod.uid]
    half = sight.since + sight.diagnosis.lasting / 2
    return sight.diagnosis.cause is not Cause.NONE and now >= half


def unasked(ward: Ward, pod: WatchedPod, now: float, interval: float) -> bool:
    """Whether the pod is to say how its work goes, and could not yet."""
    if ward.policy.progress is None or not pod.address or pod.uid in ward.answers:
        return False
    sight = ward.sights[pod.uid]
    return sight.diagnosis.health is Health.WELL and now < ward.seen_at[pod.uid] + 2 * interval
