"""Virtual time without threads: enough of a scheduler for tests of the model alone."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from random import Random


class Timeline:
    """See messages.Simulation; `run` calls what is due."""

    def __init__(self, seed: int = 0) -> None:
        self.now = 0.0
        self.random = Random(seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def at(self, time: float, callback: Callable[[], None]) -> None:
        """Call it at this time."""
        heapq.heappush(self._due, (max(self.now, time), next(self._numbers), callback))

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call it so many seconds from now."""
        self.at(self.now + seconds, callback)

    def run(self, seconds: float) -> None:
        """So many seconds pass."""
        end = self.now + seconds
        while self._due and self._due[0][0] <= end:
            self.now, _, callback = heapq.heappop(self._due)
            callback()
        self.now = end
