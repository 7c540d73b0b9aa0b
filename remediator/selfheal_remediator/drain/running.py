"""One drain under way: its decisions with what the main thread keeps beside them.

The main thread owns all of this. Workers only ask `may_send`, before they send what was ordered a
while ago.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from selfheal_remediator.config import Config
from selfheal_remediator.drain.engine import NodeDrain
from selfheal_remediator.drain.eviction import fallback
from selfheal_remediator.drain.lookups import Answer, Question
from selfheal_remediator.drain.readiness import Readiness
from selfheal_remediator.drain.reports import DrainReports, Report
from selfheal_remediator.kube.events import ObjectEvent
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.kube.responses import EvictionResult, Outcome
from selfheal_remediator.node.work_clock import WorkClock
from selfheal_remediator.threads.runtime import REAL, Event


@dataclass(slots=True)
class Instructions:
    """What holds for all drains. Written by the main thread, read by the others too: what waits
    for its turn is not sent any more once everything is stopped."""

    config: Config
    stopped: bool = False
    #: Counts the times that what was ordered before was cancelled.
    cancelled: int = 0


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What the loop wants to know. `say` takes (node, uid, reason, message, warning); `not_ours`
    the node as just read, which is not to be drained any more."""

    done: Callable[[NodeDrain], None]
    no_room: Callable[[NodeDrain, str], None]
    nodes: Callable[[], list[Node]]
    say: Callable[[str, str, str, str, bool], None]
    evicted: Callable[[Outcome], None]
    not_ours: Callable[[Node], None]
    #: Pods came back past the cordon: their counts are to be written down.
    returned: Callable[[NodeDrain], None]
    #: What happened to an object beside the node.
    of_object: Callable[[ObjectEvent], None]

    def report(self, drain: NodeDrain, report: Report) -> None:
        """Report something about one drain."""
        self.say(drain.node, drain.uid, report.reason, report.message, report.warning)


@dataclass(slots=True)
class NodeCheck:
    """The fresh read of the node before each wave. under_way: its answer is awaited; at: not
    sooner; in_vain: how often in a row the node could not be read, or was not to be drained."""

    under_way: bool = False
    at: float = 0.0
    in_vain: int = 0

    def passed(self) -> None:
        """The node is still ours to drain."""
        self.under_way, self.in_vain = False, 0

    def failed(self, now: float) -> None:
        """It is read again, ever later."""
        self.under_way = False
        self.in_vain += 1
        self.at = now + fallback(Outcome.UNAVAILABLE, self.in_vain)


@dataclass(slots=True)
class Confirmation:
    """Whether the node's pods were listed from the server itself, not from a cache, which may lag:
    before that the node does not count as empty. requested: such a list was requested."""

    requested: bool = False
    given: bool = False

    @property
    def awaited(self) -> bool:
        """Whether it was requested and has not come."""
        return self.requested and not self.given


