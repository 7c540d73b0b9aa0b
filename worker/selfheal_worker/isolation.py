"""Messages that may have ended a worker are tried alone. Pure.

A message whose decoding or analysis ends the process takes all that is in flight with it. The
broker then delivers each of them again, and counts that; after the second time such a message is a
suspect: no other message is in flight while it is tried.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selfheal_worker.broker import Delivery
    from selfheal_worker.handlers import Work

#: Redeliveries after which a message is tried alone.
REDELIVERIES = 2
_COUNT_HEADER = "x-delivery-count"


def is_suspect(delivery: Delivery) -> bool:
    """Whether the broker (quorum queues only) has delivered a message so often without an ack.

    Without the broker's own flag the header is a publisher's, or one of an earlier delivery that
    came along; with it the queue has overwritten what the publisher wrote.
    """
    if not delivery.redelivered:
        return False
    count = delivery.headers.get(_COUNT_HEADER)
    return isinstance(count, int) and not isinstance(count, bool) and count >= REDELIVERIES


class Isolation:
    """The suspects that wait, and the one that is being tried. For one thread."""

    def __init__(self) -> None:
        self._waiting: deque[Work] = deque()
        self._tried: Work | None = None

    @property
    def active(self) -> bool:
        """Whether no other message may be taken."""
        return bool(self._waiting) or self._tried is not None

    def admits(self, delivery: Delivery) -> bool:
        """Whether a message may be taken: while suspects are tried, only another one."""
        return not self.active or is_suspect(delivery)

    def add(self, work: Work) -> None:
        """Have it wait for its turn."""
        self._waiting.append(work)

    def next(self, in_flight: int) -> Work | None:
        """The next to be tried, once nothing but those that wait is in flight."""
        if self._tried is not None or not self._waiting or in_flight > len(self._waiting):
            return None
        self._tried = self._waiting.popleft()
        return self._tried

    def settled(self, work: Work) -> None:
        """It left the worker, whatever became of it."""
        if work is self._tried:
            self._tried = None
        elif work in self._waiting:
            self._waiting.remove(work)

    def give_up(self) -> list[Work]:
        """Those that wait, to be requeued: the worker takes no messages now."""
        waiting, self._waiting = list(self._waiting), deque()
        return waiting

    def clear(self) -> None:
        """The connection is lost, and all messages with it."""
        self._waiting.clear()
        self._tried = None
