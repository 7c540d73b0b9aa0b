"""Which drains have one of the slots that `limits.maxDraining` allows. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from selfheal_remediator.config import DisruptionLimits
from selfheal_remediator.node.counts import Counts
from selfheal_remediator.node.entry import Entry
from selfheal_remediator.node.limits import CountedNode, Tally, check_drain
from selfheal_remediator.node.skip_reason import SkipReason


class SlotAllocation:
    """Over all nodes; the order of drains that make no progress is DrainSlots'."""

    def __init__(self, entries: Mapping[str, Entry], counts: Counts) -> None:
        self._entries, self._counts = entries, counts
        #: Whether it was settled which of a predecessor's drains have a slot.
        self._restored = True

    def begin_term(self) -> None:
        """The nodes show which drains a predecessor had under way."""
        self._restored = False

    def restore(self, limits: DisruptionLimits, now: float) -> None:
        """At the begin of a term more drains may be written down than may run at a time: those that
        came to a standstill among them. The youngest keep their slots: they took theirs last."""
        if self._restored:
            return
        self._restored = True
        found = [
            (max(state.drain_started for state in entry.states), uid, entry.counted)
            for uid, entry in self._entries.items()
            if entry.counted is not None and entry.counted.draining
        ]
        found.sort(key=lambda one: (-one[0], one[1]))
        drains = [(uid, node) for _, uid, node in found]
        self._counts.slots.restore(limits, self._counts.tally(now), drains, now)
        for uid in self._counts.slots.yielded:
            self._counts.recount(self._entries[uid], now)

    def return_slots(self, limits: DisruptionLimits, now: float, *, stopped: bool) -> None:
        """Drains without a slot that request one get it before others do."""
        yielded = [self._entries[uid] for uid in self._counts.slots.yielded if uid in self._entries]
        draining = (
            entry.node.uid
            for entry in yielded
            if self._counts.counts_as_draining(entry, entry.states, now)
        )
        self._counts.slots.keep(draining)
        for uid in [] if stopped else self._counts.slots.waiting():
            entry = self._entries[uid]
            if check_drain(limits, self._counts.tally(now), entry.counted or CountedNode()) is None:
                del self._counts.slots.yielded[uid]
                self._counts.recount(entry, now)

    def check(
        self, entry: Entry, limits: DisruptionLimits, tally: Tally, now: float
    ) -> SkipReason | None:
        """None when the node may be drained now, if need be in the slot of a drain that makes no
        progress."""
        standing = (self._entries.get(uid) for uid in self._counts.slots.standing)
        holders = {e.node.uid: e.counted for e in standing if e is not None and e.counted}
        mine = entry.counted or CountedNode()
        skip_reason, yielded = self._counts.slots.request(limits, tally, mine, holders, now)
        if yielded:
            self._counts.recount(self._entries[yielded], now)
        return skip_reason
