"""What the API says about pods' volumes and about autoscalers, for a drain and for `plan`."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from remediator.answers import ApiFailure, understood
from remediator.headroom import AUTOSCALER_LEASES, AUTOSCALER_NAMESPACES, tied
from remediator.kubernetes_api import KubernetesApi
from remediator.placement import Terms
from remediator.snapshot import Node, Pod, timestamp

log = logging.getLogger(__name__)

Claim = tuple[str, str]
#: A Lease renewed so lately (seconds) is held by a running process, whatever the clocks differ.
RENEWED_WITHIN = 300.0


@dataclass(frozen=True, slots=True)
class Claims:
    """terms: the nodes that each claim's volume can be used on, None = any. failed: not read."""

    terms: dict[Claim, Terms | None]
    failed: dict[Claim, ApiFailure]

    def local(self, others: Iterable[Node]) -> frozenset[Claim]:
        """The claims whose volume can be used on none of the other nodes."""
        nodes = list(others)
        return frozenset(claim for claim, terms in self.terms.items() if tied(terms, nodes))


def read_claims(api: KubernetesApi, pods: Iterable[Pod]) -> Claims:
    """Reads the claims of the pods and their volumes."""
    found = Claims({}, {})
    for claim in sorted({(pod.namespace, claim) for pod in pods for claim in pod.claims}):
        try:
            found.terms[claim] = api.claim_terms(*claim)
        except ApiFailure as failure:
            found.failed[claim] = failure
    return found


def autoscaler_runs(api: KubernetesApi, now: float) -> bool:
    """Whether a cluster-autoscaler or Karpenter renews its Lease; no when that cannot be read."""
    try:
        return any(_lease_held(api, namespace, now) for namespace in AUTOSCALER_NAMESPACES)
    except ApiFailure as failure:
        log.warning(
            "Leases cannot be listed, so no autoscaler is assumed (see drain.autoscaler): %s",
            failure,
        )
        return False


def _lease_held(api: KubernetesApi, namespace: str, now: float) -> bool:
    for raws, _ in api.leases_in(namespace).pages():
        for raw in raws:
            with understood("a Lease"):
                name, spec = raw["metadata"]["name"], raw.get("spec") or {}
                renewed = timestamp(spec.get("renewTime"))
            lately = renewed is not None and now - renewed < RENEWED_WITHIN
            if name in AUTOSCALER_LEASES and spec.get("holderIdentity") and lately:
                return True
    return False
