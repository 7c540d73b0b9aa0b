"""External claims on a node that are recorded elsewhere than on the node itself. Pure.

medik8s' operators take a Lease per node (namespace medik8s-leases) before they change it; Cluster
API marks the node's Machine. These claims count like a taint: the node is left alone, and counted
by the limits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from selfheal_remediator.kube.election import LeaseView
from selfheal_remediator.kube.objects import timestamp

LEASE_NAMESPACE = "medik8s-leases"
LEASE_PREFIX = "node-"
MACHINE_ANNOTATION = "cluster.x-k8s.io/machine"
#: Conditions of a Machine that say that it is being remediated (the status that says so).
_MACHINE_CONDITIONS = {"OwnerRemediated": "False", "ExternallyRemediated": "False"}
#: Seconds by which the clock of a Lease's holder may be behind ours.
CLOCK_TOLERANCE = 60.0


def leased(leases: Iterable[LeaseView], now: float) -> dict[str, str]:
    """Nodes whose maintenance Lease is held now, each with who holds it.

    Its renewal time is by another machine's clock, as for everybody who respects these Leases;
    one that cannot be read counts as held.
    """
    found = {}
    for lease in leases:
        if not lease.name.startswith(LEASE_PREFIX) or not lease.holder:
            continue
        renewed = timestamp(lease.renewed)
        if renewed is not None and renewed + lease.duration + CLOCK_TOLERANCE <= now:
            continue
        node = lease.name.removeprefix(LEASE_PREFIX)
        found[node] = f"medik8s: {lease.holder} holds its maintenance lease"
    return found


def machines(raws: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Nodes whose Machine is being deleted or remediated, each with what is done."""
    found = {}
    for raw in raws:
        meta, status = raw["metadata"], raw.get("status") or {}
        node = (status.get("nodeRef") or {}).get("name")
        what = _at_work(meta, status)
        if node and what:
            found[node] = f"Cluster API {what} its machine {meta['name']}"
    return found


def _at_work(meta: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    if "deletionTimestamp" in meta:
        return "deletes"
    if "cluster.x-k8s.io/remediate-machine" in (meta.get("annotations") or {}):
        return "remediates"
    remediated = any(
        _MACHINE_CONDITIONS.get(item.get("type", "")) == item.get("status")
        for item in status.get("conditions") or ()
        if item.get("type") in _MACHINE_CONDITIONS
    )
    return "remediates" if remediated else ""
