"""What the worker changes in pika, with pika itself and a broker's end that the test speaks.

A release of pika that changes a private name fails here, and not in the connection of a worker.
"""

from __future__ import annotations

import ast
import contextlib
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pika
import pytest
from pika import frame, spec
from pika.adapters.select_connection import IOLoop
from pika.adapters.utils import io_services_utils

from selfheal_worker import broker as broker_package
from selfheal_worker.broker import pika_patches
from selfheal_worker.broker.header_tables import Table
from selfheal_worker.broker.oversized import Assembler, Sink, Throttle
from selfheal_worker.broker.pika_patches import BufferedConnection

ANSWERS: dict[type[Any], Callable[[Any], Any]] = {
    spec.Connection.StartOk: lambda _: spec.Connection.Tune(10, 4096, 0),
    spec.Connection.Open: lambda _: spec.Connection.OpenOk(),
    spec.Channel.Open: lambda _: spec.Channel.OpenOk(),
    spec.Basic.Consume: lambda method: spec.Basic.ConsumeOk(method.consumer_tag),
}


class Broker:
    """The broker's end of one connection, and the worker's; both are served by `until`."""

    def __init__(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.loop = IOLoop()
        self.opened: list[Any] = []
        parameters = pika.ConnectionParameters("127.0.0.1", listener.getsockname()[1])
        self.connection = BufferedConnection(
            parameters, on_open_callback=self.opened.append, custom_ioloop=self.loop
        )
        self._end: socket.socket | None = None
        self.taking = True
        self._came = b""
        self.frames: list[Any] = []
        listener.setblocking(False)
        with listener:
            self.until(lambda: self._accepted(listener))
        self.until(lambda: bool(self.opened))
        self.channels: list[Any] = []
        self.connection.channel(on_open_callback=self.channels.append)
        self.until(lambda: bool(self.channels))
        self.channel = self.channels[0]
        self.frames.clear()

    def _accepted(self, listener: socket.socket) -> bool:
        with contextlib.suppress(BlockingIOError):
            self._end = listener.accept()[0]
            self._end.setblocking(False)
        return self._end is not None

    def turn(self) -> None:
        """One turn of the worker's loop, then the broker's answers."""
        self.loop.call_later(0.001, self.loop.stop)
        self.loop.start()
        if self._end is not None and self.taking:
            with contextlib.suppress(BlockingIOError):
                self._came += self._end.recv(2**20)
            self._take()

    def until(self, done: Callable[[], bool]) -> None:
        while not done():
            self.turn()

    def _take(self) -> None:
        while self._came:
            if self._came.startswith(b"AMQP"):
                size, one = 8, None
                self.say(0, spec.Connection.Start(0, 9, {}, "PLAIN", "en_US"))
            else:
                size, one = frame.decode_frame(self._came)
            if not size:
                return
            self._came = self._came[size:]
            if one is not None:
                self.frames.append(one)
                method = getattr(one, "method", None)
                if type(method) in ANSWERS:
                    self.say(one.channel_number, ANSWERS[type(method)](method))

    def say(self, number: int, *parts: Any) -> None:
        """Send a method, and what follows it: properties with a size, and pieces of a body."""
        frames = [frame.Method(number, parts[0])]
        for part in parts[1:]:
            if isinstance(part, bytes):
                frames.append(frame.Body(number, part))
            else:
                frames.append(frame.Header(number, *part))
        assert self._end is not None
        self._end.sendall(b"".join(one.marshal() for one in frames))

    def deliver(self, tag: int, *pieces: bytes, headers: Any = None) -> None:
        properties = pika.BasicProperties(headers=headers)
        size = sum(map(len, pieces))
        method = spec.Basic.Deliver("tag", tag, False, "", "q")
        self.say(1, method, (size, properties), *pieces)

    @property
    def methods(self) -> list[type[Any]]:
        """What the worker sent."""
        return [type(one.method) for one in self.frames if isinstance(one, frame.Method)]

    def hung_up(self) -> bool:
        assert self._end is not None
        with contextlib.suppress(BlockingIOError):
            return self._end.recv(1) == b""
        return False

    def close(self) -> None:
        assert self._end is not None
        self._end.close()
        self.connection.abort()
        self.loop.close()


@pytest.fixture
def broker() -> Iterator[Broker]:
    made = Broker()
    yield made
    made.close()


class Consumer:
    """Keeps what is delivered."""

    def __init__(self, broker: Broker) -> None:
        self.delivered: list[tuple[int, Any, bytes]] = []
        registered: list[Any] = []
        broker.channel.basic_consume(
            "q", self._take, consumer_tag="tag", callback=registered.append
        )
        broker.until(lambda: bool(registered))

    def _take(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        self.delivered.append((method.delivery_tag, properties.headers, body))


def test_what_one_turn_has_to_say_is_written_in_one_piece(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    write = io_services_utils._AsyncPlaintextTransport.write

    def counted(transport: Any, data: bytes) -> None:
        written.append(len(data))
        write(transport, data)

    monkeypatch.setattr(io_services_utils._AsyncPlaintextTransport, "write", counted)
    for number in range(3):
        broker.channel.basic_publish("", "q", b"%d" % number)
    waiting = broker.connection.backlog
    broker.until(lambda: len(broker.frames) == 9)
    assert written == [waiting]
    assert broker.connection.backlog == 0


def test_frames_are_sent_as_they_are(broker: Broker) -> None:
    broker.connection.send(
        frame.Method(1, spec.Basic.Publish(exchange="", routing_key="dead")),
        frame.Header(1, 4, pika.BasicProperties(message_id="a")),
    )
    broker.connection.send(frame.Body(1, b"bo"))
    broker.connection.send(frame.Body(1, b"dy"))
    broker.until(lambda: len(broker.frames) == 4)
    method, header, *pieces = broker.frames
    assert (method.method.routing_key, header.body_size) == ("dead", 4)
    assert header.properties.message_id == "a"
    assert [one.fragment for one in pieces] == [b"bo", b"dy"]


def test_nothing_of_what_cannot_be_encoded_is_sent(broker: Broker) -> None:
    with pytest.raises(struct.error):
        broker.connection.send(
            frame.Method(1, spec.Basic.Publish(exchange="", routing_key="dead")),
            frame.Header(1, 4, pika.BasicProperties(headers={"a": 2**70})),
        )
    assert broker.connection.backlog == 0


def test_nothing_is_read_while_reading_is_held(broker: Broker) -> None:
    consumer = Consumer(broker)
    resume = broker.connection.hold_reading()
    assert resume is not None
    broker.deliver(1, b"x")
    for _ in range(5):
        broker.turn()
    assert consumer.delivered == []
    resume()
    broker.until(lambda: len(consumer.delivered) == 1)


def test_a_broker_that_gives_faster_than_it_takes_is_held_until_it_took(broker: Broker) -> None:
    consumer = Consumer(broker)
    throttle = Throttle(broker.connection, time.monotonic)
    throttle.check()
    broker.deliver(1)
    broker.until(lambda: len(consumer.delivered) == 1)
    broker.taking = False
    piece = frame.Body(1, b"x" * 2**16)
    while broker.connection.backlog <= 2**24:  # more than the sockets' buffers hold
        broker.connection.send(piece)
        throttle.check()
    broker.deliver(2)
    for _ in range(5):
        broker.turn()
    assert len(consumer.delivered) == 1
    broker.taking = True
    broker.until(lambda: len(consumer.delivered) == 2)
    assert broker.connection.backlog <= 2**19


def test_reading_is_not_resumed_on_a_connection_that_is_gone(broker: Broker) -> None:
    resume = broker.connection.hold_reading()
    assert resume is not None
    resume()
    broker.say(0, spec.Connection.Close(320, "shutdown", 0, 0))
    broker.until(lambda: bool(broker.connection.is_closed))
    broker.turn()
    resume()
    assert broker.connection.hold_reading() is None


def test_only_plain_connections_hold_their_reading() -> None:
    plain = io_services_utils._AsyncPlaintextTransport
    assert not issubclass(io_services_utils._AsyncSSLTransport, plain)


def test_an_aborted_connection_is_gone_at_once_without_its_loop(broker: Broker) -> None:
    broker.connection.abort()
    assert broker.hung_up()


@pytest.mark.parametrize("sizes", [(4, 4, 1), (9,), (1,) * 9])
def test_a_body_above_the_limit_is_not_assembled(broker: Broker, sizes: tuple[int, ...]) -> None:
    pieces: list[bytes] = []
    begun: list[Any] = []

    def begin(method: Any, header: Any) -> Sink:
        begun.append((method.delivery_tag, header.body_size))
        return pieces.append

    pika_patches.assemble_with(broker.channel, Assembler(8, begin))
    consumer = Consumer(broker)
    broker.deliver(1, b"x" * 8)
    broker.deliver(2, *(b"x" * size for size in sizes))
    broker.deliver(3)
    broker.until(lambda: len(consumer.delivered) == 3)
    assert begun == [(2, 9)]
    assert [len(one) for one in pieces] == list(sizes)
    assert [(tag, body) for tag, _, body in consumer.delivered] == [
        (1, b"x" * 8),
        (2, b""),
        (3, b""),
    ]


def test_what_is_on_the_way_to_a_cancelled_consumer_is_delivered(broker: Broker) -> None:
    consumer = Consumer(broker)
    cancelled: list[Any] = []
    broker.channel.basic_cancel("tag", callback=cancelled.append)
    pika_patches.deliver_after_cancel(broker.channel, "tag")
    broker.until(lambda: spec.Basic.Cancel in broker.methods)
    broker.deliver(1, b"x")
    broker.say(1, spec.Basic.CancelOk("tag"))
    broker.until(lambda: bool(cancelled))
    assert [tag for tag, _, _ in consumer.delivered] == [1]
    assert spec.Basic.Reject not in broker.methods


def test_headers_keep_the_bytes_that_they_came_in(broker: Broker) -> None:
    consumer = Consumer(broker)
    raw = b"\x01f" + b"f" + struct.pack(">f", 0.5)
    broker.deliver(1, b"x", headers=Table({"f": 0.5}, [("f", raw)]))
    broker.until(lambda: bool(consumer.delivered))
    ((_, headers, _),) = consumer.delivered
    assert isinstance(headers, Table)
    assert (dict(headers), headers.raw) == ({"f": 0.5}, (("f", raw),))


def test_nothing_else_uses_private_names_of_pika() -> None:
    for path in sorted(Path(broker_package.__file__).parent.glob("*.py")):
        if path.name == "pika_patches.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and re.match(r"_(?!_|replace$)", node.attr):
                # _replace is a named tuple's, which has no other name for it.
                ours = isinstance(node.value, ast.Name) and node.value.id == "self"
                assert ours, f"{path.name}:{node.lineno}"
