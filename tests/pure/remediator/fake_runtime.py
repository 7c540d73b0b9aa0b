"""The machine's clock, threads and chance, but for what a test sets otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import SupportsIndex

from selfheal_remediator.threads.runtime import RealRuntime


class Fixed(Random):
    """Chance that chooses the same always. seconds: how long each pause is."""

    def __init__(self, seconds: float) -> None:
        super().__init__(0)
        self._seconds = seconds

    def uniform(self, a: float, b: float) -> float:
        return self._seconds


def _at_once(_seconds: float) -> None: ...


class FakeRuntime(RealRuntime):
    """pauses: what `random.uniform` returns, None = by chance. It sleeps for no time at all."""

    def __init__(self, pauses: float | None = None) -> None:
        super().__init__()
        if pauses is not None:
            self.random = Fixed(pauses)
        self.on_sleep: Callable[[float], object] = _at_once
        self.clock: Callable[[], float] = time.monotonic
        self.now: Callable[[], float] = time.time

    def monotonic(self) -> float:
        return self.clock()

    def sleep(self, seconds: float | SupportsIndex, /) -> None:
        self.on_sleep(float(seconds))

    def time(self) -> float:
        return self.now()
