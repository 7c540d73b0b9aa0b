"""Has the planner's actions carried out, and takes in what became of them.

All methods run on the main thread; the requests themselves are NodeRequests', in other threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

from selfheal_remediator.controller.authority import Authority
from selfheal_remediator.controller.mode import Mode
from selfheal_remediator.controller.node_requests import Attempt, NodeRequests
from selfheal_remediator.controller.reporter import Reporter
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.informer import Change, version_number
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.kube.responses import is_conflict, is_refusal
from selfheal_remediator.metrics import Metrics
from selfheal_remediator.node.actions import Action, Kind
from selfheal_remediator.node.planner import Planner
from selfheal_remediator.node.unanswered import Doubt, Doubts, Unanswered
from selfheal_remediator.threads.pool import Post, Workers

log = logging.getLogger(__name__)


class Follower(Protocol):
    """Who goes by what is written on nodes; called on the main thread."""

    def settled(self, action: Action) -> None:
        """The change was made."""

    def not_done(self, action: Action) -> None:
        """The change was not made."""

    def node_gone(self, uid: str) -> None:
        """The node was deleted."""


class NodeWriter:
    """See the module."""

    def __init__(
        self,
        api: KubernetesApi,
        planner: Planner,
        authority: Authority,
        mode: Mode,
        workers: Workers,
        post: Post,
        metrics: Metrics,
        reporter: Reporter,
        clock: Callable[[], float],
    ) -> None:
        self._planner, self._authority, self._mode = planner, authority, mode
        self._workers, self._metrics, self._reporter, self._clock = (
            workers,
            metrics,
            reporter,
            clock,
        )
        self._requests = NodeRequests(
            api, planner, authority, mode, post, self, clock, runtime=workers.runtime
        )
        #: Changes of which it is not known whether they were made.
        self._doubts = Doubts()
        self.follower: Follower | None = None

    def submit(self, action: Action) -> None:
        """Carry out what the planner has handed out or taken up."""
        entry = self._planner.entries[action.uid]
        term, stops = self._authority.term, self._authority.stops
        scope = self._planner.scope()
        attempt = Attempt(action, scope, entry.node, entry.history, term, stops)
        self._workers.submit(partial(self._requests.change, attempt))

    def request(self, action: Action, now: float) -> bool:
        """Carry this out beside what the planner asks for; False = the node is gone or busy."""
        if not self._planner.request(action, now):
            return False
        self.submit(action)
        return True

    def forget_doubts(self) -> None:
        """All nodes are listed again, or what was sent was only a dry run."""
        self._doubts.clear()

    @property
    def wake(self) -> float | None:
        """When `read_again` has something to do."""
        return self._doubts.wake

    def read_again(self, now: float) -> None:
        """Read the nodes of which it is not known whether they were changed."""
        for doubt in self._doubts.due(now):
            self._read(doubt, self._authority.term)

    def _read(self, doubt: Doubt, term: int) -> None:
        self._workers.submit(partial(self._requests.read, doubt, term))

    # -- what nodes show ----------------------------------------------------------------

    def node_seen(self, node: Node, *, restored: bool = False) -> None:
        """A node as it is: it may show what became of a change without an answer."""
        version = version_number(node.version)
        doubt = self._doubts.shown(node.uid, version, restored=restored)
        if doubt is not None:
            self.failed(doubt.action, doubt.cause)

    def node_gone(self, uid: str) -> None:
        """The node was deleted."""
        self._doubts.forget(uid)
        if self.follower is not None:
            self.follower.node_gone(uid)

    def take_in(self, node: Node) -> None:
        """What was read afresh; not of a node that was deleted since: nothing would remove it."""
        if node.uid in self._planner.entries:
            self._planner.apply(Change(node.name, None, node), self._clock())
            self.node_seen(node)

    # -- what became of changes (see Outcomes) --------------------------------------------

    def settled(self, action: Action, node: Node) -> None:
        """It was made."""
        entry = self._planner.entries.get(action.uid)
        if entry is None or entry.pending is not action:
            # It was deleted before the answer came; or the answer is to another term's or mode's
            # question, and the watch tells what has become of it.
            log.info("%s: %s was answered too late to count", action.node, action.kind.value)
            return
        now = self._clock()
        self._planner.settled(action, node, now)
        self._metrics.nodes.actions.labels(action.kind.value, "done").inc()
        prefix = "dry-run, would be: " if self._mode.config.dry_run else ""
        log.info("%s: %s%s", action.node, prefix, action.message or action.kind.value)
        if action.reason:
            message = prefix + action.message
            self._reporter.of_node(action.node, action.uid, action.reason, message, action.warning)
        if action.kind is Kind.CORDON and action.state is not None:
            self._metrics.nodes.count_cordon(action.state.condition, now - action.state.first_seen)
            self._metrics.nodes.late.observe(max(0.0, now - entry.due_at))
        if self.follower is not None:
            self.follower.settled(action)

    def dropped(self, action: Action, node: Node) -> None:
        """The fresh read says otherwise: take it in and let the planner decide again."""
        log.info("%s: %s is no longer needed", action.node, action.kind.value)
        self._metrics.nodes.actions.labels(action.kind.value, "overtaken").inc()
        self._planner.failed(action, self._clock())
        self._not_done(action)
        self.take_in(node)

    def not_sent(self, action: Action) -> None:
        """The leadership was lost, or everything was stopped, before it was sent."""
        self._planner.failed(action, self._clock())
        self._not_done(action)

    def failed(self, action: Action, failure: ApiFailure) -> None:
        """It was not made."""
        conflict = is_conflict(failure)
        result = "conflict" if conflict else "failed"
        self._metrics.nodes.actions.labels(action.kind.value, result).inc()
        level = logging.INFO if conflict else logging.WARNING
        log.log(level, "%s: %s not done: %s", action.node, action.kind.value, failure)
        if is_refusal(failure):
            self._report_refusal(action, failure)
        self._planner.failed(action, self._clock(), failure.retry_after or 0.0)
        self._not_done(action)

    def _report_refusal(self, action: Action, failure: ApiFailure) -> None:
        """Nothing but a person ends it; the same Event is written again after minutes only."""
        prefix = "dry-run: " if self._mode.config.dry_run else ""
        text = (
            f"{prefix}the change ({action.kind.value}) is refused: {str(failure)[:600]}; it is "
            "tried again ever more rarely, each minute at last: allow it to this remediator, or "
            f"`selfheal-remediator exclude {action.node} --why REASON`"
        )
        self._reporter.of_node(action.node, action.uid, "ChangeRefused", text, True)

    def _not_done(self, action: Action) -> None:
        if self.follower is not None:
            self.follower.not_done(action)

    def unanswered(self, action: Action, cause: Unanswered, term: int) -> None:
        """A change without an answer may have been made: it is read, and counts until then."""
        entry = self._planner.entries.get(action.uid)
        if entry is None or entry.pending is not action:
            return  # gone, or forgotten: all nodes were listed since
        doubt = self._doubts.begin(action, cause)
        self.node_seen(entry.actual)  # the watch may have been faster
        if self._doubts.in_doubt(doubt):
            self._read(doubt, term)

    def found_out(self, doubt: Doubt, node: Node | None) -> None:
        """The node was read, or there is none."""
        if node is not None:
            self.take_in(node)
        if self._doubts.end(doubt):
            self.failed(doubt.action, doubt.cause)

    def not_found_out(self, doubt: Doubt, error: ApiFailure) -> None:
        """The node could not be read: it is tried again."""
        if error.status == 404:
            self.found_out(doubt, None)
            return
        action, report = doubt.action, self._doubts.not_read(doubt, self._clock())
        text = (
            f"whether the change ({action.kind.value}) was made is not known: {doubt.cause}; the "
            f"node cannot be read: {error}; the limits count it as made, and it is read again"
        )
        log.warning("%s: %s", action.node, text)
        if report:
            self._reporter.of_node(action.node, action.uid, "OutcomeUnknown", text, True)
