"""Sends the changes of nodes. All methods of NodeRequests run in the threads `worker-nodes`.

They read what the main thread owns (the planner's signals, Authority, Mode) but change none of it:
whatever becomes of a change is posted to it as a call of Outcomes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from selfheal_remediator.config import Config
from selfheal_remediator.controller.authority import Authority
from selfheal_remediator.controller.mode import Mode
from selfheal_remediator.failures import ApiFailure, NotLeader
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.informer import version_number
from selfheal_remediator.kube.objects import Node, node_from_json
from selfheal_remediator.node.actions import Action, Kind, same_purpose
from selfheal_remediator.node.annotation import Phase
from selfheal_remediator.node.assessment import Scope
from selfheal_remediator.node.conditions import NodeHistory, observe
from selfheal_remediator.node.evaluate import assess
from selfheal_remediator.node.maintenance import check_group
from selfheal_remediator.node.patches import node_patch
from selfheal_remediator.node.planner import Planner
from selfheal_remediator.node.taints import cordoned_by
from selfheal_remediator.node.unanswered import Doubt, Unanswered, may_be_made
from selfheal_remediator.threads import supervision
from selfheal_remediator.threads.pool import Post
from selfheal_remediator.threads.runtime import REAL, Runtime
from selfheal_remediator.windows import window_open

#: How often a change is tried on a node that somebody else keeps changing.
CONFLICTS = 4


@dataclass(frozen=True, slots=True)
class Attempt:
    """A change on its way, with all of the main thread's state that it needs.

    known: the node as it was when this was decided. stops: how often everything had been stopped
    until then.
    """

    action: Action
    scope: Scope
    known: Node
    history: NodeHistory
    term: int
    stops: int = 0


class Outcomes(Protocol):
    """What becomes of a change; called on the main thread."""

    def settled(self, action: Action, node: Node) -> None:
        """It was made; `node` is the server's answer."""

    def dropped(self, action: Action, node: Node) -> None:
        """It is not called for any more, as the node read afresh shows."""

    def not_sent(self, action: Action) -> None:
        """The leadership was lost, or everything was stopped, before it was sent."""

    def failed(self, action: Action, failure: ApiFailure) -> None:
        """It was not made."""

    def unanswered(self, action: Action, cause: Unanswered, term: int) -> None:
        """It may have been made."""

    def found_out(self, doubt: Doubt, node: Node | None) -> None:
        """The node was read, None = there is none."""

    def not_found_out(self, doubt: Doubt, error: ApiFailure) -> None:
        """The node could not be read."""


