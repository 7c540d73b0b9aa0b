"""How often one model is asked and how many times at once, and the pauses its server asks for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from worker.model import TransientError

# A server that asks for no pause at all is not asked again at once, all the same.
SHORTEST_PAUSE = 0.2


class LimitedError(TransientError):
    """No turn was to be had before the deadline; retry_after: when there may be one, seconds.

    paused: how long the pause still lasts that the server asked for.
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


class Limits:
    """The turns of one model, for many threads.

    concurrency: calls at once; per_minute: calls that may begin, spread evenly. None is no limit.
    """

    def __init__(
        self,
        *,
        concurrency: int | None = None,
        per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._concurrency = concurrency
        self._interval = 60.0 / per_minute if per_minute else 0.0
        self._clock = clock
        self._changed = threading.Condition()
        self._running = 0
        self._next = 0.0
        self._paused = 0.0
        self._closed = False

    @contextmanager
    def turn(self, deadline: float) -> Iterator[None]:
        """Wait for a turn, and have it for the block. Raises `LimitedError`.

        A pause that the server asks for in it (retry_after) holds for all.
        """
        self._enter(deadline)
        try:
            yield
        except TransientError as error:
            if error.retry_after is not None:
                self.pause(max(error.retry_after, SHORTEST_PAUSE))
            raise
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify()

    def pause(self, seconds: float) -> None:
        """Give nobody a turn for so long: the server asked for it."""
        with self._changed:
            self._paused = max(self._paused, self._clock() + seconds)
            self._next = max(self._next, self._paused)

    def close(self) -> None:
        """Nobody gets a turn any more; who waits for one is told at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _enter(self, deadline: float) -> None:
        with self._changed:
            while not self._closed:
                now = self._clock()
                full = self._concurrency is not None and self._running >= self._concurrency
                until = deadline if full else self._next
                if until > deadline or now >= deadline:
                    self._changed.notify()  # whoever woke this one meant it for one that goes on
                    raise self._no_turn(now)
                if not full and until <= now:
                    self._running += 1
                    self._next = now + self._interval
                    return
                self._changed.wait(until - now)
        raise TransientError("the worker is stopping")

    def _no_turn(self, now: float) -> LimitedError:
        paused = max(0.0, self._paused - now)
        why = "the model's limit leaves no turn before the deadline"
        if paused:
            why = f"the model's server asked for a pause, {paused:.0f} s of it are left"
        return LimitedError(why, retry_after=max(0.0, self._next - now), paused=paused)
