"""How long a model server is given to load its model. Pure."""

from __future__ import annotations

from selfheal_worker.backoff import growing

#: Seconds that a first load may take; a call's deadline is shorter.
LONGEST_LOAD = 600.0
#: A later load has three times the longest that was seen, but at least so many seconds. A server
#: that lost the request does not keep the only probe for longer.
SHORTEST_LOAD = 120.0


class LoadTime:
    """What the loads of one model took. loaded: whether it answered the last time."""

    def __init__(self) -> None:
        self.loaded = False
        self._longest: float | None = None
        #: Loads in a row that ran out of time.
        self._late = 0

    def seconds(self) -> float:
        """What the next load may take: twice as long after each time that was too short."""
        if self._longest is None:
            return LONGEST_LOAD
        first = max(SHORTEST_LOAD, 3 * self._longest)
        return growing(first, 2.0, self._late, LONGEST_LOAD)

    def succeeded(self, seconds: float) -> None:
        """The model answered after so many seconds."""
        if not self.loaded:
            self._longest = max(self._longest or 0.0, seconds)
        self.loaded, self._late = True, 0

    def failed(self, *, late: bool) -> None:
        """It did not; late: it ran out of time."""
        self._late = self._late + 1 if late and not self.loaded else 0
        self.loaded = False
