"""A connection without a broker: the test says what comes, and sees what is published."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pika

from selfheal_worker.broker import BrokerError, Delivery, Outcome, Publication

if TYPE_CHECKING:
    from selfheal_worker.broker import Done, Events
    from selfheal_worker.broker.topology import Queue
    from selfheal_worker.config import Settings


class FakeLink:
    """Stands in for a `Link` that is up; the broker confirms nothing by itself."""

    def __init__(self, settings: Settings, queues: Sequence[Queue], events: Events) -> None:
        self.events = events
        self.published: list[tuple[Publication, Done]] = []
        self.acked: list[Delivery] = []
        self.requeued: list[Delivery] = []
        self.declared = 0
        #: What is in the queue while no consumer is, for `get`.
        self.waiting: list[bytes] = []
        self.closed = False
        self.epoch = 1
        self.largest: float = math.inf
        self.up = True
        self.blocked = False
        self.consuming = False
        self._tags = 0

    @property
    def subscribed(self) -> bool:
        return self.consuming

    def consume(self) -> None:
        self.consuming = True

    def cancel(self) -> None:
        self.consuming = False

    def call_soon(self, function: Callable[[], None]) -> None:
        """Not at all: the next tick looks too."""

    def declare(self, done: Callable[[BrokerError | None], None]) -> None:
        self.declared += 1
        done(None)

    def get(self, done: Callable[[Delivery | None], None]) -> None:
        done(self.delivery(self.waiting.pop(0)) if self.waiting else None)

    def publish(self, publication: Publication, done: Done) -> None:
        self.published.append((publication, done))

    def ack(self, delivery: Delivery) -> None:
        self.acked.append(delivery)

    def requeue(self, delivery: Delivery) -> None:
        self.requeued.append(delivery)

    def close(self, done: Callable[[], None]) -> None:
        self.closed = True
        done()

    # --- for tests

    def delivery(
        self, body: bytes = b'{"text": "good"}', *, redelivered: bool = False, **headers: Any
    ) -> Delivery:
        """A message with these AMQP headers."""
        self._tags += 1
        properties = pika.BasicProperties(headers=headers or None)
        return Delivery(self._tags, self.epoch, redelivered, "ex", "key", body, properties)

    def deliver(self, body: bytes = b'{"text": "good"}', **named: Any) -> Delivery:
        """A message comes."""
        made = self.delivery(body, **named)
        self.events.on_delivery(made)
        return made

    def answer(self, *outcomes: Outcome) -> list[Publication]:
        """The broker answers for all that was published, by default that it has it; what that
        was."""
        published, self.published = self.published, []
        answers = outcomes or (Outcome.CONFIRMED,) * len(published)
        for (_, done), outcome in zip(published, answers, strict=True):
            done(outcome)
        return [publication for publication, _ in published]

    def lose(self, why: str = "reset") -> None:
        """The connection is lost."""
        self.up = self.consuming = False
        self.epoch += 1
        lost, self.published = self.published, []
        for _, done in lost:
            done(Outcome.LOST)
        self.events.on_down(BrokerError(why))

    def connect(self) -> None:
        """The connection is there."""
        self.up = True
        self.events.on_up()
