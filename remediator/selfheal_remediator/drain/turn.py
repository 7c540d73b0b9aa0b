"""One drain's turn of the main loop: decide, send what is ordered, report, and when again.

All methods run on the main thread. The decision is NodeDrain.step; the requests are in requests.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from selfheal_remediator.drain.engine import Actions
from selfheal_remediator.drain.reports import Report
from selfheal_remediator.drain.requests import Requests
from selfheal_remediator.drain.running import Callbacks, Instructions, RunningDrain
from selfheal_remediator.drain.surge_requests import SurgeRequests
from selfheal_remediator.drain.surging import take_due
from selfheal_remediator.kube.informer import Informer
from selfheal_remediator.kube.pods import Pod

#: A drain without news is still evaluated this often, as a fallback.
LOOK_AGAIN = 10.0
#: What could not be written down because the node is being changed is tried again.
BUSY_AGAIN = 0.05
#: Whether a node is empty is read from the server itself; the answer is checked this often.
CONFIRM_AGAIN = 1.0


class Turn:
    """See the module."""

    def __init__(
        self,
        instructions: Instructions,
        requests: Requests,
        surges: SurgeRequests,
        callbacks: Callbacks,
        clock: Callable[[], float],
    ) -> None:
        self._instructions, self._requests, self._surges = instructions, requests, surges
        self._callbacks, self._clock = callbacks, clock

    def take(self, run: RunningDrain, watch: Informer[Pod] | None, now: float) -> None:
        """Do what the drain calls for; watch: of its pods."""
        run.news = False
        stopped = self._instructions.stopped or run.paused_since is not None
        actions = run.drain.step(
            now,
            on_deadline=self._instructions.config.drain.on_deadline,
            stopped=stopped,
            dry_run=self._instructions.config.dry_run,
            unrecorded=run.unrecorded,
        )
        ends = actions.done or self._dry_run_done(run, actions)
        if ends:
            self._end(run, watch)
        else:
            self._carry_out(run, actions)
        surge_at = None if stopped else self._surge(run, now)
        moments = [now + LOOK_AGAIN, actions.wake, surge_at, self._report(run, now)]
        if run.drain.returns.unsaved and not stopped and not run.ended:
            self._callbacks.returned(run.drain)
            moments.append(now + BUSY_AGAIN)
        if run.to_be_recorded(now) and not run.idle(self._instructions):
            moments.append(now + BUSY_AGAIN)
        moments += self._awaited(run, watch, now, wave=not ends and actions.new_wave is not None)
        if ends:
            moments.append(now + BUSY_AGAIN)
        moments += self._note_progress(run, now)
        run.due = min(moment for moment in moments if moment is not None)

    # -- acting -------------------------------------------------------------------------

    def _dry_run_done(self, run: RunningDrain, actions: Actions) -> bool:
        """Whether a dry run has tried all that it can."""
        return self._instructions.config.dry_run and not actions.look_up and run.tried_all

    def _end(self, run: RunningDrain, watch: Informer[Pod] | None) -> None:
        """Nothing is left to go: that is written down once it is confirmed."""
        if run.confirmation.given:
            run.ended = True
            self._callbacks.done(run.drain)
            return
        if watch is None:
            return
        if not run.confirmation.requested:
            run.confirmation.requested = True
            watch.ask_relist()
        watch.end_stale_watch()

    def _carry_out(self, run: RunningDrain, actions: Actions) -> None:
        check = run.check
        if actions.new_wave is not None and not check.under_way and self._clock() >= check.at:
            self._requests.check_node(run, actions.new_wave)
        if run.drain.after and actions.evict:
            self._say(run, run.reports.returned(run.drain, actions.evict, self._clock()))
        for question in actions.look_up:
            self._requests.look_up(run, question)
        for pod in actions.check:
            self._requests.read_pod(run, pod)
        for pod in actions.evict:
            self._requests.remove(run, pod, delete=False)
        for pod in actions.delete:
            self._requests.remove(run, pod, delete=True)

    def _surge(self, run: RunningDrain, now: float) -> float | None:
        """Have Deployments rolled out whose only pods budgets keep here; returns when again.

        Past the deadline only if the drain continues as before (onDeadline: wait).
        """
        drain, settings = run.drain, self._instructions.config.drain
        ends = now >= drain.deadline and settings.on_deadline != "wait"
        waits = ends or run.ended or drain.after or drain.without_slot(now)
        if not settings.surge or waits or self._instructions.config.dry_run:
            return None
        pods, wake = take_due(drain.evictions.values(), drain.budgets, now)
        for pod in pods:
            self._surges.send(run, pod)
        return wake

    # -- reporting ----------------------------------------------------------------------

    def _report(self, run: RunningDrain, now: float) -> float | None:
        """Report what there is to report; returns when to evaluate again."""
        drain, reports = run.drain, run.reports
        self._say(run, reports.pods_left(drain))
        if run.paused_since is not None:
            return None
        self._say(run, reports.delayed(drain, now))
        self._say(run, reports.completing(drain))
        if not run.ended:
            on_deadline = self._instructions.config.drain.on_deadline
            limit = run.clock.limit
            passed = reports.deadline_passed(drain, now, limit=limit, on_deadline=on_deadline)
            self._say(run, passed)
        blocked, again = reports.blocked(drain, now)
        self._say(run, blocked)
        return again

    def _say(self, run: RunningDrain, reports: list[Report]) -> None:
        for report in reports:
            self._callbacks.report(run.drain, report)

    # -- when again ---------------------------------------------------------------------

    def _awaited(
        self, run: RunningDrain, watch: Informer[Pod] | None, now: float, *, wave: bool
    ) -> Iterator[float]:
        """When to evaluate again for what the drain waits for; wave: a new one is to begin."""
        if wave and not run.check.under_way:
            yield run.check.at
        if run.confirmation.awaited:
            pending = watch is not None and watch.relist_pending
            yield now + (BUSY_AGAIN if pending else CONFIRM_AGAIN)

    def _note_progress(self, run: RunningDrain, now: float) -> list[float]:
        """Whether it makes no progress; returns when to evaluate again."""
        drain, before = run.drain, (run.standing_since, run.requests_at)
        idle = run.idle(self._instructions)
        run.standing_since = None if idle else drain.standing_since(now)
        run.requests_at = drain.requests_slot_at(now)
        moments = [
            drain.standstill.due,
            run.requests_at,
            drain.deadline if drain.without_slot(now) else None,
        ]
        later = [moment for moment in moments if moment is not None and moment > now]
        # The planner is to hear of it.
        return (
            [*later, now + BUSY_AGAIN] if before != (run.standing_since, run.requests_at) else later
        )
