"""Deployments as small values, and what their status says of a rollout. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from selfheal_remediator.kube.json_values import (
    as_flag,
    as_name,
    as_object,
    as_objects,
    as_text,
    as_whole,
    controller_of,
)
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.kube.responses import understood

#: What the API server fills in where a Deployment does not say it.
DEFAULT_SURGE = DEFAULT_UNAVAILABLE = "25%"
#: Stands for no progressDeadlineSeconds, the greatest int32 (HasProgressDeadline in
#: deployment_util.go).
NO_DEADLINE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Deployment:
    """The part of a Deployment that a surge needs.

    annotations: its own; template: those of its pods, None = the template has no such map.
    surge, unavailable: how many pods a rollout may have beyond, or short of, the replicas.
    gives_up: a rollout without progress counts as failed after a while. controller: `Kind name` of
    what manages it. rolling, stopped: why it is being rolled out, or why its rollout makes no
    progress, both empty = it is rolled out. there, updated, available: pods.
    """

    namespace: str
    name: str
    uid: str
    version: str
    generation: int
    annotations: Mapping[str, str] | None
    template: Mapping[str, str] | None
    replicas: int
    strategy: str
    surge: int
    unavailable: int
    paused: bool
    gives_up: bool
    deleting: bool
    controller: str
    observed: bool
    rolling: str
    stopped: str
    there: int
    updated: int
    available: int

    @property
    def id(self) -> str:
        """`namespace/name`, for people."""
        return f"{self.namespace}/{self.name}"

    @property
    def settled(self) -> bool:
        """Whether its last change is rolled out, with as many available pods as it has replicas."""
        whole = self.there == self.updated == self.available == self.replicas
        return self.observed and whole and not (self.rolling or self.stopped)


@understood("a Deployment")
def deployment_from_json(raw: Json) -> Deployment:
    """A Deployment from the API's JSON. Raises Malformed."""
    meta, spec, status = (as_object(raw.get(key)) for key in ("metadata", "spec", "status"))
    strategy = as_object(spec.get("strategy"))
    replicas = 1 if spec.get("replicas") is None else as_whole(spec.get("replicas"))
    surge, unavailable = _fenceposts(as_object(strategy.get("rollingUpdate")), replicas)
    above = controller_of(meta)
    rolling, stopped = rolled_out(spec, status)
    template = as_object(as_object(spec.get("template")).get("metadata"))
    return Deployment(
        namespace=as_name(meta.get("namespace")),
        name=as_name(meta.get("name")),
        uid=as_name(meta.get("uid")),
        version=as_name(meta.get("resourceVersion")),
        generation=as_whole(meta.get("generation")),
        annotations=_texts(meta.get("annotations")),
        template=_texts(template.get("annotations")),
        replicas=replicas,
        strategy=as_text(strategy.get("type")) or "RollingUpdate",
        surge=surge,
        unavailable=unavailable,
        paused=as_flag(spec.get("paused")),
        gives_up=as_whole(spec.get("progressDeadlineSeconds")) not in (0, NO_DEADLINE),
        deleting=bool(as_text(meta.get("deletionTimestamp"))),
        controller=f"{above[0]} {above[2]}" if above is not None else "",
        observed=as_whole(status.get("observedGeneration")) >= as_whole(meta.get("generation")),
        rolling=rolling,
        stopped=stopped,
        there=as_whole(status.get("replicas")),
        updated=as_whole(status.get("updatedReplicas")),
        available=as_whole(status.get("availableReplicas")),
    )


def _texts(value: object) -> Mapping[str, str] | None:
    return None if value is None else {k: as_text(v) for k, v in as_object(value).items()}


def _fenceposts(rolling: Json, replicas: int) -> tuple[int, int]:
    """maxSurge and maxUnavailable in pods, as ResolveFenceposts in
    pkg/controller/deployment/util/deployment_util.go computes them. Raises TypeError, ValueError.
    """
    surge = _count(rolling.get("maxSurge", DEFAULT_SURGE), replicas, up=True)
    unavailable = _count(rolling.get("maxUnavailable", DEFAULT_UNAVAILABLE), replicas, up=False)
    return surge, unavailable if surge or unavailable else 1


def _count(value: object, total: int, *, up: bool) -> int:
    """A number, or a percentage of the total. Raises TypeError, ValueError."""
    if not isinstance(value, str):
        return as_whole(value)
    hundredths = int(value.removesuffix("%")) * total
    return -(-hundredths // 100) if up else hundredths // 100


def rolled_out(spec: Json, status: Json) -> tuple[str, str]:
    """Why a Deployment is being rolled out, or why its rollout makes no progress; raises TypeError.

    Both are empty where it is rolled out, as far as its controller has observed its last change.
    """
    there, updated = as_whole(status.get("replicas")), as_whole(status.get("updatedReplicas"))
    conditions = as_objects(status.get("conditions"))
    progressing: Json = next(
        (item for item in conditions if as_name(item.get("type")) == "Progressing"), {}
    )
    state, reason = as_text(progressing.get("status")), as_text(progressing.get("reason"))
    paused = as_flag(spec.get("paused"))
    if state == "False":
        return "", f"its rollout has failed ({reason})"
    if updated < there:
        if paused:
            return "", f"its rollout is paused ({updated} of {there} pods are new)"
        return f"a rollout is in progress ({updated} of {there} pods are new)", ""
    if state == "True" and reason != "NewReplicaSetAvailable" and not paused:
        return "a rollout is in progress (its first pods are not available yet)", ""
    return "", ""
