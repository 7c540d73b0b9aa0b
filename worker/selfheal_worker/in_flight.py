"""The messages in flight: delivered, and not settled yet."""

from __future__ import annotations

from collections.abc import Iterator

from selfheal_worker import retries
from selfheal_worker.broker import Delivery
from selfheal_worker.config import Settings
from selfheal_worker.dead_letters import refusal_history
from selfheal_worker.handlers import Work
from selfheal_worker.message import Message
from selfheal_worker.runtime import REAL, Runtime

#: The message of work whose body was not decoded.
NOT_READ = Message(id="", id_generated=False, text="", metadata=None, extra={})


class InFlight:
    """Messages by their delivery tags. Changed by the link's thread; any may look."""

    def __init__(self, settings: Settings, runtime: Runtime = REAL) -> None:
        self._settings = settings
        self._runtime = runtime
        self._shortest_delay = min(settings.retry_delays)
        self._works: dict[int, Work] = {}
        #: Unix seconds; also set while messages wait for an overloaded server, as they should.
        self.last_progress = self._runtime.time()

    def __len__(self) -> int:
        return len(self._works)

    def __iter__(self) -> Iterator[Work]:
        """What is in flight now, whatever becomes of it meanwhile."""
        return iter(list(self._works.values()))

    def __contains__(self, delivery: Delivery) -> bool:
        return delivery.tag in self._works

    def begin(self, delivery: Delivery) -> Work:
        """A message was delivered."""
        headers = delivery.headers
        attempts = retries.attempts_of(headers)
        received = self._runtime.monotonic()
        work = Work(
            delivery=delivery,
            message=NOT_READ,
            attempts=attempts,
            received=received,
            received_unix=self._runtime.time(),
            history=refusal_history(
                headers,
                attempts,
                received,
                max_attempts=self._settings.max_attempts,
                delay=self._shortest_delay,
            ),
        )
        self._works[delivery.tag] = work
        return work

    def settled(self, work: Work) -> None:
        """The broker has what became of a message."""
        del self._works[work.delivery.tag]
        self.last_progress = self._runtime.time()

    def requeued(self, work: Work) -> None:
        """The broker will deliver a message again; that is no progress."""
        del self._works[work.delivery.tag]

    def lost(self) -> int:
        """The connection is gone: all will be delivered again. How many there were."""
        for work in self._works.values():
            work.given_up = True
        count = len(self._works)
        self._works.clear()
        return count

    def oldest_age(self, now: float) -> float:
        """Seconds since the oldest was delivered, 0 if there is none; now: `time.monotonic()`."""
        return max((now - work.received for work in self), default=0.0)

    def see_waiting(self) -> None:
        """Take it for progress when a message waits for an overloaded server, as it should."""
        if any(work.waiting and not work.given_up for work in self):
            self.last_progress = self._runtime.time()
