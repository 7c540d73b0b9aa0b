"""What a node in service calls for by the rules: to be cordoned, noted, or to wait. Pure."""

from __future__ import annotations

from dataclasses import replace

from selfheal_remediator.config import PODS_HUNG, Rule
from selfheal_remediator.node import lifecycle
from selfheal_remediator.node.actions import Action, Kind
from selfheal_remediator.node.annotation import Phase, State
from selfheal_remediator.node.assessment import Assessment
from selfheal_remediator.node.conditions import RESET_TOLERANCE, Observation, Reading, stale
from selfheal_remediator.node.drain_request import DRAIN_REQUESTED, DrainRequest, drain_request
from selfheal_remediator.node.facts import Facts
from selfheal_remediator.node.selection import foreign_mark, selected
from selfheal_remediator.node.spans import span
from selfheal_remediator.node.taints import how_cordoned, taken

#: A condition younger than this is not written down yet: most blips pass, and a wave is seen.
NOTE_AFTER = 5.0


def assess_free(facts: Facts) -> Assessment:
    """Not cordoned by us."""
    if not selected(facts.node, facts.scope.config):
        return Assessment("not-selected", "not among the selected nodes")
    bad = facts.bad()
    foreign = _foreign_cordon(facts)
    if foreign:
        return Assessment("foreign-cordon", foreign, bad=bad)
    mark = foreign_mark(facts.node, facts.scope.marks)
    if mark:
        return Assessment("foreign-mark", mark, bad=bad)
    request = drain_request(facts.node)
    if request is not None and request.begins(facts.now) and not _is_cancelled(facts.state):
        return _drain_requested(facts, request, bad)
    if facts.state is not None and facts.state.phase in (Phase.CANCELLED, Phase.SUSPECT):
        over, due = _occurrence_over(facts, facts.state)
        if not over:
            why = _still(facts, facts.state)
            return Assessment(facts.state.phase.value, why, due=due, bad=bad)
    return _by_rules(facts, bad)


def _foreign_cordon(facts: Facts) -> str:
    """What somebody else keeps pods away with, empty = nothing that is in the way of a cordon."""
    if facts.node.unschedulable:
        return "cordoned by somebody else"
    return taken(facts.node, facts.scope.config.taint)


def _is_cancelled(state: State | None) -> bool:
    """Whether a person uncordoned the node while the drain was requested."""
    if state is None or state.phase is not Phase.CANCELLED:
        return False
    return state.condition == DRAIN_REQUESTED


def _drain_requested(
    facts: Facts, request: DrainRequest, bad: tuple[tuple[str, str], ...]
) -> Assessment:
    before = facts.state
    if before is not None:
        before = replace(before, cordons=facts.recent_cordons(before))
    state = lifecycle.requested(before, facts.node, facts.scope.owner, request.why, facts.now)
    action = _cordon(facts, state, request.text)
    return Assessment(
        "wants-cordon",
        request.text,
        limited_action=action,
        due=request.until,
        state=facts.state,
        bad=bad,
        since=facts.now,
        due_since=facts.now,
    )


def _still(facts: Facts, state: State) -> str:
    if state.phase is Phase.SUSPECT:
        return f"{state.condition}: uncordoned, the detector is suspected"
    left = state.since + facts.scope.config.recovery.cancel_for - facts.now
    return (
        f"{state.condition}: a person uncordoned it; waiting for the condition to pass, "
        f"for {span(left)} at most"
    )


def _occurrence_over(facts: Facts, state: State) -> tuple[bool, float | None]:
    """Whether the occurrence that was cancelled or suspected has passed; else when it will."""
    request = drain_request(facts.node)
    if state.condition == DRAIN_REQUESTED and request is not None:
        over, due = not request.keeps(facts.now), request.until
    else:
        over, due = _condition_over(facts, state)
    if over or state.phase is not Phase.CANCELLED:
        return over, due
    ends = state.since + facts.scope.config.recovery.cancel_for
    return ends <= facts.now, ends if due is None else min(due, ends)


