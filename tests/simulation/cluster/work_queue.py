"""A controller's work queue: each key once, a little later, in an order by chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from tests.simulation.cluster.messages import Simulation

K = TypeVar("K")


class WorkQueue(Generic[K]):
    """sync is called with each key that was added, once for all adds before the call.

    delay: seconds between the first add and the call, from and to. While `paused` (the controller
    does not run) keys wait.
    """

    def __init__(
        self,
        simulation: Simulation,
        sync: Callable[[K], None],
        delay: tuple[float, float] = (0.005, 0.05),
    ) -> None:
        self._simulation, self._sync, self._delay = simulation, sync, delay
        self._due: dict[K, float] = {}
        self._paused = False

    def add(self, key: K, after: float | None = None) -> None:
        """Have the key handled soon, or after so many seconds; the earlier call counts."""
        wait = self._simulation.random.uniform(*self._delay) if after is None else after
        due = self._simulation.now + wait
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        self._simulation.at(due, lambda: self._run(key, due))

    @property
    def paused(self) -> bool:
        """Whether the controller does not run."""
        return self._paused

    @paused.setter
    def paused(self, value: bool) -> None:
        self._paused = value
        if not value:
            for key in list(self._due):
                del self._due[key]
                self.add(key)

    def _run(self, key: K, due: float) -> None:
        if self._paused or self._due.get(key) != due:
            return
        del self._due[key]
        self._sync(key)
