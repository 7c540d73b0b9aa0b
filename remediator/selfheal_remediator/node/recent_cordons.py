"""When nodes were cordoned lately, by the signals that they were cordoned for. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from selfheal_remediator.node.entry import Key


class RecentCordons:
    """Moments in ascending order. Nothing is kept of a signal without a recent cordon: a detector
    may give each occurrence a reason of its own."""

    def __init__(self) -> None:
        self._moments: dict[Key, deque[float]] = {}

    def __len__(self) -> int:
        """Of how many signals something is known."""
        return len(self._moments)

    def of(self, key: Key, since: float) -> Sequence[float]:
        """Those after this moment."""
        return [moment for moment in self._moments.get(key, ()) if moment > since]

    def note(self, keys: Iterable[Key], now: float) -> None:
        """A node is cordoned now."""
        for key in keys:
            self._moments.setdefault(key, deque()).append(now)

    def drop(self, until: float) -> None:
        """Forget those up to this moment."""
        for key, moments in list(self._moments.items()):
            while moments and moments[0] <= until:
                moments.popleft()
            if not moments:
                del self._moments[key]
