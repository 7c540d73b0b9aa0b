"""One client's connection as the modelled broker sees it: AMQP 0-9-1, as RabbitMQ speaks it.

pika's codec reads and writes the frames. Channel and connection errors have RabbitMQ's codes and
texts, which clients read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pika
from pika import frame, spec

from tests.simulation.broker.queues import Message, Queue, delivered
from tests.simulation.broker.wire import Wire

if TYPE_CHECKING:
    from tests.simulation.broker.broker import Broker

FRAME_MAX = 131_072
_OVERHEAD = 8
#: Seconds between two checks of messages that were not acked in time.
_TIMEOUT_CHECK = 60.0
_CAPABILITIES = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "consumer_priorities": True,
    "authentication_failure_close": True,
    "per_consumer_qos": True,
    "direct_reply_to": True,
}


@dataclass(eq=False)
class Consumer:
    """A subscription. prefetch: 0 is no limit."""

    session: Session
    channel: Channel
    tag: str
    queue: str
    prefetch: int

    def may_have_more(self) -> bool:
        """Whether the prefetch allows another message."""
        mine = sum(one.consumer is self for one in self.channel.unacked.values())
        return not self.channel.closing and (not self.prefetch or mine < self.prefetch)


@dataclass(eq=False)
class Unacked:
    """A delivery. consumer: None where it was fetched by basic.get."""

    message: Message
    queue: Queue
    consumer: Consumer | None
    since: float


@dataclass(eq=False)
class Channel:
    """confirms: the tag of the next publish, 0 without confirm mode; outcomes: of publishes that
    the client has not heard of, by tag."""

    number: int
    prefetch: int = 0
    confirms: int = 0
    closing: bool = False
    tags: int = 0
    consumers: dict[str, Consumer] = field(default_factory=dict)
    unacked: dict[int, Unacked] = field(default_factory=dict)
    unconfirmed: dict[int, bool | None] = field(default_factory=dict)
    publish: Any = None
    header: Any = None
    body: bytearray = field(default_factory=bytearray)


class Session:
    """A connection. client: the name of its process."""

    def __init__(self, broker: Broker, wire: Wire, client: str) -> None:
        self.broker = broker
        self.wire = wire
        self.client = client
        self.channels: dict[int, Channel] = {}
        self._received = bytearray()
        self._heartbeat = 0
        self._heard = broker.simulation.now
        self._blocked = False
        self._publishes = False
        self._over = False
        wire.server_reads = self._read
        wire.server_ended = self.end

    # -- its beginning and end

    def end(self) -> None:
        """The connection is gone: what was delivered on it is taken back."""
        if self._over:
            return
        self._over = True
        self.broker.sessions.remove(self)
        for number in [*self.channels]:
            self._drop(number)

    def close(self, code: int, text: str) -> None:
        """The broker closes it."""
        self._send(0, spec.Connection.Close(code, text, 0, 0))

    def _fail(self) -> None:
        """The client has not been heard of for too long, or speaks nonsense."""
        self.wire.end_by_server(ConnectionResetError(104, "Connection reset by peer"))
        self.end()

    # -- frames

    def _read(self, data: bytes) -> None:
        if self._over:
            return
        self._heard = self.broker.simulation.now
        self._received += data
        while not self._over:
            used, value = frame.decode_frame(bytes(self._received))
            if value is None:
                return
            del self._received[:used]
            self._take(value)

    def _take(self, value: Any) -> None:
        if isinstance(value, frame.ProtocolHeader):
            properties = {"product": "RabbitMQ", "version": "4.0.5", "capabilities": _CAPABILITIES}
            self._send(0, spec.Connection.Start(0, 9, properties, "PLAIN AMQPLAIN", "en_US"))
        elif isinstance(value, frame.Method):
            name = type(value.method).__name__
            kind = type(value.method).__qualname__.partition(".")[0]
            handler = getattr(self, f"on_{kind}_{name}".lower(), None)
            assert handler is not None, f"the modelled broker does not know {value.method.NAME}"
            channel = self.channels.get(value.channel_number)
            if channel is not None and channel.closing and name != "CloseOk":
                return
            handler(value.channel_number, value.method)
        elif isinstance(value, frame.Header | frame.Body):
            self._take_content(value)

    def _send(self, number: int, method: Any) -> None:
        self._write(frame.Method(number, method).marshal())

    def _write(self, data: bytes) -> None:
        if not self._over:
            self.wire.send_to_client(data)

    def _content(self, number: int, method: Any, properties: Any, body: bytes) -> None:
        pieces = [
            frame.Method(number, method).marshal(),
            frame.Header(number, len(body), properties).marshal(),
        ]
        step = FRAME_MAX - _OVERHEAD
        pieces += [
            frame.Body(number, body[at : at + step]).marshal() for at in range(0, len(body), step)
        ]
        self._write(b"".join(pieces))

    # -- the connection

    def on_connection_startok(self, _: int, __: Any) -> None:
        """The client has given its name and password; any are right."""
        self._send(0, spec.Connection.Tune(2047, FRAME_MAX, 60))

    def on_connection_tuneok(self, _: int, method: Any) -> None:
        """Heartbeats begin."""
        self._heartbeat = method.heartbeat
        if self._heartbeat:
            self._beat()
        self.broker.simulation.after(_TIMEOUT_CHECK, self._check_timeouts)

    def on_connection_open(self, _: int, __: Any) -> None:
        """The client may open channels."""
        self._send(0, spec.Connection.OpenOk())

    def on_connection_close(self, _: int, __: Any) -> None:
        """The client closes it."""
        self._send(0, spec.Connection.CloseOk())
        self.wire.end_by_server()
        self.end()

    def on_connection_closeok(self, _: int, __: Any) -> None:
        """The client has seen that the broker closes it."""
        self.wire.end_by_server()
        self.end()

    def _beat(self) -> None:
        if self._over:
            return
        silent = self.broker.simulation.now - self._heard
        if silent > 2 * self._heartbeat and not self._blocked:
            self._fail()
            return
        self._write(frame.Heartbeat().marshal())
        self.broker.simulation.after(self._heartbeat / 2, self._beat)

    def block(self) -> None:
        """An alarm: a client that publishes is not read any more."""
        if self._publishes and not self._blocked:
            self._blocked = True
            self._send(0, spec.Connection.Blocked("low on memory"))
            self.wire.hold_reading(reading=False)

    def unblock(self) -> None:
        """The alarm is over."""
        if self._blocked:
            self._blocked = False
            self._heard = self.broker.simulation.now
            self._send(0, spec.Connection.Unblocked())
            self.wire.hold_reading(reading=True)

    # -- channels

    def on_channel_open(self, number: int, _: Any) -> None:
        """A new channel."""
        self.channels[number] = Channel(number)
        self._send(number, spec.Channel.OpenOk())

    def on_channel_close(self, number: int, _: Any) -> None:
        """The client closes one."""
        self._drop(number)
        self._send(number, spec.Channel.CloseOk())

    def on_channel_closeok(self, number: int, _: Any) -> None:
        """The client has seen that the broker closed it."""
        self.channels.pop(number, None)

    def close_channel(self, number: int, code: int, text: str, method: Any = None) -> None:
        """The broker closes one, and takes back what was delivered on it."""
        channel = self.channels[number]
        if channel.closing:
            return
        self._take_all_back(channel)
        channel.closing = True
        index = (method.INDEX >> 16, method.INDEX & 0xFFFF) if method is not None else (0, 0)
        self._send(number, spec.Channel.Close(code, text, *index))

    def _drop(self, number: int) -> None:
        channel = self.channels.pop(number)
        self._take_all_back(channel)
        channel.closing = True

    def _take_all_back(self, channel: Channel) -> None:
        channel.consumers.clear()
        unacked, channel.unacked = channel.unacked, {}
        for one in unacked.values():
            self.broker.take_back(one.queue, one.message, self.client)

    def _check_timeouts(self) -> None:
        if self._over:
            return
        now, longest = self.broker.simulation.now, self.broker.consumer_timeout
        for number, channel in [*self.channels.items()]:
            if any(now - one.since > longest for one in channel.unacked.values()):
                text = (
                    f"PRECONDITION_FAILED - delivery acknowledgement on channel {number} timed "
                    f"out. Timeout value used: {longest * 1000:.0f} ms"
                )
                self.close_channel(number, 406, text)
        self.broker.simulation.after(_TIMEOUT_CHECK, self._check_timeouts)

    # -- queues

    def on_queue_declare(self, number: int, method: Any) -> None:
        """Declare a queue, or check that it is there."""
        name, found = method.queue, self.broker.queues.get(method.queue)
        if method.passive and found is None:
            text = f"NOT_FOUND - no queue '{name}' in vhost '/'"
            self.close_channel(number, 404, text, method)
            return
        wanted = dict(method.arguments or {})
        if found is not None and not method.passive:
            for argument in sorted({*wanted, *found.arguments}):
                got, current = wanted.get(argument), found.arguments.get(argument)
                if got != current:
                    text = (
                        f"PRECONDITION_FAILED - inequivalent arg '{argument}' for queue '{name}' "
                        f"in vhost '/': received '{got}' but current is '{current}'"
                    )
                    self.close_channel(number, 406, text, method)
                    return
        queue = found or self.broker.declare(name, wanted)
        consumers = sum(
            one.queue == name for session in self.broker.sessions for one in session.consumers()
        )
        self._send(number, spec.Queue.DeclareOk(name, len(queue.ready), consumers))

    # -- deliveries

    def consumers(self) -> Iterator[Consumer]:
        """All of it."""
        for channel in self.channels.values():
            yield from channel.consumers.values()

    def on_basic_qos(self, number: int, method: Any) -> None:
        """The prefetch of the consumers that come."""
        self.channels[number].prefetch = method.prefetch_count
        self._send(number, spec.Basic.QosOk())

    def on_basic_consume(self, number: int, method: Any) -> None:
        """Subscribe."""
        channel = self.channels[number]
        queue = self.broker.queues.get(method.queue)
        if queue is None:
            text = f"NOT_FOUND - no queue '{method.queue}' in vhost '/'"
            self.close_channel(number, 404, text, method)
            return
        tag = method.consumer_tag
        channel.consumers[tag] = Consumer(self, channel, tag, queue.name, channel.prefetch)
        self._send(number, spec.Basic.ConsumeOk(tag))
        self.broker.serve(queue)

    def on_basic_cancel(self, number: int, method: Any) -> None:
        """Unsubscribe; what was delivered stays."""
        self.channels[number].consumers.pop(method.consumer_tag, None)
        self._send(number, spec.Basic.CancelOk(method.consumer_tag))

    def on_basic_cancelok(self, _: int, __: Any) -> None:
        """The client has seen that its consumer is gone."""

    def cancel_consumers(self, queue: str | None = None) -> None:
        """The broker cancels them, all or those of a queue."""
        for channel in self.channels.values():
            for tag, consumer in [*channel.consumers.items()]:
                if queue in (None, consumer.queue):
                    del channel.consumers[tag]
                    self._send(channel.number, spec.Basic.Cancel(tag))

    def on_basic_get(self, number: int, method: Any) -> None:
        """Fetch one message."""
        queue = self.broker.queues[method.queue]
        if not queue.ready:
            self._send(number, spec.Basic.GetEmpty())
            return
        message = queue.take()
        tag = self._delivered(self.channels[number], queue, message, None)
        got = spec.Basic.GetOk(tag, message.returned > 0, "", queue.name, len(queue.ready))
        self._content(number, got, delivered(message), message.body)

    def deliver(self, consumer: Consumer, queue: Queue, message: Message) -> None:
        """Send a message to a consumer."""
        tag = self._delivered(consumer.channel, queue, message, consumer)
        method = spec.Basic.Deliver(consumer.tag, tag, message.returned > 0, "", queue.name)
        self._content(consumer.channel.number, method, delivered(message), message.body)

    def _delivered(
        self, channel: Channel, queue: Queue, message: Message, consumer: Consumer | None
    ) -> int:
        channel.tags += 1
        now = self.broker.simulation.now
        channel.unacked[channel.tags] = Unacked(message, queue, consumer, now)
        self.broker.tell("delivered", queue.name, message, self.client)
        return channel.tags

    def on_basic_ack(self, number: int, method: Any) -> None:
        """Messages are done."""
        for one in self._settled(number, method, method.multiple):
            one.queue.ack(one.message)
            self.broker.tell("acked", one.queue.name, one.message, self.client)
            self.broker.serve(one.queue)

    def on_basic_nack(self, number: int, method: Any) -> None:
        """Messages are requeued."""
        assert method.requeue, "nothing is to be dead-lettered by a nack"
        for one in self._settled(number, method, method.multiple):
            self.broker.take_back(one.queue, one.message, self.client)

    def on_basic_reject(self, number: int, method: Any) -> None:
        """A message is requeued."""
        assert method.requeue, "nothing is to be dead-lettered by a reject"
        for one in self._settled(number, method, multiple=False):
            self.broker.take_back(one.queue, one.message, self.client)

    def _settled(self, number: int, method: Any, multiple: bool) -> list[Unacked]:
        unacked, tag = self.channels[number].unacked, method.delivery_tag
        tags = [one for one in unacked if one <= tag] if multiple else [tag]
        if tag not in unacked and not (multiple and tags):
            text = f"PRECONDITION_FAILED - unknown delivery tag {tag}"
            self.close_channel(number, 406, text, method)
            return []
        return [unacked.pop(one) for one in tags]

    # -- publishes

    def on_confirm_select(self, number: int, _: Any) -> None:
        """Confirm mode."""
        self.channels[number].confirms = 1
        self._send(number, spec.Confirm.SelectOk())

    def on_basic_publish(self, number: int, method: Any) -> None:
        """A message begins."""
        channel = self.channels[number]
        channel.publish, channel.header = method, None
        channel.body.clear()

    def _take_content(self, value: Any) -> None:
        channel = self.channels.get(value.channel_number)
        if channel is None or channel.closing:
            return
        if isinstance(value, frame.Header):
            channel.header = value
        else:
            channel.body += value.fragment
        if len(channel.body) >= channel.header.body_size:
            self._published(channel, channel.publish, channel.header, bytes(channel.body))

    def _published(self, channel: Channel, method: Any, header: Any, body: bytes) -> None:
        largest = self.broker.max_message_size
        if len(body) > largest:
            text = (
                f"PRECONDITION_FAILED - message size {len(body)} is larger than configured max "
                f"size {largest}"
            )
            self.close_channel(channel.number, 406, text, method)
            return
        self._publishes = True
        confirmed = self._confirming(channel)
        name, message = method.routing_key, self.broker.message(body, header.properties)
        if name in self.broker.queues:
            self.broker.take(name, message, self.client, confirmed)
        else:
            if method.mandatory:
                self.broker.tell("returned", name, message, self.client)
                reply = spec.Basic.Return(312, "NO_ROUTE", "", name)
                self._content(channel.number, reply, header.properties, body)
            confirmed(True)
        if self.broker.blocked:
            self.block()

    def _confirming(self, channel: Channel) -> Callable[[bool], None]:
        if not channel.confirms:
            return lambda _: None
        tag, channel.confirms = channel.confirms, channel.confirms + 1
        channel.unconfirmed[tag] = None
        return partial(self._confirm, channel, tag)

    def _confirm(self, channel: Channel, tag: int, taken: bool) -> None:
        """Tell the client; what is known at the same time goes out in one frame."""
        if self._over or channel.closing:
            return
        channel.unconfirmed[tag] = taken
        self.broker.simulation.after(
            self.broker.random.random() * 0.002, partial(self._tell, channel)
        )

    def _tell(self, channel: Channel) -> None:
        if self._over or channel.closing:
            return
        multiple = 0
        for tag, taken in channel.unconfirmed.items():
            if not taken:
                break
            multiple = tag
        if multiple:
            for tag in [one for one in channel.unconfirmed if one <= multiple]:
                del channel.unconfirmed[tag]
            self._send(channel.number, spec.Basic.Ack(multiple, multiple=True))
        for tag, taken in [*channel.unconfirmed.items()]:
            if taken is not None:
                del channel.unconfirmed[tag]
                self._send(channel.number, spec.Basic.Ack(tag) if taken else spec.Basic.Nack(tag))


def properties(message_id: str, **more: Any) -> Any:
    """Properties of a publisher's message."""
    return pika.BasicProperties(message_id=message_id, delivery_mode=2, **more)
