"""pika's connection, with fewer writes."""

from __future__ import annotations

from typing import Any

from pika.adapters.select_connection import SelectConnection


class BufferedConnection(SelectConnection):  # type: ignore[misc]  # pika has no types
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
