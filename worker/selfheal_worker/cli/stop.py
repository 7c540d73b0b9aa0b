"""Stopping a command in the middle of its work."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType


@contextmanager
def stoppable() -> Iterator[Event]:
    """An event that SIGTERM and Ctrl-C set, so that what is on its way can be settled first.

    The second of them ends the process at once, as if nobody listened.
    """
    stopped = Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(_: int, __: FrameType | None) -> None:
        stopped.set()
        restore()
        print(
            "stopping after the messages in flight; press Ctrl-C again to stop at once",
            file=sys.stderr,
        )

    for number in before:
        signal.signal(number, stop)
    try:
        yield stopped
    finally:
        restore()
