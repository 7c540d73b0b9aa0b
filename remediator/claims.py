"""What the API says about pods' volumes, for a drain and for `plan`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from remediator.answers import ApiFailure
from remediator.headroom import tied
from remediator.kubernetes_api import KubernetesApi
from remediator.placement import Terms
from remediator.snapshot import Node, Pod

Claim = tuple[str, str]


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
