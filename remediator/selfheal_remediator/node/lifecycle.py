"""The phases of a node: what the annotation says after each step. Pure.

The only writer of State.phase. `TRANSITIONS` is the table of what may follow what;
docs/ARCHITECTURE.md draws it. A step that is not in it is our own mistake and raises ValueError:
nothing is written then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from selfheal_remediator.config import Rule
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.moments import credible
from selfheal_remediator.node.annotation import Phase, State
from selfheal_remediator.node.drain_request import DRAIN_REQUESTED

#: What an occurrence can begin with: from nothing, and from each phase in which the node is in
#: service. Draining: cordoned and drained in one write.
_BEGINNINGS = frozenset({Phase.SEEN, Phase.NOTED, Phase.CORDONED, Phase.DRAINING})
#: What a node that we cordoned can come to.
_ENDINGS = frozenset({Phase.HEALED, Phase.SUSPECT, Phase.CANCELLED, Phase.SEEN})
#: What a drained node can come to, beside an ending. Cordoned: bad again, a step that was
#: withdrawn before it began, or a remediator that is gone left it so.
_AFTER_DRAIN = frozenset({Phase.CORDONED, Phase.REPAIRING, Phase.VERIFYING, Phase.REPAIR_FAILED})
#: Each phase (None = no annotation) -> those that may follow. Each may also be removed.
TRANSITIONS: Mapping[Phase | None, frozenset[Phase]] = MappingProxyType(
    {
        None: _BEGINNINGS,
        Phase.SEEN: _BEGINNINGS | {Phase.HEALED},
        Phase.NOTED: _BEGINNINGS | {Phase.HEALED},
        Phase.CANCELLED: _BEGINNINGS | {Phase.HEALED},
        Phase.SUSPECT: _BEGINNINGS | {Phase.HEALED},
        Phase.HEALED: _BEGINNINGS | {Phase.HEALED},
        Phase.CORDONED: _ENDINGS | {Phase.CORDONED, Phase.DRAINING, Phase.VERIFYING},
        Phase.DRAINING: _ENDINGS | {Phase.CORDONED, Phase.DRAINED, Phase.VERIFYING},
        Phase.DRAINED: _ENDINGS | _AFTER_DRAIN,
        Phase.REPAIRING: _ENDINGS | _AFTER_DRAIN,
        Phase.VERIFYING: _ENDINGS | {Phase.CORDONED, Phase.VERIFYING, Phase.REPAIR_FAILED},
        Phase.REPAIR_FAILED: _ENDINGS | {Phase.CORDONED, Phase.VERIFYING},
    }
)


#: Of a node in service no ladder is under way, and it has no taint of ours.
_IN_SERVICE: Mapping[str, Any] = MappingProxyType(
    {
        **dict.fromkeys(("steps", "step_began", "step_ended", "step_used"), 0),
        **dict.fromkeys(("step", "step_boot", "taint"), ""),
        **dict.fromkeys(("step_failed", "unverified", "taint_only"), False),
    }
)


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A rule that finds its condition bad on a node: what is written down of it.

    before: the annotation so far. transition, first_seen: seconds since the epoch. cordons: those
    that count for flapping.
    """

    node: Node
    rule: Rule
    owner: str
    before: State | None
    transition: float | None
    first_seen: float
    cordons: tuple[int, ...]


def seen(occurrence: Occurrence, now: float) -> State:
    """The rule's `for` is running."""
    return _begin(occurrence, Phase.SEEN, now)


def noted(occurrence: Occurrence, now: float) -> State:
    """The rule only observes."""
    return _begin(occurrence, Phase.NOTED, now)


def cordoned(occurrence: Occurrence, now: float) -> State:
    """The node is taken out of service."""
    state = _begin(occurrence, Phase.CORDONED, now)
    return replace(
        state,
        latched=occurrence.rule.latched,
        boot_id=occurrence.node.boot_id,
        cordons=(*occurrence.cordons, int(now)),
    )


def requested(before: State | None, node: Node, owner: str, why: str, now: float) -> State:
    """A person requests a drain: the node is taken out of service for it."""
    _check(before.phase if before is not None else None, Phase.CORDONED)
    return State(
        phase=Phase.CORDONED,
        by=owner,
        condition=DRAIN_REQUESTED,
        status="True",
        reason=why,
        action="drain",
        first_seen=int(now),
        since=int(now),
        boot_id=node.boot_id,
        cordons=(*(before.cordons if before is not None else ()), int(now)),
    )


def draining(state: State, now: float) -> State:
    """The cordoned node is being emptied."""
    return _step(
        state,
        Phase.DRAINING,
        action="drain",
        drain_started=int(now),
        drain_used=0,
        no_room=0,
    )


def drained(state: State, now: float) -> State:
    """It is empty."""
    return _step(state, Phase.DRAINED, since=int(now), drain_used=0)


def not_drained(state: State, now: float) -> State:
    """Its pods fit nowhere else: cordoned only."""
    return _step(state, Phase.CORDONED, drain_started=0, drain_used=0, no_room=int(now))


