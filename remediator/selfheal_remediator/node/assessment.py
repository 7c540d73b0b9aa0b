"""What one node calls for by itself, and what that is decided from beside the node. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from selfheal_remediator.config import Config
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.node.actions import Action
from selfheal_remediator.node.annotation import State
from selfheal_remediator.node.room_checks import RoomCheck


@dataclass(frozen=True, slots=True)
class Attached:
    """The volumes that are attached to a node: for people, empty = none. since: since when there
    are some, by our clock; readable: False = it is not known whether there are."""

    text: str = ""
    since: float = 0.0
    readable: bool = True


@dataclass(frozen=True, slots=True)
class Assessment:
    """What one node's own facts call for, limits aside.

    action: to be done as it is. limited_action: to be done when the limits have room. due: when to
    evaluate again although nothing changed. standing: one bounded word for metrics; why: for
    people. recovering: it is cordoned, and but for its stabilization window, and a step under way,
    would be uncordoned.
    checks_room: it would be drained if its pods fitted elsewhere by now, which is to be checked.
    yields: nothing continues its ladder until a person, another system or its group lets it: others
    may be repaired in its place.
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
    checks_room: bool = False
    yields: bool = False


@dataclass(frozen=True, slots=True)
class Scope:
    """What an assessment needs beside the node."""

    config: Config
    owner: str
    #: Conditions that came upon many nodes at once -> when the wave began.
    suspects: Mapping[str, float] = field(default_factory=dict)
    #: Names of nodes that another system is changing (see external_claims.py).
    marks: Mapping[str, str] = field(default_factory=dict)
    #: Of drained nodes (uids) whose ladder waits for it.
    attached: Mapping[str, Attached] = field(default_factory=dict)
    #: Other remediators (`namespace/lease`) whose Lease lives; None = not known.
    live: frozenset[str] | None = None
    #: Nodes (uids) whose pods fitted nowhere else, and what was found since; None = that is left
    #: to the drain.
    rooms: Mapping[str, RoomCheck] | None = None

    def of(self, node: Node) -> Scope:
        """The same with the rules of the node's group."""
        config = self.config.for_node(node.labels)
        return self if config is self.config else replace(self, config=config)

    def gone(self, owner: str) -> bool:
        """Whether it is another remediator's name, and that one is known to be there no more."""
        return owner != self.owner and self.live is not None and owner not in self.live
