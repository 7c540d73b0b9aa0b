"""What the API says about pods' volume claims and DaemonSets, for a drain and for `plan`."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from selfheal_remediator.drain.headroom import tied
from selfheal_remediator.drain.lookups import Answer, Question, Subject
from selfheal_remediator.failures import ApiFailure, Json, Malformed
from selfheal_remediator.kube.client import Collection, KubernetesApi
from selfheal_remediator.kube.decoding import Unread, UnreadObjects, decode_each
from selfheal_remediator.kube.json_values import as_name
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.kube.placement import Terms
from selfheal_remediator.kube.pods import Pod
from selfheal_remediator.kube.responses import understood

log = logging.getLogger(__name__)

#: Namespace and name of a PersistentVolumeClaim.
VolumeClaim = tuple[str, str]


@dataclass(frozen=True, slots=True)
class VolumeClaims:
    """terms: the nodes that each claim's volume can be used on, None = any. failed: not read."""

    terms: dict[VolumeClaim, Terms | None]
    failed: dict[VolumeClaim, ApiFailure]

    def local(self, others: Iterable[Node]) -> frozenset[VolumeClaim]:
        """The claims whose volume can be used on none of the other nodes."""
        nodes = list(others)
        return frozenset(claim for claim, terms in self.terms.items() if tied(terms, nodes))


def read_volume_claims(api: KubernetesApi, pods: Iterable[Pod]) -> VolumeClaims:
    """Reads the claims of the pods and their volumes."""
    found = VolumeClaims({}, {})
    for claim in sorted({(pod.namespace, claim) for pod in pods for claim in pod.claims}):
        try:
            found.terms[claim] = api.claim_terms(*claim)
        except ApiFailure as failure:
            found.failed[claim] = failure
    return found


@dataclass(frozen=True, slots=True)
class DaemonSets:
    """known: (namespace, name, uid) of each. unread: those that cannot be read."""

    known: frozenset[tuple[str, str, str]]
    unread: tuple[Unread, ...] = ()

    def gone(self, wanted: frozenset[tuple[str, str, str]]) -> frozenset[str]:
        """The uids of those that do not exist: unknown while any may be one that is unread."""
        missing = frozenset() if self.unread else wanted - self.known
        return frozenset(uid for _, _, uid in missing)


#: Of the lists of all DaemonSets, which are read again and again.
_REPORTED = UnreadObjects()


def all_daemon_sets(api: KubernetesApi) -> DaemonSets:
    """All of them; which cannot be read is logged once. Raises ApiFailure."""
    found = daemon_sets(api.daemon_sets())
    _REPORTED.log(log, "DaemonSet", found.unread)
    return found


def daemon_sets(collection: Collection) -> DaemonSets:
    """The DaemonSets of a list. Raises ApiFailure."""
    unread: list[Unread] = []
    found = frozenset(
        item for raws, _ in collection.pages() for item in decode_each(raws, _daemon_set, unread)
    )
    return DaemonSets(found, tuple(unread))


@understood("a DaemonSet")
def _daemon_set(raw: Json) -> tuple[str, str, str]:
    meta = raw["metadata"]
    return as_name(meta["namespace"]), as_name(meta["name"]), as_name(meta["uid"])


def answer_of(api: KubernetesApi, question: Question, others: Iterable[Node]) -> Answer:
    """Read the claims; others: the nodes beside the one that is drained. Raises ApiFailure."""
    if question.subject is Subject.DAEMON_SET:
        found = daemon_sets(api.daemon_set(question.namespace, question.name))
        if found.unread:
            raise Malformed(str(found.unread[0]))
        return Answer(exists=any(uid == question.uid for _, _, uid in found.known))
    terms = api.claim_terms(question.namespace, question.name)
    return Answer(terms=terms, tied=tied(terms, list(others)))
