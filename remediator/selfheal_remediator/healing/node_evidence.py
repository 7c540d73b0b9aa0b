"""What unhealthy pods say about their node, and what is still to be learned of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from selfheal_remediator.healing.correlation import OWNERS, Observation
from selfheal_remediator.healing.plan import Around, Finding
from selfheal_remediator.healing.pod_health import Cause, Health, WatchedPod
from selfheal_remediator.healing.policy_state import Group, PolicyState

#: Seconds that restarts wait at most for a policy whose pods are not listed yet.
LISTED_WITHIN = 60.0
#: Seconds that a restart waits at most until other owners' pods on its node are certain.
CERTAIN_WITHIN = 120.0


def observations(
    policy_states: Iterable[PolicyState],
    findings: Mapping[str, Finding],
    had_trouble: Callable[[PolicyState, WatchedPod], bool],
    unprobed: Callable[[PolicyState, WatchedPod], bool],
    now: float,
    interval: float,
) -> Iterator[Observation]:
    """All pods that have a controller and are unhealthy, or may be.

    had_trouble: whether the pod's node was in trouble lately. unprobed: whether the pod has still
    to report how its work goes. A paused policy gives no evidence, but what is known of its pods
    keeps a finding.
    """
    for policy_state in policy_states:
        gives_none = policy_state.policy.paused or bool(policy_state.problem)
        for group in policy_state.groups.values():
            for pod in group.alive:
                found = policy_state.observations[pod.uid].diagnosis
                if not pod.node or not pod.owner_uid:
                    continue
                bad = found.health in (Health.UNHEALTHY, Health.DEGRADED)
                if not bad and not unprobed(policy_state, pod):
                    continue
                evidence = (
                    not gives_none
                    and group.owner is not None
                    and pod in group.unhealthy
                    and (pod.node in findings or not had_trouble(policy_state, pod))
                    and _only_here(policy_state, group, pod, now, interval)
                )
                yield Observation(pod.node, group.key, f"{pod.name} ({found.name})", evidence)


def complete(policy_states: Iterable[PolicyState], now: float) -> bool:
    """Whether the pods of all policies are known, or are not waited for any more."""
    return all(
        policy_state.known
        or policy_state.problem
        or now >= policy_state.unlisted_at + LISTED_WITHIN
        for policy_state in policy_states
    )


def unlisted(policy_states: Iterable[PolicyState], around: Around, now: float, since: float) -> str:
    """Whose pods are not known yet, empty = all are; since: when that began to matter."""
    if not around.listed and now < since + LISTED_WITHIN:
        return "the policies are not all listed yet"
    for policy_state in policy_states:
        if not complete((policy_state,), now):
            return f"the pods of policy {policy_state.policy.key} are not listed yet"
    return ""


def undecided(
    policy_states: Iterable[PolicyState],
    group: Group,
    node: str,
    now: float,
    since: float,
    interval: float,
) -> str:
    """Which pod may yet show that the node is at fault, empty = none.

    since: when the group's pod could have been restarted; after a limit, pods whose health is
    unknown or that have not reported progress are no longer waited for.
    """
    suspects = {}
    for policy_state in policy_states:
        checks = policy_state.policy.failure_threshold
        if now >= since + min(CERTAIN_WITHIN, (checks + 2) * interval):
            continue
        for other in policy_state.groups.values():
            for pod in other.alive:
                if pod.node != node or not pod.owner_uid or not policy_state.elsewhere(other, pod):
                    continue
                if _seems_unhealthy(policy_state, pod, now) or is_unprobed(
                    policy_state, pod, now, interval
                ):
                    suspects[other.key] = pod.name
    others = [name for key, name in suspects.items() if key != group.key]
    if not others or len({*suspects, group.key}) < OWNERS:
        return ""
    return f"it is not yet known whether {others[0]}, of another owner, is unhealthy there too"


def _only_here(
    policy_state: PolicyState, group: Group, pod: WatchedPod, now: float, interval: float
) -> bool:
    """Whether the owner's pods elsewhere are certainly healthy, by their reports since then.

    Pods on node after node may hang within seconds (a fail-over of their broker).
    """
    due = policy_state.observations[pod.uid].due
    elsewhere = policy_state.elsewhere(group, pod)
    return bool(elsewhere) and all(
        policy_state.certainly_healthy(other)
        and not is_unprobed(policy_state, other, now, interval)
        and (
            policy_state.policy.progress is None
            or policy_state.progress.reported_at(other.uid, due) >= due
            or now >= due + 2 * interval
        )
        for other in elsewhere
    )


def _seems_unhealthy(policy_state: PolicyState, pod: WatchedPod, now: float) -> bool:
    """Whether the pod has been bad for half of the time after which it counts as unhealthy."""
    observation = policy_state.observations[pod.uid]
    half = observation.since + observation.diagnosis.lasting / 2
    return observation.diagnosis.cause is not Cause.NONE and now >= half


def is_unprobed(policy_state: PolicyState, pod: WatchedPod, now: float, interval: float) -> bool:
    """Whether the pod is to say how its work goes, and could not yet."""
    if policy_state.policy.progress is None or not pod.address:
        return False
    if policy_state.progress.has_reported(pod.uid):
        return False
    observation = policy_state.observations[pod.uid]
    return (
        observation.diagnosis.health is Health.HEALTHY
        and now < policy_state.observed_since[pod.uid] + 2 * interval
    )
