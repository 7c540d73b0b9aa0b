"""What a node is, by the store alone."""

from __future__ import annotations

from selfheal_remediator.kube.objects import node_from_json
from selfheal_remediator.node.annotation import State, Unreadable, read_state
from tests.simulation.cluster import conditions
from tests.simulation.cluster.messages import Json
from tests.simulation.cluster.objects import CONTROL_PLANE


def cordoned(raw: Json | None) -> bool:
    """Whether anybody cordoned it."""
    return bool(raw is not None and raw["spec"].get("unschedulable"))


def control_plane(raw: Json) -> bool:
    """Whether it is one of the control plane."""
    return CONTROL_PLANE in (raw["metadata"].get("labels") or {})


def state_of(raw: Json) -> State | None:
    """What the annotation says; None = nothing that can be read."""
    try:
        return read_state(node_from_json(raw))
    except Unreadable:
        return None


def cordoned_by_us(raw: Json) -> bool:
    """Whether it is cordoned, and the annotation says that the remediator did it."""
    state = state_of(raw)
    return cordoned(raw) and state is not None and state.phase.cordoned


def in_service(raw: Json) -> bool:
    """Whether pods can be put on it."""
    return not cordoned(raw) and conditions.status_of(raw, "Ready") == "True"
