"""What to do with each node, from what is known and `now`. Pure: no clock, no I/O.

`assess` looks at one node by itself. `Planner` remembers, weighs the nodes against the limits
and returns intents; carrying them out and saying how it went is the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType

from selfheal_remediator.config import PODS_HUNG, Config, Rule
from selfheal_remediator.kube.objects import FOREIGN_ANNOTATIONS, Node
from selfheal_remediator.node.annotation import (
    EXCLUDE_KEY,
    STATE_KEY,
    Phase,
    State,
    Unreadable,
    parse_state,
)
from selfheal_remediator.node.conditions import (
    RESET_TOLERANCE,
    NodeHistory,
    Observation,
    Reading,
    first_seen,
    fresh_until,
    recovery,
    stale,
)
from selfheal_remediator.node.uncordons import uncordoned_by_controller

OPT_OUT_LABEL = "selfheal.dev/exclude"
#: Seconds after which it is looked again whether a cordoned node's pods fit elsewhere.
ROOM_AGAIN_AFTER = 60.0
#: A condition younger than this is not written down yet: most blips pass, and a wave is seen.
NOTE_AFTER = 5.0
#: Reasons of Events that somebody must act on.
_WARNINGS = ("DetectorSuspected", "CordonOrphaned")
NO_MARKS: Mapping[str, str] = MappingProxyType({})
FOREIGN_TAINTS = (
    ("ToBeDeletedByClusterAutoscaler", "cluster-autoscaler removes it"),
    ("karpenter.sh/disrupted", "Karpenter disrupts it"),
    ("karpenter.sh/disruption", "Karpenter disrupts it"),
    ("medik8s.io/remediation", "medik8s remediates it"),
    ("remediation.medik8s.io/", "medik8s remediates it"),
    ("medik8s.io/drain", "medik8s drains it"),
    ("node.kubernetes.io/out-of-service", "it is marked out of service"),
)


class Kind(Enum):
    """What an intent asks for; the value is the bounded label for metrics."""

    CORDON = "cordon"
    DRAIN = "drain"
    UNCORDON = "uncordon"
    NOTE = "annotate"
    CLEAR = "clear"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Action:
    """One change of one node. `state` is the annotation after it (None = removed)."""

    kind: Kind
    node: str
    uid: str
    state: State | None
    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Assessment:
    """What one node's own facts call for, limits aside.

    action: to be done as it is. limited_action: to be done when the limits allow it. due: when to
    evaluate again although nothing changed. standing: one bounded word for metrics; why: for
    people. recovering: it is cordoned, and but for its stabilization window would be uncordoned.
    """

    standing: str
    why: str = ""
    action: Action | None = None
    limited_action: Action | None = None
    due: float | None = None
    state: State | None = None
    bad: tuple[tuple[str, str], ...] = ()
    rejected: str = ""
    since: float = 0.0
    due_since: float = 0.0
    recovering: bool = False


@dataclass(frozen=True, slots=True)
class Scope:
    """What an assessment needs beside the node."""

    config: Config
    owner: str
    #: (condition, reason) that came upon many nodes at once -> when the wave began.
    suspects: Mapping[tuple[str, str], float] = field(default_factory=dict)
    #: Node names that another system is at work on, as it says elsewhere (see external_claims).
    marks: Mapping[str, str] = field(default_factory=dict)
    #: Other remediators (`namespace/lease`) whose Lease lives; None = not known.
    live: frozenset[str] | None = None

    def gone(self, owner: str) -> bool:
        """Whether it is another remediator's name, and that one is known to be there no more."""
        return owner != self.owner and self.live is not None and owner not in self.live


def read_state(node: Node) -> State | None:
    """Our annotation on the node. Raises Unreadable."""
    text = node.annotations.get(STATE_KEY)
    return parse_state(text) if text else None


def cordoned_by(owner: str, node: Node) -> bool:
    """Whether the node's annotation says that this remediator cordoned it."""
    try:
        state = read_state(node)
    except Unreadable:
        return False
    return state is not None and state.phase.cordoned and state.by == owner


def same_purpose(asked: Action, action: Action) -> bool:
    """Whether what is called for now is what was decided before: for another condition, or with
    another action, it is decided anew."""
    if asked.kind is not action.kind:
        return False
    if action.kind not in (Kind.CORDON, Kind.DRAIN) or asked.state is None or action.state is None:
        return True
    return (asked.state.condition, asked.state.action) == (
        action.state.condition,
        action.state.action,
    )


