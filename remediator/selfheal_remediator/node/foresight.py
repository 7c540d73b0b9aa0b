"""What nodes will wait for after what is done now, for `plan`, as the planner itself checks it.
Pure."""

from __future__ import annotations

from selfheal_remediator.node.actions import Action, Kind
from selfheal_remediator.node.annotation import Phase
from selfheal_remediator.node.entry import Entry
from selfheal_remediator.node.evaluate import assess
from selfheal_remediator.node.limits import CountedNode
from selfheal_remediator.node.planner import Planner, limited_change
from selfheal_remediator.node.queues import LimitedChange, Urgency
from selfheal_remediator.node.skip_reason import SkipReason


def waiting_drains(planner: Planner, now: float) -> dict[str, SkipReason]:
    """What the drains wait for of the nodes (uids) that are about to be cordoned without them."""
    tally = planner.tally(now)
    found: dict[str, SkipReason | None] = {}
    for uid, entry in planner.entries.items():
        action = entry.pending
        if action is None or action.kind is not Kind.CORDON or action.state is None:
            continue
        if action.state.action == "drain" and action.state.phase is Phase.CORDONED:
            change, _ = limited_change(entry, Kind.DRAIN, action.state)
            found[uid] = planner.check(entry, change, tally, now)
    return {uid: reason for uid, reason in found.items() if reason is not None}


def later_waits(planner: Planner) -> dict[str, SkipReason]:
    """What nodes (uids) whose rule is not due yet will wait for when it is, were nothing else to
    change until then. Those that are due first come first."""
    calls: list[tuple[float, Urgency, Entry, LimitedChange]] = []
    for entry in planner.entries.values():
        at, action = _call(planner, entry)
        if action is not None and action.state is not None:
            change, urgency = limited_change(entry, action.kind, action.state)
            calls.append((at, urgency, entry, change))
    found: dict[str, SkipReason] = {}
    begun: list[tuple[float, CountedNode]] = []
    for at, _, entry, change in sorted(calls, key=lambda call: call[:2]):
        tally = planner.tally(at)
        for when, counted in begun:
            tally.add_cordon(counted, when)
        waits = planner.check(entry, change, tally, at)
        if waits is None:
            begun.append((at, change.node))
        else:
            found[entry.node.uid] = waits
    return found


def _call(planner: Planner, entry: Entry) -> tuple[float, Action | None]:
    """What the node calls for when its rule is due, and when; None = nothing, or it is due."""
    seen, at = entry.assessment, 0.0
    scope = planner.scope()
    while seen.standing == "seen" and seen.due is not None and seen.due > at:
        at = seen.due
        seen = assess(entry.node, entry.history, scope, at)
    return at, seen.limited_action if at else None
