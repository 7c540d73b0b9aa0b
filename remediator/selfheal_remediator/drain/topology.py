"""Where pods run, as inter-pod affinity and topology spread count them. Pure.

The rules are those of the scheduler's filters InterPodAffinity and PodTopologySpread. Only added
pods count: those of the nodes that were read, and the peers that were listed. A pod elsewhere that
keeps others out of its whole zone is known only if it is one of those.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from selfheal_remediator.kube.objects import Node, Taint
from selfheal_remediator.kube.placement import (
    HOSTNAME,
    NamespaceLabels,
    Peers,
    Placement,
    Spread,
    Term,
    Terms,
    only_names,
    terms_match,
)
from selfheal_remediator.kube.pods import Pod

_CORDON = Taint("node.kubernetes.io/unschedulable", "", "NoSchedule")
#: What decides which nodes count for a constraint: it, and what its pod selects and tolerates.
_Key = tuple[
    Spread,
    tuple[str, ...],
    frozenset[tuple[str, str]],
    Terms | None,
    tuple[tuple[str, str, str, str], ...],
]


def domain(node: Node, key: str) -> str | None:
    """The node's domain under this label; a host is one even without the label."""
    found = node.labels.get(key)
    return node.name if found is None and key == HOSTNAME else found


def tolerated(pod: Pod, taint: Taint) -> bool:
    """Whether one of the pod's tolerations matches the taint."""
    for key, operator, value, effect in pod.tolerations:
        if effect not in ("", taint.effect):
            continue
        if operator == "Exists" and key in ("", taint.key):
            return True
        if operator == "Equal" and key == taint.key and value == taint.value:
            return True
    return False


def tolerates(pod: Pod, node: Node) -> bool:
    """Whether the pod tolerates all of the node's taints that keep pods away."""
    taints = (*node.taints, _CORDON) if node.unschedulable else node.taints
    return all(taint.effect == "PreferNoSchedule" or tolerated(pod, taint) for taint in taints)


def selects(pod: Pod, node: Node) -> bool:
    """Whether the node matches the pod's node selector and required node affinity."""
    labels = node.labels
    return all(
        labels.get(key) == value for key, value in pod.node_selector.items()
    ) and terms_match(pod.placement.terms, labels, node.name)


@dataclass(frozen=True, slots=True)
class Resident:
    """The part of a pod on a node that others are placed by."""

    uid: str
    namespace: str
    labels: Mapping[str, str]
    placement: Placement
    terminating: bool

    @classmethod
    def of(cls, pod: Pod) -> Resident:
        """What counts of the pod."""
        leaves = pod.deletion is not None
        return cls(pod.uid, pod.namespace, pod.labels, pod.placement, leaves)


@dataclass(slots=True)
class _Domains:
    """Pods per domain that counts. least: the fewest in any, None = to be found again."""

    counts: dict[str, int] = field(default_factory=dict)
    least: int | None = None

    def fewest(self, min_domains: int) -> int:
        """The fewest pods in any domain; 0 while there are fewer domains than wanted."""
        if self.least is None:
            self.least = min(self.counts.values(), default=0)
        return self.least if len(self.counts) >= min_domains else 0


