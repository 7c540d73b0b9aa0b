"""On which nodes one condition began, and when. Pure.

Thousands of nodes may turn bad within seconds, and each is counted when it does: a change costs
little, however many onsets there are.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection
from dataclasses import dataclass, field

from selfheal_remediator.config import Signal

#: More moments than this are searched all at once.
FEW = 16


@dataclass(frozen=True, slots=True)
class Onset:
    """A condition began on a node. rollout: soon after the node's detector restarted."""

    when: float
    rollout: bool


def first_burst(ordered: list[float], window: float, limit: int) -> float | None:
    """When the first burst began: more than `limit` moments within `window` seconds; None = there
    is none."""
    spans = zip(ordered, ordered[limit:], strict=False)
    return next((first for first, last in spans if last - first <= window), None)


@dataclass(slots=True)
class Moments:
    """When onsets were, in order. A search goes only through what is new since the last one."""

    ordered: list[float] = field(default_factory=list)
    _new: list[float] = field(default_factory=list)
    _searched: tuple[float, int] | None = None

    def add(self, moment: float) -> None:
        """One more."""
        insort(self.ordered, moment)
        if len(self._new) <= FEW:  # more are not searched one by one
            self._new.append(moment)

    def remove(self, moment: float) -> None:
        """One less; it is there."""
        del self.ordered[bisect_left(self.ordered, moment)]
        if len(self._new) <= FEW and moment in self._new:
            self._new.remove(moment)

    def search_all(self) -> None:
        """The next search is of all moments."""
        self._searched = None

    def first_burst(self, window: float, limit: int) -> float | None:
        """See above. Only a new moment, a wider window or a lower limit can make a burst."""
        new, self._new = self._new, []
        before, self._searched = self._searched, (window, limit)
        wider = before is None or window > before[0] or limit < before[1]
        if wider or len(new) > FEW:
            return first_burst(self.ordered, window, limit)
        found = [
            first
            for moment in dict.fromkeys(new)
            if (first := self._burst_around(moment, window, limit)) is not None
        ]
        return min(found, default=None)

    def _burst_around(self, moment: float, window: float, limit: int) -> float | None:
        begin = bisect_left(self.ordered, moment - window)
        end = bisect_right(self.ordered, moment + window)
        if end - begin <= limit:
            return None
        return first_burst(self.ordered[begin:end], window, limit)


class Onsets:
    """The last onset of each node (uid) for one condition. It is over when its window is; it counts
    on while its node is bad."""

    def __init__(self, signal: Signal) -> None:
        self._signal = signal
        self._of: dict[str, Onset] = {}
        self._all, self._rollouts = Moments(), Moments()
        #: (when, uid) of each onset that is not over; and the nodes whose onset is.
        self._heap: list[tuple[float, str]] = []
        self._over: set[str] = set()

    def __len__(self) -> int:
        return len(self._of)

    def reconfigure(self, signal: Signal) -> None:
        """Other windows: what is over is found again."""
        self._signal = signal
        self._over.clear()
        self._all.search_all()
        self._rollouts.search_all()
        self._heap = [(self._ends(onset), uid) for uid, onset in self._of.items()]
        heapq.heapify(self._heap)

    def put(self, uid: str, onset: Onset) -> None:
        """The condition began on the node."""
        if self._of.get(uid) == onset:
            return
        self._remove(uid)
        self._of[uid] = onset
        self._all.add(onset.when)
        if onset.rollout:
            self._rollouts.add(onset.when)
        heapq.heappush(self._heap, (self._ends(onset), uid))

    def node_recovered(self, uid: str) -> None:
        """The node is not bad any more, or is gone: its onset counts until it is over."""
        if uid in self._over:
            self._remove(uid)

    def drop(self, now: float, bad: Collection[str]) -> None:
        """Forget the onsets that are over, of nodes that are not bad."""
        while self._heap and self._heap[0][0] < now:
            ends, uid = heapq.heappop(self._heap)
            onset = self._of.get(uid)
            if onset is None or self._ends(onset) != ends:
                continue  # a later one took its place
            self._over.add(uid)
            if uid not in bad:
                self._remove(uid)

    def wave(self, limit: int) -> float | None:
        """When the wave began, None = the onsets make none.

        A wave is onsets on many nodes within seconds, or soon after their detectors restarted (a
        rollout moves from node to node, and so does its mistake).
        """
        signal = self._signal
        rollout = self._rollouts.first_burst(max(signal.window, signal.rollout_window), limit)
        found = self._all.first_burst(signal.window, limit)
        return rollout if found is None else found

    def since(self, moment: float) -> int:
        """How many of those that count began at this moment or later."""
        return len(self._all.ordered) - bisect_left(self._all.ordered, moment)

    def _ends(self, onset: Onset) -> float:
        signal = self._signal
        return onset.when + (signal.rollout_window if onset.rollout else signal.window)

    def _remove(self, uid: str) -> None:
        onset = self._of.pop(uid, None)
        self._over.discard(uid)
        if onset is not None:
            self._all.remove(onset.when)
            if onset.rollout:
                self._rollouts.remove(onset.when)
