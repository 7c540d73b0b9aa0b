"""What a cordoned node calls for: to be drained, to be uncordoned, or to wait. Pure."""

from __future__ import annotations

from dataclasses import replace

from selfheal_remediator.config import PODS_HUNG
from selfheal_remediator.moments import earliest
from selfheal_remediator.node import lifecycle, repair
from selfheal_remediator.node.actions import Action, Kind
from selfheal_remediator.node.annotation import Phase, State
from selfheal_remediator.node.assessment import Assessment
from selfheal_remediator.node.conditions import Reading, Recovery, recovery, stale
from selfheal_remediator.node.drain_request import DRAIN_REQUESTED, drain_request
from selfheal_remediator.node.facts import Facts
from selfheal_remediator.node.maintenance import check_started_drain
from selfheal_remediator.node.room_checks import RoomCheck, next_check
from selfheal_remediator.node.selection import foreign_mark, selected
from selfheal_remediator.node.skip_reason import SkipReason
from selfheal_remediator.node.spans import span
from selfheal_remediator.node.taints import is_cordoned
from selfheal_remediator.node.uncordons import uncordoned_by_controller


def assess_orphaned(facts: Facts, state: State) -> Assessment:
    """Cordoned by one that has no live Lease: a human says what becomes of it."""
    why = (
        f"cordoned for {state.condition} by the remediator {state.by}, which no longer "
        f"exists: `selfheal-remediator uncordon {facts.node.name}` uncordons it"
    )
    if state.reported:
        return Assessment("foreign", why, bad=facts.bad())
    after = lifecycle.orphaned(state, facts.now)
    action = facts.action(Kind.NOTE, after, "CordonOrphaned", why)
    return Assessment("foreign", why, action=action, bad=facts.bad())


def assess_cordoned(facts: Facts, state: State) -> Assessment:
    """Cordoned by us."""
    if not is_cordoned(facts.node, state):
        return _cancel(facts, state)
    busy = repair.must_end_first(facts.scope.config, state)
    if not busy and not selected(facts.node, facts.scope.config):
        return _uncordon(facts, state, "it is no longer among the selected nodes")
    if not busy and facts.in_wave(state.condition, state.first_seen):
        why = f"many nodes report {state.condition} at once: the detector is suspected"
        after = lifecycle.suspect(state, facts.now)
        action = facts.action(Kind.UNCORDON, after, "DetectorSuspected", f"uncordoned: {why}")
        return Assessment("uncordoning", why, action=action, state=state)
    due, why = _recovery(facts, state)
    if state.unverified:
        due, why = None, "it recovered, and could not be verified"
    stopped, changes = _check_started_drain(facts, state)
    decided = _before_drains(facts, state, Recovery(due, why), stopped)
    if decided is not None:
        return decided
    # But for the stabilization window: it is not emptied, as it is about to be uncordoned.
    recovered = due is not None
    limited_action, checks_room = None, False
    mark = foreign_mark(facts.node, facts.scope.marks)
    drain_at = _drain_at(facts, state)
    if state.phase is Phase.CORDONED and drain_at is not None and not (mark or recovered):
        if state.no_room:
            why = f"{why}; not drained: no room elsewhere for its pods"
        limited_action, checks_room, due = _drain_when(facts, state, drain_at)
    silent = _silent_cause(facts, state)
    why = silent or why
    standing = "cordoned-foreign" if mark else state.phase.value
    return Assessment(
        standing,
        mark or why,
        limited_action=limited_action,
        due=earliest(
            due if due is not None else facts.freshness_due(), changes, _request_ends(facts)
        ),
        state=state,
        bad=facts.bad(),
        since=float(state.since),
        rejected="stale-heartbeat" if silent else "",
        # What hung pods show is over as soon as the first of them have left the node.
        recovering=recovered and state.condition != PODS_HUNG,
        checks_room=checks_room,
    )


def _check_started_drain(facts: Facts, state: State) -> tuple[SkipReason | None, float | None]:
    """Why the drain that is under way must not continue (None = it may, or there is none), and
    when that changes."""
    group = facts.scope.config.group_of(facts.node.labels)
    if group is None or state.phase is not Phase.DRAINING:
        return None, None
    return check_started_drain(group, facts.now)


