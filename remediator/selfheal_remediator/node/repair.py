"""What a node calls for after its drain: the steps of its rule's ladder, and `verify`. Pure.

A step is written down before it is begun, and its end when it is known (see controller/repairs.py);
what follows from both is decided here.
"""

from __future__ import annotations

from dataclasses import replace

from selfheal_remediator.config import Config, Rule
from selfheal_remediator.moments import earliest
from selfheal_remediator.node import lifecycle
from selfheal_remediator.node.actions import Kind
from selfheal_remediator.node.annotation import Phase, State
from selfheal_remediator.node.assessment import Assessment
from selfheal_remediator.node.conditions import CLOCK_TOLERANCE, Recovery, stale
from selfheal_remediator.node.drain_request import drain_request
from selfheal_remediator.node.facts import Facts
from selfheal_remediator.node.maintenance import check_group
from selfheal_remediator.node.selection import foreign_mark
from selfheal_remediator.windows import window_open


def begun_step(config: Config, state: State) -> Rule | None:
    """The rule whose step of `then` was begun, None = it says something else by now."""
    rule = config.rule_marked(state.rule)
    if rule is None or not 0 < state.steps <= len(rule.then):
        return None
    return rule if rule.then[state.steps - 1].mark == state.step else None


def step_text(rule: Rule, number: int) -> str:
    """A step (from 1), for people."""
    return f"step {number} of {len(rule.then)} ({rule.then[number - 1].kind})"


def ladder_text(config: Config, state: State) -> str:
    """How far its ladder is, for people; empty = no step was begun."""
    if not state.steps:
        return ""
    rule = begun_step(config, state)
    text = step_text(rule, state.steps) if rule is not None else f"step {state.steps}"
    ended = "failed" if state.step_failed else "succeeded"
    if state.phase is not Phase.REPAIRING:
        return f"{text} was its last"
    return f"{text} is under way" if state.step_runs else f"{text} {ended}"


def must_end_first(config: Config, state: State) -> bool:
    """Whether something is being done to the node, which must end before it is uncordoned.

    A `wait` does nothing to it, nor does a dry run; of a step that the configuration does not
    have any more the end is never known.
    """
    if not state.step_runs or state.phase is not Phase.REPAIRING or config.dry_run:
        return False
    rule = begun_step(config, state)
    return rule is not None and rule.then[state.steps - 1].kind != "wait"


def may_be_uncordoned(config: Config, state: State) -> bool:
    """Whether nothing of the ladder keeps a node that recovered out of service.

    Of what is verified, see `is_verified`.
    """
    if state.phase is Phase.VERIFYING:
        rule = config.rule_marked(state.rule)
        return is_verified(state) or rule is None or rule.verify is None
    return not must_end_first(config, state)


def is_verified(state: State) -> bool:
    """Whether `verify` was passed."""
    return state.phase is Phase.VERIFYING and bool(state.step_ended) and not state.step_failed


def over_at(config: Config, state: State, now: float) -> float:
    """When a step that nobody follows any more is over by its timeout, now = none runs.

    What it made may do its work meanwhile. Of what no clock can have written nothing is known.
    """
    rule = begun_step(config, state) if state.phase is Phase.REPAIRING else None
    if rule is None or not state.step_runs:
        return now
    limit = rule.then[state.steps - 1].limit
    return state.step_began + limit if state.step_began <= now + limit else now


def needs_detached(config: Config, state: State) -> bool:
    """Whether a step is to begin as soon as no volume is attached to the node any more."""
    rule = config.rule_marked(state.rule)
    left = rule is not None and state.steps < len(rule.then)
    return left and state.phase is Phase.DRAINED and not config.dry_run


def assess_repair(facts: Facts, state: State, recovery: Recovery) -> Assessment | None:
    """What is called for by the ladder, None = nothing: there is none, or it is not its turn.

    recovery: when it can be uncordoned; not now, unless something must end first.
    """
    match state.phase:
        case Phase.DRAINED:
            rule = facts.scope.config.rule_marked(state.rule)
            if rule is None or not rule.then or recovery.due is not None:
                return None
            return _held_up(facts, state) or _first_step(facts, state, rule)
        case Phase.REPAIRING:
            return _repairing(facts, state, recovery)
        case Phase.VERIFYING:
            return _verifying(facts, state, recovery)
        case Phase.REPAIR_FAILED:
            why = "could not be verified" if state.unverified else "not repaired by its ladder"
            return _stands(facts, state, f"{why}: it is left to a person", recovery.due)
        case _:
            return None


def _first_step(facts: Facts, state: State, rule: Rule) -> Assessment:
    """Of a node that is drained: not before its volumes are detached."""
    if not needs_detached(facts.scope.config, state):
        return _next(facts, state, rule)  # or nothing is left
    attached = facts.scope.attached.get(facts.node.uid)
    if attached is None:
        return _stands(facts, state, "drained; its volumes are read before its first step")
    if not attached.readable:
        text = "drained; no step begins, as VolumeAttachments cannot be read"
        return _stands(facts, state, text)
    if not attached.text:
        return _next(facts, state, rule)
    # It may have waited for long before, for its turn or for a person.
    over_at = attached.since + facts.scope.config.drain.detach_timeout
    if over_at <= facts.now:
        return _failed(facts, state, f"still attached to it: {attached.text}")
    return _stands(facts, state, f"waiting until detached: {attached.text}", over_at)


