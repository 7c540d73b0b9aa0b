"""Advances steps of ladders. All methods of StepRequests run in the threads `worker-lookups`.

Each time the node is read afresh: only one that is ours, and at this step, is touched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from selfheal_remediator.actions.step import StepKind, StepOutcome, StepResult, StepRun
from selfheal_remediator.controller.authority import Authority
from selfheal_remediator.failures import ApiFailure, NotLeader
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.json_values import as_name, as_object
from selfheal_remediator.kube.objects import Node, node_from_json
from selfheal_remediator.kube.responses import understood
from selfheal_remediator.node.actions import Kind
from selfheal_remediator.node.annotation import EXCLUDE_KEY, State, known_state
from selfheal_remediator.node.taints import is_cordoned
from selfheal_remediator.threads import supervision
from selfheal_remediator.threads.pool import Post
from selfheal_remediator.threads.runtime import REAL, Runtime

#: Seconds after a step's deadline in which a failing API server leaves open how the step ended.
UNANSWERED = 300.0


@dataclass(frozen=True, slots=True)
class StepCall:
    """One call of a step, with all of the main thread's state that it needs.

    state: the annotation that the node must have. limit: its timeout in seconds; deadline: when
    that is used up. kind: how the call is held up by a pause: as a repair, or for `verify` as an
    uncordon, not at all. kept_from: see StepRun.
    """

    node: str
    uid: str
    state: State
    executor: StepKind
    deadline: float
    limit: float
    kind: Kind
    term: int
    stops: int
    dry_run: bool
    kept_from: str = ""


#: What a call came to: a result, a failure, or None: nothing was done.
Answer = StepResult | ApiFailure | None
Answered = Callable[[StepCall, Answer, float], None]


class StepRequests:
    """See the module."""

    def __init__(
        self,
        api: KubernetesApi,
        authority: Authority,
        post: Post,
        clock: Callable[[], float],
        *,
        runtime: Runtime = REAL,
    ) -> None:
        self.api, self._authority, self._post, self._clock = api, authority, post, clock
        self._expected = partial(supervision.expected, "worker", runtime=runtime)

    def advance(self, call: StepCall, answered: Answered) -> None:
        """`answered` is called on the main thread, with when the step was called."""
        begun = self._clock()
        answer: Answer
        try:
            with self._expected(f"a step of node {call.node}"):
                answer = self._advance(call)
        except ApiFailure as failure:  # NotLeader too: nothing was sent
            answer = failure
        self._post(partial(answered, call, answer, begun))

    def _advance(self, call: StepCall) -> StepResult | None:
        node = node_from_json(self.api.node(call.node))
        if not self._is_at_step(node, call):
            return None
        now = self._clock()
        if call.term != self._authority.term or not self._authority.may_act(now):
            return None
        if not self._authority.may_send(call.kind, now, call.stops):
            return None
        return call.executor.advance(step_run(node, call), now)

    def _is_at_step(self, node: Node, call: StepCall) -> bool:
        """In dry-run nothing of it is written on the node."""
        if node.uid != call.uid or node.deleting or EXCLUDE_KEY in node.annotations:
            return False
        if call.dry_run:
            return True
        state = known_state(node)
        if state is None or not is_cordoned(node, state):
            return False
        return identity(state) == identity(call.state)

    def read_attached(self, uids: dict[str, str], answered: Callable[..., None]) -> None:
        """Which volumes are attached to these nodes (uid -> name)."""
        found: dict[str, str] | ApiFailure
        try:
            with self._expected("the read of VolumeAttachments"):
                found = attached_volumes(self.api, uids)
        except ApiFailure as failure:
            found = failure
        self._post(partial(answered, found))


def attached_volumes(api: KubernetesApi, uids: dict[str, str]) -> dict[str, str]:
    """What is attached to these nodes (uid -> name), for people: empty = nothing. Raises
    ApiFailure."""
    by_node: dict[str, list[str]] = {name: [] for name in uids.values()}
    for page, _ in api.volume_attachments().pages():
        for raw in page:
            with understood("a VolumeAttachment"):
                node = as_name(as_object(raw["spec"]).get("nodeName"))
                name = as_name(as_object(raw["metadata"]).get("name"))
            if node in by_node:
                by_node[node].append(name)
    return {uid: _listed(by_node[name]) for uid, name in uids.items()}


def identity(state: State) -> tuple[object, ...]:
    """Which step of which occurrence it is."""
    return state.by, state.phase, state.first_seen, state.steps, state.step, state.step_began


def occurrence_of(uid: str, state: State) -> str:
    """The name of a step, or a verification, of an occurrence (see StepRun)."""
    text = f"{uid}/{state.first_seen}/{state.phase.value}/{state.steps}/{state.step_began}"
    return f"{hashlib.sha256(text.encode()).hexdigest()[:20]}-{state.steps}"


def step_run(node: Node, call: StepCall) -> StepRun:
    """What the step is run for."""
    state, condition = call.state, node.conditions.get(call.state.condition)
    return StepRun(
        node=node,
        rule=state.rule,
        condition=state.condition,
        reason=state.reason,
        message=condition.message if condition is not None else "",
        occurrence=occurrence_of(call.uid, state),
        index=max(0, state.steps - 1),
        # Written by a clock that was ahead, or by whoever may write nodes, it can be any number.
        began=max(0.0, min(float(state.step_began), call.deadline - call.limit)),
        deadline=call.deadline,
        boot_id=state.step_boot or state.boot_id,
        dry_run=call.dry_run,
        kept_from=call.kept_from,
    )


def ended(answer: Answer, called: float, call: StepCall) -> StepResult | None:
    """How the step ended, None = it has not: what runs on after its deadline has failed. Pure.

    called: when it was called; the call that decides came after the deadline. Without an answer it
    may as well have succeeded: for UNANSWERED seconds more it is asked again.
    """
    if isinstance(answer, StepResult) and answer.outcome is not StepOutcome.RUNNING:
        return answer
    if answer is None or isinstance(answer, NotLeader) or called < call.deadline:
        return None
    if isinstance(answer, ApiFailure) and called < call.deadline + UNANSWERED:
        passing = answer.status in (0, 429) or answer.status >= 500
        if passing:
            return None
    why = answer.message if isinstance(answer, StepResult) else str(answer)
    return StepResult(StepOutcome.FAILED, f"not done within {call.limit:g}s: {why}")


def _listed(names: list[str]) -> str:
    """Names of VolumeAttachments, for people."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(sorted(names)[:3]) + more
