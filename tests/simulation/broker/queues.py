"""A quorum queue as RabbitMQ 4.0 has it. Pure: it is given the time, and sends nothing.

https://www.rabbitmq.com/docs/quorum-queues and https://www.rabbitmq.com/docs/dlx: a message that is
returned goes back to its place near the head, and its delivery count grows; above the delivery
limit it is dead-lettered. Messages expire only at the head. A full queue rejects publishes, or
drops its head.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pika

#: RabbitMQ's own limit where a queue sets none.
DEFAULT_DELIVERY_LIMIT = 20


@dataclass(eq=False)
class Message:
    """One message. number: of all that the broker took, in their order. queued: when it came to its
    queue, in seconds; returned: how often it was taken back without an ack."""

    number: int
    body: bytes
    properties: Any
    queued: float = 0.0
    position: int = 0
    returned: int = 0

    @property
    def name(self) -> str:
        """For traces."""
        return f"{self.properties.message_id or self.properties.correlation_id or ''}#{self.number}"

    @property
    def headers(self) -> dict[str, Any]:
        """As they were published, or dead-lettered."""
        return dict(self.properties.headers or {})


@dataclass(eq=False)
class Queue:
    """A queue. ready: what waits, by position; unacked: what consumers have; leaving: what is on
    its way to the dead-letter target."""

    name: str
    arguments: Mapping[str, Any]
    ready: list[Message] = field(default_factory=list)
    unacked: dict[int, Message] = field(default_factory=dict)
    leaving: dict[int, Message] = field(default_factory=dict)
    positions: int = 0
    #: For a fault: nothing more is taken, as if the queue were full.
    full: bool = False

    @property
    def target(self) -> str | None:
        """Where dead-lettered messages go, by the default exchange."""
        if self.arguments.get("x-dead-letter-exchange") is None:
            return None
        return str(self.arguments.get("x-dead-letter-routing-key", self.name))

    @property
    def delivery_limit(self) -> int:
        """Returns after which a message is dead-lettered."""
        return int(self.arguments.get("x-delivery-limit", DEFAULT_DELIVERY_LIMIT))

    def messages(self) -> list[Message]:
        """All that are in it."""
        return [*self.ready, *self.unacked.values(), *self.leaving.values()]

    def rejects(self) -> bool:
        """Whether a publish is refused."""
        most = self.arguments.get("x-max-length")
        over = most is not None and len(self.ready) + len(self.unacked) >= most
        return self.full or (over and self.arguments.get("x-overflow") == "reject-publish")

    def put(self, message: Message, now: float) -> list[Message]:
        """Add it at the end; what is dropped from the head for it."""
        self.positions += 1
        message.queued, message.position = now, self.positions
        self.ready.append(message)
        most = self.arguments.get("x-max-length")
        if most is None or self.arguments.get("x-overflow") == "reject-publish":
            return []
        dropped = self.ready[: max(0, len(self.ready) - most)]
        del self.ready[: len(dropped)]
        return dropped

    def take(self) -> Message:
        """The head, for a consumer."""
        message = self.ready.pop(0)
        self.unacked[message.number] = message
        return message

    def ack(self, message: Message) -> None:
        """A consumer has dealt with it."""
        del self.unacked[message.number]

    def take_back(self, message: Message) -> bool:
        """It was not acked; whether it is above the delivery limit and leaves."""
        del self.unacked[message.number]
        message.returned += 1
        if message.returned > self.delivery_limit:
            return True
        bisect.insort(self.ready, message, key=lambda one: one.position)
        return False

    def expires(self) -> float | None:
        """When the head expires; None: never, or nothing waits."""
        if not self.ready:
            return None
        head, ages = self.ready[0], []
        if "x-message-ttl" in self.arguments:
            ages.append(int(self.arguments["x-message-ttl"]))
        if head.properties.expiration is not None:
            ages.append(int(head.properties.expiration))
        return head.queued + min(ages) / 1000 if ages else None


def delivered(message: Message) -> Any:
    """The properties that a consumer gets: with the delivery count, where it was returned."""
    if not message.returned:
        return message.properties
    return _with_headers(message, message.headers | {"x-delivery-count": message.returned})


def dead_lettered(message: Message, queue: str, reason: str, unix: float) -> Any:
    """The properties of a message that the broker dead-letters; see /docs/dlx#effects."""
    headers = message.headers
    deaths = [dict(one) for one in headers.get("x-death") or []]
    now = datetime.fromtimestamp(int(unix), UTC)
    death = next((one for one in deaths if (one["queue"], one["reason"]) == (queue, reason)), None)
    if death is None:
        death = {"count": 0, "reason": reason, "queue": queue, "time": now, "exchange": ""}
        death["routing-keys"] = [queue]
    else:
        deaths.remove(death)
    death["count"] += 1
    if not deaths:
        headers |= {"x-first-death-reason": reason, "x-first-death-queue": queue}
        headers["x-first-death-exchange"] = ""
    headers |= {"x-last-death-reason": reason, "x-last-death-queue": queue}
    headers |= {"x-last-death-exchange": "", "x-death": [death, *deaths]}
    made = _with_headers(message, headers)
    made.expiration = None
    return made


def is_cycle(message: Message, target: str) -> bool:
    """Whether a message comes back to a queue that it died in, without a rejection on the way: the
    broker drops it then."""
    deaths = message.headers.get("x-death") or []
    if any(one["reason"] == "rejected" for one in deaths):
        return False
    return any(one["queue"] == target for one in deaths)


def _with_headers(message: Message, headers: Mapping[str, Any]) -> Any:
    made = pika.BasicProperties()
    made.__dict__.update(message.properties.__dict__)
    made.headers = dict(headers)
    return made