def selected(node: Node, config: Config) -> bool:
    """Whether the rules look at the node at all."""
    labels = node.labels
    if labels.get(OPT_OUT_LABEL) == "true":
        return False
    if node.control_plane and not config.control_plane:
        return False
    exclude = config.exclude_node_selector
    if exclude and all(labels.get(key) == value for key, value in exclude.items()):
        return False
    return all(labels.get(key) == value for key, value in config.node_selector.items())


def foreign_mark(node: Node, marks: Mapping[str, str] = NO_MARKS) -> str:
    """Which other system is at work on the node; empty when none is (see Scope.marks)."""
    for taint in node.taints:
        for key, meaning in FOREIGN_TAINTS:
            if taint.key == key or (key.endswith("/") and taint.key.startswith(key)):
                return f"{meaning} (taint {taint.key})"
    for key, meaning in FOREIGN_ANNOTATIONS.items():
        if meaning and key in node.annotations:
            return f"{meaning} (annotation {key})"
    return marks.get(node.name, "")


def assess(node: Node, history: NodeHistory, scope: Scope, now: float) -> Assessment:
    """What the node calls for by itself."""
    if node.deleting:
        return Assessment("deleting", "the node is being deleted")
    try:
        state = read_state(node)
    except Unreadable as error:
        return Assessment("unreadable", f"annotation {STATE_KEY}: {error}; left alone")
    if state is not None and state.by != scope.owner:
        if scope.gone(state.by):
            cordoned = state.phase.cordoned and node.unschedulable
            # Else nothing that it says counts any more.
            state = state if cordoned else State(Phase.HEALED, scope.owner)
        elif state.phase is not Phase.HEALED:
            return Assessment("foreign", f"in the care of another remediator, {state.by}")
    if EXCLUDE_KEY in node.annotations:
        ours = state if state is not None and state.by == scope.owner else None
        return Assessment("excluded", f"excluded: {node.annotations[EXCLUDE_KEY]}", state=ours)
    return _Evaluation(node, history, scope, state, now).assessed()