def _request_ends(facts: Facts) -> float | None:
    """When the request of a drain is over by time."""
    request = drain_request(facts.node)
    return request.until if request is not None and request.keeps(facts.now) else None


def _before_drains(
    facts: Facts, state: State, found: Recovery, stopped: SkipReason | None
) -> Assessment | None:
    """What comes before any drain: the end of the cordon, the ladder, an interruption."""
    ends = repair.may_be_uncordoned(facts.scope.config, state)
    if found.due is not None and found.due <= facts.now and ends:
        return _recovered(facts, state, found.why)
    of_ladder = repair.assess_repair(facts, state, found)
    if of_ladder is not None or stopped is None:
        return of_ladder
    why = f"the drain is interrupted: {stopped.text}"
    after = lifecycle.interrupted(state)
    action = facts.action(Kind.NOTE, after, "DrainInterrupted", why)
    return Assessment("cordoned", why, action=action, state=state, bad=facts.bad())


def _silent_cause(facts: Facts, state: State) -> str:
    """That what the node is cordoned for is bad by a writer that is silent; empty = it is not.

    It stays cordoned: that nothing is heard of a fault is no recovery.
    """
    for rule in facts.scope.config.rules:
        observation = facts.history.observations.get(rule.key)
        cause = rule.condition == state.condition and state.status in rule.status
        bad = observation is not None and observation.reading is Reading.BAD
        if cause and bad and stale(rule, facts.history, facts.now):
            return (
                f"{rule.condition} was bad when its detector became silent, so its recovery "
                f"cannot be observed: restart the detector on {facts.node.name}, or "
                f"`selfheal-remediator uncordon {facts.node.name}`"
            )
    return ""


def _drain(facts: Facts, state: State) -> Action:
    after, request = lifecycle.draining(state, facts.now), drain_request(facts.node)
    cause = f"{state.condition}; {request.text}" if request is not None else state.condition
    return facts.action(Kind.DRAIN, after, "DrainStarted", f"draining for {cause}")


def _drain_at(facts: Facts, state: State) -> float | None:
    """When the cordoned node is to be drained, None = not: for its rule, or a worse one."""
    if state.action == "drain" and _still_drains(facts, state):
        return facts.now
    request = drain_request(facts.node)
    if request is not None and request.begins(facts.now):
        return facts.now
    moments = [facts.due(rule) for rule in facts.scope.config.rules if rule.action == "drain"]
    return min((moment for moment in moments if moment is not None), default=None)


def _still_drains(facts: Facts, state: State) -> bool:
    """Whether what it was to be drained for calls for that by the rules of now."""
    config = facts.scope.config
    group = config.group_of(facts.node.labels)
    observed = group is not None and group.mode == "observe"  # that waits, as is reported
    return (
        observed
        or state.condition == DRAIN_REQUESTED
        or any(
            rule.condition == state.condition
            and state.status in rule.status
            and rule.action == "drain"
            for rule in config.rules
        )
    )


def _drain_when(
    facts: Facts, state: State, drain_at: float
) -> tuple[Action | None, bool, float | None]:
    """The drain, if it may begin now; whether to check now that the pods fit elsewhere; and when
    that changes."""
    if drain_at > facts.now:
        return None, False, drain_at
    check_at = _check_at(facts, state)
    if check_at is None:
        return _drain(facts, state), False, _room_until(facts)
    later = check_at > facts.now
    return None, not later, check_at if later else None


def _check_at(facts: Facts, state: State) -> float | None:
    """When to check whether the pods fit elsewhere before the node is drained; None = not."""
    if not facts.scope.config.drain.headroom:
        return None
    check_at = next_check(state, _checked(facts), facts.now)
    left_to_drain = facts.scope.rooms is None and check_at is not None and check_at <= facts.now
    return None if left_to_drain else check_at


def _room_until(facts: Facts) -> float | None:
    """Until when it counts that the pods fit elsewhere."""
    checked = _checked(facts)
    return checked.until if checked is not None and checked.until > facts.now else None


def _checked(facts: Facts) -> RoomCheck | None:
    return (facts.scope.rooms or {}).get(facts.node.uid)


