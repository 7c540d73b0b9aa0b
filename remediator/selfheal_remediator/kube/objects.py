"""Nodes and pods as small values.

The hot path decodes an object straight into a trimmed value: a full Node is 3 to 20 KiB of
JSON, of which a decision needs a few hundred bytes. Nothing here knows a client library.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from selfheal_remediator.kube.placement import (
    ANYWHERE,
    Placement,
    allocatable,
    placement_from_spec,
    pod_requests,
)
from selfheal_remediator.kube.responses import understood

Json = dict[str, Any]

ANNOTATION_PREFIX = "selfheal.dev/"
HOSTNAME_LABEL = "kubernetes.io/hostname"
ZONE_LABEL = "topology.kubernetes.io/zone"
CONTROL_PLANE_LABELS = (
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
)
#: Annotations of other systems that a decision reads: the reason for leaving the node alone;
#: empty = none.
FOREIGN_ANNOTATIONS: Mapping[str, str] = {
    "weave.works/kured-reboot-in-progress": "kured reboots it",
    "cluster.x-k8s.io/remediate-machine": "Cluster API remediates it",
    "cluster.x-k8s.io/machine": "",
    "cluster-autoscaler.kubernetes.io/scale-down-disabled": "",
}


def timestamp(text: str | None) -> float | None:
    """Seconds since the epoch from an RFC 3339 time; None when absent. Raises ValueError."""
    if not text:
        return None
    if text.startswith("0000-"):
        text = f"0001{text[4:]}"  # Go knows the year 0
    found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if found.tzinfo is None:
        raise ValueError(f"{text!r} names no time zone")
    return found.timestamp()


@dataclass(frozen=True, slots=True)
class Condition:
    """One entry of node.status.conditions; times are the writer's clock, seconds since epoch."""

    type: str
    status: str
    reason: str
    message: str
    transition: float | None
    heartbeat: float | None


@dataclass(frozen=True, slots=True)
class Taint:
    """One entry of node.spec.taints."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class Capacity:
    """Resources as the scheduler sums them: CPU in millicores, memory in bytes, pods."""

    cpu: int
    memory: int
    pods: int
    #: Everything else by name: ephemeral storage in bytes, huge pages, devices.
    others: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """The part of a Node that a decision needs."""

    name: str
    uid: str
    version: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    unschedulable: bool
    taints: tuple[Taint, ...]
    conditions: Mapping[str, Condition]
    boot_id: str
    deleting: bool
    created: float | None
    allocatable: Capacity
    #: Whether it has annotations at all: `annotations` has only those that matter.
    annotated: bool = True
    #: The field manager that owns spec.unschedulable, empty = none does.
    unschedulable_by: str = ""

    @property
    def zone(self) -> str:
        """Topology zone, empty when the node has none."""
        return self.labels.get(ZONE_LABEL, "")

    @property
    def control_plane(self) -> bool:
        """Whether the node carries a control-plane role label."""
        return any(label in self.labels for label in CONTROL_PLANE_LABELS)

    @property
    def ready(self) -> bool:
        """Whether Ready is True."""
        condition = self.conditions.get("Ready")
        return condition is not None and condition.status == "True"


@dataclass(frozen=True, slots=True)
class Pod:
    """The part of a Pod that a drain needs."""

    namespace: str
    name: str
    uid: str
    version: str
    node: str
    labels: Mapping[str, str]
    owner_kind: str
    owner_name: str
    owner_uid: str
    owner_api: str
    phase: str
    deletion: float | None
    grace: int | None
    finalizers: tuple[str, ...]
    mirror: bool
    empty_dir: bool
    claims: tuple[str, ...]
    priority: int
    keep_reason: str
    pinned: bool
    ready: bool
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

    @property
    def id(self) -> str:
        """`namespace/name`, for people."""
        return f"{self.namespace}/{self.name}"

    @property
    def finished(self) -> bool:
        """Whether the pod ran to its end."""
        return self.phase in ("Succeeded", "Failed")


def interned(mapping: Mapping[str, str] | None) -> dict[str, str]:
    """The strings kept once: thousands of objects have the same ones."""
    return {sys.intern(key): sys.intern(value) for key, value in (mapping or {}).items()}


@lru_cache(1024)
def _shared(others: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
    """One value for all nodes of a kind: there are thousands."""
    return others


def _capacity(resources: Mapping[str, int], pods: int | None = None) -> Capacity:
    others = sorted(
        (sys.intern(name), amount)
        for name, amount in resources.items()
        if amount and name not in ("cpu", "memory", "pods")
    )
    return Capacity(
        cpu=resources.get("cpu", 0),
        memory=resources.get("memory", 0),
        pods=resources.get("pods", 0) if pods is None else pods,
        others=_shared(tuple(others)),
    )


def as_text(value: object) -> str:
    """A string of the API, which leaves out empty ones. Raises TypeError for anything else."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{value!r} is no string")
    return value or ""