class NodeRequests:
    """See the module."""

    def __init__(
        self,
        api: KubernetesApi,
        planner: Planner,
        authority: Authority,
        mode: Mode,
        post: Post,
        outcomes: Outcomes,
        clock: Callable[[], float],
        *,
        runtime: Runtime = REAL,
    ) -> None:
        self._api, self._planner, self._authority, self._mode = api, planner, authority, mode
        self._post, self._outcomes, self._clock = post, outcomes, clock
        self._expected = partial(supervision.expected, "worker", runtime=runtime)

    def change(self, attempt: Attempt) -> None:
        """Whatever happens, the action's outcome is reported."""
        action, outcomes = attempt.action, self._outcomes
        try:
            if attempt.term != self._authority.term:
                raise NotLeader  # it was asked for in an earlier term of leadership
            with self._expected(f"{action.kind.value} of node {action.node}"):
                self._carry_out(attempt)
        except NotLeader:
            self._post(partial(outcomes.not_sent, action))
        except Unanswered as cause:
            self._post(partial(outcomes.unanswered, action, cause, attempt.term))
        except ApiFailure as failure:
            self._post(partial(outcomes.failed, action, failure))

    def read(self, doubt: Doubt, term: int) -> None:
        """Read the node of a change without an answer, once."""
        action = doubt.action
        try:
            if term != self._authority.term:
                return  # all nodes are listed in each term
            with self._expected(f"the read of node {action.node}"):
                node = node_from_json(self._api.node(action.node))
        except ApiFailure as failure:
            self._post(partial(self._outcomes.not_found_out, doubt, failure))
        else:
            self._post(partial(self._outcomes.found_out, doubt, node))

    def _carry_out(self, attempt: Attempt) -> None:
        """Change the node if it still is as it was when this was decided.

        Else it is read afresh and decided again. In dry-run what we know is not what the
        node shows, so it is always read first. Raises ApiFailure, Unanswered where the change may
        have been made.
        """
        action, dry_run = attempt.action, attempt.scope.config.dry_run
        node: Node | None = None if dry_run else attempt.known
        for _ in range(CONFLICTS):
            if node is None:
                node = self._planner.with_signal(node_from_json(self._api.node(action.node)))
                if not self._still_wanted(attempt, node):
                    self._post(partial(self._outcomes.dropped, action, node))
                    return
            # Before the check: what is stopped after it is not sent either.
            begun = self._api.fence()
            if not self._may_send(attempt):
                self._post(partial(self._outcomes.not_sent, action))
                return
            changed = self._patch(action, node, begun, dry_run=dry_run)
            if changed is not None:
                self._post(partial(self._outcomes.settled, action, changed))
                return
            node = None
        raise ApiFailure(409, "Conflict", f"the node changed {CONFLICTS} times meanwhile")

    def _may_send(self, attempt: Attempt) -> bool:
        """False when, while it waited for its turn or the node was read, everything was stopped
        (also if it continues by now), the mode changed, another remediator came first, or another
        term of leadership began."""
        authority, now = self._authority, self._clock()
        return (
            attempt.term == authority.term
            and attempt.scope.config.dry_run is self._api.dry_run
            and authority.may_act(now)
            and authority.may_send(attempt.action.kind, now, attempt.stops)
        )

    def _patch(self, action: Action, node: Node, begun: object, *, dry_run: bool) -> Node | None:
        """The node after the change, None = it is not as it was seen any more. See _carry_out."""
        config = self._mode.config
        disabled, taint = config.drain.scale_down_disabled, config.taint
        patch = node_patch(action, node, scale_down_disabled=disabled, taint=taint)
        try:
            with self._expected(f"{action.kind.value} of node {action.node}"):
                answer = self._api.patch_node(action.node, patch, dry_run=dry_run, begun=begun)
                if answer.ok:
                    return node_from_json(answer.json())
                if answer.conflict:
                    return None
                raise answer.failure()
        except NotLeader:
            raise  # it was not sent
        except ApiFailure as failure:
            if may_be_made(failure):
                raise Unanswered(version_number(node.version), failure) from failure
            raise

    def _still_wanted(self, attempt: Attempt, fresh: Node) -> bool:
        action, scope = attempt.action, attempt.scope
        if fresh.uid != action.uid:
            return False
        if scope.config.dry_run:
            return True  # what is cordoned in dry-run is not cordoned on the node
        if action.state is not None and action.kind is Kind.NOTE and action.state.phase.cordoned:
            return cordoned_by(action.state.by, fresh)
        now = self._clock()
        if _waits_for_its_group(scope.config, action, fresh, now):
            return False
        rules = scope.config.rules_for(fresh.labels)
        seen = observe(attempt.history, attempt.known, fresh, rules, now)
        again = assess(fresh, seen, scope, now)
        called_for = again.action or again.limited_action
        return called_for is not None and same_purpose(called_for, action)


def _waits_for_its_group(config: Config, action: Action, fresh: Node, now: float) -> bool:
    """Whether the group that the node is in by now does not let it begin."""
    group = config.group_of(fresh.labels)
    if group is None or not action.kind.limited:
        return False
    drains = action.state is not None and action.state.phase is Phase.DRAINING
    kind = Kind.DRAIN if drains else action.kind
    return check_group(group, kind, window_open(group.maintenance_windows, now)) is not None
