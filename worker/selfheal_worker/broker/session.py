"""The short connection of the commands: each method returns when the broker has answered.

It is served only while a method waits, in the thread that calls it.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Any

import pika
import pika.exceptions as amqp
from pika.adapters.select_connection import IOLoop, SelectConnection

from selfheal_worker.broker.addresses import parameters
from selfheal_worker.broker.confirms import ConfirmChannel
from selfheal_worker.broker.deliveries import Delivery, Outcome, Publication, delivery
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
    """A connection whose methods wait. All of them raise `BrokerError`."""

    def __init__(self, settings: Settings) -> None:
        self._loop = IOLoop()
        self._connection: Any = None
        self._channel: Any = None
        self._out: ConfirmChannel | None = None
        #: Why the connection, or the channel, was closed; None while it is open.
        self._ended: BaseException | None = None
        self._channel_closed: BaseException | None = None
        self._answers: deque[Any] = deque()
        self._held = 0
        self._consumer = ""
        self._came: deque[Delivery] = deque()
        self._refusal: BrokerError | None = None
        troubles = []
        for one in parameters(settings):
            if self._connect(one):
                break
            troubles.append(explain(self._ended, one))
        else:
            raise BrokerError(
                "; ".join(str(trouble) for trouble in troubles),
                permanent=all(trouble.permanent for trouble in troubles),
            )
        self._where = address(one)
        self._open()

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
            self._serve(self._has_ended)
        self._loop.close()

    # -- the connection

    def _connect(self, one: pika.ConnectionParameters) -> bool:
        """Whether a connection was made; `_ended` says why not."""
        self._ended = None
        self._connection = SelectConnection(
            one,
            on_open_callback=self._wake,
            on_open_error_callback=self._has_closed,
            on_close_callback=self._has_closed,
            custom_ioloop=self._loop,
        )
        self._serve(self._is_open)
        return self._ended is None

    def _is_open(self) -> bool:
        return bool(self._connection.is_open)

    def _has_ended(self) -> bool:
        return self._ended is not None

    def _has_closed(self, _: Any, error: BaseException) -> None:
        self._ended = error
        self._wake()

    def _wake(self, *_: Any) -> None:
        self._loop.stop()

    def _serve(self, done: Callable[[], bool], seconds: float | None = None) -> bool:
        """Serve the connection until done, its end, or for so many seconds; whether it is done."""
        end = None if seconds is None else time.monotonic() + seconds
        timer = None if seconds is None else self._loop.call_later(seconds, self._wake)
        while not done() and self._ended is None and (end is None or time.monotonic() < end):
            self._loop.start()
        if timer is not None:
            self._loop.remove_timeout(timer)
        return done()

    def _send_now(self) -> None:
        """Send what was written: acks have no answer that would be waited for."""
        self._loop.call_later(0, self._wake)
        self._loop.start()

    def _lost(self) -> BrokerError:
        return BrokerError(f"{self._where}: {plain(innermost(self._ended))}")

    # -- the channel for all but publishes

    def _open(self) -> None:
        self._channel = self._new_channel()
        self._channel.add_on_close_callback(self._channel_has_closed)
        self._channel.add_callback(self._answered, [pika.spec.Basic.GetEmpty], one_shot=False)

    def _new_channel(self) -> Any:
        self._channel_closed = None
        with self._about("-"):
            (channel,) = self._call(self._connection.channel, into="on_open_callback")
        return channel

    def _channel_has_closed(self, _: Any, error: BaseException) -> None:
        self._channel_closed = error
        self._wake()

    def _answered(self, *answer: Any) -> None:
        self._answers.append(answer)
        self._wake()

    def _has_answer(self) -> bool:
        return bool(self._answers) or self._channel_closed is not None

    def _call(
        self, method: Callable[..., Any], *arguments: Any, into: str = "callback", **named: Any
    ) -> Any:
        """What the broker answers to a method. Raises pika's `ChannelClosed` if it closes the
        channel instead; that is open again then."""
        self._answers.clear()
        method(*arguments, **named, **{into: self._answered})
        if not self._serve(self._has_answer):
            raise self._lost()
        if self._answers:
            return self._answers.popleft()
        closed = self._channel_closed
        self._open()
        assert closed is not None
        raise closed

    @contextlib.contextmanager
    def _about(self, queue: str) -> Iterator[None]:
        """What pika raises, as ours: the channel was closed for a queue, or the connection lost."""
        try:
            yield
        except amqp.ChannelClosed as error:
            raise BrokerError(f"queue '{queue}': {error.reply_text}", permanent=True) from None
        except amqp.AMQPError as error:
            cause = innermost(self._ended or error)
            raise BrokerError(f"{self._where}: {plain(cause)}") from None

    def declare(self, queue: Queue) -> None:
        """Declare one queue."""
        declare, arguments = self._channel.queue_declare, dict(queue.arguments)
        with self._about(queue.name):
            try:
                self._call(declare, queue.name, durable=True, arguments=arguments)
            except amqp.ChannelClosed as error:
                raise refusal(queue, error) from None

    def count(self, queue: str) -> int:
        """How many messages are ready in a queue."""
        with self._about(queue):
            (frame,) = self._call(self._channel.queue_declare, queue, passive=True)
        found: int = frame.method.message_count
        return found

    # -- publishing

    def send(self, publication: Publication, done: Callable[[], None]) -> None:
        """Send one message, waiting only while `WINDOW` are on their way.

        done is called when the broker has it, from within a later `send` or `flush`. Raises when
        the broker refused one, after it has answered for all, or when the connection was lost:
        whether those that are `in_doubt` arrived is not known then.
        """
        if self._out is None:
            self._out = ConfirmChannel(self._new_channel(), self._wake)
        with self._about(publication.queue):
            self._out.publish(publication, partial(self._sent, publication.queue, done))
        self._await_confirms(WINDOW - 1 if self._out.bytes_waiting < WINDOW_BYTES else 0)

    def flush(self) -> None:
        """Wait until the broker has all that was sent."""
        self._await_confirms(0)

    @property
    def in_doubt(self) -> int:
        """How many messages were sent that the broker has not confirmed."""
        return len(self._out) if self._out is not None else 0

    def _sent(self, queue: str, done: Callable[[], None], outcome: Outcome) -> None:
        if outcome is Outcome.CONFIRMED:
            done()
        elif outcome is Outcome.RETURNED:
            self._refusal = BrokerError(
                f"queue '{queue}' does not exist; declare it with `selfheal-worker topology`",
                permanent=True,
            )
        else:
            self._refusal = BrokerError(f"queue '{queue}' refused it: it is full")

    def _await_confirms(self, allowed: int) -> None:
        """Wait until at most so many are on their way; after a refusal, until none is."""
        if not self._serve(partial(self._are_confirmed, allowed)):
            raise self._lost()
        if self._refusal is not None:
            raise self._refusal

    def _are_confirmed(self, allowed: int) -> bool:
        return self.in_doubt <= (0 if self._refusal else allowed)

    # -- taking messages

    def get(self, queue: str) -> Delivery | None:
        """Take one message without acking it, or None when there is none ready."""
        with self._about(queue):
            answer = self._call(self._channel.basic_get, queue)
        if len(answer) == 1:  # Basic.GetEmpty
            return None
        self._held += 1
        return delivery(*answer[1:])

    def deliveries(self, queue: str, prefetch: int, wait: float) -> Iterator[Delivery | None]:
        """Messages as they come, unacked; None after each `wait` seconds without one."""
        with self._about(queue):
            self._call(self._channel.basic_qos, prefetch_count=prefetch)
            self._channel.add_on_cancel_callback(self._channel_has_closed)
            self._consumer = self._channel.basic_consume(queue, self._take)
            while True:
                self._send_now()
                self._serve(self._has_come, wait)
                if not self._came and self._ended is not None:
                    raise self._lost()
                if not self._came and self._channel_closed is not None:
                    raise self._channel_closed
                yield self._came.popleft() if self._came else None

    def stop_deliveries(self) -> None:
        """End `deliveries`; what had come beyond what was yielded goes back."""
        with self._about(self._consumer):
            self._call(self._channel.basic_cancel, self._consumer)
            for one in self._came:
                self._channel.basic_nack(one.tag)
        self._came.clear()

    def _take(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        self._came.append(delivery(method, properties, body))
        self._wake()

    def _has_come(self) -> bool:
        return bool(self._came) or self._channel_closed is not None

    def ack(self, delivery: Delivery) -> None:
        """Settle one message."""
        self._held -= 1
        with self._about(delivery.routing_key):
            self._channel.basic_ack(delivery.tag)

    def release(self, queue: str) -> None:
        """Requeue all messages that were taken from queue and not acked.

        Waits briefly until they are ready again, because the broker requeues them
        asynchronously, and the next consumer would find none.
        """
        held, self._held = self._held, 0
        with self._about(queue):
            self._channel.close()
        if not self._serve(self._channel_is_closed):
            raise self._lost()
        self._open()
        end = time.monotonic() + RELEASE_PATIENCE
        while self.count(queue) < held and time.monotonic() < end:
            time.sleep(0.02)

    def _channel_is_closed(self) -> bool:
        return self._channel_closed is not None
