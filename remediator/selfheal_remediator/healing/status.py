"""What a policy's status says, and remembers for whoever leads next. Pure."""

from __future__ import annotations

from dataclasses import replace

from selfheal_remediator.healing.plan import Block
from selfheal_remediator.healing.pod_health import Health
from selfheal_remediator.healing.policy import MAX_PODS, Condition, PodReport, Record, State, Status
from selfheal_remediator.healing.policy_state import Ward

#: Causes of blocks that only a person or a change lifts.
GIVEN_UP = ("gave-up", "siblings")
#: Blocks that are no news: the work goes on.
UNSAID = (
    "under-way", "leaving", "owner-unknown", "scale-in", "rollout", "backoff", "unobserved",
    "canary",
)  # fmt: skip


def status(ward: Ward, now: float) -> Status:
    """The whole status, as of the ward's last look. Notes in the ward when a condition changed."""
    blocks = [group.block for group in ward.groups.values() if group.block is not None]
    given_up = [block for block in blocks if block.cause in GIVEN_UP]
    waiting = [block for block in blocks if block.cause not in (*GIVEN_UP, "under-way")]
    under_way = [group for group in ward.groups.values() if group.under_way]
    stuck = [group.stuck for group in ward.groups.values() if group.stuck]
    reports = _reports(ward, now)
    state, message = State.HEALTHY, ""
    if ward.problem or ward.policy.problem:
        state, message = State.DEGRADED, ward.problem or ward.policy.problem
    elif ward.policy.paused:
        state = State.PAUSED
    elif ward.desired == 0 and not any(group.alive for group in ward.groups.values()):
        state = State.IDLE
    elif given_up:
        state, message = State.GAVE_UP, given_up[0].text
    elif under_way:
        state = State.HEALING
        message = ", ".join(f"{group.name()} is being restarted" for group in under_way[:3])
    elif waiting:
        state, message = State.THROTTLED, waiting[0].text
    elif reports or ward.healthy < ward.desired:
        state = State.DEGRADED
    if not message and reports:
        first = reports[0]
        message = f"{first.name}: {first.cause}" + (f", {first.detail}" if first.detail else "")
    healthy = state in (State.HEALTHY, State.IDLE) or (
        state is State.PAUSED and ward.healthy >= ward.desired and not reports
    )
    raw = ward.policy.threshold.of(ward.desired)
    above = 0 < ward.desired < raw
    above_text = f"healthThreshold {raw} counts as {ward.desired}, the desired number"
    facts = (
        ("Healthy", healthy, "AllHealthy" if healthy else "PodsUnhealthy", message),
        ("Healing", bool(under_way), "Restarting" if under_way else "NothingToDo", ""),
        ("Throttled", bool(waiting), _reason(waiting), waiting[0].text if waiting else ""),
        ("GaveUp", bool(given_up), _reason(given_up), given_up[0].text if given_up else ""),
        ("RolloutStuck", bool(stuck), "NoProgress" if stuck else "No", stuck[0] if stuck else ""),
        ("ThresholdAboveDesired", above, "Above" if above else "Within", above_text * above),
    )
    return Status(
        observed=ward.policy.generation,
        replicas=ward.desired,
        healthy=ward.healthy,
        last_heal=ward.last_heal,
        restarts=ward.restarts,
        state=state,
        message=message,
        pods=reports,
        records=_remembered(ward, now),
        conditions=tuple(_condition(ward, *fact, now=now) for fact in facts),
    )


def _reports(ward: Ward, now: float) -> tuple[PodReport, ...]:
    """The worst pods: ill ones first, then those merely not well, the oldest first."""
    late = {pod.uid for pod, _ in ward.overdue(now)}
    found = []
    for pod in ward.pods.values():
        sight = ward.sights.get(pod.uid)
        if sight is None:
            continue
        health = sight.diagnosis.health
        if health not in (Health.ILL, Health.POOR) and pod.uid not in late:
            continue
        report = PodReport(pod.name, sight.diagnosis.name, sight.diagnosis.detail, sight.since)
        found.append((health is not Health.ILL, sight.since, pod.name, report))
    return tuple(report for *_, report in sorted(found, key=lambda item: item[:3])[:MAX_PODS])


def _remembered(ward: Ward, now: float) -> tuple[Record, ...]:
    """What is worth writing down; owners that are gone are forgotten with their last hour."""
    kept = []
    unread = not ward.known or any(
        group.owner is None and group.pods[0].owner_uid for group in ward.groups.values()
    )
    for uid, record in list(ward.records.items()):
        trimmed = replace(record, restarts=record.recent(now))
        if uid not in ward.groups and not trimmed.restarts and not unread:
            del ward.records[uid]
            continue
        ward.records[uid] = trimmed
        if not trimmed.idle:
            kept.append(trimmed)
    return tuple(sorted(kept, key=lambda record: record.uid))


def _condition(
    ward: Ward, kind: str, holds: bool, reason: str, message: str, *, now: float
) -> Condition:
    status = "True" if holds else "False"
    before = ward.conditions.get(kind)
    if before is None or before[0] != status:
        before = ward.conditions[kind] = (status, now)
    return Condition(kind, holds, reason, message if holds or kind == "Healthy" else "", before[1])


def _reason(blocks: list[Block]) -> str:
    """A block's cause as the API's conditions name reasons."""
    if not blocks:
        return "No"
    return "".join(word.capitalize() for word in blocks[0].cause.split("-"))
