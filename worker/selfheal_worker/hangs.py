"""Handlers that passed their deadline: what they work on must not wait for them."""

from __future__ import annotations

import logging

from selfheal_worker.handlers import HANG_MARGIN, Handlers, Work
from selfheal_worker.logs import say
from selfheal_worker.metrics import Metrics


class Hangs:
    """For the link's thread; its length is for any."""

    def __init__(self, handlers: Handlers, metrics: Metrics) -> None:
        self._handlers = handlers
        self._metrics = metrics
        self._hung: set[Work] = set()

    def __len__(self) -> int:
        return len(self._hung)

    def find(self, now: float) -> list[Work]:
        """Those that passed their deadline since the last look, unless they were given up."""
        found = []
        for work in self._handlers.running():
            if work.hung or now <= work.due + HANG_MARGIN:
                continue
            work.hung = True
            self._hung.add(work)
            self._metrics.process.hangs.inc()
            say(logging.ERROR, "a handler is past its deadline", id=work.message.id)
            if not work.given_up:
                found.append(work)
        return found

    def ended(self, work: Work) -> None:
        """Its handler has come back."""
        if work.hung:
            work.hung = False
            self._hung.discard(work)
