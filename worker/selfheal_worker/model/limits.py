"""How often and how concurrently one model is called, and the pauses that its server requests."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from selfheal_worker.model import adaptive_limit
from selfheal_worker.model.adaptive_limit import AdaptiveLimit
from selfheal_worker.model.errors import BadOutputError, OverloadedError, TransientError
from selfheal_worker.model.turns import Turn, TurnQueue
from selfheal_worker.runtime import REAL, Condition, Runtime


def _never() -> bool:
    """Of a call that nobody gives up."""
    return False


# Even if a server requests no pause, it is not called again at once.
SHORTEST_PAUSE = 0.2


class LimitedError(TransientError):
    """There was no turn before the deadline; retry_after: when there may be one, seconds.

    paused: remaining seconds of the pause that the server requested.
    """

    def __init__(
        self, message: str, *, retry_after: float | None = None, paused: float = 0.0
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.paused = paused


def pause_asked(error: BaseException) -> float:
    """How long the model's server wants to be left alone, in seconds; a limit of ours is none."""
    if isinstance(error, LimitedError):
        return error.paused
    return getattr(error, "retry_after", None) or 0.0


@dataclass(frozen=True, slots=True)
class Concurrency:
    """Calls that run, and that may run at once: None without a limit, 0 in a server's pause."""

    running: int
    allowed: int | None


@dataclass(slots=True)
class _RequestedPause:
    """The pause that the server requested last. until: its end; seconds: its length, 0 once a call
    has failed in another way."""

    until: float = 0.0
    seconds: float = 0.0