def as_name(value: object) -> str:
    """A string that is always there. Raises TypeError."""
    if not isinstance(value, str) or not value:
        raise TypeError(f"{value!r} is no name")
    return value


def as_whole(value: object) -> int:
    """A whole number of the API, which leaves out zeros. Raises TypeError for anything else."""
    if value is not None and type(value) is not int:
        raise TypeError(f"{value!r} is no whole number")
    return value or 0


def as_flag(value: object) -> bool:
    """A boolean of the API, which leaves out false. Raises TypeError for anything else."""
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"{value!r} is no boolean")
    return value is True


@understood("a Node")
def node_from_json(raw: Json) -> Node:
    """A Node from the API's JSON. Raises Malformed."""
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    annotations = meta.get("annotations") or {}
    return Node(
        name=as_name(meta["name"]),
        uid=as_name(meta["uid"]),
        version=as_text(meta.get("resourceVersion")),
        labels=interned(meta.get("labels")),
        annotations={
            key: as_text(value)
            for key, value in annotations.items()
            if key.startswith(ANNOTATION_PREFIX) or key in FOREIGN_ANNOTATIONS
        },
        unschedulable=as_flag(spec.get("unschedulable")),
        taints=tuple(
            Taint(
                sys.intern(taint["key"]), as_text(taint.get("value")), sys.intern(taint["effect"])
            )
            for taint in spec.get("taints") or ()
        ),
        conditions={
            sys.intern(item["type"]): _condition(item) for item in status.get("conditions") or ()
        },
        boot_id=as_text((status.get("nodeInfo") or {}).get("bootID")),
        deleting=meta.get("deletionTimestamp") is not None,
        created=timestamp(meta.get("creationTimestamp")),
        allocatable=_capacity(allocatable(status.get("allocatable"))),
        annotated=bool(annotations),
        unschedulable_by=_manager_of_unschedulable(meta.get("managedFields") or ()),
    )


def _manager_of_unschedulable(entries: Iterable[Json]) -> str:
    for entry in entries:
        spec = (entry.get("fieldsV1") or {}).get("f:spec") or {}
        if "f:unschedulable" in spec and not entry.get("subresource"):
            return sys.intern(as_text(entry.get("manager")))
    return ""


def _condition(item: Json) -> Condition:
    return Condition(
        type=sys.intern(item["type"]),
        status=sys.intern(item.get("status") or "Unknown"),
        reason=sys.intern(item.get("reason") or ""),
        # A healthy message is never shown; a bad one is quoted in Events, shortened there.
        message=sys.intern((item.get("message") or "")[:200]),
        transition=timestamp(item.get("lastTransitionTime")),
        heartbeat=timestamp(item.get("lastHeartbeatTime")),
    )


