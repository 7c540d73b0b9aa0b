"""Pods, of which a drain and pod healing need different parts. Both are read in one way.

`PodJson` has the fields of a Pod's JSON: what is not of its type is refused. `Pod` is what a drain
keeps of it, `healing.pod_health.WatchedPod` what a policy does: there are thousands of each.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from selfheal_remediator.kube.json_values import (
    as_moment,
    as_name,
    as_object,
    as_objects,
    as_text,
    as_whole,
    controller_of,
    interned,
    names,
)
from selfheal_remediator.kube.objects import HOSTNAME_LABEL, Capacity, Json, capacity
from selfheal_remediator.kube.placement import (
    ANYWHERE,
    Expression,
    Placement,
    Terms,
    placement_from_spec,
)
from selfheal_remediator.kube.resources import pod_requests
from selfheal_remediator.kube.responses import understood

MIRROR = "kubernetes.io/config.mirror"
#: `false`: it is not evicted; `on-completion`: it is to end by itself (kubernetes/autoscaler#9355).
SAFE_TO_EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict"


@dataclass(frozen=True, slots=True)
class PodBase:
    """The part of a Pod that everybody needs. owner_*: of its controller, empty = it has none."""

    namespace: str
    name: str
    uid: str
    version: str
    node: str
    owner_kind: str
    owner_name: str
    owner_uid: str
    owner_api: str
    phase: str
    deletion: float | None
    finalizers: tuple[str, ...]
    mirror: bool
    ready: bool

    @property
    def id(self) -> str:
        """`namespace/name`, for people."""
        return f"{self.namespace}/{self.name}"

    @property
    def finished(self) -> bool:
        """Whether the pod ran to its end."""
        return self.phase in ("Succeeded", "Failed")


class PodJson:
    """The fields of a Pod's JSON, read while `understood` says what happens to errors."""

    def __init__(self, raw: Json) -> None:
        self.meta = as_object(raw["metadata"])
        self.spec, self.status = as_object(raw.get("spec")), as_object(raw.get("status"))
        self.annotations = as_object(self.meta.get("annotations"))
        self.labels = interned(as_object(self.meta.get("labels")))
        self.containers = as_objects(self.spec.get("containers"))
        self.init_containers = as_objects(self.spec.get("initContainers"))
        self.conditions = {
            as_name(item.get("type")): item for item in as_objects(self.status.get("conditions"))
        }

    def base(self) -> dict[str, Any]:
        """The fields of a PodBase."""
        meta = self.meta
        kind, api, owner, owner_uid = controller_of(meta) or ("", "", "", "")
        return {
            "namespace": sys.intern(as_name(meta.get("namespace"))),
            "name": as_name(meta.get("name")),
            "uid": as_name(meta.get("uid")),
            "version": as_text(meta.get("resourceVersion")),
            "node": sys.intern(as_text(self.spec.get("nodeName"))),
            "owner_kind": kind,
            "owner_name": owner,
            "owner_uid": owner_uid,
            "owner_api": api,
            "phase": sys.intern(as_text(self.status.get("phase")) or "Unknown"),
            "deletion": as_moment(meta.get("deletionTimestamp")),
            "finalizers": names(meta.get("finalizers")),
            "mirror": MIRROR in self.annotations,
            "ready": self.condition_status("Ready") == "True",
        }

    def condition(self, kind: str) -> Json:
        """The condition of this type; empty = it has none."""
        return self.conditions.get(kind, {})

    def condition_status(self, kind: str) -> str:
        """The status of the condition of this type; empty = it has none."""
        return as_text(self.condition(kind).get("status"))

    @property
    def created(self) -> float | None:
        """When it was created, by the API server's clock."""
        return as_moment(self.meta.get("creationTimestamp"))

    def annotated(self, key: str, value: str) -> bool:
        """Whether an annotation has this value."""
        return as_text(self.annotations.get(key)) == value


@dataclass(frozen=True, slots=True)
class Pod(PodBase):
    """The part of a Pod that a drain needs."""

    labels: Mapping[str, str]
    grace: int | None
    empty_dir: bool
    claims: tuple[str, ...]
    priority: int
    keep_reason: str
    pinned: bool
    requests: Capacity
    node_selector: Mapping[str, str]
    tolerations: tuple[tuple[str, str, str, str], ...]
    placement: Placement = ANYWHERE
    #: Until when `keep_reason` applies, None = permanently.
    keep_until: float | None = None
    #: It has a scheduling gate.
    gated: bool = False
    #: When it was created, by the API server's clock; None = unknown.
    created: float | None = None
    generate_name: str = ""
    #: It requests that its completion be waited for.
    on_completion: bool = False


