"""Reads the Deployment of a pod and begins, or undoes, its rollout: all of it runs in a worker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from selfheal_remediator.drain.budgets import never_lets
from selfheal_remediator.drain.node_pods import node_pod_from_json
from selfheal_remediator.drain.requests import still_draining
from selfheal_remediator.drain.surge import (
    MAY_OPEN,
    SHARED,
    Decision,
    Surge,
    decide,
    start_patch,
    undo_patch,
)
from selfheal_remediator.kube.budgets import Budget
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.deployments import Deployment, deployment_from_json
from selfheal_remediator.kube.json_values import as_name, as_object, controller_of
from selfheal_remediator.kube.pods import Pod
from selfheal_remediator.kube.responses import Answer, understood

log = logging.getLogger(__name__)

#: The Deployment has changed since it was read, or is gone: 422 for a `test` that fails, 409 in a
#: race. A policy of admission answers 422, too: then the Deployment is as it was.
_CHANGED = (404, 409, 422)
#: The request is not allowed, or not valid.
_REFUSED = (400, 403, 422)


@dataclass(frozen=True, slots=True)
class Errand:
    """pod: what a budget refused to let go; budgets: those that cover it; unless, mark: see
    surge.decide; may_go: whether the node's drain still continues, and rolls out what it is to."""

    pod: Pod
    budgets: tuple[Budget, ...]
    unless: str
    node: str
    node_uid: str
    mark: str
    may_go: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Result:
    """decision: on the Deployment as it was read, None = nothing was decided, or it or the pod has
    changed since. done: it was carried out. deployment: None = there is none."""

    decision: Decision | None
    deployment: Deployment | None = None
    done: bool = False


def deployment_of(api: KubernetesApi, pod: Pod) -> Deployment | None:
    """The Deployment whose ReplicaSet the pod is of, as it is now; None = there is none.

    Raises ApiFailure.
    """
    if (pod.owner_kind, pod.owner_api) != ("ReplicaSet", "apps/v1"):
        return None
    raw = api.controller(pod.namespace, "apps/v1", "replicasets", pod.owner_name)
    if raw is None:
        return None
    with understood(f"ReplicaSet {pod.namespace}/{pod.owner_name}"):
        meta = as_object(raw["metadata"])
        above = controller_of(meta) if as_name(meta.get("uid")) == pod.owner_uid else None
    if above is None or above[:2] != ("Deployment", "apps/v1"):
        return None
    raw = api.controller(pod.namespace, "apps/v1", "deployments", above[2])
    found = None if raw is None else deployment_from_json(raw)
    return found if found is not None and found.uid == above[3] else None


def decided(
    api: KubernetesApi,
    deployment: Deployment | None,
    pod: Pod,
    budgets: Sequence[Budget],
    mark: str,
    now: float,
    *,
    unless: str = "",
) -> Decision:
    """What is to be done about the Deployment, by the budgets that cover its pod. What has finished
    is left out of their counts where the decision depends on it. Raises ApiFailure."""

    def by(known: Sequence[Budget]) -> Decision:
        kept = any(never_lets(budget, pod) for budget in known)
        shared = SHARED if any(budget.expected > 1 for budget in known) else ""
        return decide(deployment, pod, mark, now, kept=kept, unless=unless or shared)

    decision = by(budgets)
    if decision.why not in (MAY_OPEN, SHARED) or not any(one.counts_pods for one in budgets):
        return decision
    return by([_without_finished(api, budget) for budget in budgets])


def _without_finished(api: KubernetesApi, budget: Budget) -> Budget:
    """The budget as it would be were the pods deleted that have failed or succeeded: kubelets leave
    those that they evicted, and nobody may ever delete them."""
    if not budget.counts_pods:
        return budget
    pods = api.pods_labelled(budget.namespace, budget.label_selector)
    alive = sum(not node_pod_from_json(raw).finished for raws, _ in pods.pages() for raw in raws)
    return replace(budget, expected=alive)


def carry_out(api: KubernetesApi, errand: Errand, now: float) -> Result:
    """Decide by what the API server has now, and do it. Raises ApiFailure (NotLeader among them),
    also where the answer was lost: the next errand finds what came of it."""
    begun = api.fence()
    if not errand.may_go():
        return Result(None)
    deployment = deployment_of(api, errand.pod)
    decision = decided(
        api, deployment, errand.pod, errand.budgets, errand.mark, now, unless=errand.unless
    )
    if deployment is None or decision.surge not in (Surge.START, Surge.UNDO):
        return Result(decision, deployment)
    starts = decision.surge is Surge.START
    ours = still_draining(api.node(errand.node), errand.node_uid)
    ours = ours and (not starts or _still_there(api, errand.pod))
    if not ours or not errand.may_go():
        return Result(None)
    patch = start_patch(deployment, errand.mark, now) if starts else undo_patch(deployment)
    at = ("apps/v1", "deployments", deployment.namespace, deployment.name)
    answer = api.patch_object(at, patch, begun=begun)
    if answer.ok:
        return Result(decision, deployment, done=True)
    if answer.status in _CHANGED and deployment_of(api, errand.pod) != deployment:
        return Result(None, deployment)
    if answer.status not in _REFUSED:
        raise answer.failure()
    return Result(_refused(decision, answer), deployment)


def _still_there(api: KubernetesApi, pod: Pod) -> bool:
    """Whether the pod is still there: the drain's watch may lag. Raises ApiFailure."""
    raw = api.pod(pod.namespace, pod.name)
    fresh = None if raw is None else node_pod_from_json(raw)
    return fresh is not None and fresh.uid == pod.uid and fresh.deletion is None


def _refused(decision: Decision, answer: Answer) -> Decision:
    """The API server does not let it be carried out."""
    what = "it" if decision.surge is Surge.START else "to undo its rollout"
    why = f"the API server refuses {what} ({answer.status}: {answer.failure().message[:200]})"
    log.warning("Deployment %s: %s", decision.deployment, why)
    return replace(decision, surge=Surge.REFUSED, why=why)
