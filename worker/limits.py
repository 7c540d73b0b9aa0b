"""How often one model is asked and how many times at once, and the pauses its server asks for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from worker.model import TransientError


class LimitedError(TransientError):
    """No turn was to be had before the deadline; retry_after: when there may be one, seconds."""


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
        self._closed = False

    @contextmanager
    def turn(self, deadline: float) -> Iterator[None]:
        """Wait for a turn, and have it for the block. Raises `LimitedError`."""
        self._enter(deadline)
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify()

    def pause(self, seconds: float) -> None:
        """Give nobody a turn for so long: the server asked for it."""
        with self._changed:
            self._next = max(self._next, self._clock() + seconds)

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
                if not full and until <= now:
                    self._running += 1
                    self._next = now + self._interval
                    return
                if until > deadline or now >= deadline:
                    raise LimitedError(
                        "the model's limit leaves no turn before the deadline",
                        retry_after=max(0.0, self._next - now),
                    )
                self._changed.wait(until - now)
        raise TransientError("the worker is stopping")
