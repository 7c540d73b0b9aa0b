"""Nodes as small values.

The hot path decodes an object straight into a trimmed value: a full Node is 3 to 20 KiB of
JSON, of which a decision needs a few hundred bytes. Nothing here knows a client library.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from selfheal_remediator.kube.json_values import (
    as_flag,
    as_moment,
    as_name,
    as_object,
    as_objects,
    as_text,
    interned,
)
from selfheal_remediator.kube.resources import allocatable
from selfheal_remediator.kube.responses import understood

Json = dict[str, Any]

ANNOTATION_PREFIX = "selfheal.dev/"
#: A person requests that the node is drained; the value is the reason.
DRAIN_KEY = "selfheal.dev/drain"
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
    #: The field manager that owns the annotation DRAIN_KEY, empty = none does.
    drain_requested_by: str = ""

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


@lru_cache(1024)
def _shared(others: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
    """One value for all nodes of a kind: there are thousands."""
    return others


def capacity(resources: Mapping[str, int], pods: int | None = None) -> Capacity:
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


@understood("a Node")
def node_from_json(raw: Json) -> Node:
    """A Node from the API's JSON. Raises Malformed."""
    meta = as_object(raw["metadata"])
    spec, status = as_object(raw.get("spec")), as_object(raw.get("status"))
    annotations = as_object(meta.get("annotations"))
    return Node(
        name=as_name(meta.get("name")),
        uid=as_name(meta.get("uid")),
        version=as_text(meta.get("resourceVersion")),
        labels=interned(as_object(meta.get("labels"))),
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
            for taint in as_objects(spec.get("taints"))
        ),
        conditions={
            sys.intern(as_name(item.get("type"))): _condition(item)
            for item in as_objects(status.get("conditions"))
        },
        boot_id=as_text(as_object(status.get("nodeInfo")).get("bootID")),
        deleting=meta.get("deletionTimestamp") is not None,
        created=as_moment(meta.get("creationTimestamp")),
        allocatable=capacity(allocatable(status.get("allocatable"))),
        annotated=bool(annotations),
        unschedulable_by=_manager_of_unschedulable(as_objects(meta.get("managedFields"))),
        drain_requested_by=_manager_of_drain(as_objects(meta.get("managedFields")))
        if DRAIN_KEY in annotations
        else "",
    )


def _manager_of_unschedulable(entries: Iterable[Json]) -> str:
    for entry in entries:
        spec = (entry.get("fieldsV1") or {}).get("f:spec") or {}
        if "f:unschedulable" in spec and not entry.get("subresource"):
            return sys.intern(as_text(entry.get("manager")))
    return ""


def _manager_of_drain(entries: Iterable[Json]) -> str:
    for entry in entries:
        meta = (entry.get("fieldsV1") or {}).get("f:metadata") or {}
        if f"f:{DRAIN_KEY}" in (meta.get("f:annotations") or {}):
            return as_text(entry.get("manager"))[:100]
    return ""


def _condition(item: Json) -> Condition:
    return Condition(
        type=sys.intern(as_name(item.get("type"))),
        status=sys.intern(as_text(item.get("status")) or "Unknown"),
        reason=sys.intern(as_text(item.get("reason"))),
        # A healthy message is never shown; a bad one is quoted in Events, shortened there.
        message=sys.intern(as_text(item.get("message"))[:200]),
        transition=as_moment(item.get("lastTransitionTime")),
        heartbeat=as_moment(item.get("lastHeartbeatTime")),
    )
