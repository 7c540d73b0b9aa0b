"""When a process that stands by may take the Lease. Pure; times are monotonic."""

from __future__ import annotations

from dataclasses import dataclass

from selfheal_remediator.backoff import delay_after
from selfheal_remediator.kube.lease import LeaseView

#: Seconds before a Lease whose renewal was refused twice in a row is taken again.
FIRST_PAUSE = 0.4
#: So many refusals in a row of a Lease that is free by what is known: that is too old.
CONFLICTS = 3
#: A Lease that waits for its takeover longer than this (seconds, and times our own) is reported.
LONG_LEASE, LONG_LEASE_TIMES = 60.0, 4


def free_in(
    view: LeaseView | None, seen_at: float, identity: str, duration: float, now: float
) -> float:
    """Seconds until the Lease can be taken, 0 = now. seen_at: since when it was not renewed.

    The holder's own duration counts, however long it is, as in client-go (isLeaseValid in
    tools/leaderelection/leaderelection.go): its writes are fenced by nothing else.
    """
    if view is None or view.holder in ("", identity):
        return 0.0
    return max(0.0, seen_at + max(view.duration, duration) - now)


@dataclass(slots=True)
class Candidacy:
    """What keeps this process from a Lease that is free. duration: of our own Lease.

    not_before: it stays on standby until then; refused: how often in a row a renewal was refused;
    conflicts: how often in a row the Lease was another than the one that is known, and not taken;
    reported: the holder and duration of the Lease that was reported as blocked.
    """

    duration: float
    not_before: float = 0.0
    refused: int = 0
    conflicts: int = 0
    reported: tuple[str, float] = ("", 0.0)

    def handed_over(self, now: float) -> None:
        """It gave the Lease up, so that another process leads."""
        self.not_before = now + self.duration

    def failed(self, now: float, pause: float) -> None:
        """An attempt to take the Lease failed, and may have taken effect all the same: the watch
        shows it then, and that is no reason to try again at once."""
        self.not_before = max(self.not_before, now + pause)

    def conflicted(self) -> bool:
        """The Lease was not taken, as it has another version; returns whether to read it again.

        Once is a lost race, of which the watch tells soon. If it does not, it is late, or waits for
        versions that a restored etcd has yet to reach.
        """
        self.conflicts += 1
        return self.conflicts % CONFLICTS == 0

    def renewed(self) -> None:
        """The Lease is ours."""
        self.refused = self.conflicts = 0

    def lost(self, now: float) -> None:
        """A renewal was refused.

        Once is how a Lease changes hands. Again and again, something changes each that is taken
        (an admission webhook, say), and it would be taken in a loop.
        """
        self.refused += 1
        if self.refused > 1:
            pause = delay_after(self.refused - 1, first=FIRST_PAUSE, longest=self.duration)
            self.not_before = now + pause

    def blocked_by(self, view: LeaseView) -> str:
        """What to report of a Lease whose duration keeps everybody else away for long; empty =
        nothing, or it was reported."""
        long = max(LONG_LEASE, LONG_LEASE_TIMES * self.duration)
        if view.duration <= long or self.reported == (view.holder, view.duration):
            return ""
        self.reported = (view.holder, view.duration)
        return (
            f"the Lease {view.namespace}/{view.name} is held by {view.holder} with "
            f"leaseDurationSeconds {view.duration:.0f}: if that process is gone, nobody leads for "
            f"so long after its last renewal; delete the Lease then"
        )
