"""Hands out the surges of drains, and takes in what came of them.

`send` and `_take` run on the main thread, `_carry_out` in a thread `worker-evictions`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from selfheal_remediator.drain import reports
from selfheal_remediator.drain.engine import NodeDrain
from selfheal_remediator.drain.eviction import Eviction
from selfheal_remediator.drain.running import Callbacks, Instructions, RunningDrain
from selfheal_remediator.drain.surge import PUT_BACK, UNDER_WAY, Decision, Surge
from selfheal_remediator.drain.surge_errand import Errand, Result, carry_out
from selfheal_remediator.failures import ApiFailure, NotLeader
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.events import ObjectEvent
from selfheal_remediator.kube.pods import Pod
from selfheal_remediator.threads import supervision
from selfheal_remediator.threads.pool import Post, Purpose, Workers

log = logging.getLogger(__name__)


class SurgeRequests:
    """See the module."""

    def __init__(
        self,
        api: KubernetesApi,
        instructions: Instructions,
        workers: Workers,
        post: Post,
        callbacks: Callbacks,
        clock: Callable[[], float],
    ) -> None:
        self._api, self._instructions = api, instructions
        self._workers, self._post = workers, post
        self._callbacks, self._clock = callbacks, clock

    def send(self, run: RunningDrain, pod: Pod) -> None:
        """Read the pod's Deployment, and do what it calls for."""
        cancelled, drain = self._instructions.cancelled, run.drain

        def may_go() -> bool:
            now = self._instructions
            wanted = now.config.drain.surge and not now.config.dry_run
            return wanted and run.may_send(now, cancelled, self._clock())

        budgets, unless = drain.budgets.covering(pod), _unless(drain, pod)
        errand = Errand(pod, budgets, unless, drain.node, drain.uid, run.mark, may_go)
        job = partial(self._carry_out, run, errand)
        self._workers.submit(job, Purpose.EVICTIONS, drain.node)

    def _carry_out(self, run: RunningDrain, errand: Errand) -> None:
        result: Result | None = None
        what, runtime = f"the surge for pod {errand.pod.id}", self._workers.runtime
        try:
            with supervision.expected("worker", what, runtime=runtime):
                result = carry_out(self._api, errand, self._clock())
        except NotLeader:
            result = Result(None)
        except ApiFailure as failure:
            log.warning("%s on %s: %s", what, errand.node, failure)
        self._post(partial(self._take, run, errand.pod, result))

    def _take(self, run: RunningDrain, pod: Pod, result: Result | None) -> None:
        """result: None = a request failed."""
        item, now = run.drain.evictions.get(pod.uid), self._clock()
        run.news = True
        if result is not None and (result.done or _found(item, result)):
            self._report(run, pod, result)
        if item is None:
            return
        if result is None:
            item.surge.failed(now)
        elif result.decision is None:
            item.surge.not_sent(now)
        else:
            item.surge.answered(_after(result.decision, done=result.done), now)
            item.surge.begun |= result.done and result.decision.surge is Surge.START

    def _report(self, run: RunningDrain, pod: Pod, result: Result) -> None:
        deployment, decision = result.deployment, result.decision
        if deployment is None or decision is None:
            return
        undone = decision.why if decision.surge is Surge.UNDO else ""
        report = reports.surged(deployment.id, pod.id, undone)
        self._callbacks.report(run.drain, report)
        text = f"node {run.drain.node} is drained: {report.message}"
        place = ("apps/v1", "Deployment", deployment.namespace, deployment.name, deployment.uid)
        self._callbacks.of_object(ObjectEvent(*place, report.reason, text, report.warning))


def _found(item: Eviction | None, result: Result) -> bool:
    """Whether a rollout shows for the first time: an earlier leader, or a request whose answer was
    lost, has begun it."""
    rolls = result.decision is not None and result.decision.surge is Surge.ROLLING
    return rolls and item is not None and item.surge.decision.surge is not Surge.ROLLING


def _unless(drain: NodeDrain, pod: Pod) -> str:
    """Why no rollout may be begun for the pod, empty = it may."""
    item = drain.evictions.get(pod.uid)
    return PUT_BACK if item is not None and item.surge.begun else ""


def _after(decision: Decision, *, done: bool) -> Decision:
    """What holds once it is done."""
    if done and decision.surge is Surge.START:
        return replace(decision, surge=Surge.ROLLING, why=UNDER_WAY)
    if done and decision.surge is Surge.UNDO:
        return replace(decision, surge=Surge.REFUSED, why=f"{decision.why}, and was undone")
    return decision
