"""Cordoned nodes whose pods fitted nowhere else: what later checks found. Pure.

While there is no room nothing is written on the node, and its drain takes no slot. This is not
kept beyond the process: the next leader checks again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from selfheal_remediator.node.annotation import State

#: Seconds after which it is checked again whether a cordoned node's pods fit elsewhere. For so
#: long also counts that they do.
ROOM_AGAIN_AFTER = 60.0


@dataclass(frozen=True, slots=True)
class RoomCheck:
    """What a check came to. at: seconds since the epoch. fits: the pods fit elsewhere."""

    at: float
    fits: bool

    @property
    def until(self) -> float:
        """When it is to be checked again."""
        return self.at + ROOM_AGAIN_AFTER


def next_check(state: State, checked: RoomCheck | None, now: float) -> float | None:
    """When it is to be checked whether the node's pods fit elsewhere; None = it need not be: they
    do fit, or it is not known that they did not."""
    if not 0 < state.no_room <= now:
        # One that is to come was written by a clock that was ahead: it tells nothing.
        return None
    if checked is None or checked.at > now:
        return state.no_room + ROOM_AGAIN_AFTER
    if checked.fits and now < checked.until:
        return None
    return max(checked.until, state.no_room + ROOM_AGAIN_AFTER)


class RoomChecks:
    """What was found, and which nodes (uids) are to be checked now."""

    def __init__(self) -> None:
        #: None = nobody checks, and it is left to the drains. Replaced, never changed: other
        #: threads read it.
        self.found: Mapping[str, RoomCheck] | None = None
        #: In the order in which they came.
        self._wanted: dict[str, None] = {}

    def assessed(self, uid: str, *, wanted: bool) -> None:
        """The node calls for a check, or does not."""
        if wanted:
            self._wanted.setdefault(uid)
        else:
            self._wanted.pop(uid, None)

    def take(self) -> str | None:
        """The node to be checked next."""
        uid = next(iter(self._wanted), None)
        self._wanted.pop(uid or "", None)
        return uid

    def checked(self, uid: str, check: RoomCheck) -> None:
        """What is older than any check that counts is forgotten."""
        found = self.found or {}
        kept = {other: one for other, one in found.items() if one.until >= check.at}
        self.found = {**kept, uid: check}

    def forget(self, uid: str) -> None:
        """The node is gone."""
        self._wanted.pop(uid, None)
        if self.found and uid in self.found:
            self.found = {other: one for other, one in self.found.items() if other != uid}
