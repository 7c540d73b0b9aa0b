"""A remediator that dies at one of its calls, for a `FakeApi` to be disturbed by."""

from __future__ import annotations

import threading


class Killer:
    """The process is dead at the call of this number: before it is made (way: `refused`), or before
    it has the answer (`lost`).

    Counted are writes, and reads of these paths; not Events, nor the Lease.
    """

    def __init__(self, at: int, way: str, reads: tuple[str, ...]) -> None:
        self.at, self.way, self.reads = at, way, reads
        self.calls, self.dead = 0, False
        self._lock = threading.Lock()

    def __call__(self, verb: str, path: str) -> str:
        if self.dead:
            return "refused"
        if "/events" in path or path.startswith("/apis/coordination"):
            return ""
        if verb == "GET" and not path.startswith(self.reads):
            return ""
        with self._lock:  # two requests may come at once
            if self.dead:
                return "refused"
            self.calls += 1
            self.dead = self.calls == self.at
            return self.way if self.dead else ""
