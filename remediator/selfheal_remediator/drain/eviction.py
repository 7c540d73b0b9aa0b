"""How far the eviction of one pod is, and when it is tried again. Pure.

An accepted eviction is over when the watch reports that the pod is gone. A refused one is tried
again when what refused it may have changed, with a slow retry as a fallback.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from selfheal_remediator.backoff import delay_after
from selfheal_remediator.drain.filters import Sorting
from selfheal_remediator.drain.pod_surge import PodSurge
from selfheal_remediator.kube.deletion_check import DeletionCheck
from selfheal_remediator.kube.pods import Pod
from selfheal_remediator.kube.responses import EvictionResult, Outcome

#: Seconds of the slow retry: first, and longest. Budgets wake a pod up long before.
FALLBACKS = {
    Outcome.BUDGET: (30.0, 120.0),
    Outcome.PROCESSING: (2.0, 30.0),
    Outcome.SEVERAL_BUDGETS: (60.0, 300.0),
    Outcome.THROTTLED: (1.0, 10.0),
    Outcome.NAMESPACE: (5.0, 60.0),
    Outcome.WEBHOOK: (5.0, 60.0),
    Outcome.FORBIDDEN: (30.0, 300.0),
    Outcome.INVALID: (30.0, 300.0),
    Outcome.UNAVAILABLE: (0.5, 15.0),
}
#: Answers that decide nothing about the pod: its budgets were not checked.
UNDECIDED = (Outcome.THROTTLED, Outcome.UNAVAILABLE)
#: After so many of them its eviction counts as tried all the same.
UNDECIDED_TRIES = 10
#: Where the budget has room already: first, and longest.
FIRST_AGAIN, LONGEST_AGAIN = 0.05, 12.8
#: A Retry-After of a webhook or a proxy counts for at most so long (seconds).
LONGEST_RETRY_AFTER = 300.0
#: Seconds past a pod's deletion time before it counts as stuck.
STUCK_AFTER = 30.0
#: Seconds after its completion was waited for in which it is not deleted, deadline or not.
SPARED_FOR = 60.0
#: A pod's grace where its deletion names none (the API's default), in seconds.
DEFAULT_GRACE = 30


def fallback(outcome: Outcome, times: int) -> float:
    """Seconds until it is tried again after so many refusals in a row, from 1 on."""
    first, longest = FALLBACKS[outcome]
    return delay_after(times, first=first, longest=longest)


class Step(Enum):
    """How far one pod's eviction is."""

    IDLE = "idle"
    POSTED = "posted"
    ACCEPTED = "accepted"
    REFUSED = "refused"


