"""What a node's conditions are worth: bad, good, stale, or a detector's restart. Pure.

Two clocks are at work: the writer's (transition and heartbeat times, on the node) and ours
(`now`, steady within one process). How long something lasts is measured by ours; the writer's
times only tell one occurrence from another and whether the writer lives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from remediator.settings import KUBELET_CONDITIONS, Rule
from remediator.snapshot import Condition, Node

#: Seconds by which a writer's clock may be ahead before its times count for nothing.
CLOCK_TOLERANCE = 60.0


class Reading(Enum):
    """What a condition says about a rule. Only GOOD is a recovery."""

    BAD = "bad"
    GOOD = "good"
    UNKNOWN = "unknown"
    ABSENT = "absent"
    OTHER = "other-reason"


@dataclass(frozen=True, slots=True)
class Sight:
    """One rule on one node as we saw it: the reading, and since when by our clock."""

    reading: Reading
    since: float
    status: str = ""
    transition: float | None = None


@dataclass(frozen=True, slots=True)
class Pulse:
    """A condition's heartbeat: its value, and when we saw it change (None = never)."""

    value: float | None
    changed: float | None


@dataclass(frozen=True, slots=True)
class Memory:
    """What must be remembered of a node (one uid) between two looks at it."""

    sights: Mapping[str, Sight] = field(default_factory=dict)
    pulses: Mapping[str, Pulse] = field(default_factory=dict)
    reset: float | None = None


def reading(rule: Rule, condition: Condition | None) -> Reading:
    """What the condition says about the rule, taken by itself."""
    if condition is None:
        return Reading.ABSENT
    if condition.status in rule.status:
        return Reading.BAD if rule.matches_reason(condition.reason) else Reading.OTHER
    return Reading.UNKNOWN if condition.status == "Unknown" else Reading.GOOD


def observe(
    memory: Memory, old: Node | None, new: Node, rules: Iterable[Rule], now: float
) -> Memory:
    """The memory after seeing `new`; `old` is the same node (same uid) as seen before."""
    sights = {}
    pulses = {}
    for rule in rules:
        condition = new.conditions.get(rule.condition)
        sights[rule.key] = _sight(memory.sights.get(rule.key), rule, condition, now)
        if condition is not None and condition.type not in pulses:
            pulses[condition.type] = _pulse(memory.pulses.get(condition.type), condition, now)
    reset = now if old is not None and _detector_restarted(old, new) else memory.reset
    return replace(memory, sights=sights, pulses=pulses, reset=reset)


def _sight(before: Sight | None, rule: Rule, condition: Condition | None, now: float) -> Sight:
    seen = reading(rule, condition)
    status = condition.status if condition else ""
    transition = condition.transition if condition else None
    if before is not None and before.reading is seen:
        # The same status with another transition time: it flipped in between, unseen.
        flipped = before.status == status and before.transition != transition
        since = now if flipped else before.since
        return Sight(seen, since, status, transition)
    return Sight(seen, now, status, transition)


def _pulse(before: Pulse | None, condition: Condition, now: float) -> Pulse:
    value = condition.heartbeat if condition.heartbeat is not None else condition.transition
    if before is None:
        return Pulse(value, None)
    return before if before.value == value else Pulse(value, now)


def _detector_restarted(old: Node, new: Node) -> bool:
    """A condition kept its status but got a new transition time: its writer began anew.

    node-problem-detector writes every condition False at its start, without a probe.
    """
    for name, after in new.conditions.items():
        before = old.conditions.get(name)
        if (
            before is not None
            and name not in KUBELET_CONDITIONS
            and before.status == after.status
            and before.transition is not None
            and after.transition is not None
            and after.transition > before.transition
        ):
            return True
    return False


def stale(rule: Rule, memory: Memory, now: float) -> bool:
    """Whether the condition's writer gave no sign of life within the rule's heartbeat limit.

    Alive is: the heartbeat is recent by the writer's clock, or we saw it change recently (a
    writer whose clock is wrong). A heartbeat in the future proves nothing by itself.
    """
    limit = rule.max_heartbeat_age
    pulse = memory.pulses.get(rule.condition)
    if limit is None or pulse is None:
        return False
    return fresh_until(pulse, limit, now) <= now


def fresh_until(pulse: Pulse, limit: float, now: float) -> float:
    """Until when (our clock) the writer counts as alive; in the past = stale."""
    until = 0.0
    if pulse.value is not None and pulse.value <= now + CLOCK_TOLERANCE:
        until = pulse.value + limit
    if pulse.changed is not None:
        until = max(until, pulse.changed + limit)
    return until


def first_seen(sight: Sight, noted: tuple[str, float | None, float] | None) -> float:
    """Since when the occurrence lasts, by our clock or a predecessor's note of the same one.

    `noted` is (status, transition, firstSeen) of the annotation for this condition.
    """
    if noted is None:
        return sight.since
    status, transition, seen = noted
    same = transition is None or sight.transition is None or int(sight.transition) == transition
    if same or (status and status != sight.status):
        return min(sight.since, seen)
    return sight.since


@dataclass(frozen=True, slots=True)
class Recovery:
    """Whether a condition has recovered: `due` is when (None = not by waiting), and why not."""

    due: float | None
    why: str


def recovery(
    rule: Rule,
    node: Node,
    memory: Memory,
    *,
    hold_down: float,
    reset_hold_down: float,
    held_boot: str,
    now: float,
) -> Recovery:
    """When the rule's condition counts as recovered, were nothing to change any more."""
    sight = memory.sights.get(rule.key)
    if sight is None or sight.reading is not Reading.GOOD:
        seen = sight.reading.value if sight else Reading.ABSENT.value
        return Recovery(None, f"{rule.condition} is {seen}")
    if rule.latched and (not node.boot_id or node.boot_id == held_boot):
        return Recovery(
            None, f"{rule.condition} is latched: it counts as recovered only after a reboot"
        )
    if stale(rule, memory, now):
        return Recovery(None, f"{rule.condition}: its heartbeat is stale")
    wait = hold_down
    why = f"{rule.condition} is good, hold-down"
    # Good because the detector began anew is no recovery until it had time to look again.
    if not rule.latched and memory.reset is not None and memory.reset >= sight.since - 5.0:
        wait = max(hold_down, reset_hold_down)
        why = f"{rule.condition} is good since its detector restarted, hold-down"
        return Recovery(memory.reset + wait, why)
    return Recovery(sight.since + wait, why)
