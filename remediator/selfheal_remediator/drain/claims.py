"""What the API says about pods' volumes and DaemonSets, for a drain and for `plan`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from selfheal_remediator.drain.headroom import tied
from selfheal_remediator.drain.lookups import Answer, Question, Subject
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.client import Collection, KubernetesApi
from selfheal_remediator.kube.objects import Node, Pod
from selfheal_remediator.kube.placement import Terms
from selfheal_remediator.kube.responses import understood

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


def daemon_sets(collection: Collection) -> frozenset[tuple[str, str, str]]:
    """(namespace, name, uid) of each DaemonSet. Raises ApiFailure."""
    found: set[tuple[str, str, str]] = set()
    for raws, _ in collection.pages():
        with understood("a DaemonSet"):
            metas = [raw["metadata"] for raw in raws]
            found.update((meta["namespace"], meta["name"], meta["uid"]) for meta in metas)
    return frozenset(found)


def answer_of(api: KubernetesApi, question: Question, others: Iterable[Node]) -> Answer:
    """Read the claims; others: the nodes beside the one that is drained. Raises ApiFailure."""
    if question.subject is Subject.DAEMON_SET:
        found = daemon_sets(api.daemon_set(question.namespace, question.name))
        return Answer(exists=any(uid == question.uid for _, _, uid in found))
    terms = api.claim_terms(question.namespace, question.name)
    return Answer(terms=terms, tied=tied(terms, list(others)))
