"""The largest value of a number within a window, by when it was last true. Pure."""

from __future__ import annotations

from collections import deque


class Peak:
    """What a number was, for so long (seconds) as it counts; time never goes back."""

    def __init__(self, window: float) -> None:
        self._window = window
        #: (last true at, value), the values falling: a later larger one makes a smaller idle.
        self._past: deque[tuple[float, int]] = deque()
        self._changed = float("-inf")

    def was(self, value: int, now: float) -> None:
        """The number was `value` until now, and is another one from now on. What it is between two
        changes of one moment depends on their order: it does not count."""
        if now == self._changed:
            return
        self._changed = now
        while self._past and self._past[-1][1] <= value:
            self._past.pop()
        self._past.append((now, value))

    def of(self, value: int, now: float) -> int:
        """The largest one within the window, `value` (the present one) included."""
        while self._past and self._past[0][0] < now - self._window:
            self._past.popleft()
        return max(value, self._past[0][1]) if self._past else value

    def clear(self) -> None:
        """What was counted before is not comparable any more."""
        self._past.clear()
