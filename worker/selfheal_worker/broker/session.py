"""The short, blocking connection of the commands."""

from __future__ import annotations

import contextlib
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import pika
import pika.exceptions as amqp
from pika.adapters.utils import connection_workflow as workflow

from selfheal_worker.broker.addresses import parameters
from selfheal_worker.broker.deliveries import (
    Delivery,
    OnTheWay,
    Publication,
    Unconfirmed,
    delivery,
    plain_headers,
)
from selfheal_worker.broker.errors import BrokerError, address, explain, innermost, plain, refusal
from selfheal_worker.broker.topology import Queue
from selfheal_worker.config import Settings

# Publishes of a command that the broker has not confirmed yet: one by one, each would wait for
# the disk of a majority. A lost connection can leave so many in doubt.
WINDOW = 100
# And no more bytes than this, or the one that is larger.
WINDOW_BYTES = 8 * 1024 * 1024
RELEASE_PATIENCE = 2.0


class Session:
    """A blocking connection. All methods raise `BrokerError`."""

    def __init__(self, settings: Settings) -> None:
        self._held = 0
        self._out: Any = None
        self._on_the_way: Unconfirmed[Callable[[], None]] = Unconfirmed()
        # Each with whether the broker took it.
        self._settled: deque[tuple[OnTheWay[Callable[[], None]], bool]] = deque()
        self._refusal: BrokerError | None = None
        troubles = []
        for one in parameters(settings):
            try:
                self._connection = pika.BlockingConnection(one)
                break
            except (amqp.AMQPError, workflow.AMQPConnectorException, OSError) as error:
                troubles.append(explain(error, one))
        else:
            raise BrokerError(
                "; ".join(str(trouble) for trouble in troubles),
                permanent=all(trouble.permanent for trouble in troubles),
            )
        self._where = address(one)
        self._open()

    def _open(self) -> None:
        self._channel = self._connection.channel()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._connection.is_open:
            self._connection.close()

    def declare(self, queue: Queue) -> None:
        """Declare one queue."""
        try:
            self._channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments))
        except amqp.ChannelClosed as error:
            self._open()
            raise refusal(queue, error) from None
        except amqp.AMQPError as error:
            raise self._lost(error) from None

    def count(self, queue: str) -> int:
        """How many messages are ready in a queue."""
        with self._about(queue):
            found: int = self._channel.queue_declare(queue, passive=True).method.message_count
        return found

    def send(self, publication: Publication, done: Callable[[], None]) -> None:
        """Send one message, waiting only while `WINDOW` are on their way.

        done is called when the broker has it, from within a later `send` or `flush`. Raises when
        the broker refused one, after it has answered for all, or when the connection was lost:
        whether those that are `in_doubt` arrived is not known then.
        """
        try:
            self._publish(publication)
        except amqp.AMQPError as error:
            raise self._lost(error) from None
        self._on_the_way.add(publication, done)
        self._await_confirms(WINDOW - 1 if self._on_the_way.size < WINDOW_BYTES else 0)

    def flush(self) -> None:
        """Wait until the broker has all that was sent."""
        self._await_confirms(0)

    @property
    def in_doubt(self) -> int:
        """How many messages were sent that the broker has not confirmed."""
        return len(self._on_the_way)

    def _publish(self, publication: Publication) -> None:
        if self._out is None:
            # pika's blocking channel waits for each confirm; the one beneath it does not.
            self._out = self._connection.channel()
            self._out._impl.confirm_delivery(self._confirmed)
            self._out._impl.add_on_return_callback(self._returned)
        arguments = ("", publication.queue, publication.body)
        try:
            self._out._impl.basic_publish(*arguments, publication.properties, mandatory=True)
        except (amqp.ShortStringTooLong, amqp.UnsupportedAMQPFieldException, struct.error):
            plain_headers(publication.properties)
            self._out._impl.basic_publish(*arguments, publication.properties, mandatory=True)

    def _confirmed(self, frame: Any) -> None:
        took = not isinstance(frame.method, pika.spec.Basic.Nack)
        self._settled.extend((one, took) for one in self._on_the_way.settled(frame.method))

    def _returned(self, _: Any, method: Any, __: Any, body: bytes) -> None:
        self._on_the_way.returned(method, body)

    def _await_confirms(self, allowed: int) -> None:
        """Wait until at most so many are on their way, and tell of those that arrived: not from
        within pika's callbacks, where nothing may be sent."""
        while True:
            while self._settled:
                self._tell(*self._settled.popleft())
            if len(self._on_the_way) <= (0 if self._refusal else allowed):
                break
            try:
                self._out._flush_output(lambda: bool(self._settled))
            except amqp.AMQPError as error:
                raise self._lost(error) from None
        if self._refusal is not None:
            raise self._refusal

    def _tell(self, sent: OnTheWay[Callable[[], None]], took: bool) -> None:
        queue = sent.publication.queue
        if sent.returned:
            self._refusal = BrokerError(
                f"queue '{queue}' does not exist; declare it with `selfheal-worker topology`",
                permanent=True,
            )
        elif not took:
            self._refusal = BrokerError(f"queue '{queue}' refused it: it is full")
        else:
            sent.told()

    def get(self, queue: str) -> Delivery | None:
        """Take one message without acking it, or None when there is none ready."""
        with self._about(queue):
            method, properties, body = self._channel.basic_get(queue)
        if method is None:
            return None
        self._held += 1
        return delivery(method, properties, body)

    def deliveries(self, queue: str, prefetch: int, wait: float) -> Iterator[Delivery | None]:
        """Messages as they come, unacked; None after each `wait` seconds without one."""
        with self._about(queue):
            self._channel.basic_qos(prefetch_count=prefetch)
            for method, properties, body in self._channel.consume(queue, inactivity_timeout=wait):
                yield None if method is None else delivery(method, properties, body)

    def stop_deliveries(self) -> None:
        """End `deliveries`; what it had taken beyond what was yielded goes back."""
        try:
            self._channel.cancel()
        except amqp.AMQPError as error:
            raise self._lost(error) from None

    def ack(self, delivery: Delivery) -> None:
        """Settle one message."""
        self._held -= 1
        try:
            self._channel.basic_ack(delivery.tag)
        except amqp.AMQPError as error:
            raise self._lost(error) from None

    def release(self, queue: str) -> None:
        """Requeue all messages that were consumed from queue and not acked.

        Waits briefly until they are ready again, because the broker requeues them
        asynchronously, and the next consumer would find none.
        """
        held, self._held = self._held, 0
        try:
            self._channel.close()
            self._open()
        except amqp.AMQPError as error:
            raise self._lost(error) from None
        end = time.monotonic() + RELEASE_PATIENCE
        while self.count(queue) < held and time.monotonic() < end:
            time.sleep(0.02)

    @contextlib.contextmanager
    def _about(self, queue: str) -> Iterator[None]:
        try:
            yield
        except amqp.ChannelClosed as error:
            self._open()
            raise BrokerError(f"queue '{queue}': {error.reply_text}", permanent=True) from None
        except amqp.AMQPError as error:
            raise self._lost(error) from None

    def _lost(self, error: amqp.AMQPError) -> BrokerError:
        return BrokerError(f"{self._where}: {plain(innermost(error))}")
