"""What a `Link` sends over its channels, and what it tells, with a pretended broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pika
import pika.exceptions as amqp
import pytest

from selfheal_worker.broker import (
    BrokerError,
    Delivery,
    Done,
    Link,
    Outcome,
    Publication,
    connection,
    new_properties,
    reconnecting,
)
from selfheal_worker.config import load


class Channel:
    """Records what it is asked to send, and calls back when the test says so."""

    channel_number = 7
    _content_assembler: Any = None

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self.call: dict[str, Callable[..., None]] = {}
        self._cancelled: set[str] = {"tag"}
        self.unencodable = False

    @property
    def cancelled(self) -> set[str]:
        """The consumers whose deliveries pika would reject."""
        return self._cancelled

    def add_on_close_callback(self, callback: Callable[..., None]) -> None:
        self.call["closed"] = callback

    def add_on_return_callback(self, callback: Callable[..., None]) -> None:
        self.call["returned"] = callback

    def add_on_cancel_callback(self, callback: Callable[..., None]) -> None:
        self.call["cancelled by the broker"] = callback

    def add_callback(self, callback: Callable[..., None], *_: Any, **__: Any) -> None:
        self.call["empty"] = callback

    def confirm_delivery(self, callback: Callable[..., None]) -> None:
        self.call["confirmed"] = callback

    def basic_qos(self, prefetch_count: int) -> None:
        self.sent.append(("qos", prefetch_count))

    def basic_publish(
        self, exchange: str, queue: str, body: bytes, properties: Any, mandatory: bool
    ) -> None:
        if self.unencodable and properties.headers:
            raise amqp.ShortStringTooLong("x")
        self.sent.append(("publish", queue, body, mandatory))

    def basic_consume(self, queue: str, on_message: Any, **named: Any) -> str:
        self.call["delivered"], self.call["registered"] = on_message, named["callback"]
        self.sent.append(("consume", queue))
        return "tag"

    def basic_cancel(self, tag: str, callback: Callable[..., None]) -> None:
        self.call["cancelled"] = callback
        self.sent.append(("cancel", tag))

    def basic_get(self, queue: str, callback: Callable[..., None]) -> None:
        self.call["got"] = callback
        self.sent.append(("get", queue))

    def basic_ack(self, tag: int, multiple: bool = False) -> None:
        self.sent.append(("ack", tag, multiple))

    def basic_nack(self, tag: int, requeue: bool) -> None:
        self.sent.append(("nack", tag, requeue))

    def close(self) -> None: ...

    # --- the broker's side

    def confirm(self, tag: int, *, multiple: bool = False, took: bool = True) -> None:
        kind = pika.spec.Basic.Ack if took else pika.spec.Basic.Nack
        self.call["confirmed"](pika.frame.Method(1, kind(tag, multiple=multiple)))

    def deliver(self, tag: int, how: str = "delivered") -> None:
        method = pika.spec.Basic.Deliver("tag", tag, False, "", "feedback")
        self.call[how](self, method, pika.BasicProperties(), b"body")

    def receive(self, *frames: Any) -> list[Any]:
        """The frames of messages come; what is assembled of them."""
        assembled = [self._content_assembler.process(one) for one in frames]
        return [one for one in assembled if one is not None]

    def take_sent(self) -> list[tuple[Any, ...]]:
        sent, self.sent = self.sent, []
        return sent


class Connection:
    """Open at once, and so are its channels."""

    made: list[Connection]
    backlog = 0

    def __init__(self, _: Any, **named: Any) -> None:
        self.made.append(self)
        self.is_open = True
        self.named = named
        self.channels: list[Channel] = []
        self.forwarded: list[bytes] = []
        named["custom_ioloop"].call_later(0, self._open)

    def _open(self) -> None:
        self.named["on_open_callback"](self)

    def add_on_connection_blocked_callback(self, callback: Callable[..., None]) -> None: ...

    def add_on_connection_unblocked_callback(self, callback: Callable[..., None]) -> None: ...

    def channel(self, on_open_callback: Callable[[Channel], None]) -> None:
        channel = Channel()
        self.channels.append(channel)
        self.named["custom_ioloop"].call_later(0, lambda: on_open_callback(channel))
        if len(self.channels) == 3:  # the declaration's, the one that forwards, and this
            self.named["custom_ioloop"].call_later(0, lambda: channel.confirm(1))

    def send(self, *frames: Any) -> None:
        self.forwarded += [one.marshal() for one in frames]

    def close(self) -> None:
        self.is_open = False

    def abort(self) -> None: ...

    @property
    def forwarding(self) -> Channel:
        return self.channels[-2]

    @property
    def work(self) -> Channel:
        return self.channels[-1]


class Listener:
    """Does the test's next step at each connection; keeps what it is notified of."""

    def __init__(self, *steps: Callable[[Listener], None]) -> None:
        self.steps = list(steps)
        self.deliveries: list[Delivery] = []
        self.events: list[str] = []
        self.outcomes: list[Outcome] = []
        settings = load({"AMQP_URI": "amqp://me:x@broker/"})
        self.link = Link(settings, (), self, randomness=lambda: 0.0)

    def run(self) -> None:
        self.link.run()
        assert not self.steps

    @property
    def channel(self) -> Channel:
        return Connection.made[-1].work

    def publish(self, queue: str = "q", headers: Any = None) -> None:
        properties = new_properties(None)
        properties.headers = headers
        self.link.publish(Publication(queue, b"x", properties), self.outcomes.append)

    def on_up(self) -> None:
        self.events.append("up")
        assert self.channel.take_sent() == [("qos", 8), ("publish", "feedback.rights", b"", False)]
        self.steps.pop(0)(self)
        if not self.steps:
            Connection.made[-1].is_open = False
            self.link.close(lambda: None)

    def on_tick(self) -> None: ...

    def on_down(self, error: BrokerError) -> None:
        self.events.append(f"down: {error}")

    def on_cancelled(self) -> None:
        self.events.append("cancelled")

    def on_delivery(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    def on_oversized(self, delivery: Delivery) -> tuple[Publication, Done]:
        self.deliveries.append(delivery)
        publication = Publication("dead", b"", pika.BasicProperties(headers={"a": 1}))
        return publication, self.outcomes.append


@pytest.fixture(autouse=True)
def _connections(monkeypatch: pytest.MonkeyPatch) -> None:
    Connection.made = []
    monkeypatch.setattr(connection, "BufferedConnection", Connection)


def test_a_consumer_is_registered_once_and_cancelled_once() -> None:
    def step(listener: Listener) -> None:
        link, channel = listener.link, listener.channel
        link.cancel()
        assert channel.take_sent() == []
        link.consume()
        link.consume()
        assert channel.take_sent() == [("consume", "feedback")]
        assert (link.subscribed, link.consuming) == (True, False)
        channel.call["registered"](None)
        assert link.consuming
        link.cancel()
        link.cancel()
        assert channel.take_sent() == [("cancel", "tag")]
        assert channel.cancelled == set()  # or pika would reject what is on the way
        assert (link.subscribed, link.consuming) == (False, False)
        channel.deliver(1)
        channel.call["cancelled"](None)
        assert listener.events == ["up", "cancelled"]
        assert [one.tag for one in listener.deliveries] == [1]

    Listener(step).run()


def test_what_was_settled_in_order_is_acked_in_one_frame() -> None:
    def step(listener: Listener) -> None:
        link, channel = listener.link, listener.channel
        link.consume()
        for tag in range(1, 7):
            channel.deliver(tag)
        listener.publish()
        listener.publish()
        channel.take_sent()
        deliveries = listener.deliveries
        for at in (1, 0, 2, 4):
            link.ack(deliveries[at])
        channel.confirm(2)
        assert channel.take_sent() == [("ack", 3, True), ("ack", 5, False)]
        link.requeue(deliveries[3])
        link.ack(deliveries[5])
        channel.confirm(3)
        assert channel.take_sent() == [("nack", 4, True), ("ack", 6, True)]
        assert listener.outcomes == [Outcome.CONFIRMED] * 2

    Listener(step).run()


def test_each_publish_is_notified_of_its_outcome() -> None:
    def step(listener: Listener) -> None:
        channel = listener.channel
        for queue in ("a", "b", "c", "d"):
            listener.publish(queue)
        back = pika.spec.Basic.Return(routing_key="b")
        channel.call["returned"](channel, back, pika.BasicProperties(), b"x")
        channel.confirm(4, multiple=True)
        channel.confirm(5, took=False)
        confirmed, returned = Outcome.CONFIRMED, Outcome.RETURNED
        assert listener.outcomes == [confirmed, returned, confirmed, Outcome.REFUSED]

    Listener(step).run()


def test_headers_that_cannot_be_written_are_left_out() -> None:
    def step(listener: Listener) -> None:
        listener.channel.unencodable = True
        listener.publish(headers={"list": []})
        assert listener.channel.take_sent() == [("publish", "q", b"x", True)]

    Listener(step).run()


def test_one_message_is_taken_without_a_consumer() -> None:
    def step(listener: Listener) -> None:
        taken: list[Delivery | None] = []
        listener.link.get(taken.append)
        listener.channel.deliver(1, "got")
        listener.link.get(taken.append)
        listener.channel.call["empty"](None)
        assert [one and one.tag for one in taken] == [1, None]
        assert listener.deliveries == []

    Listener(step).run()


def test_nothing_is_heard_of_a_connection_that_was_given_up() -> None:
    def first(listener: Listener) -> None:
        listener.link.consume()
        listener.channel.call["registered"](None)
        listener.channel.deliver(1)
        listener.publish()
        listener.channel.call["cancelled by the broker"](None)
        assert listener.outcomes == [Outcome.LOST]
        assert (listener.link.up, listener.link.subscribed, listener.link.consuming) == (False,) * 3
        listener.link.ack(listener.deliveries[0])
        listener.publish()
        assert listener.outcomes == [Outcome.LOST] * 2

    def second(listener: Listener) -> None:
        before, now = (made.work for made in Connection.made)
        before.take_sent()
        before.deliver(2)
        before.call["registered"](None)
        before.confirm(2)
        listener.link.ack(listener.deliveries[0])
        now.confirm(1)
        assert [one.tag for one in listener.deliveries] == [1]
        assert not listener.link.consuming
        assert before.take_sent() + now.take_sent() == []
        assert not Connection.made[0].is_open

    listener = Listener(first, second)
    listener.run()
    assert listener.events == ["up", "down: the broker cancelled the consumer", "up"]


@pytest.mark.parametrize(
    ("code", "text", "says"),
    [
        (403, "no", "down: the broker closed the channel: no; "),
        (406, "message size 9 is larger than configured max size 8", "down: the broker closed the"),
    ],
)
def test_a_channel_that_the_broker_closed_is_opened_again(
    code: int, text: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconnecting, "SLOW_PAUSE", 0.0)

    def first(listener: Listener) -> None:
        listener.channel.call["closed"](listener.channel, amqp.ChannelClosedByBroker(code, text))

    def second(listener: Listener) -> None:
        assert listener.link.largest == (8 if code == 406 else float("inf"))

    listener = Listener(first, second)
    listener.run()
    assert listener.events[1].startswith(says)


def test_acks_are_sent_before_the_connection_is_closed() -> None:
    def step(listener: Listener) -> None:
        listener.link.consume()
        listener.channel.deliver(1)
        listener.channel.take_sent()
        listener.link.ack(listener.deliveries[0])
        listener.link.close(lambda: listener.events.append("closed"))
        assert listener.channel.take_sent() == [("ack", 1, True)]
        Connection.made[0].named["on_close_callback"](None, amqp.ConnectionClosed(200, "done"))

    listener = Listener(step)
    listener.run()
    assert listener.events == ["up", "closed"]


def frames_of(body: bytes, tag: int, kind: Any = None) -> list[Any]:
    """One message as the broker sends it, its body in two pieces."""
    method = kind or pika.spec.Basic.Deliver("tag", tag, False, "", "feedback")
    half = len(body) // 2
    return [
        pika.frame.Method(1, method),
        pika.frame.Header(1, len(body), pika.BasicProperties()),
        pika.frame.Body(1, body[:half]),
        pika.frame.Body(1, body[half:]),
    ]


def test_a_body_above_the_limit_is_passed_on_as_it_comes_and_acked_when_it_arrived() -> None:
    body = b"x" * (load({"AMQP_URI": "amqp://broker/"}).max_body_bytes + 1)

    def step(listener: Listener) -> None:
        made, channel = Connection.made[-1], listener.channel
        (assembled,) = channel.receive(*frames_of(body, 1))
        assert assembled[2] == b""  # its body was not held
        _, header, *pieces = made.forwarded
        assert pika.frame.decode_frame(header)[1].body_size == len(body)
        assert b"".join(pika.frame.decode_frame(one)[1].fragment for one in pieces) == body
        (delivery,) = listener.deliveries
        assert (delivery.tag, delivery.oversized, delivery.body) == (1, len(body), b"")
        channel.take_sent()
        listener.link.ack(delivery)
        made.forwarding.confirm(1)
        assert listener.outcomes == [Outcome.CONFIRMED]
        assert channel.take_sent() == [("ack", 1, True)]

    Listener(step).run()


def test_a_body_above_the_limit_that_is_returned_or_late_is_dropped() -> None:
    body = b"x" * (load({"AMQP_URI": "amqp://broker/"}).max_body_bytes + 1)

    def first(listener: Listener) -> None:
        returned = pika.spec.Basic.Return(312, "NO_ROUTE", "", "q")
        listener.channel.receive(*frames_of(body, 1, returned))
        listener.channel.call["cancelled by the broker"](None)

    def second(listener: Listener) -> None:
        Connection.made[0].work.receive(*frames_of(body, 1))
        assert listener.deliveries == []
        assert Connection.made[0].forwarded == Connection.made[1].forwarded == []

    Listener(first, second).run()


def test_a_forwarded_body_is_lost_with_its_connection() -> None:
    body = b"x" * (load({"AMQP_URI": "amqp://broker/"}).max_body_bytes + 1)

    def first(listener: Listener) -> None:
        listener.channel.receive(*frames_of(body, 1))
        listener.channel.call["cancelled by the broker"](None)
        assert listener.outcomes == [Outcome.LOST]

    def second(listener: Listener) -> None:
        Connection.made[0].forwarding.confirm(1)
        assert listener.outcomes == [Outcome.LOST]

    Listener(first, second).run()
