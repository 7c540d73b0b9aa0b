"""The end of a worker, as a state machine. Pure: it is given the time.

Running, until a signal asks for the end. Finishing: nothing new is taken, what handlers work on is
finished. Requeueing: the grace period is over, what is left goes back to the queue. Closing: the
connection is being closed.
"""

from __future__ import annotations

import math
from enum import Enum

# How long after the grace period the requeueing of what is left may take, in seconds.
REQUEUE_PATIENCE = 2.0


class ShutdownPhase(Enum):
    """How far the end has come."""

    RUNNING = "running"
    FINISHING = "finishing"
    REQUEUEING = "requeueing"
    CLOSING = "closing"


class Shutdown:
    """`request` is for signal handlers, `requested` for any thread, the rest for the link's.

    grace: seconds to finish what is in flight. Times are the caller's clock, in seconds.
    """

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._requests = 0
        self._deadline = math.inf
        self.phase = ShutdownPhase.RUNNING

    def request(self) -> None:
        """Ask for the end; a second time: without the grace period.

        It only counts, for the next tick to see: to wake the loop would take a lock, which the
        thread that the signal came to may hold.
        """
        self._requests += 1

    @property
    def requested(self) -> bool:
        """Whether the worker is to end. It may still be running: no tick has seen the request."""
        return self._requests > 0

    def begin(self, now: float) -> bool:
        """The loop has seen the request; whether the end begins by that.

        A second request, seen later, ends the grace period.
        """
        begins = self.phase is ShutdownPhase.RUNNING
        if begins:
            self.phase = ShutdownPhase.FINISHING
            self._deadline = now + self._grace
        if self._requests > 1:
            self._deadline = min(self._deadline, now)
        return begins

    def advance(self, now: float, *, done: bool) -> ShutdownPhase:
        """The phase from now on; done: nothing is left to be settled, or nothing can be."""
        if self.phase in (ShutdownPhase.FINISHING, ShutdownPhase.REQUEUEING):
            late = now - self._deadline
            if done or late >= REQUEUE_PATIENCE:
                self.phase = ShutdownPhase.CLOSING
            elif late >= 0:
                self.phase = ShutdownPhase.REQUEUEING
        return self.phase
