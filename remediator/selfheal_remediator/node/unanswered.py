"""Changes of nodes whose answer was lost: they may have been made. Pure.

Until the node is read, or the watch shows it as it is since, its change counts as made for the
limits and nothing else is changed there. No thread waits for it meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from selfheal_remediator.backoff import delay_after
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.node.actions import Action

#: Seconds until a read that failed is tried again: first, and longest.
FIRST_RETRY, LONGEST_RETRY = 0.5, 60.0
#: After so many reads that failed it is reported.
REPORTED_AFTER = 4


class Unanswered(ApiFailure):
    """A change was sent and may have been made. version: the node's that it was sent for; the
    server makes the change of exactly this one."""

    def __init__(self, version: int, failure: ApiFailure) -> None:
        super().__init__(failure.status, failure.reason, failure.message)
        self.version, self.failure = version, failure
        self.retry_after = failure.retry_after


def may_be_made(failure: ApiFailure) -> bool:
    """Whether a change that ended so may have been made all the same."""
    return failure.status == 0 or failure.status >= 500


@dataclass(slots=True)
class Doubt:
    """One change whose outcome is not known. reads: how many failed."""

    action: Action
    cause: Unanswered
    reads: int = 0
    read_at: float = 0.0
    reading: bool = True


@dataclass(slots=True)
class Doubts:
    """All of them, by the nodes' uids."""

    _all: dict[str, Doubt] = field(default_factory=dict)

    def begin(self, action: Action, cause: Unanswered) -> Doubt:
        """The answer is missing; the caller reads the node now."""
        made = self._all[action.uid] = Doubt(action, cause)
        return made

    def not_read(self, doubt: Doubt, now: float) -> bool:
        """The node could not be read; returns whether that is to be reported now."""
        doubt.reads += 1
        doubt.reading = False
        doubt.read_at = now + delay_after(doubt.reads, first=FIRST_RETRY, longest=LONGEST_RETRY)
        return self.in_doubt(doubt) and doubt.reads == REPORTED_AFTER

    def due(self, now: float) -> tuple[Doubt, ...]:
        """Those whose nodes are to be read now; they count as being read."""
        found = [
            doubt for doubt in self._all.values() if not doubt.reading and doubt.read_at <= now
        ]
        for doubt in found:
            doubt.reading = True
        return tuple(found)

    def shown(self, uid: str, version: int, *, restored: bool = False) -> Doubt | None:
        """The node was observed in this version; returns the doubt that this resolves.

        A later version shows whether the change was made: it cannot be made any more.
        restored: versions went back, as after a restore of etcd.
        """
        doubt = self._all.get(uid)
        if doubt is None or (version <= doubt.cause.version and not restored):
            return None
        return self._all.pop(uid)

    def in_doubt(self, doubt: Doubt) -> bool:
        """Whether it has not ended."""
        return self._all.get(doubt.action.uid) is doubt

    def end(self, doubt: Doubt) -> bool:
        """The node was read, or is gone; False = it has ended before."""
        if not self.in_doubt(doubt):
            return False
        del self._all[doubt.action.uid]
        return True

    def forget(self, uid: str) -> None:
        """The node is gone."""
        self._all.pop(uid, None)

    def clear(self) -> None:
        """All nodes are read again."""
        self._all.clear()

    @property
    def wake(self) -> float | None:
        """When the next node is to be read."""
        return min((one.read_at for one in self._all.values() if not one.reading), default=None)
