"""The time of one text: its calls' deadline, and how long it may wait for turns before them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Protocol

from selfheal_worker.model.limits import Limits
from selfheal_worker.model.turns import Turn

#: How long a text waits for turns of its model, by default.
LONGEST_TURN_WAIT = 300.0
# Where another model can answer instead of one that is overloaded.
_SHORT_WAIT = 1.0


class Watched(Protocol):
    """What others see of a text that is being analysed; written by the thread that analyses it.

    due: when its call must have ended (`time.monotonic()`), infinity while it waits for a turn.
    waited: seconds that it waited in all. given_up: set by others; a wait for a turn ends then.
    """

    due: float
    waited: float
    given_up: bool


class Unwatched:
    """For a text whose time nobody else reads."""

    due: float = math.inf
    waited: float = 0.0
    given_up: bool = False


class CallTime:
    """For one thread. deadline moves while the text waits for a turn; now: its clock.

    wait: seconds that it may wait for turns, at most `LONGEST_TURN_WAIT` where that is None. whole:
    the time of which this is a part, with other parts after it unless it is the last.
    """

    def __init__(
        self,
        deadline: float,
        watched: Watched,
        *,
        now: Callable[[], float],
        wait: float | None = None,
        whole: CallTime | None = None,
        last: bool = True,
    ) -> None:
        self.deadline = deadline
        self._now = now
        self.seconds = max(0.0, deadline - now())
        self.wait = LONGEST_TURN_WAIT if wait is None else wait
        self._last = last
        self._watched = watched
        self._whole = whole
        watched.due = deadline

    def left(self) -> float:
        """Seconds until the deadline; 0 or less where it has passed."""
        return self.deadline - self._now()

    def part(self, deadline: float, *, last: bool) -> CallTime:
        """The part of one model, which ends at deadline; with others to be asked after it, unless
        it is the last, it waits for no longer than it may take."""
        seconds = max(0.0, deadline - self._now())
        wait = self.wait if last else min(self.wait, seconds)
        made = CallTime(deadline, self._watched, wait=wait, whole=self, last=last, now=self._now)
        self._watched.due = self.deadline
        return made

    def turn(self, limits: Limits) -> Turn:
        """Wait for a turn, and have it for the block. Raises `LimitedError`.

        A pause of the server is waited for no longer than a call may take, and an overloaded server
        only for a moment where another model can answer.
        """
        return Turn(limits, partial(self._wait_for_turn, limits), self._is_given_up)

    def _wait_for_turn(self, limits: Limits) -> float:
        begun = self._now()
        self._watched.due = math.inf
        shorter = not self._last and limits.lowered
        wait = min(self.wait, _SHORT_WAIT) if shorter else self.wait
        try:
            return limits.enter(begun + wait, self.seconds, self._is_given_up)
        finally:
            self._passed(self._now() - begun)

    def _is_given_up(self) -> bool:
        return self._watched.given_up

    def refused(self, begun: float) -> None:
        """A call that began then was refused as one too many: its time was spent waiting."""
        self._passed(min(self.wait, self._now() - begun))

    def _passed(self, seconds: float) -> None:
        part: CallTime | None = self
        due = self.deadline
        while part is not None:
            part.deadline += seconds
            part.wait = max(0.0, part.wait - seconds)
            due, part = part.deadline, part._whole
        self._watched.waited += seconds
        self._watched.due = due
