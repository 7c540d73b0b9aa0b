"""Time, threads and chance: everything by which two runs of this program can differ.

`REAL` is what runs in production. A simulation passes a Runtime of its own to every part, and
with it has virtual time, a scheduler instead of threads, and a seed instead of chance. Nothing
else in the program may use `threading`, `time`, `queue` or `random`; a test lists the exceptions.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Protocol


class Event(Protocol):
    """As threading.Event."""

    def is_set(self) -> bool: ...

    def set(self) -> None: ...

    def clear(self) -> None: ...

    def wait(self, timeout: float | None = None) -> bool: ...


class Lockable(Protocol):
    """What a `with` statement acquires and releases."""

    def __enter__(self) -> bool: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...


class Lock(Lockable, Protocol):
    """As threading.Lock and threading.RLock."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...

    def release(self) -> None: ...


class Condition(Lockable, Protocol):
    """As threading.Condition."""

    def wait(self, timeout: float | None = None) -> bool: ...

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool: ...

    def notify(self, n: int = 1) -> None: ...

    def notify_all(self) -> None: ...


class Queue(Protocol):
    """As queue.SimpleQueue: without a limit; `put` also works in a signal handler."""

    def put(self, item: Any) -> None: ...

    def get(self, block: bool = True, timeout: float | None = None) -> Any: ...

    def get_nowait(self) -> Any: ...

    def qsize(self) -> int: ...


#: What `Queue.get` raises when nothing came in time.
Empty = queue.Empty


class Runtime(Protocol):
    """See the module."""

    @property
    def random(self) -> random.Random: ...

    def monotonic(self) -> float: ...

    def time(self) -> float:
        """Seconds since the epoch."""

    def sleep(self, seconds: float) -> None: ...

    def event(self) -> Event: ...

    def lock(self) -> Lock: ...

    def rlock(self) -> Lock: ...

    def condition(self) -> Condition: ...

    def queue(self) -> Queue: ...

    def start(self, name: str, target: Callable[[], None]) -> None:
        """Run the target in a daemon thread. Raises RuntimeError where none can be had."""


class RealRuntime:
    """The clock, threads and chance of the machine. The objects are the standard library's own."""

    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)
    time = staticmethod(time.time)

    def __init__(self) -> None:
        self.random = random.Random()

    def event(self) -> Event:
        """A threading.Event."""
        return threading.Event()

    def lock(self) -> Lock:
        """A threading.Lock."""
        return threading.Lock()

    def rlock(self) -> Lock:
        """A threading.RLock."""
        return threading.RLock()

    def condition(self) -> Condition:
        """A threading.Condition."""
        return threading.Condition()

    def queue(self) -> Queue:
        """A queue.SimpleQueue."""
        return queue.SimpleQueue()

    def start(self, name: str, target: Callable[[], None]) -> None:
        """See Runtime."""
        threading.Thread(target=target, name=name, daemon=True).start()


REAL: Final[Runtime] = RealRuntime()