def _condition_over(facts: Facts, state: State) -> tuple[bool, float | None]:
    for rule in facts.scope.config.rules:
        if rule.condition != state.condition or state.status not in rule.status:
            continue
        observation = facts.history.observations.get(rule.key)
        if observation is None or observation.reading in (Reading.UNKNOWN, Reading.ABSENT):
            return False, None
        if state.condition == PODS_HUNG and state.phase is Phase.CANCELLED:
            return _pods_healthy(facts, observation)
        if observation.reading is Reading.BAD:
            return state.phase is Phase.SUSPECT and not facts.suspected(state), None
        if observation.reading is Reading.OTHER:  # as bad as it was, for another reason
            return False, None
        reset = facts.history.reset
        if reset is not None and reset >= observation.since - RESET_TOLERANCE:
            # Good because its detector restarted: it had no time to check yet.
            over_at = reset + facts.scope.config.recovery.reset_stabilization_window
            if over_at > facts.now:
                return False, over_at
    return True, None


def _pods_healthy(facts: Facts, observation: Observation) -> tuple[bool, float | None]:
    """Whether nothing was wrong with the node's pods for the stabilization window; else when.

    The condition's times are its leader's own, and a new leader needs a while until it
    finds again what its predecessor knew: neither is another occurrence.
    """
    if observation.reading is not Reading.GOOD:
        return False, None
    over_at = observation.since + facts.scope.config.recovery.stabilization_window
    return over_at <= facts.now, over_at


def _by_rules(facts: Facts, bad: tuple[tuple[str, str], ...]) -> Assessment:
    due: float | None = None
    rejected = ""
    waiting: tuple[Rule, Observation, float] | None = None
    noted: tuple[Rule, Observation] | None = None
    for rule in sorted(facts.scope.config.rules, key=_severity):
        observation = facts.history.observations.get(rule.key)
        if observation is None or observation.reading is not Reading.BAD:
            continue
        if stale(rule, facts.history, facts.now):
            rejected = rejected or "stale-heartbeat"
            continue
        since = facts.since(rule, observation)
        if rule.cordons and facts.in_wave(rule.condition, since):
            rejected = "suspected-detector"
            continue
        when = facts.due(rule)
        assert when is not None
        if when <= facts.now and rule.cordons:
            return _for_is_over(facts, rule, observation, bad)
        if when <= facts.now:
            noted = noted or (rule, observation)
            continue
        due = when if due is None else min(due, when)
        waiting = waiting or (rule, observation, when)
    # The `for` of a worse rule runs on beside what is only to be noted.
    if waiting is not None and (waiting[0].cordons or noted is None):
        return _wait(facts, *waiting, due, bad)
    if noted is not None:
        return replace(_for_is_over(facts, *noted, bad), due=due)
    return _nothing(facts, bad, rejected)


def _for_is_over(
    facts: Facts, rule: Rule, observation: Observation, bad: tuple[tuple[str, str], ...]
) -> Assessment:
    condition = facts.node.conditions[rule.condition]
    since = facts.since(rule, observation)
    seconds = facts.now - since
    reported = f"{rule.condition}={condition.status} ({condition.reason or 'no reason'}) for "
    why = f"{reported}{span(seconds)}" + (f": {condition.message}" if condition.message else "")
    if not rule.cordons:
        return _note(facts, rule, observation, why, bad)
    if facts.state is not None and facts.state.phase is Phase.CANCELLED:
        why += f"; somebody uncordoned it {span(facts.now - facts.state.since)} ago"
    state = lifecycle.cordoned(facts.occurrence(rule, observation), facts.now)
    limited_action = _cordon(facts, state, why)
    return Assessment(
        "wants-cordon",
        why,
        limited_action=limited_action,
        state=facts.state,
        bad=bad,
        since=since,
        due_since=since + rule.for_,
    )


def _cordon(facts: Facts, state: State, why: str) -> Action:
    """state: see Facts.action."""
    how = how_cordoned(facts.node, facts.scope.config.taint)
    return facts.action(Kind.CORDON, state, "Cordoned", f"{how}: {why}")


def _note(
    facts: Facts, rule: Rule, observation: Observation, why: str, bad: tuple[tuple[str, str], ...]
) -> Assessment:
    known = facts.state
    if known is not None and _written_down(facts, known, Phase.NOTED, rule):
        return Assessment("noted", why, state=known, bad=bad)
    state = lifecycle.noted(facts.occurrence(rule, observation), facts.now)
    action = facts.action(Kind.NOTE, state, "ConditionSeen", f"noted: {why}")
    return Assessment("noted", why, action=action, state=known, bad=bad)