@dataclass(slots=True)
class Eviction:
    """One pod that is to go. Each method is one transition, named after what happened."""

    pod: Pod
    sorting: Sorting
    step: Step = Step.IDLE
    outcome: Outcome | None = None
    message: str = ""
    retry_at: float = 0.0
    refusals: int = 0
    #: How many in a row came although the budget has room, as its watch says.
    refused_with_room: int = 0
    posts: int = 0
    #: Whether the server has decided about its eviction: it is not deleted before.
    tried: bool = False
    #: Past the deadline its deletion was ordered.
    deleting: bool = False
    refused_since: float | None = None
    #: When it was first observed terminating, by our own clock; None = it is not.
    deletion_seen: float | None = None
    #: What decides about it is being read: it is not evicted before.
    unclear: bool = False
    check: DeletionCheck = field(default_factory=DeletionCheck)
    #: It had leave to stay until now: it was not put here past the cordon.
    stayed: bool = False
    #: Until when its completion was waited for, None = it was not.
    waited_until: float | None = None
    #: Its owner put it here past the cordon: it goes once that is written down.
    returned: bool = False
    #: What is known of a rollout that replaces it (drain.surge).
    surge: PodSurge = field(default_factory=PodSurge)

    @property
    def terminating(self) -> bool:
        """Whether the pod is being deleted."""
        return self.pod.deletion is not None

    # -- transitions --------------------------------------------------------------------

    def posted(self) -> None:
        """Its eviction, or deletion, is sent now."""
        self.step = Step.POSTED
        self.posts += 1

    def not_sent(self) -> bool:
        """It was not sent after all, and may be tried again; whether that changed anything."""
        if self.step is not Step.POSTED:
            return False
        self.step = Step.REFUSED if self.refusals or self.check.ignored else Step.IDLE
        self.posts -= 1
        return True

    def answered(self, result: EvictionResult, now: float, *, has_room: bool) -> None:
        """The server's answer. has_room: the budgets that cover the pod allow its eviction."""
        self.outcome, self.message = result.outcome, result.message
        if result.outcome.over:
            self.step = Step.ACCEPTED
            self.check.accepted(now)
            return
        self._refused(now)
        self.refusals += 1
        undecided = result.outcome in UNDECIDED and self.refusals < UNDECIDED_TRIES
        self.tried = self.tried or not undecided
        delay = fallback(result.outcome, self.refusals)
        retry_after = min(result.retry_after or 0.0, LONGEST_RETRY_AFTER)
        self.retry_at = now + max(delay, retry_after)
        if result.outcome is Outcome.BUDGET and has_room:
            # The budget opened between the server's refusal and now: the watch was faster.
            self.refused_with_room += 1
            self.retry_at = now + delay_after(
                self.refused_with_room, first=FIRST_AGAIN, longest=LONGEST_AGAIN
            )
        else:
            self.refused_with_room = 0

    def read(self, now: float, *, deleted: bool) -> None:
        """The pod was read after its eviction was accepted; deleted: it is, or is gone."""
        if self.step is not Step.ACCEPTED or self.terminating:
            return
        if deleted:
            self.check.deleted(now)
            return
        self._refused(now)
        self.tried = True
        self.retry_at = self.check.not_deleted(now)

    def _refused(self, now: float) -> None:
        self.step = Step.REFUSED
        self.refused_since = self.refused_since if self.refused_since is not None else now

    def delete_instead(self, now: float) -> None:
        """From now on its deletion is ordered, whatever refused its eviction; one whose eviction
        was never tried is evicted first: its budgets may allow it."""
        if self.tried and not self.deleting:
            self.deleting, self.retry_at = True, now

    def observe_deletion(self, now: float) -> float:
        """When the terminating pod counts as stuck.

        Measured from our first observation, because the server's clock may differ.
        """
        if self.deletion_seen is None:
            self.deletion_seen = now
        return self._stuck_at(self.deletion_seen)

    # -- what it is now -----------------------------------------------------------------

    def spared(self, now: float) -> bool:
        """Whether its completion was waited for until a moment ago: it is to be evicted first."""
        return self.waited_until is not None and now < self.waited_until + SPARED_FOR

    @property
    def waits_for_budget(self) -> bool:
        """Whether a budget refused it, and may let it go when it changes."""
        by_budget = self.outcome in (Outcome.BUDGET, Outcome.PROCESSING)
        return self.step is Step.REFUSED and by_budget

    @property
    def on_its_way(self) -> bool:
        """Whether nothing is to be sent for it: it terminates, or an answer or its end is due."""
        return self.terminating or self.step in (Step.POSTED, Step.ACCEPTED)

    @property
    def stuck_at(self) -> float | None:
        """When the terminating pod counts as stuck, None = it was not observed terminating."""
        if not self.terminating or self.deletion_seen is None:
            return None
        return self._stuck_at(self.deletion_seen)

    def _stuck_at(self, seen: float) -> float:
        grace = DEFAULT_GRACE if self.pod.grace is None else self.pod.grace
        return seen + grace + STUCK_AFTER

    def overdue(self, now: float) -> bool:
        """Whether it terminates for longer than it may."""
        stuck_at = self.stuck_at
        return stuck_at is not None and now >= stuck_at

    def stuck(self, now: float) -> bool:
        """Whether nothing that is known moves the pod: overdue, refused, or ignored."""
        if self.terminating:
            return self.overdue(now)
        tried = (self.refusals > 0 or self.check.ignored > 0) and not self.surge.rolls(now)
        return tried and not self.unclear and self.step is not Step.IDLE

    def holds_wave(self, now: float, *, late: bool, after: bool) -> bool:
        """Whether later waves wait for this pod.

        A terminating pod has its own grace period and STUCK_AFTER. A refused pod has until the
        deadline (late: it has passed); on a node that is already drained (after), which has none,
        nothing waits for it.
        """
        if self.terminating:
            return now < self.observe_deletion(now)
        in_vain = self.step is Step.REFUSED or self.check.ignored > 0
        return not late and not (after and in_vain)
