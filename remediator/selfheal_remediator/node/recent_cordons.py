"""When nodes were cordoned lately, by the conditions that they were cordoned for. Pure."""

from __future__ import annotations

from collections.abc import Sequence


class RecentCordons:
    """Each node (uid) counts once for a condition. Nothing is kept of one without a recent cordon:
    other rules may name others."""

    def __init__(self) -> None:
        # Each node's last cordon, and the one before it: the last may turn out not to be made.
        self._moments: dict[str, dict[str, tuple[float, ...]]] = {}

    def __len__(self) -> int:
        """Of how many conditions something is known."""
        return len(self._moments)

    def of(self, condition: str, since: float) -> Sequence[float]:
        """When nodes were cordoned after this moment, in ascending order."""
        lasts = (moments[-1] for moments in self._moments.get(condition, {}).values())
        return sorted(moment for moment in lasts if moment > since)

    def note(self, condition: str, uid: str, now: float) -> None:
        """The node is cordoned for it now."""
        of_nodes = self._moments.setdefault(condition, {})
        of_nodes[uid] = (*of_nodes.get(uid, ())[-1:], now)

    def not_made(self, uid: str) -> None:
        """The node was not cordoned after all: what was noted last is over."""
        noted = [of_nodes for of_nodes in self._moments.values() if uid in of_nodes]
        last = max((of_nodes[uid][-1] for of_nodes in noted), default=0.0)
        for of_nodes in noted:
            *before, moment = of_nodes[uid]
            if moment < last:
                continue  # it was cordoned for another condition before that
            del of_nodes[uid]
            if before:
                of_nodes[uid] = tuple(before)

    def drop(self, until: float) -> None:
        """Forget those up to this moment."""
        for condition, of_nodes in list(self._moments.items()):
            kept = {uid: moments for uid, moments in of_nodes.items() if moments[-1] > until}
            if kept:
                self._moments[condition] = kept
            else:
                del self._moments[condition]