def _cancel(facts: Facts, state: State) -> Assessment:
    # Who removed a taint is written nowhere: it counts as a person.
    controller = "" if state.taint_only else uncordoned_by_controller(facts.node)
    flaps = len(facts.recent_cordons(state))
    if controller and flaps < facts.scope.config.recovery.max_flaps:
        after = lifecycle.seen_again(state)
        message = f"uncordoned by {controller}, which is not a person: it does not cancel"
        action = facts.action(Kind.CANCEL, after, "UncordonedByController", message)
        return Assessment("seen", message, action=action, state=state)
    after = lifecycle.cancelled(state, facts.now)
    how = "its taint was removed" if state.taint_only else "uncordoned"
    message = (
        f"{how} by {controller or 'somebody else'}: this occurrence of {state.condition} "
        f"is over; still bad, it counts again in {span(facts.scope.config.recovery.cancel_for)}"
    )
    action = facts.action(Kind.CANCEL, after, "RemediationCancelled", message)
    return Assessment("cancelled", message, action=action, state=state)


def _recovery(facts: Facts, state: State) -> tuple[float | None, str]:
    """When the node can be uncordoned were nothing to change, and why (not)."""
    settings, request = facts.scope.config.recovery, drain_request(facts.node)
    if request is not None and request.keeps(facts.now):
        return None, request.text
    if state.condition == DRAIN_REQUESTED:
        return _recovery_by_rules(facts, state, "the requested drain is over")
    recent = [moment for moment in state.cordons if moment > facts.now - settings.flap_window]
    if len(recent) >= settings.max_flaps:
        times = f"cordoned {len(recent)} times within {settings.flap_window:g}s"
        return None, f"{times}: a human must uncordon it"
    return _recovery_by_rules(facts, state, f"no rule is about {state.condition} any more")


def _recovery_by_rules(facts: Facts, state: State, why: str) -> tuple[float | None, str]:
    """why: the reason where no rule has one."""
    settings = facts.scope.config.recovery
    due, about = 0.0, state.condition == DRAIN_REQUESTED
    for rule in facts.scope.config.rules:
        observation = facts.history.observations.get(rule.key)
        cause = rule.condition == state.condition and state.status in rule.status
        bad = rule.cordons and observation is not None and observation.reading is Reading.BAD
        if not cause and (not bad or stale(rule, facts.history, facts.now)):
            continue  # what is not believed for a cordon keeps no node either
        about = about or cause
        found = recovery(
            rule if not cause else rule.model_copy(update={"latched": state.latched}),
            facts.node,
            facts.history,
            stabilization_window=settings.stabilization_window,
            reset_stabilization_window=settings.reset_stabilization_window,
            cordoned_boot=state.boot_id,
            now=facts.now,
        )
        if found.due is None:
            return None, found.why
        if found.due >= due:
            due, why = found.due, found.why
    if not about:
        due = max(due, state.since + settings.stabilization_window)
    return due, why


def _recovered(facts: Facts, state: State, why: str) -> Assessment:
    """It is uncordoned, or verified before."""
    rule = facts.scope.config.rule_marked(state.rule)
    if rule is None or rule.verify is None or repair.is_verified(state):
        return _uncordon(facts, state, why)
    if facts.scope.config.dry_run:
        return _uncordon(facts, state, f"{why}; verified ({rule.verify.kind}) before")
    after = lifecycle.verifying(state, facts.node.boot_id, facts.now)
    text = f"verified ({rule.verify.kind}) before it is uncordoned: {why}"
    action = facts.action(Kind.NOTE, after, "VerifyStarted", text)
    return Assessment(state.phase.value, text, action=action, state=state, bad=facts.bad())


def _uncordon(facts: Facts, state: State, why: str) -> Assessment:
    if state.condition == DRAIN_REQUESTED:
        state = replace(state, cordons=state.cordons[:-1])  # a request is no flap
    after = lifecycle.healed(state, facts.now) if facts.recent_cordons(state) else None
    action = facts.action(Kind.UNCORDON, after, "Uncordoned", f"uncordoned: {why}")
    return Assessment("uncordoning", why, action=action, state=state)