@dataclass(slots=True)
class RunningDrain:
    """One drain. news: something came since its last evaluation; otherwise it is evaluated when
    `due`. tried: pods (uids) that got an answer. ended: its result is being written down."""

    drain: NodeDrain
    clock: WorkClock = field(default_factory=lambda: WorkClock(float("inf")))
    stop: Event = field(default_factory=REAL.event)
    check: NodeCheck = field(default_factory=NodeCheck)
    confirmation: Confirmation = field(default_factory=Confirmation)
    reports: DrainReports = field(default_factory=DrainReports)
    readiness: Readiness = field(default_factory=Readiness)
    ended: bool = False
    #: Its pods must fit elsewhere, and the annotation does not say yet that they were found to.
    unrecorded: bool = False
    #: Since when its node recovers, so that nothing more is to leave it; None = it does not.
    paused_since: float | None = None
    tried: set[str] = field(default_factory=set)
    #: Since when it makes no progress, and when it requests a slot again (see drain_slots.py).
    standing_since: float | None = None
    requests_at: float | None = None
    news: bool = True
    due: float = 0.0
    #: Of its node's cordon (surge.cordon_mark).
    mark: str = ""

    # -- read by workers too ------------------------------------------------------------

    def may_send(self, instructions: Instructions, cancelled: int, now: float) -> bool:
        """Whether a request is still to be sent; cancelled: `Instructions.cancelled` when it was
        ordered."""
        waits = self.paused_since is not None or self.drain.without_slot(now)
        over = self.stop.is_set() or instructions.cancelled != cancelled
        return not (waits or over or instructions.stopped)

    # -- time ---------------------------------------------------------------------------

    def credit(self, now: float, *, stopped: bool) -> None:
        """Time in which nothing may leave the node does not count for its deadline."""
        idle = stopped or self.paused_since is not None
        idle = idle or self.drain.only_waits or self.drain.delayed(now) or self.to_be_recorded(now)
        self.drain.deadline += self.clock.credit(now, idle=idle)

    def pause(self, now: float, *, stopped: bool) -> None:
        """Begin nothing more."""
        self.paused_since, self.news = now, True
        self.credit(now, stopped=stopped)

    def resume(self, now: float, *, stopped: bool) -> int:
        """Returns the seconds that the pause lasted, 0 = there was none."""
        if self.paused_since is None:
            return 0
        seconds = max(1, round(now - self.paused_since))
        self.paused_since, self.news = None, True
        self.credit(now, stopped=stopped)
        # As the annotation will have it.
        self.drain.pods.began(self.drain.pods.around.drain_began + seconds)
        return seconds

    def used(self, now: float) -> int:
        """Seconds of its deadline that are used: 0 until its pods may be evicted, then never."""
        if self.unrecorded:
            return 0
        return max(int(self.clock.used(self.drain.deadline, now)), 1 if self.clock.noted else 0)

    def to_be_recorded(self, now: float) -> bool:
        """Whether pods could be evicted now, were it written down that they fit elsewhere."""
        waits = self.ended or self.paused_since is not None or self.drain.delayed(now)
        return self.unrecorded and self.drain.synced and bool(self.drain.evictions) and not waits

    def recorded(self, used: int) -> bool:
        """The annotation says that so many seconds are used; returns whether pods may be evicted
        by that from now on."""
        if not self.unrecorded or not used:
            return False
        self.unrecorded, self.news, self.clock.noted = False, True, used
        return True

    def to_note(self, now: float, *, stopped: bool) -> int | None:
        """The used seconds, if they are to be written down now: before the first eviction at least
        one, by which who leads next knows that the check was made."""
        if self.ended or self.drain.after or self.paused_since is not None:
            return None
        if self.unrecorded:
            used = max(1, int(self.clock.used(self.drain.deadline, now)))
            return used if self.to_be_recorded(now) and not stopped else None
        return self.clock.to_note(self.drain.deadline, now)

    # -- what became of requests --------------------------------------------------------

    def not_sent(self, uid: str) -> None:
        """The pod's eviction was not sent."""
        self.news = True
        self.drain.not_sent(uid)

    def answered(self, uid: str, result: EvictionResult, now: float) -> None:
        """The answer to the pod's eviction."""
        self.news = True
        self.tried.add(uid)
        self.drain.answered(uid, result, now)

    def looked_up(self, question: Question, answer: Answer | None, now: float) -> None:
        """The answer to a lookup, None = it could not be read."""
        self.news = True
        self.drain.looked_up(question, answer, now)

    def pod_read(self, uid: str, now: float, *, deleted: bool) -> None:
        """Whether a pod whose eviction was accepted is being deleted."""
        self.news = True
        self.drain.checked(uid, now, deleted=deleted)

    def begin_wave(self, wave: int) -> None:
        """The node was read afresh: it is still ours to drain."""
        self.news = True
        self.check.passed()
        self.drain.begin_wave(wave)

    def check_later(self, now: float) -> None:
        """No more pods are evicted until the node was read again and is still ours to drain.

        The loop ends the drain when it observes the change too. Its watch may lag, and would
        restart at once a drain that is ended here.
        """
        self.news = True
        self.check.failed(now)
        self.drain.wave = -1

    def listed(self, *, sure: bool) -> None:
        """Its pods were listed, and the changes were posted; sure: not from a cache."""
        self.news = True
        self.confirmation.given = self.confirmation.given or sure

    # -- what it is now -----------------------------------------------------------------

    def idle(self, instructions: Instructions) -> bool:
        """It does nothing because it is not to."""
        return instructions.stopped or self.paused_since is not None or instructions.config.dry_run

    @property
    def tried_all(self) -> bool:
        """In dry-run no pod is evicted: a drain ends when each pod got a dry-run eviction."""
        clear = self.drain.synced and not self.drain.lookups.pending
        return clear and all(
            uid in self.tried or item.terminating for uid, item in self.drain.evictions.items()
        )
