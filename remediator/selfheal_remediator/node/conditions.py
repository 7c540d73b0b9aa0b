"""Evaluates a node's conditions: bad, good, stale, or a detector's restart. Pure.

Two clocks are involved: the detector's (transition and heartbeat times, on the node) and ours
(`now`, monotonic within one process). Durations are measured by ours, and by the status alone: a
detector changes the transition time also when only the reason or the message changes. The
detector's times only show whether it is alive, and when it restarted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from selfheal_remediator.config import KUBELET_CONDITIONS, Rule
from selfheal_remediator.kube.objects import Condition, Node

#: Seconds by which a writer's clock may be ahead before its times count for nothing.
CLOCK_TOLERANCE = 60.0
#: So many different reasons of one bad condition are remembered (a detector may write any text).
MAX_REASONS = 8
#: A condition that became good at most so long (seconds) before or after a restart of its
#: detector became good by that restart.
RESET_TOLERANCE = 5.0


class Reading(Enum):
    """What a condition says about a rule. Only GOOD is a recovery."""

    BAD = "bad"
    GOOD = "good"
    UNKNOWN = "unknown"
    ABSENT = "absent"
    OTHER = "other-reason"


@dataclass(frozen=True, slots=True)
class Bad:
    """A condition while its status is what the rule is about, whatever its reason.

    began: since when by our clock; reasons: those it had since then, oldest first; witnessed:
    we observed the start of this reading (otherwise it may be older than our first observation).
    """

    began: float
    reasons: tuple[str, ...]
    witnessed: bool


@dataclass(frozen=True, slots=True)
class Observation:
    """One rule on one node as observed: the reading, and since when by our clock."""

    reading: Reading
    since: float
    status: str = ""
    transition: float | None = None
    bad: Bad | None = None

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons that the condition had since its status became bad."""
        return self.bad.reasons if self.bad is not None else ()


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A condition's heartbeat: its value, and when we observed a change (None = never)."""

    value: float | None
    changed: float | None


@dataclass(frozen=True, slots=True)
class NodeHistory:
    """What must be remembered of a node (one uid) between two evaluations."""

    observations: Mapping[str, Observation] = field(default_factory=dict)
    heartbeats: Mapping[str, Heartbeat] = field(default_factory=dict)
    reset: float | None = None


def reading(rule: Rule, condition: Condition | None) -> Reading:
    """What the condition says about the rule, taken by itself."""
    if condition is None:
        return Reading.ABSENT
    if condition.status in rule.status:
        return Reading.BAD if rule.matches_reason(condition.reason) else Reading.OTHER
    return Reading.UNKNOWN if condition.status == "Unknown" else Reading.GOOD


def observe(
    history: NodeHistory, old: Node | None, new: Node, rules: Iterable[Rule], now: float
) -> NodeHistory:
    """The history after observing `new`; `old` is the same node (same uid) as observed before."""
    observations = {}
    heartbeats = {}
    for rule in rules:
        condition = new.conditions.get(rule.condition)
        observations[rule.key] = _observation(
            history.observations.get(rule.key), rule, condition, now
        )
        if condition is not None and condition.type not in heartbeats:
            heartbeats[condition.type] = _heartbeat(
                history.heartbeats.get(condition.type), condition, now
            )
    reset = now if old is not None and _detector_restarted(old, new) else history.reset
    return replace(history, observations=observations, heartbeats=heartbeats, reset=reset)


def _observation(
    before: Observation | None, rule: Rule, condition: Condition | None, now: float
) -> Observation:
    seen = reading(rule, condition)
    since = before.since if before is not None and before.reading is seen else now
    if condition is None:
        return Observation(seen, since)
    bad = _bad(before, seen, condition, now) if condition.status in rule.status else None
    return Observation(seen, since, condition.status, condition.transition, bad)


def _bad(before: Observation | None, seen: Reading, condition: Condition, now: float) -> Bad:
    known = before.bad if before is not None else None
    if before is None or known is None:
        return Bad(now, (condition.reason,), before is not None)
    reasons = known.reasons
    if condition.reason not in reasons and len(reasons) < MAX_REASONS:
        reasons = (*reasons, condition.reason)
    witnessed = known.witnessed or before.reading is not seen
    if (reasons, witnessed) == (known.reasons, known.witnessed):
        return known
    return Bad(known.began, reasons, witnessed)


