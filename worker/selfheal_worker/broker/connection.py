"""The lasting connection of the worker: it comes back, and consumes and publishes with confirms.

All of it runs in the thread that calls `run`; only `call_soon` may be called from another, and
`up`, `blocked` and `consuming` be read.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pika.exceptions as amqp
from pika.adapters.select_connection import IOLoop

from selfheal_worker.broker.addresses import parameters
from selfheal_worker.broker.channels import Channels, Got
from selfheal_worker.broker.declaration import Declaration
from selfheal_worker.broker.deliveries import Delivery, Done, Outcome, Publication
from selfheal_worker.broker.errors import RIGHTS, BrokerError, explain
from selfheal_worker.broker.events import Events
from selfheal_worker.broker.pika_patches import BufferedConnection
from selfheal_worker.broker.reconnecting import Reconnecting
from selfheal_worker.broker.topology import Queue
from selfheal_worker.config import Settings
from selfheal_worker.logs import say
from selfheal_worker.runtime import REAL, Runtime

CLOSE_TIMEOUT = 3.0
TICK = 0.25
_TOO_LARGE = re.compile(r"larger than configured max size (\d+)")


class _Loop:
    """The I/O loop, and how another one is made where it broke; now: the clock."""

    def __init__(self, make: Callable[[], Any], now: Callable[[], float]) -> None:
        self._make = make
        self.now = now
        self.current = make()

    def replace(self) -> Any:
        """Make another one; the one that broke."""
        broken, self.current = self.current, self._make()
        return broken


class Link:
    """One connection to the broker that comes back. See the module's docstring for threads.

    Each attempt to connect has a number, its epoch; what is heard of an earlier one is ignored.
    """

    def __init__(
        self,
        settings: Settings,
        queues: Sequence[Queue],
        events: Events,
        randomness: Callable[[], float] | None = None,
        *,
        loop: Callable[[], Any] = IOLoop,
        runtime: Runtime = REAL,
    ) -> None:
        """loop: makes an I/O loop, on which pika connects; randomness: the runtime's by default."""
        self._settings = settings
        self._queues = queues
        self._events = events
        self._reconnecting = Reconnecting(randomness or runtime.random.random, runtime.monotonic)
        self._loop = _Loop(loop, runtime.monotonic)
        self._connection: Any = None
        self._channels: Channels | None = None
        self._closing: Callable[[], None] | None = None
        self.epoch = 0
        # Bytes of a body that the broker takes; it does not tell before it refuses one.
        self.largest: float = math.inf
        self.up = False
        self.blocked = False

    # -- the thread

    def run(self) -> None:
        """Connect, and serve until `close` has ended."""
        self._connect()
        self._tick()
        while True:
            try:
                self._loop.current.start()
                break
            except Exception as error:  # noqa: BLE001 see _recover
                self._recover(error)
        self._loop.current.close()

    def _recover(self, error: Exception) -> None:
        """Start over with a new I/O loop after an exception that nobody caught.

        pika raises from inside its loop when, for one, a connection is reset just after it was
        made. The process continues as after a lost connection; what was in the old loop is gone.
        """
        say(logging.ERROR, "the connection's loop broke", error=repr(error)[:500])
        broken = self._loop.replace()
        connection, self._connection = self._connection, None
        # An orderly close would need the loop that broke. The broker has to see the end at once,
        # or it would wait for two heartbeats before it gives our messages to others.
        if connection is not None:
            connection.abort()
        self._down(BrokerError(f"internal error: {type(error).__name__}"))
        self._tick()
        with contextlib.suppress(Exception):
            broken.close()

    def _tick(self) -> None:
        self._loop.current.call_later(TICK, self._tick)
        self._events.on_tick()

    def call_soon(self, function: Callable[[], None]) -> None:
        """Have function called in the link's thread. From any thread.

        It is lost if the loop breaks just then; `on_tick` makes up for what must not be lost.
        """
        self._loop.current.add_callback_threadsafe(function)

    def close(self, done: Callable[[], None]) -> None:
        """Close and end `run`; done is called just before. Acks that were given are sent first."""
        if self._closing is not None:
            return
        self._closing = done
        if self._connection is None or not self._connection.is_open:
            self._end()
            return
        if self.up and self._channels is not None:
            self._channels.send_acks()
        self._connection.close()
        self._loop.current.call_later(CLOSE_TIMEOUT, self._end)

    def _end(self) -> None:
        if self._closing is not None:
            done, self._closing = self._closing, _nothing
            done()
        self._loop.current.stop()

    # -- connecting

    def _connect(self) -> None:
        if self._closing is not None:
            return
        try:
            addresses = parameters(self._settings)
        except BrokerError as error:
            self._down(error)
            return
        one = addresses[self._reconnecting.attempts % len(addresses)]
        self.epoch += 1
        ended = partial(self._connection_ended, self.epoch, one)
        self._connection = BufferedConnection(
            one,
            on_open_callback=partial(self._opened, self.epoch),
            on_open_error_callback=ended,
            on_close_callback=ended,
            custom_ioloop=self._loop.current,
        )

    def _connection_ended(self, epoch: int, parameters: Any, _: Any, error: Any) -> None:
        self._lost(epoch, explain(error, parameters))

    def _opened(self, epoch: int, connection: Any) -> None:
        connection.add_on_connection_blocked_callback(partial(self._set_blocked, epoch, True))
        connection.add_on_connection_unblocked_callback(partial(self._set_blocked, epoch, False))
        self.declare(partial(self._declared, epoch))

    def _set_blocked(self, epoch: int, blocked: bool, *_: Any) -> None:
        if epoch == self.epoch:
            self.blocked = blocked

    def declare(self, done: Callable[[BrokerError | None], None]) -> None:
        """Declare all queues; done gets the first one's refusal, or None."""
        Declaration(self._connection, self._queues, done)

    def _declared(self, epoch: int, error: BrokerError | None) -> None:
        if epoch != self.epoch or self._closing is not None:
            return
        if error is not None:
            self.channels_useless(epoch, error)
            return
        self._channels = Channels(
            self._settings, self._connection, epoch, self._events, self, self._loop.now
        )

    def channels_ready(self, epoch: int) -> None:
        """One may publish and consume. Called by the channels."""
        if epoch == self.epoch and self._closing is None:
            self.up = True
            self._reconnecting.up()
            self._events.on_up()

    def channel_closed(self, epoch: int, error: Any) -> None:
        """A channel was closed, with pika's reason. Called by the channels."""
        # When the whole connection goes, its own callback comes next, and knows more.
        if not isinstance(error, amqp.ChannelClosed) or self._closing is not None:
            return
        why = f"the broker closed the channel: {error.reply_text}"
        if found := _TOO_LARGE.search(error.reply_text):
            self.largest = int(found[1])
        if error.reply_code == 403:
            self.channels_useless(epoch, BrokerError(f"{why}; {RIGHTS}", permanent=True))
        else:
            self.channels_useless(epoch, BrokerError(why))

    def channels_useless(self, epoch: int, error: BrokerError) -> None:
        """Drop a connection that is there but of no use, and start again."""
        if epoch != self.epoch:
            return
        connection = self._connection
        self._lost(epoch, error)
        if connection.is_open:
            connection.close()

    def _lost(self, epoch: int, error: BrokerError) -> None:
        if epoch == self.epoch:
            self._down(error)

    def _down(self, error: BrokerError) -> None:
        self.epoch += 1  # so that later reports of the old connection are ignored
        self._reconnecting.down()
        self.up = self.blocked = False
        channels, self._channels = self._channels, None
        lost = channels.abandon() if channels is not None else []
        if self._closing is not None:
            self._end()
            return
        for done in lost:
            done(Outcome.LOST)
        self._events.on_down(error)
        pause = self._reconnecting.pause(permanent=error.permanent)
        self._loop.current.call_later(pause, self._connect)

    # -- consuming

    def _usable(self) -> Channels | None:
        return self._channels if self.up else None

    def consume(self) -> None:
        """Take messages, as many at a time as the prefetch allows."""
        if channels := self._usable():
            channels.consume()

    def get(self, done: Got) -> None:
        """Take one message without a consumer; done is called with it, or None if none is there.

        One at a time, and while `up`. done is not called when the connection is lost meanwhile.
        """
        if channels := self._usable():
            channels.get(done)

    @property
    def subscribed(self) -> bool:
        """Whether messages come, or will as soon as the broker has heard of it."""
        return self._channels is not None and self._channels.subscribed

    @property
    def consuming(self) -> bool:
        """Whether messages come."""
        channels = self._channels
        return channels is not None and channels.consuming

    def cancel(self) -> None:
        """Take no more messages; those on the way still come, until `on_cancelled`."""
        if channels := self._usable():
            channels.cancel()

    def ack(self, delivery: Delivery) -> None:
        """Settle a message, from within its `Done`; without effect when its connection is gone."""
        channels = self._usable()
        if channels is not None and delivery.epoch == self.epoch:
            channels.settled(delivery)

    def requeue(self, delivery: Delivery) -> None:
        """Have the broker deliver a message again; it counts that as a delivery."""
        channels = self._usable()
        if channels is not None and delivery.epoch == self.epoch:
            channels.requeue(delivery)

    # -- publishing

    def publish(self, publication: Publication, done: Done) -> None:
        """Send with mandatory and confirm; done is called once, with what became of it."""
        if channels := self._usable():
            channels.publish(publication, done)
        else:
            done(Outcome.LOST)


def _nothing() -> None:
    """What is left to be done at the end, when all is done."""
