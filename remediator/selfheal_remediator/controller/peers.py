"""Other remediators in the cluster, found by their Leases: the oldest one acts. Pure.

A Lease is alive while its renewal time changes within its own duration by our clock; when first
observed it counts as alive.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from selfheal_remediator.kube.lease import LeaseView

#: Seconds beyond a Lease's duration before it counts as dead: it is read only now and then.
MARGIN = 45.0


@dataclass(slots=True)
class Peers:
    """Observations of other remediators' Leases; `own` is `namespace/name`."""

    own: str
    #: Those (beside our own) whose Lease was alive when last read.
    live: frozenset[str] = frozenset()
    _seen: dict[str, tuple[str, float]] = field(default_factory=dict)
    _found: dict[str, LeaseView] = field(default_factory=dict)

    def reason(self, name: str) -> str:
        """Why nothing is done while this remediator comes before us, and what ends that."""
        lease = self._found[name]
        return (
            f"the remediator {name} is older (its Lease is held by {lease.holder}): "
            f"this one is read-only until that Lease is deleted, released or not renewed for "
            f"{lease.duration + MARGIN:.0f}s"
        )

    def first(
        self, leases: Iterable[LeaseView], now: float, unread: frozenset[str] = frozenset()
    ) -> str:
        """The remediator that comes before us, empty = we are the first.

        unread: Leases that cannot be read now. They count as they were read last, and as alive
        in any case: what their remediators wrote on nodes stays theirs.
        """
        found = {name: lease for name, lease in self._found.items() if name in unread}
        found |= {f"{lease.namespace}/{lease.name}": lease for lease in leases}
        self._found, mine = found, found.get(self.own)
        before = []
        live = set(unread - {self.own})
        for name, lease in found.items():
            if name == self.own:
                continue
            known = self._seen.get(name)
            if known is None or known[0] != lease.renewed:
                self._seen[name] = (lease.renewed, now)
            elif now - known[1] > lease.duration + MARGIN:
                continue
            live.add(name)
            if lease.holder and (mine is None or _age(lease) < _age(mine)):
                before.append(name)
        self.live = frozenset(live)
        self._seen = {name: seen for name, seen in self._seen.items() if name in found}
        return min(before, default="")


def _age(lease: LeaseView) -> tuple[float, str]:
    return (lease.created or 0.0, f"{lease.namespace}/{lease.name}")
