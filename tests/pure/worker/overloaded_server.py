"""Workers on a server with few slots, under a clock of its own: no thread, no time that passes."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from dataclasses import dataclass, field

from selfheal_worker.model import adaptive_limit
from selfheal_worker.model.adaptive_limit import AdaptiveLimit


@dataclass
class World:
    """Workers, each with `handlers` messages at once, share `slots` of a server; who finds none is
    refused. A call takes about `seconds`, differing by `spread` (a part of that); there are `left`
    messages to be answered. changes: when the server has how many slots from then on. ahead: by how
    much each worker's Unix time is ahead of `now`."""

    workers: int
    handlers: int
    slots: int
    left: int
    seconds: float = 0.3
    seed: int = 1
    round_trip: float = 0.002
    spread: float = 0.2
    changes: tuple[tuple[float, int], ...] = ()
    ahead: tuple[float, ...] = ()
    now: float = 0.0
    calls: int = 0
    refusals: int = 0
    busy: int = 0
    answers: list[int] = field(init=False)
    limits: list[AdaptiveLimit] = field(init=False)

    def __post_init__(self) -> None:
        self.answers = [0] * self.workers
        self.limits = [AdaptiveLimit() for _ in range(self.workers)]
        self._held = [0] * self.workers
        self._random = random.Random(self.seed)
        self._events: list[tuple[float, int, str, int, float]] = []
        self._numbers = itertools.count()
        self._wakes = [math.inf] * self.workers
        self._answered_at = [0.0] * self.workers
        self.longest_waits = [0.0] * self.workers
        self._possible, self._since = 0.0, 0.0
        self.ahead = self.ahead or (0.0,) * self.workers
        for when, slots in self.changes:
            self._at(when, "changed", slots)

    def run(self, until: float = math.inf) -> World:
        """Until all messages are answered, or it is so late."""
        for worker in range(self.workers):
            self._send(worker)
        while self._events and self._events[0][0] <= until:
            self.now, _, event, worker, sent_at = heapq.heappop(self._events)
            getattr(self, f"_{event}")(worker, sent_at)
        return self

    @property
    def capacity_used(self) -> float:
        possible = self._possible + self.slots * (self.now - self._since)
        return sum(self.answers) * self.seconds / possible

    @property
    def calls_per_answer(self) -> float:
        return self.calls / sum(self.answers)

    def _at(self, when: float, event: str, worker: int, sent_at: float = 0.0) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), event, worker, sent_at))

    def _changed(self, slots: int, _: float) -> None:
        self._possible += self.slots * (self.now - self._since)
        self._since, self.slots = self.now, slots

    def _send(self, worker: int) -> None:
        while self._held[worker] < self.handlers and self.left:
            self._held[worker] += 1
            self.left -= 1
        while self._held[worker] > self.limits[worker].running:
            when = adaptive_limit.next_at(self.limits[worker])
            if when > self.now:
                if when not in (math.inf, self._wakes[worker]):
                    self._wakes[worker] = when
                    self._at(when, "wake", worker)
                return
            self.limits[worker] = adaptive_limit.sent(self.limits[worker])
            self.calls += 1
            self._at(self.now + self.round_trip / 2, "arrived", worker, self.now)

    def _wake(self, worker: int, _: float) -> None:
        self._wakes[worker] = math.inf
        self._send(worker)

    def _arrived(self, worker: int, sent_at: float) -> None:
        if self.busy < self.slots:
            self.busy += 1
            took = self.seconds * self._random.uniform(1 - self.spread, 1 + self.spread)
            self._at(self.now + took, "done", worker, sent_at)
        else:
            self._at(self.now + self.round_trip / 2, "refused", worker, sent_at)

    def _done(self, worker: int, sent_at: float) -> None:
        self.busy -= 1
        self._at(self.now + self.round_trip / 2, "answered", worker, sent_at)

    def _answered(self, worker: int, sent_at: float) -> None:
        self.limits[worker] = adaptive_limit.answered(
            self.limits[worker], sent_at, self.now, self._random.random(), self.ahead[worker]
        )
        self._held[worker] -= 1
        self.answers[worker] += 1
        waited = self.now - self._answered_at[worker]
        self.longest_waits[worker] = max(self.longest_waits[worker], waited)
        self._answered_at[worker] = self.now
        self._send(worker)

    def _refused(self, worker: int, sent_at: float) -> None:
        self.refusals += 1
        self.limits[worker] = adaptive_limit.overloaded(
            self.limits[worker], sent_at, self.now, self._random.random(), self.ahead[worker]
        )
        self._send(worker)