class Population:
    """The pods that are known, each on its node; grows as pods are placed.

    labels_of: of namespaces. complete: whether these are all nodes; else there may be a domain
    without pods. unread: peers that could not be read, and why.
    """

    def __init__(
        self,
        nodes: Iterable[Node],
        labels_of: NamespaceLabels = only_names,
        *,
        complete: bool = True,
    ) -> None:
        self._nodes = list(nodes)
        self._complete = complete
        self._labels_of = labels_of
        self.unread: dict[Peers, str] = {}
        self._pods: dict[str, tuple[Resident, Node]] = {}
        #: Per set of terms: pods that match all of them, by the key and value of a domain.
        self._matching: dict[tuple[Term, ...], Counter[tuple[str, str]]] = {}
        self._spreads: dict[_Key, tuple[Pod, _Domains]] = {}
        #: Terms of pods that keep others away, by the key and value of their domain: of many
        #: thousand hosts a pod is checked against the terms of one.
        self._repelling: dict[str, dict[str, Counter[Term]]] = {}

    def add(self, pod: Resident, node: Node) -> None:
        """The pod runs, or is to run, on the node; one that is known already stays where it is."""
        if pod.uid in self._pods:
            return
        self._pods[pod.uid] = (pod, node)
        for term in pod.placement.apart:
            place = domain(node, term.key)
            if place is not None:
                self._repelling.setdefault(term.key, {}).setdefault(place, Counter())[term] += 1
        for terms, counts in self._matching.items():
            self._count_matching(terms, counts, pod, node)
        for key, (wanting, domains) in self._spreads.items():
            self._count_spread(key, wanting, domains, pod, node)

    def unread_of(self, pod: Pod) -> list[str]:
        """The pod's constraints that cannot be evaluated."""
        found = [self.unread[peers] for peers in pod.placement.needs_peers if peers in self.unread]
        return [*pod.placement.unknown, *dict.fromkeys(found)]

    def allows(self, pod: Pod, node: Node) -> bool:
        """Whether this pod may join those that are known, by their terms and its own."""
        coming = Resident.of(pod)
        return (
            not self._repelled(coming, node)
            and self._apart(coming, node)
            and self._beside(coming, node)
            and all(self._evenly(pod, coming, node, item) for item in pod.placement.spread)
        )

    # -- affinity -----------------------------------------------------------------------

    def _includes(self, peers: Peers, pod: Resident) -> bool:
        return peers.include(pod.namespace, pod.labels, self._labels_of)

    def _repelled(self, pod: Resident, node: Node) -> bool:
        """Whether a pod in the node's domain keeps this one away."""
        for key, places in self._repelling.items():
            place = domain(node, key)
            terms = () if place is None else places.get(place, ())
            if any(self._includes(term.peers, pod) for term in terms):
                return True
        return False

    def _apart(self, pod: Resident, node: Node) -> bool:
        for term in pod.placement.apart:
            place = domain(node, term.key)
            if place is not None and self._pods_matching((term,))[term.key, place] > 0:
                return False
        return True

    def _beside(self, pod: Resident, node: Node) -> bool:
        """Each domain must have a pod that matches all terms; the first of a group may begin."""
        terms = pod.placement.beside
        if not terms:
            return True
        places = [(term.key, domain(node, term.key)) for term in terms]
        if any(place is None for _, place in places):
            return False
        counts = self._pods_matching(terms)
        if all(counts[key, place or ""] > 0 for key, place in places):
            return True
        return not counts and all(self._includes(term.peers, pod) for term in terms)

    def _pods_matching(self, terms: tuple[Term, ...]) -> Counter[tuple[str, str]]:
        counts = self._matching.get(terms)
        if counts is None:
            counts = self._matching[terms] = Counter()
            for pod, node in self._pods.values():
                self._count_matching(terms, counts, pod, node)
        return counts

    def _count_matching(
        self, terms: tuple[Term, ...], counts: Counter[tuple[str, str]], pod: Resident, node: Node
    ) -> None:
        if all(self._includes(term.peers, pod) for term in terms):
            for term in terms:
                place = domain(node, term.key)
                if place is not None:
                    counts[term.key, place] += 1

    # -- spread -------------------------------------------------------------------------

    def _evenly(self, pod: Pod, coming: Resident, node: Node, item: Spread) -> bool:
        """Whether the domain would have at most maxSkew more than the one with the fewest."""
        place = domain(node, item.key)
        if place is None:
            return False
        domains = self._domains(pod, item)
        itself = int(self._includes(item.peers, coming))
        there = domains.counts.get(place, 0)
        fewest = domains.fewest(item.min_domains) if self._complete else 0
        return there + itself - fewest <= item.max_skew

    def _domains(self, pod: Pod, item: Spread) -> _Domains:
        key = (
            item,
            tuple(other.key for other in pod.placement.spread),
            frozenset(pod.node_selector.items()),
            pod.placement.terms,
            pod.tolerations,
        )
        known = self._spreads.get(key)
        if known is not None:
            return known[1]
        domains = _Domains()
        for node in self._nodes:
            if _counts(node, pod, item):
                domains.counts.setdefault(domain(node, item.key) or "", 0)
        for other, node in self._pods.values():
            self._count_spread(key, pod, domains, other, node)
        self._spreads[key] = (pod, domains)
        return domains

    def _count_spread(
        self, key: _Key, wanting: Pod, domains: _Domains, pod: Resident, node: Node
    ) -> None:
        item = key[0]
        if pod.terminating or not self._includes(item.peers, pod):
            return
        if _counts(node, wanting, item):
            place = domain(node, item.key) or ""
            domains.counts[place] = domains.counts.get(place, 0) + 1
            domains.least = None


def _counts(node: Node, pod: Pod, item: Spread) -> bool:
    """Whether the node's domain counts for the pod's constraint."""
    if any(domain(node, other.key) is None for other in pod.placement.spread):
        return False
    if item.honor_affinity and not selects(pod, node):
        return False
    return not item.honor_taints or tolerates(pod, node)
