"""Virtual time for what has no thread of its own: `Simulation` has these methods too."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from itertools import count
from typing import Protocol


class Timers(Protocol):
    """Seconds since the start of the simulation, and callbacks at a time."""

    @property
    def now(self) -> float:
        """Seconds."""

    def at(self, when: float, call: Callable[[], None], /) -> object:
        """Have it called once it is so late."""

    def after(self, seconds: float, call: Callable[[], None], /) -> object:
        """Have it called so many seconds later."""


class Heap:
    """Timers without a scheduler, for tests of what has no thread."""

    def __init__(self) -> None:
        self._now = 0.0
        self._order = count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    @property
    def now(self) -> float:
        """Seconds."""
        return self._now

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Have it called once it is so late; in the order of the calls of this, at equal times."""
        heapq.heappush(self._due, (max(when, self._now), next(self._order), call))

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Have it called so many seconds later."""
        self.at(self._now + seconds, call)

    def run(self, until: float) -> None:
        """Let time pass."""
        while self._due and self._due[0][0] <= until:
            self.step()
        self._now = max(self._now, until)

    def due(self) -> float:
        """When the next callback is due; infinity if there is none."""
        return self._due[0][0] if self._due else math.inf

    def step(self) -> bool:
        """Let time pass until the next callback has run; False if there is none."""
        if not self._due:
            return False
        self._now, _, call = heapq.heappop(self._due)
        call()
        return True