@understood("a Pod")
def pod_from_json(raw: Json) -> Pod:
    """What a drain needs of a Pod from the API's JSON. Raises Malformed."""
    pod = PodJson(raw)
    meta, spec = pod.meta, pod.spec
    volumes = as_objects(spec.get("volumes"))
    selector = interned(as_object(spec.get("nodeSelector")))
    keep_reason, keep_until = _keep(pod)
    base = pod.base()
    placement = placement_from_spec(spec, base["namespace"], pod.labels)
    return Pod(
        **base,
        labels=pod.labels,
        grace=_grace(
            meta.get("deletionGracePeriodSeconds", spec.get("terminationGracePeriodSeconds"))
        ),
        empty_dir=any("emptyDir" in volume for volume in volumes),
        claims=tuple(
            as_name(as_object(volume["persistentVolumeClaim"]).get("claimName"))
            for volume in volumes
            if "persistentVolumeClaim" in volume
        ),
        priority=as_whole(spec.get("priority")),
        keep_reason=keep_reason,
        keep_until=keep_until,
        pinned=HOSTNAME_LABEL in selector or _pinned_by_affinity(placement.terms),
        requests=capacity(pod_requests(spec), pods=1),
        node_selector=selector,
        tolerations=tuple(
            (
                as_text(item.get("key")),
                as_text(item.get("operator")) or "Equal",
                as_text(item.get("value")),
                as_text(item.get("effect")),
            )
            for item in as_objects(spec.get("tolerations"))
        ),
        placement=placement,
        gated=bool(as_objects(spec.get("schedulingGates"))),
        created=pod.created,
        generate_name=as_text(meta.get("generateName")),
        on_completion=pod.annotated(SAFE_TO_EVICT, "on-completion"),
    )


_KEEP_ANNOTATIONS = (
    ("selfheal.dev/evict", "false"),
    (SAFE_TO_EVICT, "false"),
)
_DO_NOT_DISRUPT = "karpenter.sh/do-not-disrupt"
#: The last second that a datetime can name.
_LAST_MOMENT = 253402300799.0


_GO_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_GO_UNITS |= {"\u00b5s": 1e-6, "\u03bcs": 1e-6}
_GO_PART = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)"
#: What Go's int64 of nanoseconds can hold, in seconds; it refuses longer durations.
_GO_LONGEST = 2**63 / 1e9


def go_duration(text: str) -> float | None:
    """Seconds of a duration as Go's time.ParseDuration reads it, None = it cannot be read."""
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    if not re.fullmatch(f"(?:{_GO_PART})+", rest):
        return None
    seconds = sum(float(number) * _GO_UNITS[unit] for number, unit in re.findall(_GO_PART, rest))
    return sign * seconds if seconds < _GO_LONGEST else None


def _keep(pod: PodJson) -> tuple[str, float | None]:
    """Why the pod requests to stay, empty = it does not; and until when, None = permanently.

    Karpenter's annotation is `true` or a duration from the pod's start. A value that cannot be read
    counts as a request to stay permanently, because a pod is rather kept than evicted. A duration
    that has not begun is not over.
    """
    for key, value in _KEEP_ANNOTATIONS:
        if pod.annotated(key, value):
            return f"annotation {key}={value}", None
    requested = as_text(pod.annotations.get(_DO_NOT_DISRUPT))
    started = _started(pod)
    if requested in ("", "false"):
        return "", None
    duration = go_duration(requested)
    if duration is not None and duration <= 0:
        return "", None
    why = f"annotation {_DO_NOT_DISRUPT}={requested}"
    if duration is None or started is None:
        return why, None
    until = datetime.fromtimestamp(min(started + duration, _LAST_MOMENT), UTC)
    return f"{why} (until {until:%Y-%m-%dT%H:%M:%SZ})", started + duration


def _started(pod: PodJson) -> float | None:
    """When the kubelet began with the pod, by its own clock: not before the API server made it."""
    started, made = as_moment(pod.status.get("startTime")), pod.created
    return started if started is None or made is None else max(started, made)


def _grace(value: object) -> int | None:
    return None if value is None else as_whole(value)


def _pinned_by_affinity(terms: Terms | None) -> bool:
    """Whether every required term names one host: such a pod fits nowhere else."""
    return bool(terms) and all(any(map(_names_one_host, term)) for term in terms or ())


def _names_one_host(item: Expression) -> bool:
    if item.field:
        return item.key == "metadata.name"
    return item.key == HOSTNAME_LABEL and item.operator == "In" and len(item.values) == 1
