"""The acks of one channel, in as few frames as possible."""

from __future__ import annotations

from typing import Any


class Acks:
    """What was delivered on a channel and is not acked. For the link's thread."""

    def __init__(self) -> None:
        self._unacked: dict[int, None] = {}  # in the order of delivery
        self._ready: set[int] = set()

    def delivered(self, tag: int) -> None:
        """A message came."""
        self._unacked[tag] = None

    def settled(self, tag: int) -> None:
        """A message is to be acked by the next `send`."""
        self._ready.add(tag)

    def requeued(self, tag: int) -> None:
        """A message was settled in another way."""
        self._unacked.pop(tag, None)

    def send(self, channel: Any) -> None:
        """Ack what was settled: all from the oldest on in one frame, the others one by one."""
        ready, unacked = self._ready, self._unacked
        if not ready:
            return
        last = 0
        for tag in unacked:
            if tag not in ready:
                break
            last = tag
        if last:
            channel.basic_ack(last, multiple=True)
            for tag in [tag for tag in unacked if tag <= last]:
                del unacked[tag]
                ready.discard(tag)
        for tag in ready:
            channel.basic_ack(tag)
            del unacked[tag]
        ready.clear()