class Limits:
    """The turns of one model, for many threads.

    concurrency: calls at once, which an overloaded server lowers; per_minute: calls that may begin,
    spread evenly. None is no limit. clock: of all times here; unix: the same for all workers; the
    runtime's by default.
    """

    def __init__(
        self,
        *,
        concurrency: int | None = None,
        per_minute: float | None = None,
        clock: Callable[[], float] | None = None,
        unix: Callable[[], float] | None = None,
        chance: Callable[[], float] | None = None,
        runtime: Runtime = REAL,
    ) -> None:
        self._concurrency = concurrency
        self._interval = 60.0 / per_minute if per_minute else 0.0
        self._clock = clock or runtime.monotonic
        self._unix = unix or runtime.time
        self._chance = chance or runtime.random.random
        self._lock = runtime.rlock()
        self._waiting = TurnQueue(partial(runtime.condition, self._lock))
        self._adaptive = AdaptiveLimit()
        self._next = 0.0
        self._requested = _RequestedPause()
        self._closed = False

    def turn(self, deadline: float, *, given_up: Callable[[], bool] = _never) -> Turn:
        """Wait until deadline for a turn, and have it for the block. Raises `LimitedError`.

        Turns are given in the order in which they were requested. given_up: the wait ends when it
        returns True; `wake` has it checked. A pause that the server requests in the block
        (retry_after) applies to all calls, and an overload lowers the limit.
        """
        return Turn(self, partial(self.enter, deadline, math.inf, given_up), given_up)

    def end(self, turn: Turn, error: BaseException | None) -> None:
        """A turn is over; see `turn`."""
        pause = None
        if isinstance(error, TransientError) and not isinstance(error, LimitedError):
            pause = error.retry_after
        with self._lock:
            now, before, sent_at = self._clock(), self._adaptive, turn.sent_at
            chance, ahead = self._chance(), self._unix() - now
            if isinstance(error, OverloadedError) or pause is not None:
                self._adaptive = adaptive_limit.overloaded(before, sent_at, now, chance, ahead)
                if pause is not None:
                    self._pause(max(pause, SHORTEST_PAUSE))
            elif error is None or isinstance(error, BadOutputError):
                self._adaptive = adaptive_limit.answered(before, sent_at, now, chance, ahead)
            else:
                after = adaptive_limit.failed(before)
                self._adaptive = adaptive_limit.rotated(after, sent_at, now, chance, ahead)
            if error is not None and pause is None and not isinstance(error, LimitedError):
                self._requested.seconds = 0.0
            self._waiting.wake_first()

    def next_request(self, turn: Turn, deadline: float, pause: float | None) -> None:
        """Wait until a call that has a turn may send another request; see `turns.next_request`.

        It goes before those that wait for a turn: these may wait for this call to end.
        """
        with self._lock:
            if pause is not None:
                self._pause(pause)
            self._waiting.further += 1
            try:
                turn.sent_at = self._send_further(turn, deadline)
            finally:
                self._waiting.further -= 1
                self._waiting.wake_first()

    def pause(self, seconds: float) -> None:
        """Give no turns for so long, as the server requested."""
        with self._lock:
            self._pause(seconds)

    def only_paused(self, patience: float) -> bool:
        """Whether nothing but a pause keeps calls from the server: it requested one longer than
        patience (seconds), and calls have been answered, or refused with a pause, before and since.
        """
        return self._requested.seconds > patience

    def check_pause(self) -> None:
        """Raises `LimitedError` while a pause lasts."""
        with self._lock:
            now = self._clock()
            if max(self._requested.until, self._adaptive.not_before) > now:
                raise self._no_turn(now)

    @property
    def starved(self) -> bool:
        """Whether the server has refused every call for so long that it counts as unavailable."""
        return adaptive_limit.starved(self._adaptive, self._clock())

    @property
    def lowered(self) -> bool:
        """Whether the server was overloaded, and is not yet known to take more."""
        return self._adaptive.limit is not None

    @property
    def used(self) -> Concurrency:
        """For the metrics."""
        state = self._adaptive
        wanted = (self._concurrency, None if state.limit is None else math.floor(state.limit))
        limits = [one for one in wanted if one is not None]
        if self._clock() < self._requested.until:
            limits.append(0)
        return Concurrency(state.running, min(limits, default=None))

    @property
    def waiting(self) -> int:
        """How many calls wait for a turn."""
        return len(self._waiting)

    def wake(self) -> None:
        """Have all waiting calls check whether they were given up."""
        with self._lock:
            self._waiting.wake_all()

    def close(self) -> None:
        """Give no more turns; waiting calls fail at once."""
        with self._lock:
            self._closed = True
            self._waiting.wake_all()

    def enter(self, deadline: float, longest_pause: float, given_up: Callable[[], bool]) -> float:
        """Wait for a turn, as for `turn`; when the call may be sent. `end` must follow.

        longest_pause: a pause of the server is waited for if at most so many seconds of it remain.
        """
        with self._lock:
            place: Condition | None = None
            try:
                while True:
                    self._check_open(given_up)
                    now = self._clock()
                    until = self._next_at()
                    too_long = self._requested.until - now > longest_pause
                    if too_long or now >= deadline or deadline < until < math.inf:
                        raise self._no_turn(now)
                    if self._waiting.further:
                        until = math.inf
                    elif until <= now and self._waiting.is_next(place):
                        self._adaptive = adaptive_limit.sent(self._adaptive)
                        self._next = now + self._interval
                        return now
                    if place is None:
                        place = self._waiting.join()
                    self._waiting.wait(place, until, deadline, now)
            finally:
                if place is not None:
                    self._waiting.leave(place)

    def _send_further(self, turn: Turn, deadline: float) -> float:
        while True:
            self._check_open(turn.given_up)
            now = self._clock()
            if turn.ended or now >= deadline:
                raise TransientError("no time is left for the call")
            until = max(self._next, self._adaptive.not_before)
            if until > deadline:
                raise self._no_turn(now)
            if until <= now:
                self._next = now + self._interval
                return now
            self._waiting.wait_for_change(until - now)

    def _check_open(self, given_up: Callable[[], bool]) -> None:
        """Raises `TransientError` where nobody waits for the call any more."""
        if self._closed:
            raise TransientError("the worker is stopping")
        if given_up():
            raise LimitedError("the message was abandoned while it waited for a turn")

    def _next_at(self) -> float:
        """When the next call may begin; infinity while as many run as may."""
        state = self._adaptive
        if self._concurrency is not None and state.running >= self._concurrency:
            return math.inf
        return max(self._next, adaptive_limit.next_at(state))

    def _pause(self, seconds: float) -> None:
        now = self._clock()
        self._requested.until = max(self._requested.until, now + seconds)
        self._requested.seconds = self._requested.until - now
        self._next = max(self._next, self._requested.until)
        self._adaptive = adaptive_limit.paused(self._adaptive, now, seconds, self._chance())

    def _no_turn(self, now: float) -> LimitedError:
        paused = max(0.0, self._requested.until - now)
        why = "the model's limit allows no turn before the deadline"
        if paused:
            why = f"the model's server requested a pause, {paused:.0f} s of it remain"
        until = self._next if self._next > now else self._adaptive.not_before
        return LimitedError(why, retry_after=max(0.0, until - now), paused=paused)
