"""Time, threads and chance: everything by which two runs of the same program can differ.

Each part that uses them is given a `Runtime`, by default the machine's own; the simulation gives
another one. tests/pure/worker/test_runtime.py lists the modules that use the machine's directly,
each with its reason.
"""

from __future__ import annotations

import queue as queues
import threading
import time as clocks
from collections.abc import Callable
from random import Random
from typing import Any, Final, Protocol, TypeVar

from selfheal_worker.randomness import RANDOM

T = TypeVar("T")

#: The longest time-out that a lock takes, in seconds; it refuses infinity.
LONGEST_WAIT: Final = threading.TIMEOUT_MAX


class Event(Protocol):
    """Like threading.Event."""

    def is_set(self) -> bool: ...
    def set(self) -> None: ...
    def clear(self) -> None: ...
    def wait(self, timeout: float | None = None) -> bool: ...


class RLock(Protocol):
    """Like threading.RLock."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...
    def release(self) -> None: ...
    def __enter__(self) -> bool: ...
    def __exit__(self, *_: Any) -> None: ...


class Lock(RLock, Protocol):
    """Like threading.Lock."""

    def locked(self) -> bool: ...


class Condition(Protocol):
    """Like threading.Condition."""

    def wait(self, timeout: float | None = None) -> bool: ...
    def wait_for(self, predicate: Callable[[], T], timeout: float | None = None) -> T: ...
    def notify(self, n: int = 1) -> None: ...
    def notify_all(self) -> None: ...
    def __enter__(self) -> bool: ...
    def __exit__(self, *_: Any) -> None: ...


class Queue(Protocol):
    """Like queue.SimpleQueue; get raises queue.Empty."""

    def put(self, item: Any) -> None: ...
    def get(self, block: bool = True, timeout: float | None = None) -> Any: ...


class Runtime(Protocol):
    """What a part needs of the machine that it runs on."""

    random: Random

    def monotonic(self) -> float:
        """Seconds since some moment."""

    def time(self) -> float:
        """Unix time in seconds."""

    def sleep(self, seconds: float) -> None:
        """Wait for so long."""

    def event(self) -> Event: ...
    def lock(self) -> Lock: ...
    def rlock(self) -> RLock: ...
    def condition(self, lock: RLock | None = None) -> Condition: ...
    def queue(self) -> Queue: ...
    def local(self) -> Any:
        """An object whose attributes each thread has for itself, like threading.local."""

    def start(self, name: str, target: Callable[[], None]) -> None:
        """Start a daemon thread. Raises RuntimeError where the machine has none to spare."""


class _Real:
    """The machine's own. Each name is the standard library's object itself: nothing is slower."""

    random: Random = RANDOM
    monotonic = staticmethod(clocks.monotonic)
    time = staticmethod(clocks.time)
    sleep = staticmethod(clocks.sleep)
    event = staticmethod(threading.Event)
    lock = staticmethod(threading.Lock)
    rlock = staticmethod(threading.RLock)
    queue: Any = staticmethod(queues.SimpleQueue)
    local = staticmethod(threading.local)

    def condition(self, lock: Any = None) -> threading.Condition:
        return threading.Condition(lock)

    def start(self, name: str, target: Callable[[], None]) -> None:
        threading.Thread(target=target, name=name, daemon=True).start()


REAL: Final[Runtime] = _Real()
