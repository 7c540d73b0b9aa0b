"""Nodes that wait for a limit, in queues of those that the limits treat alike. Pure.

Thousands may wait for one limit: only the first of each queue is checked against it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field

from selfheal_remediator.node.actions import Kind
from selfheal_remediator.node.limits import CountedNode
from selfheal_remediator.node.skip_reason import SkipReason

#: Sorts the most urgent first; the last item is the node's uid.
Urgency = tuple[bool, bool, float, str, str]


@dataclass(frozen=True, slots=True)
class LimitedChange:
    """What the limits see of an action. condition: what a cordon is for; else empty."""

    kind: Kind
    node: CountedNode
    condition: str = ""


@dataclass(slots=True)
class Queue:
    """Nodes with the same change, and why none of them may go now."""

    change: LimitedChange
    order: list[Urgency] = field(default_factory=list)
    skip_reason: SkipReason | None = None

    @property
    def first(self) -> Urgency:
        """The most urgent; none is empty."""
        return self.order[0]


class Queues:
    """Each node (uid) is in one of them, or in none."""

    def __init__(self) -> None:
        self._queues: dict[LimitedChange, Queue] = {}
        self._of: dict[str, tuple[Queue, Urgency]] = {}

    def __iter__(self) -> Iterator[Queue]:
        return iter(self._queues.values())

    def put(self, change: LimitedChange, urgency: Urgency) -> Queue:
        """The node waits."""
        self.discard(urgency[-1])
        queue = self._queues.setdefault(change, Queue(change))
        insort(queue.order, urgency)
        self._of[urgency[-1]] = queue, urgency
        return queue

    def discard(self, uid: str) -> None:
        """The node does not wait any more."""
        if uid not in self._of:
            return
        queue, urgency = self._of.pop(uid)
        del queue.order[bisect_left(queue.order, urgency)]
        if not queue.order:
            del self._queues[queue.change]
