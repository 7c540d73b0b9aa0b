"""Has the steps of ladders follow the nodes' annotations, and what they come to written down there.

A step is begun when the node's annotation names it, so that whoever leads next continues it. Its
timeout is used up only while it may be advanced. All methods run on the main thread; the steps
themselves are advanced by step_requests.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from selfheal_remediator.actions.kinds import kind_of
from selfheal_remediator.actions.step import StepOutcome, StepResult
from selfheal_remediator.backoff import delay_after
from selfheal_remediator.config import Config
from selfheal_remediator.controller.authority import Authority
from selfheal_remediator.controller.mode import Mode
from selfheal_remediator.controller.node_writer import NodeWriter
from selfheal_remediator.controller.reporter import Reporter
from selfheal_remediator.controller.step_requests import (
    Answer,
    StepCall,
    StepRequests,
    ended,
    identity,
)
from selfheal_remediator.controller.volume_check import VolumeCheck
from selfheal_remediator.failures import ApiFailure, NotLeader
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.ladder import Step, Verify
from selfheal_remediator.metrics import Metrics
from selfheal_remediator.moments import earliest
from selfheal_remediator.node import lifecycle
from selfheal_remediator.node.actions import Action, Kind
from selfheal_remediator.node.annotation import Phase, State
from selfheal_remediator.node.entry import Entry
from selfheal_remediator.node.planner import Planner
from selfheal_remediator.node.repair import begun_step, needs_detached
from selfheal_remediator.node.work_clock import WorkClock, time_left
from selfheal_remediator.threads.pool import Post, Purpose, Workers

log = logging.getLogger(__name__)

#: A step that could not be called is called again after so many seconds, then twice as many, at
#: most so many.
FIRST_RETRY, LONGEST_RETRY = 1.0, 60.0
#: A step that was held up is tried again after so many seconds.
HELD_UP = 5.0


@dataclass(slots=True)
class Run:
    """A step under way. what: for people; label: for metrics. clock: how much of its timeout is
    used; due: when it is called next; result: how it ended, to be written down."""

    call: StepCall
    what: str
    label: str
    clock: WorkClock
    due: float
    under_way: bool = False
    failures: int = 0
    result: StepResult | None = None


class Repairs:
    """See the module."""

    def __init__(
        self,
        api: KubernetesApi,
        planner: Planner,
        writer: NodeWriter,
        authority: Authority,
        mode: Mode,
        workers: Workers,
        post: Post,
        metrics: Metrics,
        reporter: Reporter,
        clock: Callable[[], float],
    ) -> None:
        self._planner, self._writer, self._mode = planner, writer, mode
        self._authority, self._workers = authority, workers
        self._metrics, self._reporter, self._clock = metrics, reporter, clock
        self._requests = StepRequests(api, authority, post, clock, runtime=workers.runtime)
        #: The steps under way, by their nodes' uids.
        self.running: dict[str, Run] = {}
        self._volumes = VolumeCheck(self._requests, planner, workers, reporter, clock)

    def forget(self) -> None:
        """Another term or mode: what is under way is taken up again from the annotations."""
        self.running.clear()
        self._volumes.forget()

    # -- following the annotations ---------------------------------------------------------

    def follow(self, changed: Iterable[str], now: float) -> None:
        """Begin and end steps as the annotations of these nodes say."""
        for uid in changed:
            entry = self._planner.entries.get(uid)
            self._follow_step(uid, entry, now)
            state = entry.assessment.state if entry is not None else None
            if entry is None or state is None:
                self._volumes.end(uid)
                continue
            drained = entry.assessment.standing == Phase.DRAINED.value
            if drained and needs_detached(self._config_of(entry), state):
                self._volumes.begin(uid, entry.node.name, now)
            else:
                self._volumes.end(uid)

    def _follow_step(self, uid: str, entry: Entry | None, now: float) -> None:
        if entry is not None and entry.pending is not None:
            return
        state = entry.assessment.state if entry is not None else None
        if entry is None or state is None or not _is_at_step(entry, state):
            run = self.running.pop(uid, None)
            if entry is None and run is not None:
                self._report_gone(run)
            return
        run = self.running.get(uid)
        if run is not None and identity(run.call.state) == identity(state):
            return
        self.running.pop(uid, None)
        part = _part(self._config_of(entry), state)
        if part is None:
            return  # the configuration has changed: the node's assessment says what follows
        limit = part.limit if isinstance(part, Step) else part.timeout
        kind = Kind.UNCORDON if state.phase is Phase.VERIFYING else Kind.REPAIR
        call = StepCall(
            node=entry.node.name,
            uid=uid,
            state=state,
            executor=kind_of(part, self._requests.api),
            deadline=now + time_left(limit, state.step_used),
            limit=limit,
            kind=kind,
            term=self._authority.term,
            stops=self._authority.stops,
            dry_run=self._mode.config.dry_run,
        )
        verifies = state.phase is Phase.VERIFYING
        name = "verify" if verifies else f"step {state.steps}"
        label = "verify" if verifies else part.kind
        clock = WorkClock(limit, float(state.step_used))
        self.running[uid] = Run(call, f"{name} ({part.kind})", label, clock, now)

    def _config_of(self, entry: Entry) -> Config:
        """With the rules of the node's group."""
        return self._mode.config.for_node(entry.node.labels)

    # -- the main loop's turn --------------------------------------------------------------

    def advance(self, now: float, *, stopped: bool) -> float | None:
        """Call the steps that are due; returns when to be called again at the latest."""
        wake: float | None = None
        for uid, run in list(self.running.items()):
            if not run.under_way:
                self._use_time(uid, run, now, stopped=stopped)
            if run.result is not None:
                self._write_down(uid, run, now)
            elif not run.under_way and run.due <= now:
                self._call(run, now, stopped=stopped)
            if not run.under_way:
                wake = earliest(wake, run.due)
        return earliest(wake, self._volumes.advance(now))

    def _use_time(self, uid: str, run: Run, now: float, *, stopped: bool) -> None:
        """What is held up has not failed: the next step, which may be worse, would begin."""
        held_up = run.clock.credit(now, idle=stopped and run.call.kind is Kind.REPAIR)
        if held_up:
            run.call = replace(run.call, deadline=run.call.deadline + held_up)
        used, entry = run.clock.to_note(run.call.deadline, now), self._planner.entries.get(uid)
        state = entry.state if entry is not None else None
        if used is None or run.result is not None or run.call.dry_run:
            return
        if state is None or identity(state) != identity(run.call.state) or not state.step_runs:
            return
        text = f"{used}s of the timeout of {run.what} are used"
        after = replace(state, step_used=used)
        if self._writer.request(Action(Kind.NOTE, run.call.node, uid, after, "", text), now):
            run.clock.noted = used

    def _call(self, run: Run, now: float, *, stopped: bool) -> None:
        if stopped and run.call.kind is Kind.REPAIR:
            run.due = now + HELD_UP
            return
        repairs = run.call.kind is Kind.REPAIR
        run.call = replace(
            run.call,
            term=self._authority.term,
            stops=self._authority.stops,
            kept_from=self._planner.kept_from_repair(run.call.uid, now) if repairs else "",
        )
        run.under_way = True
        self._workers.submit(
            partial(self._requests.advance, run.call, self._answered),
            Purpose.LOOKUPS,
            "steps",  # those that hang leave room for the reads of others
        )

    def _answered(self, call: StepCall, answer: Answer, called: float) -> None:
        """What the step's call came to."""
        run, now = self.running.get(call.uid), self._clock()
        if run is None or run.call is not call:
            return
        run.under_way = False
        if call.dry_run:
            run.due = float("inf")  # it is not begun: what it would come to is not known
            self._report_dry_run(run, answer)
            return
        run.result = ended(answer, called, call)
        if run.result is not None:
            if run.result.outcome is not StepOutcome.NOT_BEGUN:
                self._metrics.repairs.steps.labels(run.label, run.result.outcome.value).inc()
            self._write_down(call.uid, run, now)
        elif isinstance(answer, StepResult):
            run.failures = 0
            # Once more at its deadline, to see how it ended.
            run.due = max(now, min(now + max(0.1, answer.again_after), call.deadline))
        elif isinstance(answer, ApiFailure) and not isinstance(answer, NotLeader):
            run.failures += 1
            delay = delay_after(run.failures, first=FIRST_RETRY, longest=LONGEST_RETRY)
            run.due = now + max(delay, min(answer.retry_after or 0.0, LONGEST_RETRY))
            log.warning("%s: %s: %s", call.node, run.what, answer)
        else:
            run.due = now + HELD_UP

    def _report_gone(self, run: Run) -> None:
        """Nothing can be written down any more on a node that a step of Cluster API removed."""
        if run.label != "machine" or run.result is not None or run.call.dry_run:
            return
        self._metrics.repairs.steps.labels(run.label, "succeeded").inc()
        text = f"{run.what} succeeded: the node is gone"
        self._reporter.of_node(
            run.call.node, run.call.uid, "RepairStepSucceeded", text, warning=False
        )

    def _report_dry_run(self, run: Run, answer: Answer) -> None:
        refused = isinstance(answer, ApiFailure) and not isinstance(answer, NotLeader)
        failed = isinstance(answer, StepResult) and answer.outcome is StepOutcome.FAILED
        if refused or failed:
            why = answer.message if isinstance(answer, StepResult) else str(answer)
            text = f"dry-run, would fail: {run.what}: {why}"
            self._reporter.of_node(
                run.call.node, run.call.uid, "RepairStepFailed", text, warning=True
            )

    def _write_down(self, uid: str, run: Run, now: float) -> None:
        """How the step ended; tried again in a moment, until the node's annotation says so.

        It is not called again for it: what it made may be gone by then.
        """
        entry, result, state = self._planner.entries.get(uid), run.result, run.call.state
        if entry is None or result is None:
            return
        known = entry.assessment.state
        if known is None or identity(known) != identity(state) or not known.step_runs:
            self.running.pop(uid, None)
            return
        failed = result.outcome is StepOutcome.FAILED
        if result.outcome is StepOutcome.NOT_BEGUN:
            after, verb = lifecycle.withdrawn(known, now), "withdrawn"
        else:
            after, verb = lifecycle.step_ended(known, now, failed=failed), result.outcome.value
        verifies = state.phase is Phase.VERIFYING
        reason = ("Verify" if verifies else "RepairStep") + verb.capitalize()
        text = f"{run.what} {verb}: {result.message}"
        action = Action(Kind.NOTE, run.call.node, uid, after, reason, text, failed)
        self._writer.request(action, now)
        run.due = now + 1.0


def _is_at_step(entry: Entry, state: State) -> bool:
    """Whether a step, or `verify`, was begun and is to be continued: it is not while the node is
    excluded, or is not ours."""
    return state.step_runs and entry.assessment.standing == state.phase.value


def _part(config: Config, state: State) -> Step | Verify | None:
    """What was begun, None = the configuration says something else by now."""
    if state.phase is Phase.VERIFYING:
        rule = config.rule_marked(state.rule)
        return rule.verify if rule is not None else None
    rule = begun_step(config, state)
    return rule.then[state.steps - 1] if rule is not None else None
