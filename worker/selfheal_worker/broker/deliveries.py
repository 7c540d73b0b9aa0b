"""Messages as they come from the broker and go to it, and the properties they carry."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pika

from selfheal_worker.broker import header_tables
from selfheal_worker.runtime import REAL

# Sender-selected distribution, which would send a copy elsewhere, and the broker's own records,
# which say "this was a loop, drop it" to its dead-lettering when they are sent back to it.
_NOT_COPIED = ("CC", "BCC", "x-death", "x-delivery-count", "x-acquired-count")
_NOT_COPIED_PREFIXES = ("x-first-death-", "x-last-death-", "x-opt-")

# A date in seconds that is no date in milliseconds: the year 5138, and March 1973.
_LATEST = 1e11


class Outcome(Enum):
    """What became of a publish."""

    CONFIRMED = "confirmed"
    RETURNED = "it was returned as unroutable"
    REFUSED = "the broker rejected it (nack)"
    LOST = "the connection was lost"


#: Called once with the outcome of a publish.
Done = Callable[[Outcome], None]


@dataclass(slots=True)
class Delivery:
    """A message as it came. epoch: which connection's; properties: for the builders below."""

    tag: int
    epoch: int
    redelivered: bool
    exchange: str
    routing_key: str
    body: bytes
    properties: Any
    # Bytes of a body that was too large to be buffered; body is empty then.
    oversized: int = 0

    @property
    def message_id(self) -> str | None:
        """The AMQP message_id, if it is valid text."""
        value = self.properties.message_id
        return value if isinstance(value, str) and value else None

    @property
    def headers(self) -> dict[str, Any]:
        """The AMQP headers."""
        return self.properties.headers or {}

    @property
    def timestamp(self) -> float | None:
        """When it was published, in Unix seconds, if the publisher set it."""
        value = self.properties.timestamp
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            return None
        # AMQP wants seconds; some publishers write milli-, micro- or nanoseconds.
        seconds = float(value)
        while seconds >= _LATEST:
            seconds /= 1000
        return seconds


def delivery(method: Any, properties: Any, body: bytes, *, epoch: int = 0) -> Delivery:
    """What pika hands over for one message, as ours."""
    return Delivery(
        method.delivery_tag,
        epoch,
        method.redelivered,
        method.exchange,
        method.routing_key,
        body,
        properties,
    )


@dataclass(slots=True)
class Publication:
    """A message to send to a queue through the default exchange."""

    queue: str
    body: bytes
    properties: Any


@dataclass(slots=True)
class OnTheWay:
    """A publish that the broker has not confirmed yet; done: called with its outcome."""

    publication: Publication
    done: Done
    returned: bool = False


class Unconfirmed:
    """The publishes of one channel in confirm mode, by their tags: the broker counts from 1."""

    def __init__(self) -> None:
        self._next_tag = 1
        self._waiting: dict[int, OnTheWay] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def size(self) -> int:
        """Bytes of their bodies."""
        return sum(len(one.publication.body) for one in self._waiting.values())

    def add(self, publication: Publication, done: Done) -> None:
        """One was sent."""
        self._waiting[self._next_tag] = OnTheWay(publication, done)
        self._next_tag += 1

    def settled(self, method: Any) -> Iterator[OnTheWay]:
        """Those that a confirm (or its opposite) speaks of; they wait no longer."""
        tags = [method.delivery_tag]
        if method.multiple:
            tags = [tag for tag in self._waiting if tag <= method.delivery_tag]
        for tag in tags:
            if (one := self._waiting.pop(tag, None)) is not None:
                yield one

    def returned(self, method: Any, body: bytes) -> None:
        """A return comes before the confirm of its message, and names it by nothing but itself."""
        for one in self._waiting.values():
            publication = one.publication
            if (
                not one.returned
                and publication.queue == method.routing_key
                and publication.body == body
            ):
                one.returned = True
                return

    def drain(self) -> list[OnTheWay]:
        """All that wait, in the order in which they were sent; none waits any longer."""
        waiting, self._waiting = self._waiting, {}
        return list(waiting.values())


def result_properties(delivery: Delivery, message_id: str, now: float | None = None) -> Any:
    """Properties of the answer: the ids and the trace headers of what it answers.

    now: Unix seconds, by default the machine's.
    """
    got = delivery.properties
    headers = got.headers
    trace = None
    if headers:
        trace = {k: headers[k] for k in ("traceparent", "tracestate") if k in headers}
    return pika.BasicProperties(
        content_type="application/json",
        delivery_mode=2,
        message_id=message_id,
        correlation_id=got.correlation_id,
        timestamp=int(REAL.time() if now is None else now),
        headers=trace or None,
    )


def copied_properties(
    delivery: Delivery,
    headers: Mapping[str, Any],
    *,
    without: Container[str] = (),
    keep_expiration: bool = False,
) -> Any:
    """Properties for forwarding a message unchanged, with these headers added and those removed.

    user_id is left out (the broker would check it against our user), and expiration, unless the
    message is requeued: it would expire from the dead-letter queue.
    """
    got = delivery.properties

    def dropped(name: str) -> bool:
        return name in _NOT_COPIED or name in without or name.startswith(_NOT_COPIED_PREFIXES)

    return pika.BasicProperties(
        content_type=got.content_type,
        content_encoding=got.content_encoding,
        headers=header_tables.copied(delivery.headers, dropped, headers),
        delivery_mode=got.delivery_mode if keep_expiration else 2,
        priority=got.priority,
        correlation_id=got.correlation_id,
        reply_to=got.reply_to,
        expiration=got.expiration if keep_expiration else None,
        message_id=got.message_id,
        timestamp=got.timestamp,
        type=got.type,
        app_id=got.app_id,
    )


def new_properties(message_id: str | None) -> Any:
    """Properties of a message of our own."""
    return pika.BasicProperties(
        content_type="application/json",
        delivery_mode=2,
        message_id=message_id,
        timestamp=int(REAL.time()),
    )


def plain_headers(properties: Any) -> None:
    """Leave only headers that can surely be encoded; for what pika reads but cannot write."""
    properties.headers = {
        name: value
        for name, value in (properties.headers or {}).items()
        if isinstance(name, str)
        and len(name.encode(errors="replace")) <= 255
        and (
            isinstance(value, str | bytes | bool)
            or (isinstance(value, int) and -(2**63) <= value < 2**63)
        )
    }
