"""Locks, events, conditions and queues of simulated threads, like those of `threading`.

Each operation by which threads notice each other is a scheduling point. Who continues when a lock
is released is chosen by the seed, and another thread may take the lock before it does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from queue import Empty
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from tests.simulation.scheduler import Simulation, Thread

T = TypeVar("T")


class Lock:
    """Like threading.Lock. owner: the thread that acquired it; None also where it was acquired in a
    callback of the world."""

    def __init__(self, simulation: Simulation, name: str) -> None:
        self.name = name
        self.owner: Thread | None = None
        self._simulation = simulation
        self._count = 0
        self._waiting: list[Thread] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        simulation = self._simulation
        if simulation.closed:
            return True  # in a `finally` block, maybe of a generator that is collected
        simulation.step(f"acquire {self.name}")
        simulation.come_late()
        if not self._count:
            self._count, self.owner = 1, simulation.current
            return True
        if not blocking:
            return False
        return self._wait(None if timeout < 0 else timeout)

    def _wait(self, timeout: float | None) -> bool:
        simulation = self._simulation
        end = None if timeout is None else simulation.now + timeout
        thread = simulation.current
        while self._count:
            left = None if end is None else end - simulation.now
            if left is not None and left <= 0:
                return False
            if thread is not None and left is None:
                simulation.check_lock(self)
                thread.awaits = self
            simulation.wait(self._waiting, left, f"wait for {self.name}")
            if thread is not None:
                thread.awaits = None
        self._count, self.owner = 1, simulation.current
        return True

    def release(self) -> None:
        if self._simulation.closed:
            return
        if not self._count:
            raise RuntimeError("release unlocked lock")
        self._count -= 1
        if not self._count:
            self._freed()

    def _freed(self) -> None:
        self.owner = None
        if self._waiting:
            simulation = self._simulation
            simulation.wake(self._waiting, simulation.choose_waiting(self._waiting))

    def locked(self) -> bool:
        return self._count > 0

    def owned(self) -> bool:
        """Whether whoever runs now has it."""
        return self._count > 0 and self.owner is self._simulation.current

    def release_all(self) -> int:
        """Release it, however often it was acquired; returns how often that was."""
        count, self._count = self._count, 0
        self._freed()
        return count

    def acquire_again(self, count: int) -> None:
        """Acquire it as often as it had been."""
        self.acquire()
        self._count = count

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class RLock(Lock):
    """Like threading.RLock."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self.owned():
            self._count += 1
            return True
        return super().acquire(blocking, timeout)

    def release(self) -> None:
        if not self._simulation.closed and not self.owned():
            raise RuntimeError("cannot release un-acquired lock")
        super().release()


class Event:
    """Like threading.Event."""

    def __init__(self, simulation: Simulation, name: str) -> None:
        self._simulation = simulation
        self._name = name
        self._set = False
        self._waiting: list[Thread] = []

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        if self._simulation.closed:
            return
        self._set = True
        for thread in [*self._waiting]:
            self._simulation.wake(self._waiting, thread)
        self._simulation.step(f"set {self._name}")

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        self._simulation.step(f"check {self._name}")
        if self._set:
            return True
        # What was set and cleared again in the meantime was set.
        return self._simulation.wait(self._waiting, timeout, f"wait for {self._name}")


class Condition:
    """Like threading.Condition."""

    def __init__(self, simulation: Simulation, name: str, lock: Lock) -> None:
        self._simulation = simulation
        self._name = name
        self._lock = lock
        self._waiting: list[Thread] = []
        self.acquire = lock.acquire
        self.release = lock.release

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        if not self._lock.owned():
            raise RuntimeError("cannot wait on un-acquired lock")
        count = self._lock.release_all()
        woken = self._simulation.wait(self._waiting, timeout, f"wait for {self._name}")
        self._lock.acquire_again(count)
        return woken

    def wait_for(self, predicate: Callable[[], T], timeout: float | None = None) -> T:
        simulation = self._simulation
        end = None if timeout is None else simulation.now + timeout
        result = predicate()
        while not result:
            left = None if end is None else end - simulation.now
            if left is not None and left <= 0:
                break
            self.wait(left)
            result = predicate()
        return result

    def notify(self, n: int = 1) -> None:
        if self._simulation.closed:
            return
        if not self._lock.owned():
            raise RuntimeError("cannot notify on un-acquired lock")
        for thread in self._waiting[:n]:
            self._simulation.wake(self._waiting, thread)

    def notify_all(self) -> None:
        self.notify(len(self._waiting))


class Queue(Generic[T]):
    """Like queue.SimpleQueue."""

    def __init__(self, simulation: Simulation, name: str) -> None:
        self._simulation = simulation
        self._name = name
        self._items: deque[T] = deque()
        self._waiting: list[Thread] = []

    def put(self, item: T) -> None:
        if self._simulation.closed:
            return
        self._items.append(item)
        if self._waiting:
            simulation = self._simulation
            simulation.wake(self._waiting, simulation.choose_waiting(self._waiting))
        self._simulation.step(f"put into {self._name}")

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Raises queue.Empty."""
        simulation = self._simulation
        simulation.step(f"get from {self._name}")
        end = None if timeout is None else simulation.now + timeout
        while not self._items:
            left = None if end is None else end - simulation.now
            if not block or (left is not None and left <= 0):
                raise Empty
            simulation.wait(self._waiting, left, f"wait for {self._name}")
        return self._items.popleft()

    def get_nowait(self) -> T:
        """Raises queue.Empty."""
        return self.get(block=False)

    def empty(self) -> bool:
        return not self._items

    def qsize(self) -> int:
        return len(self._items)


class Local:
    """Like threading.local: each thread has attributes of its own."""

    def __init__(self, simulation: Simulation) -> None:
        object.__setattr__(self, "_simulation", simulation)
        object.__setattr__(self, "_values", {})

    def __getattribute__(self, name: str) -> Any:
        get = super().__getattribute__
        try:
            return get("_values")[get("_simulation").current, name]
        except KeyError:
            return get(name)

    def __setattr__(self, name: str, value: object) -> None:
        get = super().__getattribute__
        get("_values")[get("_simulation").current, name] = value
