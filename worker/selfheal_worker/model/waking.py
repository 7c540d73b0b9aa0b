"""One thread at a time warms a model up, and a call that never returns does not stop the others."""

from __future__ import annotations

import math

from selfheal_worker.model.load_time import LONGEST_LOAD
from selfheal_worker.runtime import REAL, Lock, Runtime


class Waking:
    """Whose turn it is to warm a model up. For any thread.

    The lock of a thread that has had it for longer than any load takes is left to that thread: a
    plug-in's call never returned. The next thread gets a new lock.
    """

    def __init__(self, runtime: Runtime = REAL) -> None:
        self._runtime = runtime
        # Guards the two below; held for no longer than it takes to read or write them.
        self._changing = runtime.lock()
        self._lock = runtime.lock()
        #: Since when a thread has the lock (`time.monotonic()`); infinity: none has it.
        self._since = math.inf

    def acquire(self, timeout: float) -> Lock | None:
        """What to give to `release`; None if another thread had it for all of the timeout.

        timeout: seconds to wait for it; without end if it is below 0.
        """
        with self._changing:
            if self._runtime.monotonic() > self._since + LONGEST_LOAD:
                self._lock, self._since = self._runtime.lock(), math.inf
            lock = self._lock
        if not lock.acquire(timeout=timeout):
            return None
        self._note(lock, self._runtime.monotonic())
        return lock

    def release(self, lock: Lock) -> None:
        """The thread that has it is done, well or not."""
        self._note(lock, math.inf)
        lock.release()

    def _note(self, lock: Lock, since: float) -> None:
        with self._changing:
            if lock is self._lock:
                self._since = since
