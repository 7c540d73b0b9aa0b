"""Reads the Deployment of a pod and begins, or undoes, its rollout: all of it runs in a worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from selfheal_remediator.drain.requests import still_draining
from selfheal_remediator.drain.surge import Decision, Surge, decide, start_patch, undo_patch
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.deployments import Deployment, deployment_from_json
from selfheal_remediator.kube.json_values import as_name, as_object, controller_of
from selfheal_remediator.kube.pods import Pod
from selfheal_remediator.kube.responses import understood

#: The Deployment has changed since it was read: 422 for a `test` that fails, 409 in a race.
_CHANGED = (409, 422)


@dataclass(frozen=True, slots=True)
class Errand:
    """pod: what a budget refused to let go, and kept: never will; mark: of the node's cordon, see
    cordon_mark; may_go: whether the node's drain still continues."""

    pod: Pod
    kept: bool
    node: str
    node_uid: str
    mark: str
    may_go: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Result:
    """decision: on the Deployment as it was read, None = nothing was decided. done: it was carried
    out. deployment: None = there is none."""

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


def carry_out(api: KubernetesApi, errand: Errand, now: float) -> Result:
    """Decide by what the API server has now, and do it. Raises ApiFailure (NotLeader among them),
    also where the answer was lost: the next errand finds what came of it."""
    begun = api.fence()
    if not errand.may_go():
        return Result(None)
    deployment = deployment_of(api, errand.pod)
    decision = decide(deployment, errand.pod, errand.mark, now, kept=errand.kept)
    if deployment is None or decision.surge not in (Surge.START, Surge.UNDO):
        return Result(decision, deployment)
    ours = still_draining(api.node(errand.node), errand.node_uid)
    if not ours or not errand.may_go():
        return Result(None)
    starts = decision.surge is Surge.START
    patch = start_patch(deployment, errand.mark, now) if starts else undo_patch(deployment)
    at = ("apps/v1", "deployments", deployment.namespace, deployment.name)
    answer = api.patch_object(at, patch, begun=begun)
    if answer.status in _CHANGED:
        return Result(None, deployment)
    if not answer.ok:
        raise answer.failure()
    return Result(decision, deployment, done=True)
