"""Reads what else acts on nodes: other remediators, and other systems.

Runs in the threads `worker-lookups`, one read at a time for each that PeerCheck begins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.client import Collection, KubernetesApi
from selfheal_remediator.kube.election import LABEL, LeaseView, lease_from_json
from selfheal_remediator.node.external_claims import LEASE_NAMESPACE, leased, machines

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Claims:
    """leases: the remediators'. marks: nodes in use by another system, and which."""

    leases: list[LeaseView]
    marks: dict[str, str]


class ClaimsReader:
    """See the module."""

    def __init__(self, api: KubernetesApi, clock: Callable[[], float]) -> None:
        self._api, self._clock = api, clock
        self._machines_complaint = ""
        self._machines_seen: dict[str, str] = {}

    def read(self, *, machines_wanted: bool) -> Claims:
        """machines_wanted: whether any node belongs to Cluster API. Raises ApiFailure."""
        leases = _leases(self._api.leases(f"{LABEL}=true"))
        marks = leased(_leases(self._api.leases_in(LEASE_NAMESPACE)), self._clock())
        if machines_wanted:
            marks |= self.machines()
        return Claims(leases, marks)

    def machines(self) -> dict[str, str]:
        """Nodes whose machine Cluster API is changing; as last read, where that cannot be read."""
        try:
            collection = self._api.machines()
            pages = () if collection is None else collection.pages()
            self._machines_seen = machines(raw for raws, _ in pages for raw in raws)
        except (ApiFailure, LookupError, TypeError, AttributeError) as failure:
            if str(failure) != self._machines_complaint:
                self._machines_complaint = str(failure)
                log.warning("Cluster API's machines cannot be read: %s", failure)
        return dict(self._machines_seen)


def _leases(collection: Collection) -> list[LeaseView]:
    return [lease_from_json(raw) for raws, _ in collection.pages() for raw in raws]
