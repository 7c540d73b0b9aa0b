"""The conditions by which a node's status says that we drain it, or have drained it. Pure.

DrainInProgress and Drained are Kubernetes 1.37's (KEP-5683, kubernetes/enhancements): who drains a
node writes them and takes them back, by `False` or by removing them; nobody owns them, the last
one who writes counts. Nothing follows from them here: what a node is in is its annotation.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.node.annotation import (
    EXCLUDE_KEY,
    STATE_KEY,
    Phase,
    State,
    known_state,
)
from selfheal_remediator.strict import LIFECYCLE_CONDITIONS

Json = dict[str, Any]
#: Type -> (status, reason). By its reason we know what we wrote.
Conditions = Mapping[str, tuple[str, str]]

STRATEGIC = "application/strategic-merge-patch+json"
IN_PROGRESS, DRAINED = LIFECYCLE_CONDITIONS
_REASONS = ("SelfhealDraining", "SelfhealDrained")
_NONE: Conditions = MappingProxyType({})
_WHILE_DRAINING: Conditions = MappingProxyType(
    {IN_PROGRESS: ("True", _REASONS[0]), DRAINED: ("False", _REASONS[0])}
)
_ONCE_DRAINED: Conditions = MappingProxyType(
    {IN_PROGRESS: ("False", _REASONS[1]), DRAINED: ("True", _REASONS[1])}
)


def changes(node: Node, owner: str, now: float) -> list[Json]:
    """What is to be written of the node's conditions, for a strategic merge patch; empty = nothing.

    What others wrote is replaced when we drain the node, and is else left as it is, as is all of a
    node that is excluded, or is another remediator's.
    """
    state = known_state(node)
    if node.deleting or EXCLUDE_KEY in node.annotations:
        return []
    if STATE_KEY in node.annotations and (state is None or state.by != owner):
        return []
    return _differences(node, state, _wanted(node, state), now)


def removals(node: Node) -> list[Json]:
    """What removes all that we wrote: as `changes`."""
    return _differences(node, None, _NONE, 0.0)


def status_patch(node: Node, conditions: list[Json]) -> Json:
    """The patch of this node, in this version."""
    guard = {"uid": node.uid, "resourceVersion": node.version}
    return {"metadata": guard, "status": {"conditions": conditions}}


def _wanted(node: Node, state: State | None) -> Conditions:
    phase = state.phase if state is not None else None
    if phase is Phase.DRAINING:
        return _WHILE_DRAINING
    if phase in (Phase.DRAINED, Phase.REPAIRING):
        return _ONCE_DRAINED
    # These two may follow a drain, or its interruption: it is as was written before.
    known = node.conditions.get(DRAINED)
    drained = known is not None and (known.status, known.reason) == _ONCE_DRAINED[DRAINED]
    later = phase in (Phase.VERIFYING, Phase.REPAIR_FAILED)
    return _ONCE_DRAINED if later and drained else _NONE


def _differences(node: Node, state: State | None, wanted: Conditions, now: float) -> list[Json]:
    found: list[Json] = []
    for kind in LIFECYCLE_CONDITIONS:
        known, as_wanted = node.conditions.get(kind), wanted.get(kind)
        if as_wanted is None:
            ours = known is not None and known.reason in _REASONS
            found += [{"$patch": "delete", "type": kind}] if ours else []
        elif known is None or (known.status, known.reason) != as_wanted:
            found.append(_condition(kind, as_wanted, state, now))
    return found


def _condition(kind: str, as_wanted: tuple[str, str], state: State | None, now: float) -> Json:
    status, reason = as_wanted
    about = f"by the remediator {state.by}, for {state.condition}" if state is not None else ""
    moment = time_text(now)
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": about,
        "lastTransitionTime": moment,
        "lastHeartbeatTime": moment,
    }
