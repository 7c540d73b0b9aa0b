"""What a simulated thread may not do: have a thread, a socket or a process of the machine.

Seen by Python's audit events, which 3.11 does not raise for threads. Clocks and locks raise none:
their use is found where a test replaces the product's REAL.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

_EVENTS = frozenset(
    {
        *("_thread.start_new_thread", "subprocess.Popen", "os.fork", "os.posix_spawn"),
        *("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto", "time.sleep"),
    }
)


class _Guard:
    """fail: ends the run; None while no simulated thread runs."""

    def __init__(self) -> None:
        self.fail: Callable[[BaseException], None] | None = None
        self._installed = False
        self._threads = 0

    def install(self) -> None:
        """For a simulation that begins."""
        self._threads = threading.active_count()
        if not self._installed:
            self._installed = True
            sys.addaudithook(self._audit)

    def check_threads(self) -> None:
        """Raises AssertionError where the machine has more threads than when it began."""
        if threading.active_count() > self._threads:
            names = sorted(thread.name for thread in threading.enumerate())
            raise AssertionError(f"a simulated thread leaves the simulation: {names}")

    def _audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.fail is not None and event in _EVENTS:
            fail, self.fail = self.fail, None
            fail(AssertionError(f"a simulated thread leaves the simulation: {event}{arguments}"))


GUARD = _Guard()
