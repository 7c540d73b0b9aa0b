"""One change of one node, as it was decided. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from selfheal_remediator.node.annotation import State


class Kind(Enum):
    """What an action does; the value is the bounded label for metrics."""

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


def same_purpose(asked: Action, action: Action) -> bool:
    """Whether what is called for now is what was decided before: for another condition, or with
    another action, it is decided again."""
    if asked.kind is not action.kind:
        return False
    if action.kind not in (Kind.CORDON, Kind.DRAIN) or asked.state is None or action.state is None:
        return True
    return (asked.state.condition, asked.state.action) == (
        action.state.condition,
        action.state.action,
    )
