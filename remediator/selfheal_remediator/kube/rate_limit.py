"""How many requests go to the API server, and when: a token bucket, and requested pauses."""

from __future__ import annotations

from collections.abc import Callable

from selfheal_remediator.config import ApiBudget
from selfheal_remediator.threads.runtime import REAL, Runtime

MAX_PAUSE = 60.0


#: Our Lease waits for its turn no longer than this: one write in seconds harms no server.
URGENT_WAIT = 0.5


class Budget:
    """A token bucket that a server's Retry-After can close for a while. Thread-safe."""

    def __init__(
        self,
        settings: ApiBudget,
        clock: Callable[[], float] | None = None,
        *,
        runtime: Runtime = REAL,
    ) -> None:
        self._rate, self._burst = settings.qps, float(settings.burst)
        self._clock = clock or runtime.monotonic
        self._lock = runtime.lock()
        #: Of all requests, and of those alone that protect.
        self._tokens, self._protecting, self._filled = self._burst, self._burst, self._clock()
        self._closed_until = 0.0

    def reserve(self, *, protects: bool = False) -> float:
        """Take one token; returns the seconds to wait before the request may be sent.

        What protects (a cordon, the Lease) waits for requests of its own kind only; what it
        takes, the others wait for afterwards.
        """
        with self._lock:
            now = self._clock()
            fresh = (now - self._filled) * self._rate
            self._tokens = min(self._burst, self._tokens + fresh) - 1.0
            self._protecting = min(self._burst, self._protecting + fresh) - float(protects)
            self._filled = now
            tokens = self._protecting if protects else self._tokens
            wait = 0.0 if tokens >= 0 else -tokens / self._rate
            return max(wait, self._closed_until - now)

    def close_for(self, seconds: float) -> None:
        """The server requested a pause."""
        with self._lock:
            until = self._clock() + min(seconds, MAX_PAUSE)
            self._closed_until = max(self._closed_until, until)

    @property
    def closed_for(self) -> float:
        """Seconds for which the server still wants to be left alone."""
        with self._lock:
            return max(0.0, self._closed_until - self._clock())
