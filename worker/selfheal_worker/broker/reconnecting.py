"""When to connect again. Pure, but for the randomness and the clock that it is given."""

from __future__ import annotations

from collections.abc import Callable

from selfheal_worker.backoff import backoff, spread

# What cannot heal by itself (credentials, vhost, queue arguments) is tried this often at most.
SLOW_PAUSE = 15.0
# A connection that lasted this long was a good one: the next is tried without a long pause. One
# that comes up and falls at once (a broken queue) must not be tried ten times a second.
STEADY = 10.0


class Reconnecting:
    """The attempts to connect since the last good connection. For the link's thread. Times in
    seconds."""

    def __init__(self, randomness: Callable[[], float], now: Callable[[], float]) -> None:
        """randomness: from 0 to 1, so that a fleet does not connect at once."""
        self._random = randomness
        self._now = now
        self._up_since: float | None = None
        self.attempts = 0

    def up(self) -> None:
        """The connection can be used."""
        self._up_since = self._now()

    def down(self) -> None:
        """The connection is lost, or could not be made."""
        if self._up_since is not None and self._now() - self._up_since >= STEADY:
            self.attempts = 0
        self._up_since = None

    def pause(self, *, permanent: bool) -> float:
        """How long to wait before the next attempt; permanent: why it fell cannot heal itself."""
        pause = backoff(self.attempts, self._random())
        if permanent:
            pause = max(pause, spread(SLOW_PAUSE, self._random()))
        self.attempts += 1
        return pause
