"""Which drains have a place among those that may run at a time. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from selfheal_remediator.config import DisruptionLimits
from selfheal_remediator.node.counts import Counts
from selfheal_remediator.node.entry import Entry
from selfheal_remediator.node.limits import Member, Tally, check_drain
from selfheal_remediator.node.skip_reason import SkipReason


class DrainPlaces:
    """Over all nodes; the order of drains that make no progress is DrainSlots'."""

    def __init__(self, entries: Mapping[str, Entry], counts: Counts) -> None:
        self._entries, self._counts = entries, counts
        #: Whether it was settled which of a predecessor's drains have a place.
        self._restored = True

    def begin_term(self) -> None:
        """The nodes show which drains a predecessor had under way."""
        self._restored = False

    def restore(self, limits: DisruptionLimits, now: float) -> None:
        """At the begin of a term more drains may be written down than may run at a time: those that
        came to a standstill among them. The youngest keep their places: they took theirs last."""
        if self._restored:
            return
        self._restored = True
        found = [
            (max(state.drain_started for state in entry.states), uid, entry.member)
            for uid, entry in self._entries.items()
            if entry.member is not None and entry.member.draining
        ]
        found.sort(key=lambda one: (-one[0], one[1]))
        drains = [(uid, member) for _, uid, member in found]
        self._counts.slots.restore(limits, self._counts.tally(now), drains, now)
        for uid in self._counts.slots.given:
            self._counts.recount(self._entries[uid], now)

    def give_again(self, limits: DisruptionLimits, now: float, *, stopped: bool) -> None:
        """Drains without a place that request one get it before others do."""
        draining = (
            uid
            for uid in self._counts.slots.given
            if uid in self._entries
            and self._counts.in_time(self._entries[uid], self._entries[uid].states, now)
        )
        self._counts.slots.keep(draining)
        for uid in [] if stopped else self._counts.slots.waiting():
            entry = self._entries[uid]
            if check_drain(limits, self._counts.tally(now), entry.member or Member()) is None:
                del self._counts.slots.given[uid]
                self._counts.recount(entry, now)

    def check(
        self, entry: Entry, limits: DisruptionLimits, tally: Tally, now: float
    ) -> SkipReason | None:
        """None when the node may be drained now, if need be in the place of a drain that makes no
        progress."""
        standing = (self._entries.get(uid) for uid in self._counts.slots.standing)
        members = {e.node.uid: e.member for e in standing if e is not None and e.member}
        mine = entry.member or Member()
        skip_reason, given = self._counts.slots.request(limits, tally, mine, members, now)
        if given:
            self._counts.recount(self._entries[given], now)
        return skip_reason
