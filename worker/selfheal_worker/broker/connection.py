"""The lasting connection of the worker: it comes back, and consumes and publishes with confirms.

All of it runs in the thread that calls `run`; only `call_soon` may be called from another.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import pika
import pika.exceptions as amqp
from pika.adapters.select_connection import IOLoop, SelectConnection

from selfheal_worker.backoff import backoff
from selfheal_worker.broker import deliveries, oversized
from selfheal_worker.broker.addresses import parameters
from selfheal_worker.broker.deliveries import (
    Delivery,
    Outcome,
    Publication,
    Unconfirmed,
    plain_headers,
)
from selfheal_worker.broker.errors import RIGHTS, BrokerError, explain, refusal
from selfheal_worker.broker.topology import Queue
from selfheal_worker.config import Settings
from selfheal_worker.logs import say
from selfheal_worker.randomness import RANDOM

CLOSE_TIMEOUT = 3.0
TICK = 0.25
# What cannot heal by itself (credentials, vhost, queue arguments) is tried this often at most.
SLOW_PAUSE = 15.0
# A connection that lasted this long was a good one: the next is tried without a long pause. One
# that comes up and falls at once (a broken queue) must not be tried ten times a second.
STEADY = 10.0
# What pika raises for headers that it cannot write.
_UNENCODABLE = (amqp.ShortStringTooLong, amqp.UnsupportedAMQPFieldException, struct.error)
_TOO_LARGE = re.compile(r"larger than configured max size (\d+)")


class Events(Protocol):
    """What a `Link` tells; all called in its thread."""

    def on_tick(self) -> None:
        """Called each `TICK` seconds, connected or not."""

    def on_up(self) -> None:
        """Connected, the queues are there, and one may publish and consume."""

    def on_down(self, error: BrokerError) -> None:
        """Not connected any more, or still not; all publishes that were under way are LOST."""

    def on_delivery(self, delivery: Delivery) -> None:
        """A message came."""

    def on_oversized(self, delivery: Delivery) -> tuple[Publication, Done]:
        """A message began to come whose body is above the limit, and is not held.

        It is published as this says, with its own body; `on_delivery` follows at its end.
        """

    def on_cancelled(self) -> None:
        """No more messages will come, as was asked for."""


Done = Callable[[Outcome], None]


class _Connection(SelectConnection):  # type: ignore[misc]  # pika has no types
    """Sends what one turn of the loop has to say in one piece.

    pika hands each frame to the socket by itself: four system calls a message, and after each the
    thread has to win the interpreter back from the handlers. (Measured: a quarter of the time.)
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._unsent: list[bytes] = []
        self.reading_held = False
        super().__init__(*arguments, **named)

    @property
    def backlog(self) -> int:
        """Bytes that wait to be sent."""
        waiting = sum(map(len, self._unsent))
        return waiting + (self._transport.get_write_buffer_size() if self._transport else 0)

    def _adapter_emit_data(self, data: bytes) -> None:
        if not self._unsent:
            self.ioloop.call_later(0, self._send_all)
        self._unsent.append(data)

    def _send_all(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._transport is not None and unsent:
            self._transport.write(b"".join(unsent))


class Link:
    """One connection to the broker that comes back. See the module's docstring for threads."""

    def __init__(
        self,
        settings: Settings,
        queues: Sequence[Queue],
        events: Events,
        randomness: Callable[[], float] = RANDOM.random,
    ) -> None:
        self._settings = settings
        self._queues = queues
        self._events = events
        self._random = randomness
        self._ioloop = IOLoop()
        self._connection: Any = None
        self._channel: Any = None
        self._forwarding: Any = None  # the channel of bodies that are too large to be held
        self._forwarded: Unconfirmed[Done] = Unconfirmed()
        self._attempts = 0
        self._up_since = 0.0
        self._consumer_tag: str | None = None
        self._got: Callable[[Delivery | None], None] = lambda _: None
        self._pending: Unconfirmed[Done] = Unconfirmed()
        self._unacked: dict[int, None] = {}  # in the order of delivery
        self._to_ack: set[int] = set()
        self._closing: Callable[[], None] | None = None
        self.epoch = 0
        # Bytes of a body that the broker takes; it does not tell before it refuses one.
        self.largest: float = math.inf
        self.up = False
        self.consuming = False
        self.blocked = False

    # -- the thread

    def run(self) -> None:
        """Connect, and serve until `close` has ended."""
        self._connect()
        self._tick()
        while True:
            try:
                self._ioloop.start()
                break
            except Exception as error:  # noqa: BLE001 see _recover
                self._recover(error)
        self._ioloop.close()

    def _recover(self, error: Exception) -> None:
        """Start over with a new I/O loop after an exception that nobody caught.

        pika raises from inside its loop when, for one, a connection is reset just after it was
        made. The process goes on as after a lost connection; what was in the old loop is gone.
        """
        say(logging.ERROR, "the connection's loop broke", error=repr(error)[:500])
        broken, self._ioloop = self._ioloop, IOLoop()
        connection, self._connection = self._connection, None
        # An orderly close would need the loop that broke. The broker has to see the end at once,
        # or it would wait for two heartbeats before it gives our messages to others.
        socket = getattr(getattr(connection, "_transport", None), "_sock", None)
        if socket is not None:
            socket.close()
        self._down(BrokerError(f"internal error: {type(error).__name__}"))
        self._tick()
        with contextlib.suppress(Exception):
            broken.close()

    def _tick(self) -> None:
        self._ioloop.call_later(TICK, self._tick)
        self._events.on_tick()

    def call_soon(self, function: Callable[[], None]) -> None:
        """Have function called in the link's thread. From any thread.

        It is forgotten when the loop breaks just then: `on_tick` looks at what must not be.
        """
        self._ioloop.add_callback_threadsafe(function)

    def close(self, done: Callable[[], None]) -> None:
        """Close and end `run`; done is called just before. Acks that were given are sent first."""
        if self._closing is not None:
            return
        self._closing = done
        if self._connection is None or not self._connection.is_open:
            self._end()
            return
        if self.up:
            self._send_acks()
        self._connection.close()
        self._ioloop.call_later(CLOSE_TIMEOUT, self._end)

    def _end(self) -> None:
        if self._closing is not None:
            done, self._closing = self._closing, lambda: None
            done()
        self._ioloop.stop()

    # -- connecting

    def _connect(self) -> None:
        if self._closing is not None:
            return
        try:
            addresses = parameters(self._settings)
        except BrokerError as error:
            self._down(error)
            return
        one = addresses[self._attempts % len(addresses)]
        self.epoch += 1
        epoch = self.epoch
        self._connection = _Connection(
            one,
            on_open_callback=partial(self._opened, epoch),
            on_open_error_callback=lambda _, error: self._lost(epoch, explain(error, one)),
            on_close_callback=lambda _, error: self._lost(epoch, explain(error, one)),
            custom_ioloop=self._ioloop,
        )

    def _opened(self, epoch: int, connection: Any) -> None:
        connection.add_on_connection_blocked_callback(lambda *_: self._set_blocked(epoch, True))
        connection.add_on_connection_unblocked_callback(lambda *_: self._set_blocked(epoch, False))
        self.declare(partial(self._declared, epoch))

    def _set_blocked(self, epoch: int, blocked: bool) -> None:
        if epoch == self.epoch:
            self.blocked = blocked

    def declare(self, done: Callable[[BrokerError | None], None]) -> None:
        """Declare all queues, on a channel of its own, because a refusal closes it."""
        _Declaration(self._connection, self._queues, done)

    def _declared(self, epoch: int, error: BrokerError | None) -> None:
        if epoch != self.epoch or self._closing is not None:
            return
        if error is not None:
            self._give_up(epoch, error)
            return
        self._connection.channel(on_open_callback=partial(self._forwarding_opened, epoch))

    def _forwarding_opened(self, epoch: int, channel: Any) -> None:
        if epoch != self.epoch:
            return
        largest = self._settings.max_body_bytes
        self._forwarding, self._forwarded = channel, Unconfirmed()
        channel.add_on_close_callback(lambda _, error: self._channel_closed(epoch, error))
        channel.add_on_return_callback(partial(self._returned, epoch, self._forwarded))
        channel._content_assembler = oversized.Assembler(largest, oversized.drop)
        channel.confirm_delivery(partial(self._confirmed, epoch, self._forwarded))
        self._connection.channel(on_open_callback=partial(self._channel_opened, epoch))

    def _channel_opened(self, epoch: int, channel: Any) -> None:
        self._channel = channel
        channel._content_assembler = oversized.Assembler(
            self._settings.max_body_bytes, partial(self._oversized, epoch)
        )
        channel.add_on_close_callback(lambda _, error: self._channel_closed(epoch, error))
        channel.add_on_cancel_callback(
            lambda _: self._give_up(epoch, BrokerError("the broker cancelled the consumer"))
        )
        channel.add_callback(
            lambda _: self._got_none(epoch), [pika.spec.Basic.GetEmpty], one_shot=False
        )
        self._pending = Unconfirmed()
        channel.add_on_return_callback(partial(self._returned, epoch, self._pending))
        channel.confirm_delivery(partial(self._confirmed, epoch, self._pending))
        channel.basic_qos(prefetch_count=self._settings.concurrency)
        # For a queue that nobody has: the broker drops it, but looks at our rights before. Without
        # the right to publish, each message would be analysed for nothing, again and again.
        nowhere = Publication(f"{self._settings.queue_name}.rights", b"", pika.BasicProperties())
        self._send(nowhere, mandatory=False)
        self._pending.add(nowhere, lambda _: self._ready(epoch))

    def _ready(self, epoch: int) -> None:
        if epoch == self.epoch and self._closing is None:
            self.up = True
            self._up_since = time.monotonic()
            self._events.on_up()

    def _channel_closed(self, epoch: int, error: Any) -> None:
        # When the whole connection goes, its own callback comes next, and knows more.
        if not isinstance(error, amqp.ChannelClosed) or self._closing is not None:
            return
        why = f"the broker closed the channel: {error.reply_text}"
        if found := _TOO_LARGE.search(error.reply_text):
            self.largest = int(found[1])
        if error.reply_code == 403:
            self._give_up(epoch, BrokerError(f"{why}; {RIGHTS}", permanent=True))
        else:
            self._give_up(epoch, BrokerError(why))

    def _give_up(self, epoch: int, error: BrokerError) -> None:
        """Drop a connection that is there but of no use, and start again."""
        if epoch != self.epoch:
            return
        connection = self._connection
        self._lost(epoch, error)
        if connection.is_open:
            connection.close()

    def _lost(self, epoch: int, error: BrokerError) -> None:
        if epoch != self.epoch:
            return
        self._down(error)

    def _down(self, error: BrokerError) -> None:
        self.epoch += 1  # so that later words of the old connection are not heard
        if self.up and time.monotonic() - self._up_since >= STEADY:
            self._attempts = 0
        self.up = self.consuming = self.blocked = False
        self._channel = None
        self._consumer_tag = None
        self._unacked.clear()
        self._to_ack.clear()
        lost = self._pending.drain() + self._forwarded.drain()
        self._forwarding = None
        if self._closing is not None:
            self._end()
            return
        for waiting in lost:
            waiting.told(Outcome.LOST)
        self._events.on_down(error)
        pause = backoff(self._attempts, self._random())
        if error.permanent:
            pause = max(pause, SLOW_PAUSE * (0.5 + self._random() / 2))
        self._attempts += 1
        self._ioloop.call_later(pause, self._connect)

    # -- consuming

    def consume(self) -> None:
        """Take messages, as many at a time as the prefetch allows."""
        if self.up and self._consumer_tag is None:
            epoch = self.epoch
            self._consumer_tag = self._channel.basic_consume(
                self._settings.queue_name,
                partial(self._delivered, epoch, self._events.on_delivery),
                callback=lambda _: self._set_consuming(epoch),
            )

    def _set_consuming(self, epoch: int) -> None:
        if epoch == self.epoch and self._consumer_tag is not None:
            self.consuming = True

    def _delivered(
        self,
        epoch: int,
        taken: Callable[[Delivery], None],
        _: Any,
        method: Any,
        properties: Any,
        body: bytes,
    ) -> None:
        if epoch != self.epoch:
            return
        delivery = deliveries.delivery(method, properties, body, epoch=epoch)
        self._unacked[delivery.tag] = None
        with _told():
            taken(delivery)

    def _oversized(self, epoch: int, method: Any, header: Any) -> oversized.Sink:
        """Send a body on as it comes. For the header of a message above the limit."""
        if epoch != self.epoch or isinstance(method, pika.spec.Basic.Return):
            return oversized.drop(method, header)
        delivery = deliveries.delivery(method, header.properties, b"", epoch=epoch)
        delivery.oversized = header.body_size
        self._unacked[delivery.tag] = None
        with _told():
            publication, done = self._events.on_oversized(delivery)
            begin = partial(
                oversized.forward, self._connection, self._forwarding, publication, header.body_size
            )
            try:
                sink = begin()
            except _UNENCODABLE:
                plain_headers(publication.properties)
                sink = begin()
        self._forwarded.add(publication, done)
        return sink

    def get(self, done: Callable[[Delivery | None], None]) -> None:
        """Take one message without a consumer; done is called with it, or None if none is there.

        One at a time. done is not called when the connection is lost meanwhile.
        """
        self._got = done
        self._channel.basic_get(
            self._settings.queue_name, partial(self._delivered, self.epoch, done)
        )

    def _got_none(self, epoch: int) -> None:
        if epoch == self.epoch:
            with _told():
                self._got(None)

    @property
    def subscribed(self) -> bool:
        """Whether messages come, or will as soon as the broker has heard of it."""
        return self._consumer_tag is not None

    def cancel(self) -> None:
        """Take no more messages; those on the way still come, until `on_cancelled`."""
        if not self.up or self._consumer_tag is None:
            return
        tag, self._consumer_tag = self._consumer_tag, None
        epoch = self.epoch
        self.consuming = False
        self._channel.basic_cancel(tag, callback=lambda _: self._cancelled(epoch))
        # Else pika itself rejects what is on the way, and each reject counts as a delivery.
        self._channel._cancelled.discard(tag)

    def _cancelled(self, epoch: int) -> None:
        if epoch == self.epoch:
            self._events.on_cancelled()

    def ack(self, delivery: Delivery) -> None:
        """Settle a message, from within its `Done`; without effect when its connection is gone."""
        if self.up and delivery.epoch == self.epoch:
            self._to_ack.add(delivery.tag)

    def requeue(self, delivery: Delivery) -> None:
        """Have the broker deliver a message again; it counts that as a delivery."""
        if self.up and delivery.epoch == self.epoch:
            self._unacked.pop(delivery.tag, None)
            self._channel.basic_nack(delivery.tag, requeue=True)

    def _send_acks(self) -> None:
        """Ack what was settled: all from the oldest on in one frame, the others one by one."""
        ready, unacked = self._to_ack, self._unacked
        last = 0
        for tag in unacked:
            if tag not in ready:
                break
            last = tag
        if last:
            self._channel.basic_ack(last, multiple=True)
            for tag in [tag for tag in unacked if tag <= last]:
                del unacked[tag]
                ready.discard(tag)
        for tag in ready:
            self._channel.basic_ack(tag)
            del unacked[tag]
        ready.clear()

    # -- publishing

    def publish(self, publication: Publication, done: Done) -> None:
        """Send with mandatory and confirm; done is called once, with what became of it."""
        if not self.up:
            done(Outcome.LOST)
            return
        try:
            self._send(publication)
        except _UNENCODABLE:
            plain_headers(publication.properties)
            self._send(publication)
        except amqp.AMQPError:
            done(Outcome.LOST)
            return
        self._pending.add(publication, done)

    def _send(self, publication: Publication, *, mandatory: bool = True) -> None:
        self._channel.basic_publish(
            "", publication.queue, publication.body, publication.properties, mandatory=mandatory
        )

    def _confirmed(self, epoch: int, sent: Unconfirmed[Done], frame: Any) -> None:
        # One that was given up speaks until its close is answered, and counts its own tags.
        if epoch != self.epoch:
            return
        method = frame.method
        took = isinstance(method, pika.spec.Basic.Ack)
        with _told():
            for one in sent.settled(method):
                if one.returned:
                    one.told(Outcome.RETURNED)
                else:
                    one.told(Outcome.CONFIRMED if took else Outcome.REFUSED)
        if self._to_ack:
            self._send_acks()

    def _returned(
        self, epoch: int, sent: Unconfirmed[Done], _: Any, method: Any, __: Any, body: bytes
    ) -> None:
        if epoch == self.epoch:
            sent.returned(method, body)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Log an exception of ours before pika makes a lost connection of it, without a word."""
    try:
        yield
    except Exception as error:
        say(logging.ERROR, "a callback failed", error=type(error).__name__)
        raise


class _Declaration:
    """Declares queues one after the other; a user who may not is content when they are there."""

    def __init__(
        self, connection: Any, queues: Sequence[Queue], done: Callable[[BrokerError | None], None]
    ) -> None:
        self._connection = connection
        self._left = deque(queues)
        self._only_look = False
        self._done: Callable[[BrokerError | None], None] | None = done
        self._open()

    def _open(self) -> None:
        self._connection.channel(on_open_callback=self._opened)

    def _opened(self, channel: Any) -> None:
        self._channel = channel
        channel.add_on_close_callback(lambda _, error: self._closed(error))
        self._next()

    def _next(self) -> None:
        if not self._left:
            self._finish(None)
            self._channel.close()
            return
        queue = self._left[0]
        self._channel.queue_declare(
            queue.name,
            passive=self._only_look,
            durable=True,
            arguments=dict(queue.arguments),
            callback=lambda _: self._declared(),
        )

    def _declared(self) -> None:
        self._left.popleft()
        self._next()

    def _closed(self, error: Any) -> None:
        forbidden = isinstance(error, amqp.ChannelClosed) and error.reply_code == 403
        if self._left and forbidden and not self._only_look:
            self._only_look = True
            self._open()
            return
        self._finish(refusal(self._left[0] if self._left else None, error))

    def _finish(self, error: BrokerError | None) -> None:
        if self._done is not None:
            done, self._done = self._done, None
            done(error)
