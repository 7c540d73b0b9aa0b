"""What one node calls for by itself, from what is known and `now`. Pure: no clock, no I/O.

The limits over all nodes are the planner's; carrying out and reporting is the controller's.
"""

from __future__ import annotations

from dataclasses import replace

from selfheal_remediator.kube.objects import Node
from selfheal_remediator.node import lifecycle, repair
from selfheal_remediator.node.actions import Kind
from selfheal_remediator.node.annotation import (
    EXCLUDE_KEY,
    STATE_KEY,
    Phase,
    State,
    Unreadable,
    read_state,
)
from selfheal_remediator.node.assessment import Assessment, Scope
from selfheal_remediator.node.conditions import NodeHistory
from selfheal_remediator.node.cordoned_node import assess_cordoned, assess_orphaned
from selfheal_remediator.node.drain_request import drain_request
from selfheal_remediator.node.facts import Facts
from selfheal_remediator.node.free_node import assess_free
from selfheal_remediator.node.taints import is_cordoned


def assess(node: Node, history: NodeHistory, scope: Scope, now: float) -> Assessment:
    """What the node calls for by itself."""
    scope = scope.of(node)
    if node.deleting:
        return Assessment("deleting", "the node is being deleted")
    try:
        state = read_state(node)
    except Unreadable as error:
        return Assessment("unreadable", f"annotation {STATE_KEY}: {error}; left alone")
    if state is not None and state.by != scope.owner:
        if scope.gone(state.by):
            cordoned = state.phase.cordoned and is_cordoned(node, state)
            # Else nothing that it says counts any more.
            state = state if cordoned else lifecycle.void(scope.owner)
        elif state.phase is not Phase.HEALED:
            return Assessment("foreign", f"managed by another remediator, {state.by}")
    if EXCLUDE_KEY in node.annotations:
        ours = state if state is not None and state.by == scope.owner else None
        why, request = f"excluded: {node.annotations[EXCLUDE_KEY]}", drain_request(node)
        if request is not None:
            why += f"; not done: {request.text}"
        over_at = repair.over_at(scope.config, ours, now) if ours is not None else now
        due = over_at if over_at > now else None
        return Assessment("excluded", why, state=ours, due=due, yields=due is None)
    facts = Facts(node, history, scope, state, now)
    return _by_phase(facts) if state is None or state.by != scope.owner else _of_ours(facts, state)


def _of_ours(facts: Facts, state: State) -> Assessment:
    """What its annotation has of no clock is corrected there before anything that a limit holds
    up: a time that is counted from now would never be over."""
    corrected = lifecycle.with_credible_times(state, facts.now)
    if corrected is state:
        return _by_phase(facts)
    found = _by_phase(replace(facts, state=corrected))
    if found.action is not None:
        return found
    text = "times in its annotation that are to come count from now"
    note = facts.action(Kind.NOTE, corrected, "", text)
    return replace(found, state=state, action=note, limited_action=None)


def _by_phase(facts: Facts) -> Assessment:
    """By what was done to the node before."""
    state = facts.state
    if state is None or not state.phase.cordoned:
        return assess_free(facts)
    if state.by != facts.scope.owner:
        return assess_orphaned(facts, state)
    return assess_cordoned(facts, state)
