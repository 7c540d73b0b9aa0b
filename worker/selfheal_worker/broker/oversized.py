"""Bodies that are too large to be buffered: their frames are forwarded to the dead-letter queue.

The broker accepts bodies of up to 128 MiB, and the prefetch delivers several at once. A body above
the limit is never assembled: from its header on, each of its frames is forwarded at once, on a
separate channel (the frames of one message may not be mixed with others on the same channel).
"""

from __future__ import annotations

import time
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
_LONGEST_HOLD = 5.0
_LOOK = 0.01


class Assembler(ContentFrameAssembler):  # type: ignore[misc]  # pika has no types
    """Assembles messages of at most `largest` bytes; of others the body is left empty.

    begin is called with method and header of a larger message, and says where its body goes.
    """

    def __init__(self, largest: int, begin: Callable[[Any, Any], Sink]) -> None:
        super().__init__()
        self._largest = largest
        self._begin = begin
        self._sink: Sink | None = None

    def process(self, frame_value: Any) -> Any:
        """Take a frame; the message that it completes, if it does."""
        content = super().process(frame_value)
        if isinstance(frame_value, frame.Header) and frame_value.body_size > self._largest:
            self._sink = self._begin(self._method_frame.method, frame_value)
        return content

    def _handle_body_frame(self, body_frame: Any) -> Any:
        if self._sink is not None:
            self._sink(body_frame.fragment)
            body_frame.fragment, size = b"", len(body_frame.fragment)
            self._seen_so_far += size
        return super()._handle_body_frame(body_frame)

    def _reset(self) -> None:
        super()._reset()
        self._sink = None


def drop(_method: Any, _header: Any) -> Sink:
    """For returned messages: the body is of no use."""
    return _drop_piece


def _drop_piece(_: bytes) -> None:
    """What becomes of a piece that is of no use."""


def forward(connection: Any, channel: Any, publication: Publication, size: int) -> Sink:
    """Begin to publish a message of so many bytes; its body is what the sink is given.

    The publication's own body is not read.
    """
    number = channel.channel_number
    method = spec.Basic.Publish(exchange="", routing_key=publication.queue, mandatory=True)
    # Both are encoded before either is sent: headers may not be encodable.
    for one in [frame.Method(number, method), frame.Header(number, size, publication.properties)]:
        connection._output_marshaled_frames([one.marshal()])

    return partial(_send_piece, connection, number)


def _send_piece(connection: Any, number: int, piece: bytes) -> None:
    connection._send_frame(frame.Body(number, piece))
    throttle(connection)


def throttle(connection: Any) -> None:
    """Read nothing more while much waits to be sent: a broker gives faster than it takes.

    Only without TLS, whose reading and writing depend on each other.
    """
    transport = getattr(connection, "_transport", None)
    reader = getattr(transport, "_on_socket_readable", None)
    if transport is None or reader is None or hasattr(transport, "_ssl_readable_action"):
        return
    if connection.backlog <= _BACKLOG or connection.reading_held:
        return
    connection.reading_held = True
    transport._nbio.remove_reader(transport._sock.fileno())
    end = time.monotonic() + _LONGEST_HOLD

    def look() -> None:
        if connection._transport is not transport or transport._state != transport._STATE_ACTIVE:
            return
        if connection.backlog > _BACKLOG and time.monotonic() < end:
            connection.ioloop.call_later(_LOOK, look)
            return
        connection.reading_held = False
        transport._nbio.set_reader(transport._sock.fileno(), reader)

    connection.ioloop.call_later(_LOOK, look)
