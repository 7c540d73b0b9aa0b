"""Reads what else acts on nodes: other remediators, and other systems.

Runs in the threads `worker-lookups`, one read at a time for each that PeerCheck begins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.client import Collection, KubernetesApi
from selfheal_remediator.kube.decoding import Unread, UnreadObjects, decode_each
from selfheal_remediator.kube.lease import LABEL, LeaseView, lease_from_json
from selfheal_remediator.kube.responses import understood
from selfheal_remediator.node.external_claims import (
    LEASE_NAMESPACE,
    Renewals,
    leased,
    machine_nodes,
    machines,
    unread_leases,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Claims:
    """leases: the remediators'. marks: nodes in use by another system, and which.

    unread: remediators' Leases (`namespace/name`) that cannot be read.
    """

    leases: list[LeaseView]
    marks: dict[str, str]
    unread: frozenset[str] = frozenset()


class ClaimsReader:
    """See the module."""

    def __init__(self, api: KubernetesApi, clock: Callable[[], float]) -> None:
        self._api, self._clock = api, clock
        self._machines_complaint = ""
        self._machines_seen: dict[str, str] = {}
        self._machine_nodes: dict[str, str] = {}
        self._renewals = Renewals()
        self._reported_leases = UnreadObjects()
        self._reported_machines = UnreadObjects()

    def read(self, *, machines_wanted: bool) -> Claims:
        """machines_wanted: whether any node belongs to Cluster API. Raises ApiFailure."""
        unread: list[Unread] = []
        leases = _leases(self._api.leases(f"{LABEL}=true"), unread)
        peers = frozenset(item.id for item in unread)
        unread_claims: list[Unread] = []
        maintenance = _leases(self._api.leases_in(LEASE_NAMESPACE), unread_claims)
        now = self._clock()
        marks = leased(maintenance, now, self._renewals.take(maintenance, now))
        marks |= unread_leases(unread_claims)
        self._reported_leases.log(log, "Lease", [*unread, *unread_claims])
        if machines_wanted:
            marks |= self.machines()
        else:
            self._machines_seen, self._machine_nodes = {}, {}
        return Claims(leases, marks, peers)

    def machines(self) -> dict[str, str]:
        """Nodes whose machine Cluster API is changing; as last read, where that cannot be read."""
        unread: list[Unread] = []
        try:
            with understood("the API group of Machines"):
                collection = self._api.machines()
            pages = () if collection is None else collection.pages()
            raws = [raw for page, _ in pages for raw in page]
        except ApiFailure as failure:
            if str(failure) != self._machines_complaint:
                self._machines_complaint = str(failure)
                log.warning("Cluster API's machines cannot be read: %s", failure)
            return dict(self._machines_seen)
        self._machines_complaint = ""
        self._machines_seen = machines(raws, unread, self._machine_nodes)
        self._reported_machines.log(log, "Machine", unread)
        self._machine_nodes = machine_nodes(raws, self._machine_nodes)
        return dict(self._machines_seen)


def _leases(collection: Collection, unread: list[Unread]) -> list[LeaseView]:
    return [
        lease
        for raws, _ in collection.pages()
        for lease in decode_each(raws, lease_from_json, unread)
    ]
