"""Whether this process may change anything now: its term of leadership, and what stops it. Pure.

Only the main thread writes it. The threads that send requests read it: what was begun in one term
is not sent in the next, nor what was waiting to be sent when everything was stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from selfheal_remediator.kube.lease import PAUSE_KEY, Stop
from selfheal_remediator.node.actions import Kind


@dataclass(slots=True)
class Authority:
    """See the module."""

    leading: bool = False
    #: Counts terms of leadership; what was asked in one is not heard or done in the next.
    term: int = 0
    #: Counts the times that everything was stopped (a pause, an uninstall, another mode, another
    #: remediator that comes first): what waits for its turn to be sent meanwhile is not sent.
    stops: int = 0
    #: Why nothing new is begun, as a human says; empty = it is not paused.
    paused: str = ""
    #: Until when nothing at all is changed: an uninstall is under way.
    stopped_until: float = 0.0
    #: Why nothing new is begun now, beside a pause; empty = it may be.
    unhealthy: str = ""
    #: The remediator that comes before us; None = not known yet, and then nothing is done.
    first: str | None = None
    _stop: Stop = field(default_factory=Stop)

    def begin_term(self, *, leading: bool) -> None:
        """The process leads from now on, or does not."""
        self.leading, self.first = leading, None
        self.term += 1

    @property
    def responsible(self) -> bool:
        """Whether what happens to the nodes is this process's doing: it leads, and as far as is
        known no other remediator comes first."""
        return self.leading and not self.first

    def read_pause(self, annotations: Mapping[str, str]) -> bool:
        """What the Lease says of a pause; returns whether that has changed."""
        paused = annotations.get(PAUSE_KEY, "")
        if PAUSE_KEY in annotations and not paused:
            paused = "no reason given"
        changed = paused != self.paused
        self.paused = paused
        self.stops += changed
        return changed

    def read_stop(self, annotations: Mapping[str, str], now: float) -> bool:
        """What the Lease says of an uninstall; returns whether one begins now."""
        until = self._stop.read(annotations, now)
        begins = until != self.stopped_until and until > now
        self.stopped_until = until
        self.stops += begins
        return begins

    def may_have_been_paused(self) -> None:
        """A pause may have begun and ended unobserved."""
        self.stops += 1

    def comes_first(self, first: str) -> None:
        """The remediator that comes before us, empty = none."""
        self.stops += bool(first) and first != self.first
        self.first = first

    def may_act(self, now: float) -> bool:
        """Whether a leader may do its work: no other remediator comes first, nothing is stopped."""
        return self.first == "" and now >= self.stopped_until

    def may_send(self, kind: Kind, now: float, stops: int | None = None) -> bool:
        """Whether this change of a node may be sent now. stops: as many as when it was ordered."""
        if now < self.stopped_until:
            return False
        stopped = self.paused or self.unhealthy or stops not in (None, self.stops)
        return not (kind.limited and stopped)