def _heartbeat(before: Heartbeat | None, condition: Condition, now: float) -> Heartbeat:
    value = condition.heartbeat if condition.heartbeat is not None else condition.transition
    if before is None:
        return Heartbeat(value, None)
    return before if before.value == value else Heartbeat(value, now)


def _detector_restarted(old: Node, new: Node) -> bool:
    """A detector restarted: it wrote all of its conditions False, with a new transition time.

    node-problem-detector does so at its start, without a probe. A transition time that moves
    while the condition is bad, with the reason or the message, or while another condition of the
    same write keeps its own, is a regular update.
    """
    moved, kept = [], set()
    for name, after in new.conditions.items():
        before = old.conditions.get(name)
        if before is None or name in KUBELET_CONDITIONS:
            continue
        if _newer(before, after):
            moved.append((before, after))
        elif before.heartbeat != after.heartbeat:
            kept.add(after.heartbeat)
    return any(
        before.status == after.status == "False"
        and (before.reason, before.message) == (after.reason, after.message)
        and (after.heartbeat is None or after.heartbeat not in kept)
        for before, after in moved
    )


def _newer(before: Condition, after: Condition) -> bool:
    old, new = before.transition, after.transition
    return old is not None and new is not None and new > old


def stale(rule: Rule, history: NodeHistory, now: float) -> bool:
    """Whether the condition's detector gave no sign of life within the rule's heartbeat limit.

    It is alive if the heartbeat is recent by the detector's clock, or if we observed a recent
    change (its clock may be wrong). A heartbeat in the future proves nothing by itself.
    """
    limit = rule.max_heartbeat_age
    heartbeat = history.heartbeats.get(rule.condition)
    if limit is None or heartbeat is None:
        return False
    return fresh_until(heartbeat, limit, now) <= now


def fresh_until(heartbeat: Heartbeat, limit: float, now: float) -> float:
    """Until when (our clock) the writer counts as alive; in the past = stale."""
    until = 0.0
    if heartbeat.value is not None and heartbeat.value <= now + CLOCK_TOLERANCE:
        until = heartbeat.value + limit
    if heartbeat.changed is not None:
        until = max(until, heartbeat.changed + limit)
    return until


def first_seen(observation: Observation, noted: float | None) -> float:
    """Since when the condition is bad: by our clock, or by the node's annotation.

    noted: the annotation's firstSeen for this rule, None = none. It counts if we did not observe
    the condition become bad: then it was bad before this process knew the node.
    """
    if noted is None or (observation.bad is not None and observation.bad.witnessed):
        return observation.since
    return min(observation.since, noted)


def newly_bad(rule: Rule, before: Observation | None, observation: Observation) -> bool:
    """Whether the rule's condition has become bad since; with another reason only, it has not."""
    known = before.reasons if before is not None else ()
    return any(map(rule.matches_reason, observation.reasons)) and not any(
        map(rule.matches_reason, known)
    )


@dataclass(frozen=True, slots=True)
class Recovery:
    """Whether a condition has recovered: `due` is when (None = not by waiting), and why not."""

    due: float | None
    why: str


def recovery(
    rule: Rule,
    node: Node,
    history: NodeHistory,
    *,
    stabilization_window: float,
    reset_stabilization_window: float,
    cordoned_boot: str,
    now: float,
) -> Recovery:
    """When the rule's condition counts as recovered, were nothing to change any more."""
    observation = history.observations.get(rule.key)
    if observation is None or observation.reading is not Reading.GOOD:
        seen = observation.reading.value if observation else Reading.ABSENT.value
        return Recovery(None, f"{rule.condition} is {seen}")
    if rule.latched and (not node.boot_id or node.boot_id == cordoned_boot):
        return Recovery(
            None, f"{rule.condition} is latched: it counts as recovered only after a reboot"
        )
    if stale(rule, history, now):
        return Recovery(None, f"{rule.condition}: its heartbeat is stale")
    wait = stabilization_window
    why = f"{rule.condition} is good, stabilization window"
    # Good because of the detector's restart is no recovery until it had time to check again.
    if (
        not rule.latched
        and history.reset is not None
        and history.reset >= observation.since - RESET_TOLERANCE
    ):
        wait = max(stabilization_window, reset_stabilization_window)
        why = f"{rule.condition} is good since its detector restarted, stabilization window"
        return Recovery(history.reset + wait, why)
    return Recovery(observation.since + wait, why)
