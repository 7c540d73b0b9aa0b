"""Which drains count against the limits of drains at a time. Pure.

A drain that makes no progress (its kubelet is dead, a budget never opens) gives its slot to one
that can. It evicts nothing more until it gets a slot again. Its node stays cordoned, its
deadline stays, and all other limits count it on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from selfheal_remediator.config import DisruptionLimits
from selfheal_remediator.node.limits import CountedNode, Tally, check_drain
from selfheal_remediator.node.skip_reason import SkipReason

#: So many drains may be without a slot at a time: where one after the other comes to a
#: standstill, something else is wrong than their nodes.
MOST_WITHOUT_SLOT = 10


@dataclass(slots=True)
class DrainSlots:
    """The drains (nodes' uids) without progress, and those that yielded their slot.

    standing: since when (our clock) they make no progress. ready: those without a slot that could
    continue. Both are reported by the drain runner. yielded: when they did that.
    """

    standing: Mapping[str, float] = field(default_factory=dict)
    ready: frozenset[str] = frozenset()
    yielded: dict[str, float] = field(default_factory=dict)
    #: When the deadlines of drains are (our clock), as who carries them out says.
    deadlines: Mapping[str, float] = field(default_factory=dict)

    def request(
        self,
        limits: DisruptionLimits,
        tally: Tally,
        node: CountedNode,
        holders: Mapping[str, CountedNode],
        now: float,
    ) -> tuple[SkipReason | None, str]:
        """Whether one more drain may begin, and whose slot it takes (uid, empty = a free one).

        A slot that is taken is counted out of the tally.
        """
        skip_reason = check_drain(limits, tally, node)
        if (
            skip_reason is None
            or skip_reason.cause != "maxDraining"
            or len(self.yielded) >= MOST_WITHOUT_SLOT
        ):
            return skip_reason, ""
        for uid in sorted(self.standing, key=lambda uid: (self.standing[uid], uid)):
            holder = holders.get(uid)
            if holder is None or not holder.draining or uid in self.yielded:
                continue
            tally.add_drain(holder, -1)
            if check_drain(limits, tally, node) is None:
                self.yielded[uid] = now
                return None, uid
            tally.add_drain(holder, 1)
        return skip_reason, ""

    def restore(
        self,
        limits: DisruptionLimits,
        tally: Tally,
        drains: Iterable[tuple[str, CountedNode]],
        now: float,
    ) -> None:
        """Who had a slot in the term before is not written down: these drains (uid, node) get
        one in this order, as far as the limits go. Those that get none are counted out of the
        tally, in which all of them count."""
        found = list(drains)
        for _, node in found:
            tally.add_drain(node, -1)
        for uid, node in found:
            skip_reason = check_drain(limits, tally, node)
            if skip_reason is not None and skip_reason.cause == "maxDraining":
                self.yielded[uid] = now
            else:
                tally.add_drain(node)

    def waiting(self) -> list[str]:
        """Those that could continue if they had a slot, the longest without one first."""
        return sorted(self.ready & self.yielded.keys(), key=lambda uid: (self.yielded[uid], uid))

    def keep(self, draining: Iterable[str]) -> None:
        """Only these still drain."""
        still = set(draining)
        self.yielded = {uid: when for uid, when in self.yielded.items() if uid in still}
