"""The rows of the status page, from what the main thread knows. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from selfheal_remediator.config import Config
from selfheal_remediator.drain.blockers import describe
from selfheal_remediator.drain.running import RunningDrain
from selfheal_remediator.healing.policy import State as PolicyWord
from selfheal_remediator.healing.policy_state import Group, PolicyState
from selfheal_remediator.healing.status import UNREPORTED
from selfheal_remediator.kube.events import RecentEvent
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.node.annotation import State, known_state
from selfheal_remediator.node.assessment import Assessment
from selfheal_remediator.node.entry import Entry
from selfheal_remediator.node.repair import ladder_text
from selfheal_remediator.node.skip_reason import SkipReason
from selfheal_remediator.status_page.snapshot import (
    DrainRow,
    EventRow,
    Level,
    NodeRow,
    PolicyRow,
    Rows,
    WorkloadRow,
    first_rows,
)

#: Seconds for which Events are shown.
EVENTS_FOR = 3600.0
#: Of these nodes there is nothing to report.
_QUIET = ("new", "ok", "not-selected")
#: Whatever is not here is between the two: the most urgent first, and the least urgent.
_FIRST = (
    *("repair_failed", "unreadable", "draining", "repairing", "verifying", "cordoned", "drained"),
    *("cordoned-foreign", "uncordoning", "wants-cordon", "seen"),
)
_LAST = ("foreign", "foreign-cordon", "foreign-mark", "excluded", "deleting", "cancelled", "healed")
_BAD_NODES = ("repair_failed", "unreadable")
_BAD_POLICIES = (PolicyWord.GAVE_UP, PolicyWord.DEGRADED)
_GOOD_POLICIES = (PolicyWord.HEALTHY, PolicyWord.IDLE)


# -- nodes -----------------------------------------------------------------------------------


class _Found(NamedTuple):
    """What is known of a node. state: as it is, or as the write under way will leave it; waits:
    the limit that it waits for."""

    node: Node
    phase: str
    seen: Assessment
    state: State | None
    waits: SkipReason | None

    def order(self) -> tuple[int, str]:
        return _rank(self.phase), self.node.name


def node_rows(
    entries: Iterable[Entry], config: Config, *, acts: bool
) -> tuple[Rows[NodeRow], Counter[str]]:
    """Nodes with something to report, and how many nodes are in which state.

    acts: whether this process assesses nodes; if not, it knows what is written on them.
    """
    found = [_found(entry, acts=acts) for entry in entries]
    states = Counter(one.phase for one in found)
    wanted = (one for one in found if one.phase not in _QUIET or one.waits is not None)
    return first_rows(wanted, _Found.order, lambda one: _node_row(one, config)), states


def _found(entry: Entry, *, acts: bool) -> _Found:
    if acts:
        seen, state, waits = entry.assessment, entry.state, entry.blocked
        phase = state.phase.value if state is not None and state.phase.cordoned else seen.standing
        return _Found(entry.node, phase, seen, state, waits)
    state = known_state(entry.actual)
    phase = "foreign-cordon" if entry.actual.unschedulable else "ok"
    phase = state.phase.value if state is not None else phase
    return _Found(entry.actual, phase, Assessment(phase), state, None)


def _rank(phase: str) -> int:
    if phase in _FIRST:
        return _FIRST.index(phase)
    return len(_FIRST) + (1 + _LAST.index(phase) if phase in _LAST else 0)


def _node_row(found: _Found, config: Config) -> NodeRow:
    node, phase, seen, state, waits = found
    since = float(state.since or state.first_seen) if state is not None else seen.since
    parts = [seen.why]
    if state is not None and state.condition and state.condition not in seen.why:
        bad = f"{state.condition} {state.status}".strip()
        parts = [f"{bad}: {state.reason}" if state.reason else bad, seen.why]
    if state is not None and state.phase.cordoned:
        parts.append(ladder_text(config.for_node(node.labels), state))
    level = Level.WARNING if phase in _FIRST else Level.NORMAL
    return NodeRow(
        name=node.name,
        phase=phase,
        level=Level.BAD if phase in _BAD_NODES else level,
        since=max(0.0, since),
        reason="; ".join(filter(None, parts)),
        limit=f"{waits.cause}: {waits.text}" if waits is not None else "",
    )


# -- drains ----------------------------------------------------------------------------------


def drain_rows(running: Iterable[RunningDrain], now: float, idle: str) -> Rows[DrainRow]:
    """The drains under way, the oldest first. idle: why no drain evicts now, empty = they do."""
    runs = (run for run in running if not run.drain.after)
    return first_rows(
        runs,
        lambda run: (run.drain.started, run.drain.node),
        lambda run: _drain_row(run, now, idle),
    )


def _drain_row(run: RunningDrain, now: float, idle: str) -> DrainRow:
    drain = run.drain
    completing = drain.pods.completing
    state, level = _drain_state(run, now, idle)
    blockers = describe(drain.blockers(now))
    staying = sorted({why for _, why in drain.staying})
    kept = f"stay: {', '.join(staying[:3])}" if staying else ""
    return DrainRow(
        node=drain.node,
        since=drain.started,
        deadline=drain.deadline + run.clock.owed(now),
        gone=drain.evicted,
        left=len(drain.evictions) + len(completing) if drain.synced else None,
        staying=len(drain.staying),
        state=state,
        level=level,
        blockers="; ".join(filter(None, (blockers, kept))),
    )


def _drain_state(run: RunningDrain, now: float, idle: str) -> tuple[str, Level]:
    """The first that holds."""
    drain = run.drain
    states = (
        (bool(idle), idle, Level.WARNING),
        (run.paused_since is not None, "paused: its node recovers", Level.NORMAL),
        (drain.without_slot(now), "waits for a slot (maxDraining)", Level.WARNING),
        (drain.delayed(now), "waits (drain.delay)", Level.NORMAL),
        (now >= drain.deadline, "past its deadline", Level.BAD),
        (drain.only_waits, "waits for pods that complete", Level.NORMAL),
        (run.standing_since is not None, "makes no progress", Level.WARNING),
        (True, "evicts pods", Level.NORMAL),
    )
    return next((text, level) for holds, text, level in states if holds)


# -- policies --------------------------------------------------------------------------------


def policy_rows(policy_states: Iterable[PolicyState]) -> Rows[PolicyRow]:
    """HealingPolicies, the most urgent first."""
    return first_rows(policy_states, _policy_order, _policy_row)


def _policy_order(policy_state: PolicyState) -> tuple[int, str]:
    level = _policy_level(policy_state)
    return (list(Level).index(level), policy_state.policy.key)


def _policy_level(policy_state: PolicyState) -> Level:
    state = policy_state.status.state if policy_state.status is not None else None
    if state in _BAD_POLICIES:
        return Level.BAD
    return Level.NORMAL if state is None or state in _GOOD_POLICIES else Level.WARNING


def _policy_row(policy_state: PolicyState) -> PolicyRow:
    status = policy_state.status
    return PolicyRow(
        name=policy_state.policy.key,
        state=status.state.value if status is not None else "not evaluated yet",
        level=_policy_level(policy_state),
        healthy=policy_state.healthy,
        desired=policy_state.desired,
        restarts=policy_state.restarts,
        last_restart=policy_state.last_heal or 0.0,
        message=status.message if status is not None else "",
    )


def workload_rows(policy_states: Iterable[PolicyState]) -> Rows[WorkloadRow]:
    """The owners of the pods that policies select, those with unhealthy pods first."""
    found = [
        (policy_state.policy.key, group)
        for policy_state in policy_states
        for group in policy_state.groups.values()
    ]
    return first_rows(
        found,
        lambda item: (-len(item[1].unhealthy), item[0], item[1].key),
        lambda item: _workload_row(*item),
    )


def _workload_row(policy: str, group: Group) -> WorkloadRow:
    namespace = policy.partition("/")[0]
    skip_reason = group.skip_reason
    waits = skip_reason is not None and skip_reason.cause not in UNREPORTED
    parts = (
        "a pod is being restarted" if group.under_way else "",
        group.stuck,
        skip_reason.text if skip_reason is not None and waits else "",
    )
    return WorkloadRow(
        name=f"{namespace}/{group.name()}",
        policy=policy,
        desired=group.desired,
        running=len(group.alive),
        unhealthy=len(group.unhealthy),
        level=Level.BAD if group.unhealthy else Level.NORMAL,
        message="; ".join(filter(None, parts)),
    )


# -- Events ----------------------------------------------------------------------------------


def event_rows(recent: Iterable[RecentEvent], now: float) -> Rows[EventRow]:
    """Those of the last hour, the newest first."""
    found = [item for item in recent if item.at > now - EVENTS_FOR]
    numbered = enumerate(reversed(found))
    return first_rows(numbered, lambda item: item[0], lambda item: _event_row(item[1]))


def _event_row(recent: RecentEvent) -> EventRow:
    event = recent.event
    place = f"{event.namespace}/" if event.namespace else ""
    return EventRow(
        at=recent.at,
        reason=event.reason,
        about=f"{event.kind} {place}{event.name}",
        message=event.message,
        warning=event.warning,
        problem=recent.problem,
    )