def repairing(state: State, step: str, boot_id: str, now: float) -> State:
    """The next step of the ladder begins; `step` is its mark, boot_id the node's now."""
    return _step(
        state,
        Phase.REPAIRING,
        steps=state.steps + 1,
        step=step,
        step_began=int(now),
        step_ended=0,
        step_failed=False,
        step_used=0,
        step_boot="" if boot_id == state.boot_id else boot_id,
    )


def verifying(state: State, boot_id: str, now: float) -> State:
    """It recovered, which is verified before it is uncordoned."""
    return _step(
        state,
        Phase.VERIFYING,
        step="",
        step_began=int(now),
        step_ended=0,
        step_failed=False,
        step_used=0,
        step_boot="" if boot_id == state.boot_id else boot_id,
    )


def step_ended(state: State, now: float, *, failed: bool) -> State:
    """The step, or the verification, that was begun has ended.

    What could not be verified before the step is open again after it.
    """
    return _step(
        state,
        state.phase,
        step_ended=int(now),
        step_failed=failed,
        step_used=0,
        unverified=False,
    )


def withdrawn(state: State, now: float) -> State:
    """The step that was written down may not begin any more: when it may, the node is drained
    (again), and this one begins after all."""
    return _step(
        state,
        Phase.CORDONED,
        since=int(now),
        drain_started=0,
        drain_used=0,
        steps=state.steps - 1,
        **dict.fromkeys(("step_began", "step_used"), 0),
        **dict.fromkeys(("step", "step_boot"), ""),
    )


def repair_failed(state: State, now: float, *, unverified: bool = False) -> State:
    """Nothing of the ladder is left, or it cannot continue: the node stays out."""
    return _step(state, Phase.REPAIR_FAILED, since=int(now), unverified=unverified)


def not_verified(state: State, now: float, *, failed: bool) -> State:
    """It is drained (again), and its ladder continues. failed: `verify` did, else it is bad again.

    It may have recovered before it was drained: no step begins on a node that has pods.
    """
    return _step(
        state,
        Phase.CORDONED,
        since=int(now),
        drain_started=0,
        drain_used=0,
        unverified=failed,
    )


def interrupted(state: State) -> State:
    """Its drain must not continue now: cordoned only, and drained again later."""
    return _step(state, Phase.CORDONED, drain_started=0, drain_used=0)


def orphaned(state: State, now: float) -> State:
    """The remediator that cordoned it is gone, which was reported: a human ends it."""
    return _step(state, Phase.CORDONED, drain_started=0, drain_used=0, reported=int(now))


def healed(state: State, now: float) -> State:
    """It recovered, and is uncordoned."""
    return _step(state, Phase.HEALED, since=int(now), scale_down_mark=False)


def suspect(state: State, now: float) -> State:
    """The detector is suspected, and it is uncordoned."""
    return _step(state, Phase.SUSPECT, since=int(now), scale_down_mark=False)


def cancelled(state: State, now: float) -> State:
    """A person uncordoned it."""
    return _step(state, Phase.CANCELLED, since=int(now), scale_down_mark=False)


def seen_again(state: State) -> State:
    """A controller uncordoned it, which is no decision of a person's."""
    return _step(state, Phase.SEEN, drain_started=0, drain_used=0, scale_down_mark=False)


def kept_for_flaps(state: State, cordons: tuple[int, ...]) -> State:
    """Nothing is wrong with it any more; when it was cordoned still counts."""
    return _step(state, Phase.HEALED, cordons=cordons)


def with_credible_times(state: State, now: float) -> State:
    """The same, but what is to be over at a time that no clock wrote begins now: nobody would see
    its end."""
    changes: dict[str, Any] = {
        name: int(now)
        for name in ("since", "step_ended")
        if not credible(getattr(state, name), now)
    }
    if not all(credible(moment, now) for moment in state.cordons):
        changes["cordons"] = tuple(min(moment, int(now)) for moment in state.cordons)
    return replace(state, **changes) if changes else state


def void(owner: str) -> State:
    """What stands for the annotation of a remediator that is gone and holds no cordon here."""
    return State(Phase.HEALED, owner)


def _begin(occurrence: Occurrence, phase: Phase, now: float) -> State:
    before, rule = occurrence.before, occurrence.rule
    _check(before.phase if before is not None else None, phase)
    condition = occurrence.node.conditions[rule.condition]
    return State(
        phase=phase,
        by=occurrence.owner,
        condition=rule.condition,
        status=condition.status,
        reason=condition.reason,
        action=rule.action,
        transition=int(occurrence.transition or 0),
        first_seen=int(occurrence.first_seen),
        since=int(now),
        rule=rule.mark,
        cordons=occurrence.cordons,
    )


def _step(state: State, phase: Phase, **changes: Any) -> State:
    _check(state.phase, phase)
    if not phase.cordoned:
        changes.update(_IN_SERVICE)
    return replace(state, phase=phase, **changes)


def _check(before: Phase | None, after: Phase) -> None:
    if after not in TRANSITIONS[before]:
        known = before.value if before is not None else "nothing"
        raise ValueError(f"a node's phase cannot become {after.value} after {known}")
