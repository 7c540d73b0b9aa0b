"""What pika cannot do by its public API: every use of its private names, each with its reason.

tests/pure/worker/test_pika_patches.py fails when a release of pika changes what this relies on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pika.data
from pika import frame
from pika.adapters.select_connection import SelectConnection
from pika.adapters.utils.io_services_utils import _AsyncPlaintextTransport


class BufferedConnection(SelectConnection):  # type: ignore[misc]  # pika has no types
    """Sends what one turn of the loop has to say in one piece.

    pika hands each frame to the socket by itself: four system calls a message, and after each the
    thread has to win the interpreter back from the handlers. (Measured: a quarter of the time.)
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._unsent: list[bytes] = []
        super().__init__(*arguments, **named)

    @property
    def backlog(self) -> int:
        """Bytes that wait to be sent."""
        waiting = sum(map(len, self._unsent))
        return waiting + (self._transport.get_write_buffer_size() if self._transport else 0)

    def send(self, *frames: frame.Frame) -> None:
        """Send frames; pika itself publishes only bodies that are held in memory.

        All are encoded before the first is sent. Raises what pika does for headers that cannot be.
        """
        self._output_marshaled_frames([one.marshal() for one in frames])

    def _adapter_emit_data(self, data: bytes) -> None:
        if not self._unsent:
            self.ioloop.call_later(0, self._send_all)
        self._unsent.append(data)

    def _send_all(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._transport is not None and unsent:
            self._transport.write(b"".join(unsent))

    def hold_reading(self) -> Callable[[], None] | None:
        """Read nothing more, until what is returned is called; pika reads all that comes.

        None, and without effect, with TLS, whose reading and writing depend on each other.
        """
        transport = self._transport
        if not isinstance(transport, _AsyncPlaintextTransport):
            return None
        transport._nbio.remove_reader(transport._sock.fileno())
        return partial(_read_again, transport)

    def abort(self) -> None:
        """Close the socket at once; pika needs its loop for that, which may be broken."""
        if self._transport is not None:
            self._transport._sock.close()


def _read_again(transport: Any) -> None:
    if transport._state == transport._STATE_ACTIVE:
        transport._nbio.set_reader(transport._sock.fileno(), transport._on_socket_readable)


def assemble_with(channel: Any, assembler: Any) -> None:
    """Have an assembler take the frames of messages: pika's own holds bodies of any size."""
    channel._content_assembler = assembler


def deliver_after_cancel(channel: Any, consumer_tag: str) -> None:
    """Still deliver what is on the way to a consumer that is being cancelled.

    pika would reject it, and each reject counts as a delivery.
    """
    channel._cancelled.discard(consumer_tag)


def use_tables(
    encode: Callable[[list[bytes], Mapping[Any, Any] | None], int],
    decode: Callable[[bytes, int], tuple[dict[Any, Any], int]],
) -> None:
    """Have headers encoded and decoded by other functions: pika's own change what they copy."""
    pika.data.encode_table = encode
    pika.data.decode_table = decode
