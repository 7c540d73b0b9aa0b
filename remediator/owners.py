"""What stands behind a pod, from its controllers' JSON: how many it wants, is it rolling. Pure."""

from __future__ import annotations

from collections.abc import Callable

from remediator.healing_plan import Owner
from remediator.pod_health import WatchedPod
from remediator.snapshot import Json

#: Reads a controller by namespace, API version, plural and name; None = it is gone.
Read = Callable[[str, str, str, str], Json | None]

#: Kinds that can be looked up: (kind, API group) -> (API version, plural).
LOOKED_UP = {
    ("ReplicaSet", "apps"): ("apps/v1", "replicasets"),
    ("Deployment", "apps"): ("apps/v1", "deployments"),
    ("StatefulSet", "apps"): ("apps/v1", "statefulsets"),
    ("DaemonSet", "apps"): ("apps/v1", "daemonsets"),
}
REVISION = "deployment.kubernetes.io/revision"


def where(kind: str, api: str) -> tuple[str, str] | None:
    """API version and plural of a controller; None = it is not looked up."""
    return LOOKED_UP.get((kind, api.partition("/")[0]))


def controller_of(raw: Json) -> tuple[str, str, str, str] | None:
    """(kind, API version, name, uid) of an object's own controller."""
    for ref in raw["metadata"].get("ownerReferences") or ():
        if ref.get("controller"):
            return ref["kind"], ref["apiVersion"], ref["name"], ref["uid"]
    return None


def owner_from(raw: Json, kind: str) -> Owner:
    """The owner from its JSON."""
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    desired = spec.get("replicas", 1)
    if kind == "DaemonSet":
        desired = status.get("desiredNumberScheduled") or 0
    behind = (status.get("observedGeneration") or 0) < (meta.get("generation") or 0)
    rolling, template = "", ""
    if kind == "Deployment":
        rolling = _deployment(status)
        template = (meta.get("annotations") or {}).get(REVISION, "")
    elif kind == "StatefulSet":
        rolling = _stateful_set(spec, status)
        template = status.get("updateRevision") or ""
    elif kind == "DaemonSet":
        rolling = _daemon_set(spec, status)
    if behind:
        rolling = "its controller has not seen its last change yet"
    name = meta["name"]
    return Owner(
        uid=meta["uid"],
        kind=kind,
        name=name,
        api="apps/v1",
        desired=desired,
        rolling=f"{kind} {name}: {rolling}" if rolling else "",
        template=template,
    )


def _deployment(status: Json) -> str:
    """Why it is being rolled out. A roll-out that has failed (its deadline passed) is over."""
    progressing = next(
        (item for item in status.get("conditions") or () if item["type"] == "Progressing"), None
    )
    if progressing is not None and progressing["status"] == "False":
        return ""
    there, updated = status.get("replicas") or 0, status.get("updatedReplicas") or 0
    if updated < there:
        return f"a roll-out is under way ({updated} of {there} pods are new)"
    known = progressing is not None and progressing["status"] == "True"
    if known and progressing is not None and progressing["reason"] != "NewReplicaSetAvailable":
        return "a roll-out is under way (its first pods are not available yet)"
    return ""


def _stateful_set(spec: Json, status: Json) -> str:
    strategy = spec.get("updateStrategy") or {}
    by_itself = strategy.get("type") != "OnDelete"
    partition = (strategy.get("rollingUpdate") or {}).get("partition") or 0
    current, update = status.get("currentRevision"), status.get("updateRevision")
    if by_itself and not partition and update and current != update:
        return "a roll-out is under way"
    return ""


def _daemon_set(spec: Json, status: Json) -> str:
    by_itself = (spec.get("updateStrategy") or {}).get("type") != "OnDelete"
    wanted = status.get("desiredNumberScheduled") or 0
    updated = status.get("updatedNumberScheduled") or 0
    return (
        f"a roll-out is under way ({updated} of {wanted})"
        if by_itself and (updated < wanted)
        else ""
    )


def owner_of(pod: WatchedPod, read: Read) -> Owner | None:
    """The topmost controller known of the pod; None = it is gone. Raises what `read` raises."""
    step = (pod.owner_kind, pod.owner_api, pod.owner_name, pod.owner_uid)
    owner: Owner | None = None
    for _ in range(2):
        kind, api, name, uid = step
        place = where(kind, api)
        if place is None:
            return owner or Owner(uid, kind, name, api, None)
        raw = read(pod.namespace, *place, name)
        if raw is None or raw["metadata"]["uid"] != uid:
            return owner
        owner = owner_from(raw, kind)
        above = controller_of(raw) if kind == "ReplicaSet" else None
        if above is None or where(above[0], above[1]) is None:
            return owner
        step = above
    return owner
