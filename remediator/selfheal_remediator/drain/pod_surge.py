"""How far the surge of one pod's Deployment is known, and when that is read again. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from selfheal_remediator.backoff import delay_after
from selfheal_remediator.drain.surge import NOTHING, Decision, Surge

#: Seconds until a Deployment is read again: while its rollout runs,
ROLLING_AGAIN = 5.0
#: while something has to end first, and where nothing changes by itself; first, and longest.
WAIT_AGAIN = (5.0, 60.0)
LATER_AGAIN = (30.0, 300.0)
#: So long (seconds) after a read that showed its rollout, the pod is left to the rollout.
LEFT_FOR = 60.0


@dataclass(slots=True)
class PodSurge:
    """What is known of the surge of one pod's Deployment. awaited: it is being read; due: when it
    is read again; same: how many reads in a row had this result; begun: this process has rolled it
    out."""

    decision: Decision = NOTHING
    awaited: bool = False
    due: float = 0.0
    same: int = 0
    left_until: float = 0.0
    begun: bool = False

    def answered(self, decision: Decision, now: float) -> None:
        """It was read, and that was done about it."""
        self.awaited = False
        self.same = self.same + 1 if decision.surge is self.decision.surge else 1
        self.decision = decision
        if decision.surge is Surge.ROLLING:
            self.due, self.left_until = now + ROLLING_AGAIN, now + LEFT_FOR
            return
        self.left_until = 0.0
        first, longest = WAIT_AGAIN if decision.surge is Surge.WAIT else LATER_AGAIN
        self.due = now + delay_after(self.same, first=first, longest=longest)

    def failed(self, now: float) -> None:
        """It could not be read, or changed: what is known stays, and it is read ever later."""
        self.awaited = False
        self.same += 1
        self.due = now + delay_after(self.same, first=WAIT_AGAIN[0], longest=LATER_AGAIN[1])

    def not_sent(self, now: float) -> None:
        """Nothing was done after all."""
        self.awaited, self.due = False, now + WAIT_AGAIN[0]

    def rolls(self, now: float) -> bool:
        """Whether a rollout is to remove the pod: it is not evicted meanwhile."""
        return self.decision.surge is Surge.ROLLING and now < self.left_until
