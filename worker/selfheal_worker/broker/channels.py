"""What goes over one connection: deliveries, acks, publishes, and bodies too large to be held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import pika
import pika.exceptions as amqp

from selfheal_worker.broker import deliveries, oversized, pika_patches
from selfheal_worker.broker.acks import Acks
from selfheal_worker.broker.confirms import UNENCODABLE, ConfirmChannel
from selfheal_worker.broker.deliveries import Delivery, Done, Outcome, Publication, plain_headers
from selfheal_worker.broker.errors import BrokerError
from selfheal_worker.broker.events import Events, logged
from selfheal_worker.config import Settings

Got = Callable[[Delivery | None], None]


class Owner(Protocol):
    """Whom the channels notify of their state."""

    def channels_ready(self, epoch: int) -> None:
        """One may publish and consume."""

    def channel_closed(self, epoch: int, error: Any) -> None:
        """One was closed, with pika's reason."""

    def channels_useless(self, epoch: int, error: BrokerError) -> None:
        """They are there, but messages do not come any more."""


@dataclass(slots=True)
class Subscription:
    """A consumer; registered: the broker has heard of it."""

    tag: str
    registered: bool = False


class Channels:
    """The two channels of one connection: one forwards bodies that are too large to be held, since
    the frames of one message may not be mixed with others; the other is for all else.

    For the link's thread. After `abandon` nothing is heard of it.
    """

    def __init__(
        self,
        settings: Settings,
        connection: Any,
        epoch: int,
        events: Events,
        owner: Owner,
        now: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._epoch = epoch
        self._events = events
        self._owner = owner
        self._abandoned = False
        self._channel: Any = None
        self._acks = Acks()
        self._publishes: ConfirmChannel | None = None
        self._forwarding: Forwarding | None = None
        self._subscription: Subscription | None = None
        self._got: Got | None = None
        connection.channel(on_open_callback=partial(self._forwarding_opened, now))

    # -- opening

    def _forwarding_opened(self, now: Callable[[], float], channel: Any) -> None:
        if self._abandoned:
            return
        assembler = oversized.Assembler(self._settings.max_body_bytes, oversized.drop)
        pika_patches.assemble_with(channel, assembler)
        channel.add_on_close_callback(self._closed)
        self._forwarding = Forwarding(self._connection, channel, self.send_acks, now)
        self._connection.channel(on_open_callback=self._opened)

    def _opened(self, channel: Any) -> None:
        if self._abandoned:
            return
        self._channel = channel
        assembler = oversized.Assembler(self._settings.max_body_bytes, self._oversized)
        pika_patches.assemble_with(channel, assembler)
        channel.add_on_close_callback(self._closed)
        channel.add_on_cancel_callback(self._cancelled_by_broker)
        channel.add_callback(self._got_none, [pika.spec.Basic.GetEmpty], one_shot=False)
        self._publishes = ConfirmChannel(channel, self.send_acks)
        channel.basic_qos(prefetch_count=self._settings.concurrency)
        # For a queue that nobody has: the broker drops it, but checks our rights before. Without
        # the right to publish, each message would be analysed for nothing, again and again.
        nowhere = Publication(self._settings.rights_queue(), b"", pika.BasicProperties())
        self._publishes.publish(nowhere, self._may_publish, mandatory=False)

    def _may_publish(self, _: Outcome) -> None:
        if not self._abandoned:
            self._owner.channels_ready(self._epoch)

    def _closed(self, _: Any, error: Any) -> None:
        self._owner.channel_closed(self._epoch, error)

    def _cancelled_by_broker(self, _: Any) -> None:
        error = BrokerError("the broker cancelled the consumer")
        self._owner.channels_useless(self._epoch, error)

    def abandon(self) -> list[Done]:
        """The connection is lost, or given up; whom to notify that their publishes are lost."""
        self._abandoned = True
        self._subscription = None
        publishes = self._publishes.abandon() if self._publishes else []
        return publishes + (self._forwarding.confirms.abandon() if self._forwarding else [])

    # -- deliveries

    @property
    def subscribed(self) -> bool:
        """Whether messages come, or will as soon as the broker has heard of it."""
        return self._subscription is not None

    @property
    def consuming(self) -> bool:
        """Whether messages come. From any thread."""
        subscription = self._subscription
        return subscription is not None and subscription.registered

    def consume(self) -> None:
        """Take messages, as many at a time as the prefetch allows."""
        if self._subscription is None:
            tag = self._channel.basic_consume(
                self._settings.queue_name, self._delivered, callback=self._registered
            )
            self._subscription = Subscription(tag)

    def _registered(self, _: Any) -> None:
        if not self._abandoned and self._subscription is not None:
            self._subscription.registered = True

    def cancel(self) -> None:
        """Take no more messages; those on the way still come, until `on_cancelled`."""
        if self._subscription is None:
            return
        tag, self._subscription = self._subscription.tag, None
        self._channel.basic_cancel(tag, callback=self._cancelled)
        pika_patches.deliver_after_cancel(self._channel, tag)

    def _cancelled(self, _: Any) -> None:
        if not self._abandoned:
            self._events.on_cancelled()

    def _delivered(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        if not self._abandoned:
            logged(self._events.on_delivery, self._delivery(method, properties, body))

    def _delivery(self, method: Any, properties: Any, body: bytes) -> Delivery:
        delivery = deliveries.delivery(method, properties, body, epoch=self._epoch)
        self._acks.delivered(delivery.tag)
        return delivery

    def get(self, done: Got) -> None:
        """Take one message without a consumer; see `Link.get`."""
        self._got = done
        self._channel.basic_get(self._settings.queue_name, partial(self._got_one, done))

    def _got_one(self, done: Got, _: Any, method: Any, properties: Any, body: bytes) -> None:
        if not self._abandoned:
            logged(done, self._delivery(method, properties, body))

    def _got_none(self, _: Any) -> None:
        if not self._abandoned and self._got is not None:
            logged(self._got, None)

    def _oversized(self, method: Any, header: Any) -> oversized.Sink:
        """Send a body on as it comes. For the header of a message above the limit."""
        returned = isinstance(method, pika.spec.Basic.Return)
        if self._abandoned or returned or self._forwarding is None:
            return oversized.drop(method, header)
        delivery = self._delivery(method, header.properties, b"")
        delivery.oversized = header.body_size
        return logged(self._forward, self._forwarding, delivery)

    def _forward(self, forwarding: Forwarding, delivery: Delivery) -> oversized.Sink:
        publication, done = self._events.on_oversized(delivery)
        return forwarding.begin(publication, delivery.oversized, done)

    def settled(self, delivery: Delivery) -> None:
        """Ack a message with the next acks."""
        self._acks.settled(delivery.tag)

    def requeue(self, delivery: Delivery) -> None:
        """Have the broker deliver a message again; it counts that as a delivery."""
        self._acks.requeued(delivery.tag)
        self._channel.basic_nack(delivery.tag, requeue=True)

    def send_acks(self) -> None:
        """Ack what was settled."""
        if not self._abandoned:
            self._acks.send(self._channel)

    # -- publishing

    def publish(self, publication: Publication, done: Done) -> None:
        """Send with mandatory and confirm; done is called once, with what became of it."""
        assert self._publishes is not None
        try:
            self._publishes.publish(publication, done)
        except UNENCODABLE:  # it would be so for ever
            raise
        except amqp.AMQPError:
            done(Outcome.LOST)


class Forwarding:
    """The channel that passes bodies on to the dead letters as they come. For the link's thread."""

    def __init__(
        self,
        connection: Any,
        channel: Any,
        answered: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        """answered: as for `ConfirmChannel`."""
        self._connection = connection
        self._channel = channel
        self._throttle = oversized.Throttle(connection, now)
        self.confirms = ConfirmChannel(channel, answered)

    def begin(self, publication: Publication, size: int, done: Done) -> oversized.Sink:
        """Publish a message of so many bytes, which the sink takes; done as for `publish`."""
        arguments = (self._connection, self._channel, publication, size, self._throttle)
        try:
            sink = oversized.forward(*arguments)
        except UNENCODABLE:
            plain_headers(publication.properties)
            sink = oversized.forward(*arguments)
        self.confirms.sent(publication, done)
        return sink
