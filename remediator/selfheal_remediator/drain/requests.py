"""The requests of drains: evictions, deletions, and the reads that they need.

A method of Requests hands out one request. What is named `_send_…` or `_read_…` then runs in a
worker's thread and posts the answer; what takes the answer in runs on the main thread again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from selfheal_remediator.drain.budget_watch import BudgetWatch
from selfheal_remediator.drain.lookups import Answer, Question
from selfheal_remediator.drain.node_pods import node_pod_from_json
from selfheal_remediator.drain.running import Callbacks, Instructions, RunningDrain
from selfheal_remediator.drain.volume_claims import answer_of
from selfheal_remediator.failures import ApiFailure, NotLeader
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.objects import Json, Node, node_from_json
from selfheal_remediator.kube.pods import Pod
from selfheal_remediator.kube.responses import EvictionResult, Outcome, classify_eviction
from selfheal_remediator.node.annotation import Phase, known_state
from selfheal_remediator.node.taints import is_cordoned
from selfheal_remediator.threads import supervision
from selfheal_remediator.threads.pool import Post, Purpose, Workers

log = logging.getLogger(__name__)

_BY_BUDGET = (Outcome.BUDGET, Outcome.PROCESSING, Outcome.SEVERAL_BUDGETS)


@dataclass(frozen=True, slots=True)
class Removal:
    """A pod that is to leave its node. grace, dry_run: as configured when that was decided;
    cancelled: how often what had been decided was cancelled until then."""

    pod: Pod
    delete: bool
    grace: int | None
    dry_run: bool
    cancelled: int


class Requests:
    """See the module."""

    def __init__(
        self,
        api: KubernetesApi,
        instructions: Instructions,
        workers: Workers,
        post: Post,
        callbacks: Callbacks,
        budgets: BudgetWatch,
        clock: Callable[[], float],
    ) -> None:
        self._api, self._instructions = api, instructions
        self._workers, self._post = workers, post
        self._callbacks, self._budgets, self._clock = callbacks, budgets, clock
        self._expected = partial(supervision.expected, "worker", runtime=workers.runtime)

    # -- evictions ----------------------------------------------------------------------

    def remove(self, run: RunningDrain, pod: Pod, *, delete: bool) -> None:
        """Evict the pod, or delete it."""
        config, cancelled = self._instructions.config, self._instructions.cancelled
        removal = Removal(pod, delete, config.drain.grace_period, config.dry_run, cancelled)
        job = partial(self._send_removal, run, removal)
        self._workers.submit(job, Purpose.EVICTIONS, run.drain.node)

    def _send_removal(self, run: RunningDrain, removal: Removal) -> None:
        if not run.may_send(self._instructions, removal.cancelled, self._clock()):
            self._post(partial(run.not_sent, removal.pod.uid))
            return
        result = self._removed(removal)
        self._post(partial(self._take_result, run, removal.pod, result))

    def _removed(self, removal: Removal) -> EvictionResult:
        pod = removal.pod
        send = self._api.delete_pod if removal.delete else self._api.evict
        try:
            with self._expected(f"the eviction of {pod.id}"):
                answer = send(
                    pod.namespace, pod.name, pod.uid, removal.grace, dry_run=removal.dry_run
                )
                return classify_eviction(answer)
        except NotLeader as failure:
            return EvictionResult(Outcome.UNAVAILABLE, failure.message)
        except ApiFailure as failure:
            return EvictionResult(Outcome.UNAVAILABLE, str(failure))

    def _take_result(self, run: RunningDrain, pod: Pod, result: EvictionResult) -> None:
        self._callbacks.evicted(result.outcome)
        run.answered(pod.uid, result, self._clock())
        if result.outcome in _BY_BUDGET:
            self._budgets.need()
        if not result.outcome.over:
            log.info("%s not evicted: %s %s", pod.id, result.outcome.value, result.message)

    # -- reads about pods ---------------------------------------------------------------

    def look_up(self, run: RunningDrain, question: Question) -> None:
        """Read what decides about some of the node's pods."""
        others = [item for item in self._callbacks.nodes() if item.uid != run.drain.uid]
        self._workers.submit(partial(self._read_answer, run, question, others), Purpose.LOOKUPS)

    def _read_answer(self, run: RunningDrain, question: Question, others: list[Node]) -> None:
        answer: Answer | None = None
        what = f"{question.subject.value} {question.namespace}/{question.name}"
        try:
            with self._expected(f"the read of {what}"):
                answer = answer_of(self._api, question, others)
        except ApiFailure as failure:
            log.warning("%s, of pods on %s: %s", what, run.drain.node, failure)
        self._post(partial(self._take_answer, run, question, answer))

    def _take_answer(self, run: RunningDrain, question: Question, answer: Answer | None) -> None:
        run.looked_up(question, answer, self._clock())

    def read_pod(self, run: RunningDrain, pod: Pod) -> None:
        """Read whether the pod is being deleted, as its eviction was accepted a while ago."""
        self._workers.submit(partial(self._read_deletion, run, pod), Purpose.LOOKUPS)

    def _read_deletion(self, run: RunningDrain, pod: Pod) -> None:
        deleted = True
        try:
            with self._expected(f"the read of pod {pod.id}"):
                found = self._api.pod(pod.namespace, pod.name)
                fresh = None if found is None else node_pod_from_json(found)
                deleted = fresh is None or fresh.uid != pod.uid or fresh.deletion is not None
        except ApiFailure as failure:
            log.warning("pod %s, whose eviction was accepted: %s", pod.id, failure)
        self._post(partial(self._take_deletion, run, pod.uid, deleted=deleted))

    def _take_deletion(self, run: RunningDrain, uid: str, *, deleted: bool) -> None:
        run.pod_read(uid, self._clock(), deleted=deleted)

    # -- the node before a wave ---------------------------------------------------------

    def check_node(self, run: RunningDrain, wave: int) -> None:
        """Before a wave the node is read afresh: it must still be ours to drain."""
        run.check.under_way = True
        self._workers.submit(partial(self._read_node, run, wave))

    def _read_node(self, run: RunningDrain, wave: int) -> None:
        drain = run.drain
        try:
            with self._expected(f"the read of node {drain.node}"):
                raw = self._api.node(drain.node)
                ours = self._instructions.config.dry_run or still_draining(raw, drain.uid)
                fresh = node_from_json(raw)
        except ApiFailure as failure:
            log.warning("node %s before wave %d: %s", drain.node, wave, failure)
            self._post(partial(self._check_later, run))
            return
        if ours:
            self._post(partial(run.begin_wave, wave))
            return
        log.info("node %s is no longer cordoned by this remediator, its drain ends", drain.node)
        self._post(partial(self._callbacks.not_ours, fresh))
        self._post(partial(self._check_later, run))

    def _check_later(self, run: RunningDrain) -> None:
        run.check_later(self._clock())


def still_draining(raw: Json, uid: str) -> bool:
    """Whether the node just read is the one (uid) that we are draining, or have drained."""
    node = node_from_json(raw)
    state = known_state(node)
    if node.uid != uid or node.deleting or state is None:
        return False
    return state.phase in (Phase.DRAINING, Phase.DRAINED) and is_cordoned(node, state)
