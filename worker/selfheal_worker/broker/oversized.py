"""Bodies that are too large to be buffered: their frames are forwarded to the dead-letter queue.

The broker accepts bodies of up to 128 MiB, and the prefetch delivers several at once. A body above
the limit is never assembled: from its header on, each of its frames is forwarded at once, on a
separate channel (the frames of one message may not be mixed with others on the same channel).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pika import frame, spec
from pika.channel import ContentFrameAssembler

from selfheal_worker.broker.deliveries import Publication

#: Takes one piece of a body.
Sink = Callable[[bytes], None]
# Bytes that may wait to be sent before no more are read, and for how long nothing is read then:
# the broker's heartbeats are not read either, and a broker with an alarm takes nothing for long.
_BACKLOG = 512 * 1024
_LONGEST_STOP = 5.0
_CHECK_AFTER = 0.01


class Assembler:
    """Assembles messages of at most `largest` bytes; of others the body is left empty.

    begin is called with method and header of a larger message, and says where its body goes.
    """

    def __init__(self, largest: int, begin: Callable[[Any, Any], Sink]) -> None:
        self._largest = largest
        self._begin = begin
        self._small = ContentFrameAssembler()
        self._method: Any = None
        self._header: Any = None
        self._sink: Sink | None = None
        self._missing = 0

    def process(self, frame_value: Any) -> Any:
        """Take a frame; the message that it completes, if it does."""
        if isinstance(frame_value, frame.Method):
            self._method, self._sink = frame_value, None
        elif isinstance(frame_value, frame.Header) and frame_value.body_size > self._largest:
            self._header, self._missing = frame_value, frame_value.body_size
            self._sink = self._begin(self._method.method, frame_value)
            return None
        elif self._sink is not None and isinstance(frame_value, frame.Body):
            return self._pass_on(self._sink, frame_value.fragment)
        return self._small.process(frame_value)

    def _pass_on(self, sink: Sink, piece: bytes) -> Any:
        sink(piece)
        self._missing -= len(piece)
        if self._missing > 0:
            return None
        self._sink = None
        return self._method, self._header, b""


def drop(_method: Any, _header: Any) -> Sink:
    """For returned messages: the body is of no use."""
    return _drop_piece


def _drop_piece(_: bytes) -> None:
    """What becomes of a piece that is of no use."""


class Throttle:
    """Reads nothing more from a connection while much waits to be sent on it: a broker gives faster
    than it takes. For the link's thread."""

    def __init__(self, connection: Any, now: Callable[[], float]) -> None:
        self._connection = connection
        self._now = now
        self._resume: Callable[[], None] | None = None
        self._until = 0.0

    def check(self) -> None:
        """More was sent."""
        if self._resume is None and self._connection.backlog > _BACKLOG:
            self._resume = self._connection.hold_reading()
            self._until = self._now() + _LONGEST_STOP
            if self._resume is not None:
                self._check_later()

    def _check_later(self) -> None:
        self._connection.ioloop.call_later(_CHECK_AFTER, self._check_again)

    def _check_again(self) -> None:
        if self._connection.backlog > _BACKLOG and self._now() < self._until:
            self._check_later()
        elif self._resume is not None:
            resume, self._resume = self._resume, None
            resume()


def forward(
    connection: Any, channel: Any, publication: Publication, size: int, throttle: Throttle
) -> Sink:
    """Begin to publish a message of so many bytes; its body is what the sink is given.

    The publication's own body is not read.
    """
    number = channel.channel_number
    method = spec.Basic.Publish(exchange="", routing_key=publication.queue, mandatory=True)
    connection.send(
        frame.Method(number, method), frame.Header(number, size, publication.properties)
    )
    return partial(_send_piece, connection, number, throttle)


def _send_piece(connection: Any, number: int, throttle: Throttle, piece: bytes) -> None:
    connection.send(frame.Body(number, piece))
    throttle.check()