@dataclass(slots=True)
class _Evaluation:
    """One look at one node: the facts that the steps below share."""

    node: Node
    history: NodeHistory
    scope: Scope
    state: State | None
    now: float

    def assessed(self) -> Assessment:
        """By what was done to the node before."""
        state = self.state
        if state is None or not state.phase.cordoned:
            return self.free()
        return self.cordoned(state) if state.by == self.scope.owner else self.orphaned(state)

    # -- a node that a remediator held which is gone --------------------------------------

    def orphaned(self, state: State) -> Assessment:
        """Cordoned by one that has no live Lease: a human says what becomes of it."""
        why = (
            f"cordoned for {state.condition} by the remediator {state.by}, which is not there any "
            f"more: `selfheal-remediator uncordon {self.node.name}` uncordons it"
        )
        if state.reported:
            return Assessment("foreign", why, bad=self._bad())
        after = replace(
            state,
            phase=Phase.CORDONED,
            drain_started=0,
            drain_used=0,
            reported=int(self.now),
        )
        action = self._action(Kind.NOTE, after, "CordonOrphaned", why)
        return Assessment("foreign", why, action=action, bad=self._bad())

    # -- a node that we hold ------------------------------------------------------------

    def cordoned(self, state: State) -> Assessment:
        if not self.node.unschedulable:
            return self._cancel(state)
        if not selected(self.node, self.scope.config):
            return self._give_back(state, "Uncordoned", "it is no longer among the selected nodes")
        if self._in_wave(state.condition, self._reasons(state), state.first_seen):
            why = f"many nodes report {state.condition} at once: the detector is suspected"
            return self._give_back(state, "DetectorSuspected", why, phase=Phase.SUSPECT)
        due, why = self._recovery(state)
        if due is not None and due <= self.now:
            return self._give_back(state, "Uncordoned", why)
        recovered = (
            due is not None
        )  # but for the stabilization window: not emptied, it is about to go back
        limited_action = None
        mark = foreign_mark(self.node, self.scope.marks)
        drain_at = self._drain_at(state)
        if state.phase is Phase.CORDONED and drain_at is not None and not (mark or recovered):
            if state.no_room:
                why = f"{why}; not drained: no room elsewhere for its pods"
            if drain_at <= self.now:
                limited_action = self._drain_action(state)
            else:
                due = drain_at
        silent = self._silent_cause(state)
        why = silent or why
        standing = "cordoned-foreign" if mark else state.phase.value
        return Assessment(
            standing,
            mark or why,
            limited_action=limited_action,
            due=due if due is not None else self._freshness_due(),
            state=state,
            bad=self._bad(),
            since=float(state.since),
            rejected="stale-heartbeat" if silent else "",
            # What hung pods show is over as soon as the first of them have left the node.
            recovering=recovered and state.condition != PODS_HUNG,
        )

    def _silent_cause(self, state: State) -> str:
        """That what the node is held for is bad by a writer that is silent; empty = it is not.

        It stays held: that nothing is heard of a fault is no recovery.
        """
        for rule in self.scope.config.rules:
            observation = self.history.observations.get(rule.key)
            cause = rule.condition == state.condition and state.status in rule.status
            bad = observation is not None and observation.reading is Reading.BAD
            if cause and bad and stale(rule, self.history, self.now):
                return (
                    f"{rule.condition} was bad when its detector fell silent, so its recovery "
                    f"cannot be seen: restart the detector on {self.node.name}, or "
                    f"`selfheal-remediator uncordon {self.node.name}`"
                )
        return ""

    def _drain_action(self, state: State) -> Action:
        after = replace(
            state,
            phase=Phase.DRAINING,
            action="drain",
            drain_started=int(self.now),
            drain_used=0,
            no_room=0,
        )
        return self._action(Kind.DRAIN, after, "DrainStarted", f"draining for {state.condition}")

    def _drain_at(self, state: State) -> float | None:
        """When the cordoned node is to be drained, None = not: for its rule, or a worse one."""
        if state.action == "drain":
            # One that is to come was written by a clock that was ahead: it tells nothing.
            known = 0 < state.no_room <= self.now
            return state.no_room + ROOM_AGAIN_AFTER if known else self.now
        moments = [self._due(rule) for rule in self.scope.config.rules if rule.action == "drain"]
        return min((moment for moment in moments if moment is not None), default=None)

    def _cancel(self, state: State) -> Assessment:
        controller = uncordoned_by_controller(self.node)
        flaps = len(self._recent_cordons(state))
        if controller and flaps < self.scope.config.recovery.max_flaps:
            after = replace(
                state, phase=Phase.SEEN, drain_started=0, drain_used=0, scale_down_mark=False
            )
            message = f"uncordoned by {controller}, which is no human: it counts for nothing"
            action = self._action(Kind.CANCEL, after, "UncordonedByController", message)
            return Assessment("seen", message, action=action, state=state)
        after = replace(state, phase=Phase.CANCELLED, since=int(self.now), scale_down_mark=False)
        message = (
            f"uncordoned by {controller or 'somebody else'}: this occurrence of {state.condition} "
            f"is over; still bad, it counts again in {_span(self.scope.config.recovery.cancel_for)}"
        )
        action = self._action(Kind.CANCEL, after, "RemediationCancelled", message)
        return Assessment("cancelled", message, action=action, state=state)

    def _recovery(self, state: State) -> tuple[float | None, str]:
        """When the node can be uncordoned were nothing to change, and why (not)."""
        settings = self.scope.config.recovery
        recent = [moment for moment in state.cordons if moment > self.now - settings.flap_window]
        if len(recent) >= settings.max_flaps:
            times = f"cordoned {len(recent)} times within {settings.flap_window:g}s"
            return None, f"{times}: a human must uncordon it"
        due, why = 0.0, f"no rule is about {state.condition} any more"
        about = False
        for rule in self.scope.config.rules:
            observation = self.history.observations.get(rule.key)
            cause = rule.condition == state.condition and state.status in rule.status
            bad = rule.cordons and observation is not None and observation.reading is Reading.BAD
            if not cause and (not bad or stale(rule, self.history, self.now)):
                continue  # what is not believed for a cordon keeps no node either
            about = about or cause
            verdict = recovery(
                rule if not cause else rule.model_copy(update={"latched": state.latched}),
                self.node,
                self.history,
                stabilization_window=settings.stabilization_window,
                reset_stabilization_window=settings.reset_stabilization_window,
                held_boot=state.boot_id,
                now=self.now,
            )
            if verdict.due is None:
                return None, verdict.why
            if verdict.due >= due:
                due, why = verdict.due, verdict.why
        if not about:
            due = max(due, state.since + settings.stabilization_window)
        return due, why

    def _give_back(
        self, state: State, reason: str, why: str, phase: Phase = Phase.HEALED
    ) -> Assessment:
        after = replace(state, phase=phase, since=int(self.now), scale_down_mark=False)
        keep = phase is Phase.SUSPECT or bool(self._recent_cordons(state))
        action = self._action(Kind.UNCORDON, after if keep else None, reason, f"uncordoned: {why}")
        return Assessment("uncordoning", why, action=action, state=state)

    # -- a node that we do not hold -----------------------------------------------------

    def free(self) -> Assessment:
        if not selected(self.node, self.scope.config):
            return Assessment("not-selected", "not among the selected nodes")
        bad = self._bad()
        if self.node.unschedulable:
            return Assessment("foreign-cordon", "cordoned by somebody else", bad=bad)
        mark = foreign_mark(self.node, self.scope.marks)
        if mark:
            return Assessment("foreign-mark", mark, bad=bad)
        if self.state is not None and self.state.phase in (Phase.CANCELLED, Phase.SUSPECT):
            over, due = self._occurrence_over(self.state)
            if not over:
                why = self._still(self.state)
                return Assessment(self.state.phase.value, why, due=due, bad=bad)
        return self._by_rules(bad)

    def _still(self, state: State) -> str:
        if state.phase is Phase.SUSPECT:
            return f"{state.condition}: uncordoned, the detector is suspected"
        left = state.since + self.scope.config.recovery.cancel_for - self.now
        return (
            f"{state.condition}: a human gave it back; waiting for the condition to pass, "
            f"for {_span(left)} at most"
        )

    def _occurrence_over(self, state: State) -> tuple[bool, float | None]:
        """Whether the occurrence that was cancelled or suspected has passed; else when it will."""
        over, due = self._condition_over(state)
        if over or state.phase is not Phase.CANCELLED:
            return over, due
        ends = state.since + self.scope.config.recovery.cancel_for
        return ends <= self.now, ends if due is None else min(due, ends)

    def _condition_over(self, state: State) -> tuple[bool, float | None]:
        for rule in self.scope.config.rules:
            if rule.condition != state.condition or state.status not in rule.status:
                continue
            observation = self.history.observations.get(rule.key)
            if observation is None or observation.reading in (Reading.UNKNOWN, Reading.ABSENT):
                return False, None
            if state.condition == PODS_HUNG and state.phase is Phase.CANCELLED:
                return self._pods_healthy(observation)
            if observation.reading is Reading.BAD:
                return state.phase is Phase.SUSPECT and not self._suspected(state), None
            if observation.reading is Reading.OTHER:  # as bad as it was, for another reason
                return False, None
            reset = self.history.reset
            if reset is not None and reset >= observation.since - RESET_TOLERANCE:
                # Good because its detector began anew: it had no time to look yet.
                over_at = reset + self.scope.config.recovery.reset_stabilization_window
                if over_at > self.now:
                    return False, over_at
        return True, None

    def _suspected(self, state: State) -> bool:
        reasons = self._reasons(state)
        return any((state.condition, reason) in self.scope.suspects for reason in reasons)

    def _reasons(self, state: State) -> set[str]:
        """The reasons that the condition had, as written down and as seen since it is bad."""
        rules = [rule for rule in self.scope.config.rules if rule.condition == state.condition]
        observations = [self.history.observations.get(rule.key) for rule in rules]
        return {
            state.reason,
            *(
                r
                for observation in observations
                if observation is not None
                for r in observation.reasons
            ),
        }

    def _pods_healthy(self, observation: Observation) -> tuple[bool, float | None]:
        """Whether nothing was wrong with the node's pods for the stabilization window; else when.

        The condition's times are its leader's own, and a new leader has to look for a while until
        it finds again what its predecessor knew: neither is another occurrence.
        """
        if observation.reading is not Reading.GOOD:
            return False, None
        over_at = observation.since + self.scope.config.recovery.stabilization_window
        return over_at <= self.now, over_at

    def _by_rules(self, bad: tuple[tuple[str, str], ...]) -> Assessment:
        due: float | None = None
        rejected = ""
        waiting: tuple[Rule, Observation, float] | None = None
        noted: tuple[Rule, Observation] | None = None
        for rule in sorted(self.scope.config.rules, key=_severity):
            observation = self.history.observations.get(rule.key)
            if observation is None or observation.reading is not Reading.BAD:
                continue
            if stale(rule, self.history, self.now):
                rejected = rejected or "stale-heartbeat"
                continue
            condition = self.node.conditions[rule.condition]
            since = self._since(rule, observation)
            reasons = {condition.reason, *observation.reasons}
            if rule.cordons and self._in_wave(rule.condition, reasons, since):
                rejected = "suspected-detector"
                continue
            when = self._due(rule)
            assert when is not None
            if when <= self.now and rule.cordons:
                return self._act(rule, observation, bad)
            if when <= self.now:
                noted = noted or (rule, observation)
                continue
            due = when if due is None else min(due, when)
            waiting = waiting or (rule, observation, when)
        # The `for` of a worse rule runs on beside what is only to be noted.
        if waiting is not None and (waiting[0].cordons or noted is None):
            return self._wait(*waiting, due, bad)
        if noted is not None:
            return replace(self._act(*noted, bad), due=due)
        return self._nothing(bad, rejected)

    def _act(
        self, rule: Rule, observation: Observation, bad: tuple[tuple[str, str], ...]
    ) -> Assessment:
        condition = self.node.conditions[rule.condition]
        since = self._since(rule, observation)
        seconds = self.now - since
        said = f"{rule.condition}={condition.status} ({condition.reason or 'no reason'}) for "
        why = f"{said}{_span(seconds)}" + (f": {condition.message}" if condition.message else "")
        if not rule.cordons:
            return self._note(rule, observation, why, bad)
        if self.state is not None and self.state.phase is Phase.CANCELLED:
            why += f"; somebody uncordoned it {_span(self.now - self.state.since)} ago"
        recent = self._recent_cordons(self.state)
        state = State(
            phase=Phase.CORDONED,
            by=self.scope.owner,
            condition=rule.condition,
            status=condition.status,
            reason=condition.reason,
            action=rule.action,
            latched=rule.latched,
            transition=int(observation.transition or 0),
            first_seen=int(since),
            since=int(self.now),
            rule=rule.mark,
            boot_id=self.node.boot_id,
            cordons=(*recent, int(self.now)),
        )
        limited_action = self._action(Kind.CORDON, state, "Cordoned", f"cordoned: {why}")
        return Assessment(
            "wants-cordon",
            why,
            limited_action=limited_action,
            state=self.state,
            bad=bad,
            since=since,
            due_since=since + rule.for_,
        )

    def _note(
        self, rule: Rule, observation: Observation, why: str, bad: tuple[tuple[str, str], ...]
    ) -> Assessment:
        known = self.state
        if known is not None and self._written_down(known, Phase.NOTED, rule):
            return Assessment("noted", why, state=known, bad=bad)
        state = self._seen_state(rule, observation, Phase.NOTED)
        action = self._action(Kind.NOTE, state, "ConditionSeen", f"noted: {why}")
        return Assessment("noted", why, action=action, state=known, bad=bad)

    def _wait(
        self,
        rule: Rule,
        observation: Observation,
        when: float,
        due: float | None,
        bad: tuple[tuple[str, str], ...],
    ) -> Assessment:
        """A rule's `for` is running; what lasts is written down so that a restart keeps it."""
        why = f"{rule.condition}={observation.status}, acting in {_span(when - self.now)}"
        known = self.state
        noted = known is not None and self._written_down(known, Phase.SEEN, rule)
        write_at = observation.since + NOTE_AFTER
        if noted or not rule.cordons or when <= write_at:
            return Assessment("seen", why, due=due, state=known, bad=bad)
        if write_at > self.now:
            soonest = write_at if due is None else min(due, write_at)
            return Assessment("seen", why, due=soonest, state=known, bad=bad)
        after = self._seen_state(rule, observation, Phase.SEEN)
        action = self._action(Kind.NOTE, after, "ConditionSeen", why)
        return Assessment("seen", why, action=action, due=due, state=known, bad=bad)

    def _written_down(self, known: State, phase: Phase, rule: Rule) -> bool:
        """Whether the annotation says so already: of this rule, or of one about the same that is
        still bad. Written anew at each change of a reason it would be a storm of writes and Events.
        """
        if known.phase is not phase or known.condition != rule.condition:
            return False
        if not known.rule:
            return known.status in rule.status and rule.matches_reason(known.reason)
        return any(
            observation.reading is Reading.BAD
            and abs(self._since(other, observation) - known.first_seen) < 2
            for other in self.scope.config.rules
            if other.mark == known.rule and other.cordons is rule.cordons
            for observation in (self.history.observations.get(other.key),)
            if observation is not None
        )

    def _seen_state(self, rule: Rule, observation: Observation, phase: Phase) -> State:
        condition = self.node.conditions[rule.condition]
        return State(
            phase=phase,
            by=self.scope.owner,
            condition=rule.condition,
            status=condition.status,
            reason=condition.reason,
            action=rule.action,
            transition=int(observation.transition or 0),
            first_seen=int(self._since(rule, observation)),
            since=int(self.now),
            rule=rule.mark,
            cordons=self._recent_cordons(self.state),
        )

    def _nothing(self, bad: tuple[tuple[str, str], ...], rejected: str) -> Assessment:
        """No rule asks for anything: an old annotation goes, or stays as the flap count."""
        state = self.state
        why = {
            "stale-heartbeat": "a bad condition whose writer is silent: not believed",
            "suspected-detector": "many nodes report the same at once: the detector is suspected",
        }.get(rejected, "")
        due = self._freshness_due()
        if state is None:
            return Assessment("ok" if not bad else "seen", why, due=due, bad=bad, rejected=rejected)
        if rejected and state.phase is not Phase.HEALED:
            return Assessment("seen", why, due=due, state=state, bad=bad, rejected=rejected)
        if self._not_observed(state):
            return Assessment("seen", f"{state.condition} cannot be told", state=state, bad=bad)
        recent = self._recent_cordons(state)
        if recent:
            ends = recent[0] + self.scope.config.recovery.flap_window
            if state.phase is Phase.HEALED and recent == state.cordons:
                return Assessment("healed", why, due=ends, state=state, bad=bad, rejected=rejected)
            after = replace(state, phase=Phase.HEALED, cordons=recent)
            action = self._action(Kind.NOTE, after, "", "")
            return Assessment("healed", why, action=action, state=state, bad=bad, rejected=rejected)
        passed = state.phase in (Phase.SEEN, Phase.NOTED)
        action = self._action(
            Kind.CLEAR, None, "ConditionPassed" if passed else "", f"{state.condition} passed"
        )
        return Assessment("ok", why, action=action, state=state, bad=bad, rejected=rejected)

    def _not_observed(self, state: State) -> bool:
        """Whether the noted condition is neither bad nor good now (unknown, or gone)."""
        if state.phase is Phase.HEALED:
            return False
        return any(
            observation is not None and observation.reading in (Reading.UNKNOWN, Reading.ABSENT)
            for rule in self.scope.config.rules
            if rule.condition == state.condition
            for observation in (self.history.observations.get(rule.key),)
        )

    def _in_wave(self, condition: str, reasons: set[str], since: float) -> bool:
        """Whether this came with a wave over many nodes (times are kept in whole seconds)."""
        suspects = self.scope.suspects
        moments = [suspects[condition, r] for r in reasons if (condition, r) in suspects]
        return any(since >= int(began) for began in moments)

    # -- shared -------------------------------------------------------------------------

    def _recent_cordons(self, state: State | None) -> tuple[int, ...]:
        if state is None:
            return ()
        oldest = self.now - self.scope.config.recovery.flap_window
        return tuple(moment for moment in state.cordons if moment > oldest)

    def _since(self, rule: Rule, observation: Observation) -> float:
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

    def _due(self, rule: Rule) -> float | None:
        """When the rule's `for` is over; None while the condition is not bad."""
        observation = self.history.observations.get(rule.key)
        if (
            observation is None
            or observation.reading is not Reading.BAD
            or stale(rule, self.history, self.now)
        ):
            return None
        return self._since(rule, observation) + rule.for_

    def _freshness_due(self) -> float | None:
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

    def _bad(self) -> tuple[tuple[str, str], ...]:
        """(condition, reason) of each rule that finds its condition bad."""
        found = []
        for rule in self.scope.config.rules:
            observation = self.history.observations.get(rule.key)
            if observation is not None and observation.reading is Reading.BAD:
                found.append((rule.condition, self.node.conditions[rule.condition].reason))
        return tuple(found)

    def _action(self, kind: Kind, state: State | None, reason: str, message: str) -> Action:
        warning = kind in (Kind.CORDON, Kind.DRAIN) or reason in _WARNINGS
        return Action(kind, self.node.name, self.node.uid, state, reason, message, warning)


def _severity(rule: Rule) -> int:
    return ("drain", "cordon", "observe").index(rule.action)


def _span(seconds: float) -> str:
    """Seconds for people: 42s, 5m, 2h10m."""
    whole = round(max(0.0, seconds))
    if whole < 120:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 120:
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m" if minutes else f"{hours}h"
