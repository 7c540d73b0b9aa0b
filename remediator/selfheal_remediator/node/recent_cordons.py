"""When nodes were cordoned lately, by the signals that they were cordoned for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from selfheal_remediator.node.entry import Key


class RecentCordons:
    """Each node (uid) counts once for a signal. Nothing is kept of a signal without a recent
    cordon: a detector may give each occurrence a reason of its own."""

    def __init__(self) -> None:
        # Each node's last cordon, and the one before it: the last may turn out not to be made.
        self._moments: dict[Key, dict[str, tuple[float, ...]]] = {}

    def __len__(self) -> int:
        """Of how many signals something is known."""
        return len(self._moments)

    def of(self, key: Key, since: float) -> Sequence[float]:
        """When nodes were cordoned after this moment, in ascending order."""
        lasts = (moments[-1] for moments in self._moments.get(key, {}).values())
        return sorted(moment for moment in lasts if moment > since)

    def note(self, keys: Iterable[Key], uid: str, now: float) -> None:
        """The node is cordoned now."""
        for key in keys:
            of_nodes = self._moments.setdefault(key, {})
            of_nodes[uid] = (*of_nodes.get(uid, ())[-1:], now)

    def not_made(self, uid: str) -> None:
        """The node was not cordoned after all: what was noted last is over."""
        noted = [of_nodes for of_nodes in self._moments.values() if uid in of_nodes]
        last = max((of_nodes[uid][-1] for of_nodes in noted), default=0.0)
        for of_nodes in noted:
            *before, moment = of_nodes[uid]
            if moment < last:
                continue  # it was cordoned for another signal before that
            del of_nodes[uid]
            if before:
                of_nodes[uid] = tuple(before)

    def drop(self, until: float) -> None:
        """Forget those up to this moment."""
        for key, of_nodes in list(self._moments.items()):
            kept = {uid: moments for uid, moments in of_nodes.items() if moments[-1] > until}
            if kept:
                self._moments[key] = kept
            else:
                del self._moments[key]
