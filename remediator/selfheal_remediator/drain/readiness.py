"""Whether a node's kubelet is silent, or only restarts. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from selfheal_remediator.kube.objects import Node

#: Seconds that a node may be not Ready before nobody counts on its kubelet: one that restarts is
#: Ready again sooner.
RESTART = 60.0


@dataclass(slots=True)
class Readiness:
    """since: since when the node is not Ready, by our clock, None = it is; seen: whether it was
    observed before."""

    since: float | None = None
    seen: bool = False

    def lost(self, node: Node, now: float) -> bool:
        """Whether it is not Ready for longer than a restart.

        Of a node that was not Ready when it was first observed, the transition time says since
        when; by whatever clock, that is not later than now.
        """
        if node.ready:
            self.since = None
        elif self.since is None:
            ready = node.conditions.get("Ready")
            moved = ready.transition if ready is not None and not self.seen else None
            self.since = now if moved is None else min(moved, now)
        self.seen = True
        return self.since is not None and now - self.since >= RESTART
