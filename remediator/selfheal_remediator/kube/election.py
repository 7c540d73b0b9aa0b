"""Leader election by a Lease.

Time is measured by our own monotonic clock only; the times inside the Lease are for people. A
leader may write until `renewDeadline` after the last renewal was sent, which is before the
Lease can be taken over; a standby takes over when it has observed no renewal for the Lease's
duration, or at once when the holder has released it.

The parts: what is known of the Lease in lease_record.py, which lease_watch.py keeps up to date;
when it may be taken in candidacy.py; the writes in lease_writes.py; who may write in fence.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from selfheal_remediator.config import LeaseSettings
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.candidacy import Candidacy, free_in
from selfheal_remediator.kube.fence import Fence
from selfheal_remediator.kube.informer import Watched
from selfheal_remediator.kube.lease import LeaseView, lease_from_json
from selfheal_remediator.kube.lease_record import LeaseRecord
from selfheal_remediator.kube.lease_watch import LeaseWatch
from selfheal_remediator.kube.lease_writes import LeaseApi, LeaseWrites
from selfheal_remediator.kube.responses import Answer
from selfheal_remediator.threads import supervision
from selfheal_remediator.threads.runtime import REAL, Runtime

log = logging.getLogger(__name__)

#: The lease thread shows so often (seconds) that it lives, however long it waits.
TICK = 10.0


class Wakeup:
    """How the lease thread waits: for a time, or until another thread has news.

    last_tick: the monotonic time at which it showed last that it lives.
    """

    def __init__(self, *, runtime: Runtime = REAL) -> None:
        self.runtime, self._news = runtime, runtime.event()
        self.last_tick = runtime.monotonic()

    def now(self) -> float:
        """Monotonic."""
        return self.runtime.monotonic()

    def set(self) -> None:
        """There is news."""
        self._news.set()

    def begin(self) -> None:
        """What is news until now is taken in from now on."""
        self.last_tick = self.now()
        self._news.clear()

    def wait(self, seconds: float) -> None:
        """Until so much time has passed or there is news."""
        ends = self.now() + seconds
        while not self._news.wait(max(0.0, min(TICK, ends - self.now()))):
            self.last_tick = self.now()
            if self.last_tick >= ends:
                return


def _always_fit() -> str:
    """Nothing keeps this process from leading."""
    return ""


def _unheard(_text: str) -> None:
    """Nobody wants to know."""


class Leader:
    """Takes part in the election until it is closed; see the module.

    on_change(leading) and on_annotations(mapping) are called from the election's threads. What is
    named `_renew`, `_stand_by`, `_take` and the like runs in the thread `lease`.
    """

    def __init__(
        self,
        api: LeaseApi,
        watch: Watched,
        settings: LeaseSettings,
        namespace: str,
        identity: str,
        on_change: Callable[[bool], None],
        on_annotations: Callable[[Mapping[str, str]], None],
        *,
        runtime: Runtime = REAL,
    ) -> None:
        self._settings, self._on_change = settings, on_change
        self._stop = runtime.event()
        self._wakeup = Wakeup(runtime=runtime)
        self._fence = Fence(settings.renew_deadline, runtime=runtime)
        self._candidacy = Candidacy(settings.duration)
        self._writes = LeaseWrites(api, settings, namespace, identity, runtime=runtime)
        self.record = LeaseRecord(on_annotations, self._observed, runtime=runtime)
        self._watch = LeaseWatch(watch, self.record, self._wakeup.set, self._stop, runtime=runtime)
        #: Why this process could not do a leader's work, empty = it can (set by the loop).
        self.unfit: Callable[[], str] = _always_fit
        #: Called with the reason why a Lease that nobody renews cannot be taken (set by the loop).
        self.on_blocked: Callable[[str], None] = _unheard
        self._give_up = ""

    # -- for all threads ----------------------------------------------------------------

    def fence(self) -> int:
        """Raises NotLeader unless a write may be sent now; returns the term of leadership."""
        return self._fence.check()

    @property
    def leading(self) -> bool:
        """Whether this process leads."""
        return self._fence.leading

    @property
    def last_tick(self) -> float:
        """When the lease thread showed last that it lives (monotonic)."""
        return self._wakeup.last_tick

    @property
    def identity(self) -> str:
        """What the Lease names as its holder while this process leads."""
        return self._writes.identity

    @property
    def annotations(self) -> Mapping[str, str]:
        """The Lease's annotations as last observed."""
        view = self.record.view
        return view.annotations if view else {}

    @property
    def lease_uid(self) -> str:
        """The Lease's uid as last observed, empty = there is none."""
        view = self.record.view
        return view.uid if view else ""

    def start(self) -> None:
        """Begin: one thread watches the Lease, one renews or waits."""
        self._watch.informer.start()
        supervision.start("lease", self._run, self._stop, runtime=self._wakeup.runtime)

    def give_up(self, why: str) -> None:
        """Let a standby lead: callable from any thread.

        This process stays on standby for at least the Lease's duration, and while it is unfit.
        """
        self._give_up = why
        self._wakeup.set()

    def close(self) -> None:
        """Stop writing, release the Lease if we hold it, and end."""
        self._stop.set()
        self._wakeup.set()
        self._watch.informer.end_watch()
        if self._fence.close():
            self._writes.release()

    def _observed(self) -> None:
        """The Lease was observed: who stands by evaluates it."""
        if not self.leading:
            self._wakeup.set()

    # -- the lease thread ---------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wakeup.begin()
            wait = 0.2
            try:
                if self.leading and self._give_up:
                    self._hand_over()
                with supervision.expected(
                    "lease", "this attempt to hold the lease", runtime=self._wakeup.runtime
                ):
                    wait = self._renew() if self.leading else self._stand_by()
            except ApiFailure as failure:
                log.warning("lease: %s", failure)
                wait = min(1.0, self._settings.renew_interval / 4)
                if not self.leading:
                    self._candidacy.failed(self._wakeup.now(), wait)
            if self._fence.expired:
                self._lose("it could not be renewed in time")
            self._wakeup.wait(wait)

    # -- leading ------------------------------------------------------------------------

    def _renew(self) -> float:
        """Returns the seconds until the next attempt."""
        sent, view = self._wakeup.now(), self.record.view
        answer = self._writes.renew()
        if self._stop.is_set():
            return 0.0
        if answer.ok:
            self._candidacy.renewed()
            renewed = lease_from_json(answer.json())
            self._fence.extend(sent)
            self.record.take_in(renewed)
            return max(0.0, self._settings.renew_interval - (self._wakeup.now() - sent))
        if answer.status == 404 or (answer.status == 422 and answer.conflict):
            return self._refused(answer, view)
        raise answer.failure()

    def _refused(self, answer: Answer, view: LeaseView | None) -> float:
        """The Lease is not ours any more; view: as it was when the renewal was sent."""
        deleted = answer.status == 404
        self._lose("the Lease was deleted" if deleted else "it was taken over")
        if deleted:
            self.record.forget(view)
        self._candidacy.lost(self._wakeup.now())
        # The watch reports who took it; until then we know an older Lease, of our own.
        return 0.0 if deleted else self._wakeup.runtime.random.uniform(0.5, 1.0)

    def _lose(self, why: str) -> None:
        self._fence.end()
        log.warning("lost leadership: %s", why)
        self._on_change(False)

    def _hand_over(self) -> None:
        why, self._give_up = self._give_up, ""
        self._candidacy.handed_over(self._wakeup.now())
        self._lose(why)
        self._writes.release()

    # -- standing by --------------------------------------------------------------------

    def _stand_by(self) -> float:
        """Take the Lease if that is possible now; returns the seconds until the next attempt."""
        self._give_up = ""
        if not self._watch.synced:
            return 5.0
        left = self._candidacy.not_before - self._wakeup.now()
        if left > 0:
            return left
        if self.unfit():
            return 1.0
        view, seen_at = self.record.observed()
        identity, duration = self._writes.identity, self._settings.duration
        left = free_in(view, seen_at, identity, duration, self._wakeup.now())
        if view is not None and left > 0:
            self._report_blocked(view)
            return left
        if view is not None and view.holder not in ("", identity):
            log.warning("the leader %s stopped renewing", view.holder)
        self._take(view)
        # On a lost race the winner's write arrives by the watch; this is only the net.
        return 0.0 if self.leading else self._wakeup.runtime.random.uniform(0.5, 1.0)

    def _report_blocked(self, view: LeaseView) -> None:
        text = self._candidacy.blocked_by(view)
        if text:
            log.warning("%s", text)
            self.on_blocked(text)

    def _take(self, view: LeaseView | None) -> None:
        sent = self._wakeup.now()
        answer = self._writes.take(view, self.record.first_start)
        if answer.status == 409 and answer.conflict:
            if self._candidacy.conflicted():
                log.warning("lease: not as it is known: it is read again")
                self._watch.read_again()
            return
        self._candidacy.conflicts = 0
        if answer.status == 404:
            self.record.forget(view)
        if not answer.ok:
            raise answer.failure()
        if self._stop.is_set():
            return
        taken = lease_from_json(answer.json())
        if not self._fence.begin(sent):
            return  # it was closed in this moment
        self.record.take_in(taken)
        log.info("leading as %s", self._writes.identity)
        self._on_change(True)
