"""How many changes of nodes and pods are being sent, for whoever waits until none is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from selfheal_remediator.threads.runtime import REAL, Runtime


class ChangesUnderWay:
    """Thread-safe."""

    def __init__(self, *, runtime: Runtime = REAL) -> None:
        self._changed = runtime.condition()
        self._count = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """A change is sent in this block."""
        with self._changed:
            self._count += 1
        try:
            yield
        finally:
            with self._changed:
                self._count -= 1
                self._changed.notify_all()

    def settle(self, seconds: float) -> bool:
        """Wait until there is none, for at most so long; whether that came true."""
        with self._changed:
            return self._changed.wait_for(self._none, seconds)

    def _none(self) -> bool:
        return self._count == 0