_KEEP_ANNOTATIONS = (
    ("selfheal.dev/evict", "false"),
    ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"),
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


def _keep(annotations: Json, started: float | None) -> tuple[str, float | None]:
    """Why the pod requests to stay, empty = it does not; and until when, None = permanently.

    Karpenter's annotation is `true` or a duration from the pod's start. A value that cannot be read
    counts as a request to stay permanently, because a pod is rather kept than evicted. A duration
    that has not begun is not over.
    """
    for key, value in _KEEP_ANNOTATIONS:
        if annotations.get(key) == value:
            return f"annotation {key}={value}", None
    asked = as_text(annotations.get(_DO_NOT_DISRUPT))
    if asked in ("", "false"):
        return "", None
    duration = go_duration(asked)
    if duration is not None and duration <= 0:
        return "", None
    why = f"annotation {_DO_NOT_DISRUPT}={asked}"
    if duration is None or started is None:
        return why, None
    until = datetime.fromtimestamp(min(started + duration, _LAST_MOMENT), UTC)
    return f"{why} (until {until:%Y-%m-%dT%H:%M:%SZ})", started + duration


def _started(meta: Json, status: Json) -> float | None:
    """When the kubelet began with the pod, by its own clock: not before the API server made it."""
    started, made = timestamp(status.get("startTime")), timestamp(meta.get("creationTimestamp"))
    return started if started is None or made is None else max(started, made)


@understood("a Pod")
def pod_from_json(raw: Json) -> Pod:
    """A Pod from the API's JSON. Raises Malformed."""
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    annotations = meta.get("annotations") or {}
    owner: Json = next(
        (ref for ref in meta.get("ownerReferences") or () if ref.get("controller")), {}
    )
    volumes = spec.get("volumes") or ()
    selector = spec.get("nodeSelector") or {}
    keep_reason, keep_until = _keep(annotations, _started(meta, status))
    return Pod(
        namespace=sys.intern(as_name(meta["namespace"])),
        name=as_name(meta["name"]),
        uid=as_name(meta["uid"]),
        version=as_text(meta.get("resourceVersion")),
        node=as_text(spec.get("nodeName")),
        labels=interned(meta.get("labels")),
        owner_kind=sys.intern(owner.get("kind", "")),
        owner_name=sys.intern(owner.get("name", "")),
        owner_uid=sys.intern(owner.get("uid", "")),
        owner_api=sys.intern(owner.get("apiVersion", "")),
        phase=sys.intern(status.get("phase") or "Unknown"),
        deletion=timestamp(meta.get("deletionTimestamp")),
        grace=_grace(
            meta.get("deletionGracePeriodSeconds", spec.get("terminationGracePeriodSeconds"))
        ),
        finalizers=tuple(as_name(finalizer) for finalizer in meta.get("finalizers") or ()),
        mirror="kubernetes.io/config.mirror" in annotations,
        empty_dir=any("emptyDir" in volume for volume in volumes),
        claims=tuple(
            as_name(volume["persistentVolumeClaim"]["claimName"])
            for volume in volumes
            if "persistentVolumeClaim" in volume
        ),
        priority=as_whole(spec.get("priority")),
        keep_reason=keep_reason,
        keep_until=keep_until,
        pinned=HOSTNAME_LABEL in selector or _pinned_by_affinity(spec.get("affinity") or {}),
        ready=any(
            item.get("type") == "Ready" and item.get("status") == "True"
            for item in status.get("conditions") or ()
        ),
        requests=_capacity(pod_requests(spec), pods=1),
        node_selector=interned(selector),
        tolerations=tuple(
            (
                as_text(item.get("key")),
                as_text(item.get("operator")) or "Equal",
                as_text(item.get("value")),
                as_text(item.get("effect")),
            )
            for item in spec.get("tolerations") or ()
        ),
        placement=placement_from_spec(spec, meta["namespace"], meta.get("labels") or {}),
        gated=bool(spec.get("schedulingGates")),
        created=timestamp(meta.get("creationTimestamp")),
        generate_name=as_text(meta.get("generateName")),
    )


def _grace(value: object) -> int | None:
    return None if value is None else as_whole(value)


def _pinned_by_affinity(affinity: Json) -> bool:
    """Whether every required term names one host: such a pod fits nowhere else."""
    required = (affinity.get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    terms = required.get("nodeSelectorTerms") or ()
    return bool(terms) and all(
        any(_names_one_host(item) for item in (term.get("matchExpressions") or ()))
        or any(item.get("key") == "metadata.name" for item in term.get("matchFields") or ())
        for term in terms
    )


def _names_one_host(item: Json) -> bool:
    return (
        item.get("key") == HOSTNAME_LABEL
        and item.get("operator") == "In"
        and len(item.get("values") or ()) == 1
    )
