"""What a policy's status says, and remembers for whoever leads next. Pure."""

from __future__ import annotations

from dataclasses import replace

from selfheal_remediator.healing.pod_health import Health
from selfheal_remediator.healing.policy import MAX_PODS, Condition, PodReport, Record, State, Status
from selfheal_remediator.healing.policy_state import PolicyState
from selfheal_remediator.node.skip_reason import SkipReason

#: Causes of blocks that only a person or a change lifts.
GIVEN_UP = ("gave-up", "siblings")
#: Skip reasons that are not reported: the work continues.
UNREPORTED = (
    "under-way", "leaving", "owner-unknown", "scale-in", "rollout", "backoff", "unobserved",
    "canary",
)  # fmt: skip


def status(policy_state: PolicyState, now: float) -> Status:
    """The whole status, as of the last evaluation. Records when a condition changed."""
    blocks = [
        group.skip_reason for group in policy_state.groups.values() if group.skip_reason is not None
    ]
    given_up = [skip_reason for skip_reason in blocks if skip_reason.cause in GIVEN_UP]
    waiting = [
        skip_reason for skip_reason in blocks if skip_reason.cause not in (*GIVEN_UP, "under-way")
    ]
    under_way = [group for group in policy_state.groups.values() if group.under_way]
    stuck = [group.stuck for group in policy_state.groups.values() if group.stuck]
    reports = _reports(policy_state, now)
    state, message = State.HEALTHY, ""
    if policy_state.problem or policy_state.policy.problem:
        state, message = State.DEGRADED, policy_state.problem or policy_state.policy.problem
    elif policy_state.policy.paused:
        state = State.PAUSED
    elif policy_state.desired == 0 and not any(
        group.alive for group in policy_state.groups.values()
    ):
        state = State.IDLE
    elif given_up:
        state, message = State.GAVE_UP, given_up[0].text
    elif under_way:
        state = State.HEALING
        message = ", ".join(f"{group.name()} is being restarted" for group in under_way[:3])
    elif waiting:
        state, message = State.THROTTLED, waiting[0].text
    elif reports or policy_state.healthy < policy_state.desired:
        state = State.DEGRADED
    if not message and reports:
        first = reports[0]
        message = f"{first.name}: {first.cause}" + (f", {first.detail}" if first.detail else "")
    healthy = state in (State.HEALTHY, State.IDLE) or (
        state is State.PAUSED and policy_state.healthy >= policy_state.desired and not reports
    )
    raw = policy_state.policy.threshold.of(policy_state.desired)
    above = 0 < policy_state.desired < raw
    above_text = f"healthThreshold {raw} counts as {policy_state.desired}, the desired number"
    facts = (
        ("Healthy", healthy, "AllHealthy" if healthy else "PodsUnhealthy", message),
        ("Healing", bool(under_way), "Restarting" if under_way else "NothingToDo", ""),
        ("Throttled", bool(waiting), _reason(waiting), waiting[0].text if waiting else ""),
        ("GaveUp", bool(given_up), _reason(given_up), given_up[0].text if given_up else ""),
        ("RolloutStuck", bool(stuck), "NoProgress" if stuck else "No", stuck[0] if stuck else ""),
        ("ThresholdAboveDesired", above, "Above" if above else "Within", above_text * above),
    )
    return Status(
        observed=policy_state.policy.generation,
        replicas=policy_state.desired,
        healthy=policy_state.healthy,
        last_heal=policy_state.last_heal,
        restarts=policy_state.restarts,
        state=state,
        message=message,
        pods=reports,
        records=_remembered(policy_state, now),
        conditions=tuple(_condition(policy_state, *fact, now=now) for fact in facts),
    )


def _reports(policy_state: PolicyState, now: float) -> tuple[PodReport, ...]:
    """The most unhealthy pods: unhealthy ones first, then degraded ones, the oldest first."""
    late = {pod.uid for pod, _ in policy_state.overdue(now)}
    found = []
    for pod in policy_state.pods.values():
        observation = policy_state.observations.get(pod.uid)
        if observation is None:
            continue
        health = observation.diagnosis.health
        if health not in (Health.UNHEALTHY, Health.DEGRADED) and pod.uid not in late:
            continue
        report = PodReport(
            pod.name, observation.diagnosis.name, observation.diagnosis.detail, observation.since
        )
        found.append((health is not Health.UNHEALTHY, observation.since, pod.name, report))
    return tuple(report for *_, report in sorted(found, key=lambda item: item[:3])[:MAX_PODS])


def _remembered(policy_state: PolicyState, now: float) -> tuple[Record, ...]:
    """What is worth writing down; owners that are gone are forgotten with their last hour."""
    kept = []
    unread = not policy_state.known or any(
        group.owner is None and group.pods[0].owner_uid for group in policy_state.groups.values()
    )
    for uid, record in list(policy_state.records.items()):
        trimmed = replace(record, restarts=record.recent(now))
        if uid not in policy_state.groups and not trimmed.restarts and not unread:
            del policy_state.records[uid]
            continue
        policy_state.records[uid] = trimmed
        if not trimmed.idle:
            kept.append(trimmed)
    return tuple(sorted(kept, key=lambda record: record.uid))


def _condition(
    policy_state: PolicyState, kind: str, holds: bool, reason: str, message: str, *, now: float
) -> Condition:
    before = policy_state.conditions.get(kind)
    if before is None or before[0] is not holds:
        before = policy_state.conditions[kind] = (holds, now)
    return Condition(kind, holds, reason, message if holds or kind == "Healthy" else "", before[1])


def _reason(blocks: list[SkipReason]) -> str:
    """A block's cause as the API's conditions name reasons."""
    if not blocks:
        return "No"
    return "".join(word.capitalize() for word in blocks[0].cause.split("-"))
