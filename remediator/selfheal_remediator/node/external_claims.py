"""External claims on a node that are recorded elsewhere than on the node itself. Pure.

medik8s' operators take a Lease per node (namespace medik8s-leases) before they change it; Cluster
API marks the node's Machine. These claims count like a taint: the node is left alone, and counted
by the limits. An object of theirs that cannot be read claims its node, if it says which that is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from selfheal_remediator.failures import Malformed
from selfheal_remediator.kube.decoding import Unread, moment
from selfheal_remediator.kube.json_values import as_name, as_text
from selfheal_remediator.kube.lease import LeaseView
from selfheal_remediator.kube.responses import understood

LEASE_NAMESPACE = "medik8s-leases"
LEASE_PREFIX = "node-"
MACHINE_ANNOTATION = "cluster.x-k8s.io/machine"
#: Conditions of a Machine that say that it is being remediated (the status that says so).
_MACHINE_CONDITIONS = {"OwnerRemediated": "False", "ExternallyRemediated": "False"}
#: Seconds by which the clock of a Lease's holder may be behind ours.
CLOCK_TOLERANCE = 60.0
NO_MOMENTS: Mapping[str, float] = MappingProxyType({})
NO_NODES: Mapping[str, str] = MappingProxyType({})


@dataclass(slots=True)
class Renewals:
    """When we first read each renewal of a Lease: its own time may be in our future for ever."""

    _read: dict[str, tuple[str, float]] = field(default_factory=dict)

    def take(self, leases: Iterable[LeaseView], now: float) -> dict[str, float]:
        """The Leases as they are now (by name) -> when this renewal of each was first read."""
        before = self._read
        self._read = {
            lease.name: (lease.renewed, before[lease.name][1])
            if lease.name in before and before[lease.name][0] == lease.renewed
            else (lease.renewed, now)
            for lease in leases
        }
        return {name: read for name, (_, read) in self._read.items()}


def leased(
    leases: Iterable[LeaseView], now: float, first_read: Mapping[str, float] = NO_MOMENTS
) -> dict[str, str]:
    """Nodes whose maintenance Lease is held now, each with who holds it.

    Its renewal time is by another machine's clock, as for everybody who respects these Leases,
    but it was not renewed after we read it (first_read, see Renewals); one whose time cannot be
    read counts as held.
    """
    found = {}
    for lease in leases:
        if not lease.name.startswith(LEASE_PREFIX) or not lease.holder:
            continue
        renewed = moment(lease.renewed)
        renewed = None if renewed is None else min(renewed, first_read.get(lease.name, renewed))
        if renewed is not None and renewed + lease.duration + CLOCK_TOLERANCE <= now:
            continue
        node = lease.name.removeprefix(LEASE_PREFIX)
        found[node] = f"medik8s: {lease.holder} holds its maintenance lease"
    return found


def unread_leases(unread: Iterable[Unread]) -> dict[str, str]:
    """The nodes of maintenance Leases that cannot be read."""
    return {
        item.name.removeprefix(LEASE_PREFIX): f"medik8s: its maintenance lease cannot be read: "
        f"{item.problem}"
        for item in unread
        if item.name.startswith(LEASE_PREFIX)
    }


def machines(
    raws: Iterable[Mapping[str, Any]],
    unread: list[Unread] | None = None,
    nodes: Mapping[str, str] = NO_NODES,
) -> dict[str, str]:
    """Nodes whose Machine is being deleted or remediated, each with what is done.

    Machines that cannot be read are added to `unread`, and claim their node: the one that they
    name, otherwise the one that they were known for (nodes, see machine_nodes).
    """
    found = {}
    for raw in raws:
        node = ""
        try:
            with understood("a Machine"):
                node = _node_of(raw)
                what = _change(raw)
        except Malformed as failure:
            item = Unread.of(raw, failure)
            node = node or nodes.get(item.id, "")
            what = f"may be changing its machine {item.id}: {failure.message}"
            if unread is not None:
                unread.append(item)
        if node and what:
            found[node] = f"Cluster API {what}"
    return found


def machine_nodes(raws: Iterable[Mapping[str, Any]], before: Mapping[str, str]) -> dict[str, str]:
    """The node of each Machine (`namespace/name`); as before where it cannot be read."""
    found = {}
    for raw in raws:
        machine = Unread.of(raw, Malformed("")).id
        with suppress(Malformed), understood("a Machine"):
            found[machine] = _node_of(raw)
        node = found.get(machine) or before.get(machine)
        if node:
            found[machine] = node
    return found


def _node_of(raw: Mapping[str, Any]) -> str:
    status = raw.get("status") or {}
    return as_text((status.get("nodeRef") or {}).get("name"))


def _change(raw: Mapping[str, Any]) -> str:
    """What is being done to the Machine, empty = nothing."""
    meta, status = raw["metadata"], raw.get("status") or {}
    name = as_name(meta["name"])
    if meta.get("deletionTimestamp") is not None:
        return f"deletes its machine {name}"
    annotations = dict(meta.get("annotations") or {})
    conditions = [
        (as_text(item.get("type")), as_text(item.get("status")))
        for item in status.get("conditions") or ()
    ]
    remediated = "cluster.x-k8s.io/remediate-machine" in annotations or any(
        _MACHINE_CONDITIONS.get(kind) == state for kind, state in conditions
    )
    return f"remediates its machine {name}" if remediated else ""
