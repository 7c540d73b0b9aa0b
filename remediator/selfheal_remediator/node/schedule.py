"""When nodes are assessed again though nothing changed. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping

from selfheal_remediator.node.entry import Entry

#: The heap of times may hold so many entries that count no more, beside one for each node.
DUE_SPARE = 1000


class Schedule:
    """A heap of moments; a node's last one counts. entries: all nodes, by uid."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._entries = entries
        self._due: list[tuple[float, str, int]] = []

    def __len__(self) -> int:
        return len(self._due)

    @property
    def wake(self) -> float | None:
        """The next moment."""
        return self._due[0][0] if self._due else None

    def take_due(self, now: float) -> Iterator[str]:
        """The nodes (uids) whose moment has come."""
        while self._due and self._due[0][0] <= now:
            item = heapq.heappop(self._due)
            if self._is_valid(item):
                self._entries[item[1]].due = None
                yield item[1]

    def put(self, entry: Entry, when: float) -> None:
        """Assess the node again at this moment."""
        if entry.due == when:
            return  # a node that is seen again and again is scheduled once
        entry.due = when
        entry.ticket += 1
        heapq.heappush(self._due, (when, entry.node.uid, entry.ticket))
        if len(self._due) > 2 * len(self._entries) + DUE_SPARE:
            self._due = [item for item in self._due if self._is_valid(item)]
            heapq.heapify(self._due)

    def _is_valid(self, item: tuple[float, str, int]) -> bool:
        """Whether the heap's entry is the node's last one."""
        entry = self._entries.get(item[1])
        return entry is not None and entry.ticket == item[2]
