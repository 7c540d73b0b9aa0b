"""What stands behind a pod, from its controllers' JSON: how many it wants, is it rolling. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from selfheal_remediator.healing.plan import Owner
from selfheal_remediator.healing.pod_health import WatchedPod
from selfheal_remediator.kube.deployments import NO_DEADLINE, rolled_out
from selfheal_remediator.kube.json_values import (
    as_name,
    as_object,
    as_text,
    as_whole,
    controller_of,
)
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.kube.responses import understood

#: Reads a controller by namespace, API version, plural and name; None = it is gone.
Read = Callable[[str, str, str, str], Json | None]

#: Kinds that can be read: (kind, API group) -> (API version, plural).
LOOKED_UP = {
    ("ReplicaSet", "apps"): ("apps/v1", "replicasets"),
    ("Deployment", "apps"): ("apps/v1", "deployments"),
    ("StatefulSet", "apps"): ("apps/v1", "statefulsets"),
    ("DaemonSet", "apps"): ("apps/v1", "daemonsets"),
}
REVISION = "deployment.kubernetes.io/revision"
#: Set by the API server: grows with each change of a DaemonSet's pod template.
GENERATION = "deprecated.daemonset.template.generation"


def where(kind: str, api: str) -> tuple[str, str] | None:
    """API version and plural of a controller; None = it is not read."""
    return LOOKED_UP.get((kind, api.partition("/")[0]))


def owner_from(raw: Json, kind: str) -> Owner:
    """The owner from its JSON. Raises TypeError, KeyError."""
    meta = as_object(raw["metadata"])
    spec, status = as_object(raw.get("spec")), as_object(raw.get("status"))
    name, replicas = as_name(meta.get("name")), spec.get("replicas")
    wanted = 1 if replicas is None else as_whole(replicas)
    owner = Owner(as_name(meta.get("uid")), kind, name, "apps/v1", wanted)
    if kind == "Deployment":
        owner = _deployment(owner, meta, spec, status)
    elif kind == "StatefulSet":
        owner = _stateful_set(owner, spec, status)
    elif kind == "DaemonSet":
        owner = _daemon_set(owner, meta, spec, status)
    if as_whole(status.get("observedGeneration")) < as_whole(meta.get("generation")):
        rolling = "its controller has not observed its last change yet"
        owner = replace(owner, rolling=rolling, stopped="", unseen=True)
    return replace(
        owner,
        rolling=owner.rolling and f"{kind} {name}: {owner.rolling}",
        stopped=owner.stopped and f"{kind} {name}: {owner.stopped}",
    )


def _deployment(owner: Owner, meta: Json, spec: Json, status: Json) -> Owner:
    deadline = spec.get("progressDeadlineSeconds")
    there, updated = as_whole(status.get("replicas")), as_whole(status.get("updatedReplicas"))
    rolling, stopped = rolled_out(spec, status)
    return replace(
        owner,
        rolling=rolling,
        stopped=stopped,
        template=as_text(as_object(meta.get("annotations")).get(REVISION)),
        progress=(updated, updated - there, as_whole(status.get("availableReplicas"))),
        deadline=None if deadline in (None, NO_DEADLINE) else float(as_whole(deadline)),
    )


def _stateful_set(owner: Owner, spec: Json, status: Json) -> Owner:
    strategy = as_object(spec.get("updateStrategy"))
    by_itself = as_text(strategy.get("type")) != "OnDelete"
    partition = as_whole(as_object(strategy.get("rollingUpdate")).get("partition"))
    current = as_text(status.get("currentRevision"))
    update = as_text(status.get("updateRevision"))
    whole = by_itself and not partition
    rolls = whole and update and current != update
    return replace(
        owner,
        rolling="a rollout is in progress" if rolls else "",
        template=update,
        progress=(as_whole(status.get("updatedReplicas")),),
        patience=float(as_whole(spec.get("minReadySeconds"))),
        renews=update if whole else "",
    )


def _daemon_set(owner: Owner, meta: Json, spec: Json, status: Json) -> Owner:
    by_itself = as_text(as_object(spec.get("updateStrategy")).get("type")) != "OnDelete"
    wanted = as_whole(status.get("desiredNumberScheduled"))
    updated = as_whole(status.get("updatedNumberScheduled"))
    rolls = by_itself and updated < wanted
    return replace(
        owner,
        desired=wanted,
        rolling=f"a rollout is in progress ({updated} of {wanted})" if rolls else "",
        template=as_text(as_object(meta.get("annotations")).get(GENERATION)),
        progress=(updated, as_whole(status.get("numberAvailable"))),
        patience=float(as_whole(spec.get("minReadySeconds"))),
    )


def owner_of(pod: WatchedPod, read: Read) -> Owner | None:
    """The topmost controller known of the pod; None = it is gone.

    Raises Malformed, and what `read` raises.
    """
    step = (pod.owner_kind, pod.owner_api, pod.owner_name, pod.owner_uid)
    owner: Owner | None = None
    for _ in range(2):
        kind, api, name, uid = step
        place = where(kind, api)
        if place is None:
            return owner or Owner(uid, kind, name, api, None)
        raw = read(pod.namespace, *place, name)
        if raw is None:
            return owner
        with understood(f"{kind} {pod.namespace}/{name}"):
            if as_name(as_object(raw["metadata"]).get("uid")) != uid:
                return owner
            owner = owner_from(raw, kind)
            above = controller_of(raw["metadata"]) if kind == "ReplicaSet" else None
        if above is None or where(above[0], above[1]) is None:
            return owner
        step = above
    return owner
