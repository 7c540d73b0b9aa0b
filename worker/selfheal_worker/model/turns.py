"""Who has a model's turn, and who waits for one, first come first served.

`Limits` decides when there is a turn. A call whose provider sends more than one request (after a
parameter was refused, say) has its further requests counted by `next_request`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Protocol

from selfheal_worker.model.errors import TransientError
from selfheal_worker.runtime import LONGEST_WAIT, REAL, Condition


class GivesTurns(Protocol):
    """What a turn is from (`Limits`)."""

    def end(self, turn: Turn, error: BaseException | None) -> None:
        """A turn is over; error: what ended its block, if anything was raised there."""

    def next_request(self, turn: Turn, deadline: float, pause: float | None) -> None:
        """Wait until another request of a turn may be sent. Raises `TransientError`."""

    def pause(self, seconds: float) -> None:
        """Give no turns for so long, as the server requested."""


class Turn:
    """One turn. Its `with` block waits for it, and the calls that are made in the block have it.

    sent_at: when its latest request was sent. ended: it is over, though a library's thread may
    still run. given_up: whether nobody waits for the call any more.
    """

    # A class: each message has one, and a generator's context manager takes three times as long.
    __slots__ = ("_token", "_wait", "ended", "given_up", "limits", "sent_at")

    def __init__(
        self, limits: GivesTurns, wait: Callable[[], float], given_up: Callable[[], bool]
    ) -> None:
        """wait: waits for the turn, and returns when it began."""
        self.limits = limits
        self.given_up = given_up
        self.ended = False
        self._wait = wait

    def __enter__(self) -> None:
        self.sent_at = self._wait()
        self._token = _HELD.set(self)

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self.ended = True
        _HELD.reset(self._token)
        self.limits.end(self, error)


_HELD: ContextVar[Turn | None] = ContextVar("turn", default=None)


def next_request(
    deadline: float, pause: float | None = None, now: Callable[[], float] = REAL.monotonic
) -> None:
    """Wait until the call may send another request, which counts in the model's limits.

    pause: seconds that the server requested with its answer to the request before, if any; now: the
    deadline's clock. Raises `LimitedError` where the limits allow none before the deadline, and
    `TransientError` where that has passed. A call without a turn has no limits but its deadline.
    """
    turn = _HELD.get()
    if turn is not None:
        turn.limits.next_request(turn, deadline, pause)
    elif now() >= deadline:
        raise TransientError("no time is left for the call")


def keep_pause(seconds: float | None) -> None:
    """Have a pause kept that came with the answer to a request whose answer nobody else reads."""
    if seconds is not None and (turn := _HELD.get()) is not None:
        turn.limits.pause(seconds)


class TurnQueue:
    """Who waits for a turn, in the order of arrival. All methods are for who has the lock.

    The first, and the calls that have a turn and send another request, wait for `changed`; each of
    the others waits for its own place to become the first.
    """

    def __init__(self, condition: Callable[[], Condition]) -> None:
        """condition: makes one, of the lock."""
        self._condition = condition
        self._changed = condition()
        self._places: deque[Condition] = deque()
        #: Calls that have a turn and wait until they may send another request: they come first.
        self.further = 0

    def __len__(self) -> int:
        """How many wait."""
        return len(self._places)

    def join(self) -> Condition:
        """A place at the end."""
        place = self._condition()
        self._places.append(place)
        return place

    def is_next(self, place: Condition | None) -> bool:
        """Whether nobody came before; None: of who has no place."""
        return not self._places if place is None else self._places[0] is place

    def wait(self, place: Condition, until: float, deadline: float, now: float) -> None:
        """Wait until something changed for this place; the first also wakes at `until`."""
        if self.is_next(place):
            self.wait_for_change(min(until, deadline) - now)
        else:
            place.wait(_waitable(deadline - now))

    def wait_for_change(self, seconds: float) -> None:
        """Wait until something changes, for at most so long: the first, and `further` calls."""
        self._changed.wait(_waitable(seconds))

    def leave(self, place: Condition) -> None:
        """Give up a place; the next one checks whether there is a turn."""
        was_first = self.is_next(place)
        self._places.remove(place)
        if was_first and self._places:
            self._places[0].notify()

    def wake_first(self) -> None:
        """Have the first check whether there is a turn."""
        if self._places or self.further:
            self._changed.notify_all()

    def wake_all(self) -> None:
        """Have everybody check whether they still wait."""
        self._changed.notify_all()
        for place in self._places:
            place.notify()


def _waitable(seconds: float) -> float:
    """As a lock takes it: it refuses infinity."""
    return min(max(0.0, seconds), LONGEST_WAIT)
