"""What must hold at every moment, and what must be so again after each fault (pure)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ci.demo import pods

Object = dict[str, Any]
STATE = "selfheal.dev/state"
HELD = frozenset({"cordoned", "draining", "drained"})
BAD = ("DemoFault", "ChaosClock")
#: As ci/chaos/values.yaml and the chart's defaults say.
MAX_CORDONED = 2
MAX_DRAINING = 1


def phase(node: Object) -> str:
    """What the remediator's annotation says, empty = nothing."""
    text = node["metadata"].get("annotations", {}).get(STATE, "")
    return str(json.loads(text).get("phase", "")) if text else ""


def violations(nodes: Mapping[str, Object], foreign: str, by_hand: Iterable[str] = ()) -> list[str]:
    """What the nodes, by name, show that must never be.

    `foreign` was cordoned by somebody else for good, the nodes `by_hand` just now.
    """
    found = []
    ours = [name for name, node in nodes.items() if phase(node) in HELD]
    cordoned = {name for name, node in nodes.items() if pods.is_cordoned(node)} - set(by_hand)
    draining = [name for name in ours if phase(nodes[name]) == "draining"]
    if ours and len(cordoned) > MAX_CORDONED:
        found.append(f"more than {MAX_CORDONED} nodes are cordoned: {', '.join(sorted(cordoned))}")
    if len(draining) > MAX_DRAINING:
        found.append(f"{len(draining)} nodes are drained at once")
    found += [f"{name} is held and was cordoned by a human" for name in ours if name in by_hand]
    if foreign in nodes:
        node = nodes[foreign]
        if not pods.is_cordoned(node):
            found.append(f"{foreign}, which somebody else had cordoned, was uncordoned")
        if phase(node) in HELD:
            found.append(f"{foreign}, which somebody else had cordoned, was taken over")
    return found


def missing(
    nodes: Iterable[Object], workloads: Iterable[Object], foreign: str, least_workers: int
) -> list[str]:
    """What is not yet as it was before the fault, one sentence each."""
    found = []
    for node in nodes:
        name = node["metadata"]["name"]
        if name == foreign:
            continue
        if pods.condition(node, "Ready") != "True":
            found.append(f"{name} is not ready")
        if pods.is_cordoned(node) or phase(node) in HELD:
            found.append(f"{name} is still held")
        found += [f"{name} still has {bad}" for bad in BAD if pods.condition(node, bad) == "True"]
    for one in workloads:
        ready, wanted = _ready(one)
        name = f"{one['kind']} {one['metadata']['name']}"
        if _component(one) == "worker":
            wanted = min(wanted, least_workers)  # its autoscaler is always about to change it
        elif one["status"].get("observedGeneration", 0) < one["metadata"]["generation"]:
            found.append(f"{name} is not seen by its controller")
        if ready < wanted:
            found.append(f"{name} has {ready} of {wanted} pods ready")
    return found


def _component(one: Object) -> str:
    return str(one["metadata"].get("labels", {}).get("app.kubernetes.io/component", ""))


def _ready(one: Object) -> tuple[int, int]:
    status = one["status"]
    if one["kind"] == "DaemonSet":
        return int(status["numberReady"]), int(status["desiredNumberScheduled"])
    return int(status.get("readyReplicas", 0)), int(one["spec"]["replicas"])
