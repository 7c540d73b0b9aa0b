"""Whether this process may write now. Thread-safe: asked by all threads before each write."""

from __future__ import annotations

from selfheal_remediator.failures import NotLeader
from selfheal_remediator.threads.runtime import REAL, Runtime


class Fence:
    """Open until `seconds` (the renew deadline) after the last renewal was sent.

    A leader that is ended stays so: no answer that comes later opens it again.
    """

    def __init__(self, seconds: float, *, runtime: Runtime = REAL) -> None:
        self._seconds, self._monotonic = seconds, runtime.monotonic
        self._lock = runtime.lock()
        self._until = 0.0
        self._leading = self._closed = False
        #: Counts terms of leadership; what was begun in one is not written in a later one.
        self._term = 0

    def check(self) -> int:
        """Raises NotLeader unless a write may be sent now; returns the term of leadership."""
        with self._lock:
            if self._monotonic() >= self._until:
                raise NotLeader
            return self._term

    @property
    def leading(self) -> bool:
        """Whether a term is under way, though its time may just have run out."""
        return self._leading

    @property
    def expired(self) -> bool:
        """Whether a term is under way that was not renewed in time."""
        with self._lock:
            return self._leading and self._monotonic() >= self._until

    def begin(self, sent: float) -> bool:
        """A term begins with a write that was sent then; False = everything has ended."""
        with self._lock:
            if self._closed:
                return False
            self._term += 1
            self._until = sent + self._seconds
            self._leading = True
            return True

    def extend(self, sent: float) -> None:
        """A renewal that was sent then was answered."""
        with self._lock:
            if self._leading:
                self._until = sent + self._seconds

    def end(self) -> None:
        """The term is over."""
        with self._lock:
            self._until, self._leading = 0.0, False

    def close(self) -> bool:
        """No term begins any more; returns whether one was under way."""
        with self._lock:
            was_leading, self._leading, self._until = self._leading, False, 0.0
            self._closed = True
            return was_leading
