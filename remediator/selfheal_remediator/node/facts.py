"""The facts for one evaluation of one node, and what follows directly from them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from selfheal_remediator.config import Rule
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.node.actions import Action, Kind
from selfheal_remediator.node.annotation import Phase, State
from selfheal_remediator.node.assessment import Scope
from selfheal_remediator.node.conditions import (
    NodeHistory,
    Observation,
    Reading,
    first_seen,
    fresh_until,
    stale,
)
from selfheal_remediator.node.lifecycle import Occurrence

#: Reasons of Events that somebody must act on.
_WARNINGS = ("DetectorSuspected", "CordonOrphaned", "RepairFailed")


@dataclass(slots=True)
class Facts:
    """state: the annotation, None = there is none. now: seconds since the epoch."""

    node: Node
    history: NodeHistory
    scope: Scope
    state: State | None
    now: float

    def in_wave(self, condition: str, since: float) -> bool:
        """Whether this came with a wave over many nodes (times are kept in whole seconds)."""
        began = self.scope.suspects.get(condition)
        return began is not None and since >= int(began)

    def recent_cordons(self, state: State | None) -> tuple[int, ...]:
        """Those that count for flapping."""
        if state is None:
            return ()
        oldest = self.now - self.scope.config.recovery.flap_window
        return tuple(moment for moment in state.cordons if moment > oldest)

    def since(self, rule: Rule, observation: Observation) -> float:
        """Since when the condition is bad for the rule, also as it was written down."""
        state = self.state
        if state is None or not state.first_seen or not self._is_about(state, rule):
            return observation.since
        in_progress = state.phase in (Phase.SEEN, Phase.NOTED)
        return first_seen(observation, float(state.first_seen) if in_progress else None)

    def _is_about(self, state: State, rule: Rule) -> bool:
        """Whether what was written down of the condition was bad for this rule all the while."""
        if state.condition != rule.condition:
            return False
        if state.rule in ("", rule.mark):
            return state.status in rule.status and (
                state.rule != "" or rule.matches_reason(state.reason)
            )
        # What is bad for a narrower rule is bad for the wider one.
        return not rule.reason and any(
            set(other.status) <= set(rule.status)
            for other in self.scope.config.rules
            if other.mark == state.rule
        )

    def due(self, rule: Rule) -> float | None:
        """When the rule's `for` is over; None while the condition is not bad."""
        observation = self.history.observations.get(rule.key)
        if (
            observation is None
            or observation.reading is not Reading.BAD
            or stale(rule, self.history, self.now)
        ):
            return None
        return self.since(rule, observation) + rule.for_

    def freshness_due(self) -> float | None:
        """When a writer that is alive now would count as silent."""
        moments = []
        for rule in self.scope.config.rules:
            observation = self.history.observations.get(rule.key)
            heartbeat = self.history.heartbeats.get(rule.condition)
            limit = rule.max_heartbeat_age
            if limit is None or heartbeat is None or observation is None:
                continue
            until = fresh_until(heartbeat, limit, self.now)
            if observation.reading is Reading.BAD and until > self.now:
                moments.append(until)
        return min(moments, default=None)

    def bad(self) -> tuple[tuple[str, str], ...]:
        """(condition, reason) of each rule that finds its condition bad."""
        found = []
        for rule in self.scope.config.rules:
            observation = self.history.observations.get(rule.key)
            if observation is not None and observation.reading is Reading.BAD:
                found.append((rule.condition, self.node.conditions[rule.condition].reason))
        return tuple(found)

    def action(self, kind: Kind, state: State | None, reason: str, message: str) -> Action:
        """A change of this node; `state` is the annotation after it."""
        warning = kind.limited or reason in _WARNINGS
        return Action(kind, self.node.name, self.node.uid, state, reason, message, warning)

    def suspected(self, state: State) -> bool:
        """Whether the detector of what was written down is suspected now."""
        return state.condition in self.scope.suspects

    def occurrence(self, rule: Rule, observation: Observation) -> Occurrence:
        """What is written down of a rule that finds its condition bad."""
        return Occurrence(
            node=self.node,
            rule=rule,
            owner=self.scope.owner,
            before=self.state,
            transition=observation.transition,
            first_seen=self.since(rule, observation),
            cordons=self.recent_cordons(self.state),
        )
