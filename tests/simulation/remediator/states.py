"""What a node is, and who leads, by the store alone."""

from __future__ import annotations

from selfheal_remediator.kube.objects import node_from_json
from selfheal_remediator.node.annotation import State, Unreadable, read_state
from tests.simulation.cluster import conditions
from tests.simulation.cluster.messages import Json
from tests.simulation.cluster.objects import CONTROL_PLANE
from tests.simulation.remediator.process import NAMESPACE, Replica
from tests.simulation.remediator.world import World


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


def holder_of(world: World) -> str:
    """Whom the Lease names; empty = nobody."""
    lease = world.cluster.store.get("leases", NAMESPACE, world.config.lease.name)
    return "" if lease is None else str((lease.get("spec") or {}).get("holderIdentity") or "")


def leader_of(world: World) -> Replica | None:
    """The replica that the Lease names, if it runs."""
    holder = holder_of(world)
    leaders = (one for one in world.replicas if one.runs and holder.startswith(f"{one.name}_"))
    return next(leaders, None)
