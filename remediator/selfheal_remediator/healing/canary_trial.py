"""What an owner's pods show about its canary, and what the canary keeps back meanwhile. Pure.

Where nearly all pods of an owner are unhealthy, either a restart helps (workers that hang since a
fail-over of their broker) or it does not (the image, a dependency). One restart tells.
"""

from __future__ import annotations

from dataclasses import replace

from selfheal_remediator.healing.canary import Canary, Evidence, Outcome, advanced
from selfheal_remediator.healing.pod_health import STARTUP_MARGIN, Cause, Health, WatchedPod
from selfheal_remediator.healing.policy import Record
from selfheal_remediator.healing.policy_state import (
    CLOCK_TOLERANCE,
    RESTART_LIMIT,
    Group,
    PolicyState,
)
from selfheal_remediator.healing.trial_length import LONGEST_RUN, trial_seconds
from selfheal_remediator.node.skip_reason import SkipReason

#: Of so many pods one may be healthy and the others still count as all.
NEARLY_ALL = 10


def everywhere_unhealthy(group: Group) -> bool:
    """Whether nearly all pods are surely unhealthy, on several nodes."""
    healthy = [pod for pod in group.alive if pod not in group.unhealthy]
    return (
        len({pod.node for pod in group.unhealthy}) >= 2
        and len(group.unhealthy) >= 2
        and len(healthy) * NEARLY_ALL <= len(group.alive)
    )


def canary_of(
    policy_state: PolicyState, group: Group, pod: WatchedPod, before: Canary | None, now: float
) -> Canary | None:
    """The owner's canary when this pod is restarted now."""
    if before is not None and before.outcome is Outcome.PASSED:
        return before
    if len({one.node for one in group.alive}) < 2:
        return None  # what a restart shows on its own node says nothing about another
    cause = policy_state.observations[pod.uid].diagnosis.cause.value
    policy_state.before_canary[group.key] = (now, frozenset(one.uid for one in group.pods))
    return Canary(pod.uid, now, cause, newest=max(one.created for one in group.pods) or None)


def follow(
    policy_state: PolicyState, group: Group, record: Record, interval: float, now: float
) -> Canary | None:
    """The owner's canary as of now."""
    canary = record.canary
    if canary is None or group.key in policy_state.pending:
        return canary
    to_restart = not_deleted(policy_state, canary)
    new = made_since(policy_state, group, canary)
    old = [pod for pod in group.alive if pod not in new]
    length = trial_length(policy_state, group, canary, interval, now)
    limit = RESTART_LIMIT + length + _longest_start(group)
    lasts = now - max(canary.restarted, policy_state.adopted_at)
    over = not group.under_way
    old_healthy = _count_healthy(policy_state, old, length, now)
    evidence = Evidence(
        not_deleted=to_restart is not None,
        recovered=over and to_restart is not None and policy_state.certainly_healthy(to_restart),
        new_healthy=any(_proves_help(policy_state, pod, canary, length, now) for pod in new),
        new_unhealthy=over and bool(new) and all(pod in group.unhealthy for pod in new),
        overdue=lasts > limit,
        twice_overdue=lasts > 2 * limit,
        few_old_healthy=old_healthy * NEARLY_ALL <= len(group.alive),
        old_unhealthy=any(pod in group.unhealthy for pod in old),
        old_certain=all(_certain(policy_state, group, pod, length, now) for pod in old),
        relapsed=over and everywhere_unhealthy(group),
    )
    return advanced(canary, evidence)


def not_deleted(policy_state: PolicyState, canary: Canary | None) -> WatchedPod | None:
    """The pod that a canary under way is to restart, while it is still there; else None.

    The restart was written down then, and the eviction surely not made.
    """
    pod = policy_state.pods.get(canary.pod) if canary is not None and canary.under_way else None
    return pod if pod is not None and pod.deletion is None and not pod.finished else None


def made_since(policy_state: PolicyState, group: Group, canary: Canary) -> list[WatchedPod]:
    """Pods made after the restart. One that somebody else deleted is replaced by such a pod too.

    The API server's clock made all their times; who decided the restart may have another one.
    They are whole seconds: whoever decided it knows which pods of the same second existed then.
    """
    decided, existed = policy_state.before_canary.get(group.key, (None, frozenset[str]()))
    others = [pod for pod in group.alive if pod.uid != canary.pod]
    newest = canary.newest
    if decided == canary.restarted:
        since = newest or 0.0
        return [pod for pod in others if pod.uid not in existed and pod.created >= since]
    if newest:
        return [pod for pod in others if pod.created > newest]
    return [pod for pod in others if pod.created >= canary.restarted - CLOCK_TOLERANCE]