def _wait(
    facts: Facts,
    rule: Rule,
    observation: Observation,
    when: float,
    due: float | None,
    bad: tuple[tuple[str, str], ...],
) -> Assessment:
    """A rule's `for` is running; what lasts is written down so that a restart keeps it."""
    does = "acting" if rule.cordons else "noted"
    why = f"{rule.condition}={observation.status}, {does} in {span(when - facts.now)}"
    known = facts.state
    noted = known is not None and _written_down(facts, known, Phase.SEEN, rule)
    write_at = observation.since + NOTE_AFTER
    if noted or not rule.cordons or when <= write_at:
        return Assessment("seen", why, due=due, state=known, bad=bad)
    if write_at > facts.now:
        soonest = write_at if due is None else min(due, write_at)
        return Assessment("seen", why, due=soonest, state=known, bad=bad)
    after = lifecycle.seen(facts.occurrence(rule, observation), facts.now)
    action = facts.action(Kind.NOTE, after, "ConditionSeen", why)
    return Assessment("seen", why, action=action, due=due, state=known, bad=bad)


def _written_down(facts: Facts, known: State, phase: Phase, rule: Rule) -> bool:
    """Whether the annotation says so already: of this rule, or of one about the same that is
    still bad. Written again at each change of a reason it would be a storm of writes and Events.
    """
    if known.phase is not phase or known.condition != rule.condition:
        return False
    if not known.rule:
        return known.status in rule.status and rule.matches_reason(known.reason)
    return any(
        observation.reading is Reading.BAD
        and abs(facts.since(other, observation) - known.first_seen) < 2
        for other in facts.scope.config.rules
        if other.mark == known.rule and other.cordons is rule.cordons
        for observation in (facts.history.observations.get(other.key),)
        if observation is not None
    )


def _nothing(facts: Facts, bad: tuple[tuple[str, str], ...], rejected: str) -> Assessment:
    """No rule asks for anything: an old annotation goes, or stays as the flap count."""
    state = facts.state
    why = {
        "stale-heartbeat": "a bad condition whose detector is silent: ignored",
        "suspected-detector": "many nodes report the same at once: the detector is suspected",
    }.get(rejected, "")
    due = facts.freshness_due()
    if state is None:
        return Assessment("ok" if not bad else "seen", why, due=due, bad=bad, rejected=rejected)
    if rejected and state.phase is not Phase.HEALED:
        return Assessment("seen", why, due=due, state=state, bad=bad, rejected=rejected)
    if _not_observed(facts, state):
        return Assessment("seen", f"{state.condition} is unknown", state=state, bad=bad)
    recent = facts.recent_cordons(state)
    if recent:
        ends = recent[0] + facts.scope.config.recovery.flap_window
        if state.phase is Phase.HEALED and recent == state.cordons:
            return Assessment("healed", why, due=ends, state=state, bad=bad, rejected=rejected)
        after = lifecycle.kept_for_flaps(state, recent)
        action = facts.action(Kind.NOTE, after, "", "")
        return Assessment("healed", why, action=action, state=state, bad=bad, rejected=rejected)
    passed = state.phase in (Phase.SEEN, Phase.NOTED)
    action = facts.action(
        Kind.CLEAR, None, "ConditionPassed" if passed else "", f"{state.condition} passed"
    )
    return Assessment("ok", why, action=action, state=state, bad=bad, rejected=rejected)


def _not_observed(facts: Facts, state: State) -> bool:
    """Whether the noted condition is neither bad nor good now (unknown, or gone)."""
    if state.phase is Phase.HEALED:
        return False
    return any(
        observation is not None and observation.reading in (Reading.UNKNOWN, Reading.ABSENT)
        for rule in facts.scope.config.rules
        if rule.condition == state.condition
        for observation in (facts.history.observations.get(rule.key),)
    )


def _severity(rule: Rule) -> int:
    return ("drain", "cordon", "observe").index(rule.action)
