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
    REPAIR = "repair"

    @property
    def limited(self) -> bool:
        """Whether the limits hold it up, and a pause: it takes a node out, or changes it."""
        return self in (Kind.CORDON, Kind.DRAIN, Kind.REPAIR)


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


def same_purpose(called_for: Action, decided: Action) -> bool:
    """Whether what is called for now is what was decided before: for another condition, or with
    another action, it is decided again."""
    if called_for.kind is not decided.kind:
        return False
    if not decided.kind.limited or called_for.state is None or decided.state is None:
        return True
    one, other = called_for.state, decided.state
    return (one.condition, one.action, one.steps, one.step) == (
        other.condition,
        other.action,
        other.steps,
        other.step,
    )