def trial_length(
    policy_state: PolicyState, group: Group, canary: Canary, interval: float, now: float
) -> float:
    """Seconds for which the replacement must be healthy: as many as its cause takes to appear."""
    symptoms, lasting = policy_state.policy.symptoms, 0.0
    checks = policy_state.policy.failure_threshold
    if canary.cause == Cause.NOT_READY.value:
        lasting = symptoms.not_ready_for or 0.0
    elif canary.cause == Cause.NO_PROGRESS.value:
        lasting = symptoms.no_progress_for or 0.0
    faulty = (pod for pod in group.pods if not policy_state.healthy_for(pod, LONGEST_RUN, now))
    containers = (item for pod in faulty for item in pod.containers)
    return trial_seconds(lasting, checks, interval, containers)


def waits_for_canary(
    policy_state: PolicyState, group: Group, record: Record | None, interval: float, now: float
) -> SkipReason | None:
    """Why nothing of the owner is restarted because of its canary."""
    canary = record.canary if record is not None else None
    if canary is None or canary.outcome is Outcome.PASSED:
        return None
    if canary.outcome is Outcome.FAILED:
        text = (
            f"{len(group.unhealthy)} of {len(group.alive)} pods are unhealthy, on every node, and "
            "a restart of one did not help: the image or a dependency is at fault; "
            "none is restarted before a new revision, ten minutes of health, a change of the "
            "policy, or a pause and `selfheal-remediator resume`"
        )
        return SkipReason("siblings", text)
    if not_deleted(policy_state, canary) is not None:
        return None
    new = made_since(policy_state, group, canary)
    old = [pod for pod in group.alive if pod not in new]
    length = trial_length(policy_state, group, canary, interval, now)
    if 2 * _count_healthy(policy_state, old, length, now) >= len(group.alive):
        return None
    text = "most of its pods are unhealthy: one was restarted, the others wait for the result"
    return SkipReason("canary", text)


def note_health(policy_state: PolicyState, pod: WatchedPod, now: float) -> None:
    """Record since when the pod has been healthy, by our own clock: its node may have another."""
    if policy_state.is_healthy(pod):
        policy_state.healthy_since.setdefault(pod.uid, now)
    else:
        policy_state.healthy_since.pop(pod.uid, None)


def hand_over(source: PolicyState, target: PolicyState, uid: str) -> None:
    """Pass one policy's knowledge of an owner's canary to the policy that now selects the owner."""
    record, group = source.records.get(uid), target.groups.get(uid)
    if record is None or record.canary is None or group is None or group.owner is None:
        return
    source.records[uid] = replace(record, canary=None)
    known = target.records.get(uid) or Record(uid, record.kind, record.name)
    if known.canary is None and known.template in ("", record.template):
        target.records[uid] = replace(known, canary=record.canary, template=record.template)


def _count_healthy(
    policy_state: PolicyState, pods: list[WatchedPod], length: float, now: float
) -> int:
    """How many have been healthy for long: pods that crash are healthy in between."""
    return sum(policy_state.healthy_for(pod, length, now) for pod in pods)


def _certain(
    policy_state: PolicyState, group: Group, pod: WatchedPod, length: float, now: float
) -> bool:
    """Whether it is certain what the pod counts as."""
    degraded = policy_state.observations[pod.uid].diagnosis.health is Health.DEGRADED
    return degraded or pod in group.unhealthy or policy_state.healthy_for(pod, length, now)


def _proves_help(
    policy_state: PolicyState, pod: WatchedPod, canary: Canary, length: float, now: float
) -> bool:
    """Whether a new pod has been healthy for the length of the trial, by its own report where a
    report showed the fault."""
    if not policy_state.healthy_for(pod, length, now):
        return False
    probed = canary.cause == Cause.NO_PROGRESS.value and policy_state.policy.progress is not None
    return not probed or policy_state.progress.has_reported(pod.uid)


def _longest_start(group: Group) -> float:
    """Seconds that a pod may take to start, in which it is neither healthy nor unhealthy."""
    longest = max((one.startup_budget for pod in group.pods for one in pod.containers), default=0.0)
    return longest + STARTUP_MARGIN if longest else 0.0