def _repairing(facts: Facts, state: State, recovery: Recovery) -> Assessment:
    config = facts.scope.config
    rule = begun_step(config, state)
    if rule is None:
        why = f"step {state.steps} was begun, and is not in the configuration any more"
        return _failed(facts, state, why)
    text = step_text(rule, state.steps)
    if state.step_runs:
        found = _stands(facts, state, f"{text} is under way")
        return replace(found, recovering=recovery.due is not None)
    if recovery.due is not None:
        return _stands(facts, state, f"{text} has ended; {recovery.why}", recovery.due)
    if not state.step_failed:
        over_at = state.step_ended + rule.then[state.steps - 1].settle
        if over_at > facts.now:
            why = f"{text} succeeded; waiting for recovery: {recovery.why}"
            return _stands(facts, state, why, over_at)
        if not _reported_since(facts, state, rule):
            return _unreported(facts, state, rule, text)
    return _held_up(facts, state) or _next(facts, state, rule)


def _reported_since(facts: Facts, state: State, rule: Rule) -> bool:
    """Whether the step can be seen not to have helped: the condition was written after it.

    By its writer's clock, or by a change that we observed. A node that is not Ready shows it too.
    """
    heartbeat = facts.history.heartbeats.get(rule.condition)
    if rule.max_heartbeat_age is None or heartbeat is None or not facts.node.ready:
        return True
    moments = [moment for moment in (heartbeat.value, heartbeat.changed) if moment is not None]
    latest = facts.now + CLOCK_TOLERANCE
    return any(state.step_ended <= moment <= latest for moment in moments)


def _unreported(facts: Facts, state: State, rule: Rule, text: str) -> Assessment:
    """No step begins by what was known before the last one, which may have helped."""
    silent = stale(rule, facts.history, facts.now)
    why = f"{text} succeeded; {rule.condition} was not reported since"
    if silent:
        why += f": its detector is silent, restart it on {facts.node.name}"
    found = _stands(facts, state, why)
    return replace(found, rejected="stale-heartbeat" if silent else "", yields=silent)


def _verifying(facts: Facts, state: State, recovery: Recovery) -> Assessment:
    rule = facts.scope.config.rule_marked(state.rule)
    failed = bool(state.step_ended) and state.step_failed
    if failed and (rule is None or state.steps >= len(rule.then)):
        return _failed(facts, state, "it recovered, and could not be verified", unverified=True)
    if failed or recovery.due is None:
        after = lifecycle.not_verified(state, facts.now, failed=failed)
        why = "not verified" if failed else f"bad again while it was verified: {recovery.why}"
        action = facts.action(Kind.NOTE, after, "VerifyEnded", f"{why}; it stays out of service")
        return Assessment("verifying", why, action=action, state=state, bad=facts.bad())
    why = "verified" if state.step_ended else "being verified before it is uncordoned"
    due = recovery.due if recovery.due > facts.now else None  # then only its end is waited for
    return _stands(facts, state, f"{why}; {recovery.why}", due)


def _next(facts: Facts, state: State, rule: Rule) -> Assessment:
    """The next step, or the end of the ladder.

    Where a person must uncordon the node (maxFlaps), nothing shows whether a step helped.
    """
    number, flaps = state.steps + 1, len(facts.recent_cordons(state))
    if _flapped(facts, state):
        return _failed(facts, state, f"it was cordoned {flaps} times, a person must decide")
    if number > len(rule.then):
        return _failed(facts, state, f"all {len(rule.then)} steps for {state.condition} were run")
    step = rule.then[number - 1]
    after = lifecycle.repairing(state, step.mark, facts.node.boot_id, facts.now)
    text = f"{step_text(rule, number)} begins, for {state.condition}"
    action = facts.action(Kind.REPAIR, after, "RepairStepStarted", text)
    found = _stands(facts, state, f"{step_text(rule, number)} is to begin")
    waits, changes = _waits_for_its_group(facts)
    due = earliest(found.due, changes)
    return replace(found, limited_action=action, due=due, yields=waits)


def _flapped(facts: Facts, state: State) -> bool:
    """Whether only a person uncordons it, as it was cordoned too often."""
    return len(facts.recent_cordons(state)) >= facts.scope.config.recovery.max_flaps


def _waits_for_its_group(facts: Facts) -> tuple[bool, float | None]:
    """Whether its group lets no step begin now, and when that changes."""
    group = facts.scope.config.group_of(facts.node.labels)
    if group is None:
        return False, None
    opening = window_open(group.maintenance_windows, facts.now)
    return check_group(group, Kind.REPAIR, opening) is not None, opening.change


def _failed(facts: Facts, state: State, why: str, *, unverified: bool = False) -> Assessment:
    after = lifecycle.repair_failed(state, facts.now, unverified=unverified)
    text = (
        f"not repaired: {why}; it stays out of service until it recovers: repair it, or "
        f"`selfheal-remediator uncordon {facts.node.name}`"
    )
    if unverified or _flapped(facts, state):
        text = text.replace("until it recovers: repair it, or", "until you uncordon it:")
    action = facts.action(Kind.NOTE, after, "RepairFailed", text)
    return Assessment(state.phase.value, why, action=action, state=state, bad=facts.bad())


def _held_up(facts: Facts, state: State) -> Assessment | None:
    """A person works on the node, who requested its drain, or another system is changing it: no
    step begins beside them."""
    request = drain_request(facts.node)
    if request is not None and request.keeps(facts.now):
        return replace(_stands(facts, state, request.text, request.until), yields=True)
    mark = foreign_mark(facts.node, facts.scope.marks)
    if not mark:
        return None
    return replace(_stands(facts, state, mark), standing="cordoned-foreign", yields=True)


def _stands(facts: Facts, state: State, why: str, due: float | None = None) -> Assessment:
    """Nothing is called for now."""
    return Assessment(
        state.phase.value,
        why,
        due=due if due is not None else facts.freshness_due(),
        state=state,
        bad=facts.bad(),
        since=float(state.since),
    )
