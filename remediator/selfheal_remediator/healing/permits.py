"""Restarts that were ordered and may still be called back, up to the moment they are sent."""

from __future__ import annotations

from selfheal_remediator.node.skip_reason import SkipReason
from selfheal_remediator.threads.runtime import REAL, Runtime


class Permit:
    """Permission to send one restart. Thread-safe.

    The main thread may revoke it; the thread that carries the restart out takes it right before
    it sends the eviction. Whichever comes first counts.
    """

    def __init__(self, *, runtime: Runtime = REAL) -> None:
        self._lock = runtime.lock()
        self._recalled: SkipReason | None = None
        self._taken = False

    def recall(self, skip_reason: SkipReason) -> bool:
        """Call the restart back; whether that was in time. The first reason given is kept."""
        with self._lock:
            if self._taken:
                return False
            self._recalled = self._recalled or skip_reason
            return True

    @property
    def recalled(self) -> SkipReason | None:
        """Why it was called back, None = it was not."""
        with self._lock:
            return self._recalled

    def take(self) -> SkipReason | None:
        """From now on it cannot be called back; returns why it was, None = it may be sent."""
        with self._lock:
            self._taken = self._recalled is None
            return self._recalled
