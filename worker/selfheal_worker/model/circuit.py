"""A circuit breaker that several threads use: of a model, of all models, of the result queues."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial

from selfheal_worker.logs import say
from selfheal_worker.model import breaker as breakers
from selfheal_worker.model.breaker import Breaker
from selfheal_worker.runtime import REAL, Runtime


class Circuit:
    """Its breaker is read, changed and written under one lock. For any thread.

    name: in logs, "" where another line reports what happened; changed: called after it was opened
    or closed.
    """

    def __init__(
        self,
        name: str = "",
        breaker: Breaker | None = None,
        changed: Callable[[], None] | None = None,
        runtime: Runtime = REAL,
    ) -> None:
        self.name = name
        self.breaker = breaker or Breaker()
        #: Held while the breaker is read, changed and written.
        self.changing = runtime.lock()
        self._changed = changed
        self._now = runtime.monotonic
        self._random = runtime.random.random

    @property
    def closed(self) -> bool:
        """Whether work may flow, as far as this breaker is concerned."""
        return self.breaker.closed

    @property
    def state(self) -> breakers.State:
        """Closed, probing or open."""
        return self.breaker.state

    def due(self, now: float) -> bool:
        """Whether a probe should be started now."""
        return breakers.due(self.breaker, now)

    def succeeded(self) -> None:
        """One piece of work succeeded."""
        if self.breaker.failures:  # most often nothing is to be changed, which needs no lock
            self.change(breakers.succeeded)

    def failed(self, why: str, *, away: bool, chance: float | None = None) -> bool:
        """One piece of work failed; whether that opened it. away: as for `breaker.failed`;
        chance: likewise, random by default."""
        share = self._random() if chance is None else chance
        return self.change(partial(breakers.failed, now=self._now(), away=away, chance=share), why)

    def begin_probe(
        self,
        seconds: float = math.inf,
        may: Callable[[Breaker, float], bool] | None = None,
    ) -> int | None:
        """Mark it as being probed, for at most so many seconds; the probe's number. None if it may
        not begin."""
        with self.changing:
            now = self._now()
            if may is not None and not may(self.breaker, now):
                return None
            self.breaker = breakers.probing(self.breaker, now + seconds)
            return self.breaker.probe

    def probed(
        self, why: str, *, succeeded: bool, probe: int | None = None, access: bool = False
    ) -> None:
        """The probe ended, as for `breaker.probed`."""
        self.change(
            partial(
                breakers.probed,
                now=self._now(),
                succeeded=succeeded,
                probe=probe,
                chance=self._random(),
                access=access,
            ),
            why,
        )

    def change(self, change: Callable[[Breaker], Breaker], why: str = "") -> bool:
        """Change the breaker; whether that opened or closed it."""
        with self.changing:
            before = self.breaker
            after = self.breaker = change(before)
        if before.closed == after.closed:
            return False
        if self.name:
            level = logging.INFO if after.closed else logging.WARNING
            state = "closed" if after.closed else "open"
            say(level, "circuit breaker", breaker=self.name, state=state, why=why)
        if self._changed is not None:
            self._changed()
        return True
