"""When nodes were cordoned lately, by the signals that they were cordoned for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from selfheal_remediator.node.entry import Key


class RecentCordons:
    """Each node (uid) counts once for a signal. Nothing is kept of a signal without a recent
    cordon: a detector may give each occurrence a reason of its own."""

    def __init__(self) -> None:
        self._moments: dict[Key, dict[str, float]] = {}

    def __len__(self) -> int:
        """Of how many signals something is known."""
        return len(self._moments)

    def of(self, key: Key, since: float) -> Sequence[float]:
        """When nodes were cordoned after this moment, in ascending order."""
        return sorted(moment for moment in self._moments.get(key, {}).values() if moment > since)

    def note(self, keys: Iterable[Key], uid: str, now: float) -> None:
        """The node is cordoned now."""
        for key in keys:
            self._moments.setdefault(key, {})[uid] = now

    def not_made(self, uid: str) -> None:
        """The node was not cordoned after all."""
        for moments in self._moments.values():
            moments.pop(uid, None)

    def drop(self, until: float) -> None:
        """Forget those up to this moment."""
        for key, moments in list(self._moments.items()):
            kept = {uid: moment for uid, moment in moments.items() if moment > until}
            if kept:
                self._moments[key] = kept
            else:
                del self._moments[key]
