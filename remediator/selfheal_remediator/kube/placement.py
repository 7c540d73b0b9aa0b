"""What a pod requires of a node beside resources: the scheduler's filters. Pure.

What cannot be evaluated from one node and its pods is named, so that it is never taken for a yes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from selfheal_remediator.kube.json_values import (
    as_list,
    as_name,
    as_object,
    as_objects,
    as_text,
    as_whole,
    names,
    texts,
)
from selfheal_remediator.kube.objects import Json

HOSTNAME = "kubernetes.io/hostname"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


@dataclass(frozen=True, slots=True)
class Expression:
    """One requirement of a selector. field: about metadata.name, not a label."""

    key: str
    operator: str
    values: tuple[str, ...]
    field: bool = False

    def matches(self, labels: Mapping[str, str], name: str = "") -> bool:
        """Whether it matches; an unknown operator never does."""
        if self.field:
            labels = {"metadata.name": name}
        there = labels.get(self.key)
        match self.operator:
            case "In":
                return there is not None and there in self.values
            case "NotIn":
                return there is None or there not in self.values
            case "Exists":
                return there is not None
            case "DoesNotExist":
                return there is None
            case "Gt" | "Lt":
                return _compares(there, self.operator, self.values)
            case _:
                return False


def _compares(there: str | None, operator: str, values: tuple[str, ...]) -> bool:
    try:
        left, right = int(there or ""), int(values[0])
    except (ValueError, IndexError):
        return False
    return left > right if operator == "Gt" else left < right


#: Terms of which one must match, each of expressions that must all match.
Terms = tuple[tuple[Expression, ...], ...]


def expressions(items: object, *, field: bool = False) -> tuple[Expression, ...]:
    """Requirements from the API's JSON. Raises TypeError."""
    return tuple(
        Expression(
            as_name(item.get("key")),
            as_name(item.get("operator")),
            texts(item.get("values")),
            field,
        )
        for item in as_objects(items)
    )


def node_terms(selector: object) -> Terms | None:
    """A required NodeSelector (of a pod or a PersistentVolume); None = there is none.

    Raises TypeError.
    """
    terms = tuple(
        expressions(term.get("matchExpressions")) + expressions(term.get("matchFields"), field=True)
        for term in as_objects(as_object(selector).get("nodeSelectorTerms"))
    )
    return terms or None


def terms_match(terms: Terms | None, labels: Mapping[str, str], name: str) -> bool:
    """Whether a node is selected; a term without requirements selects none."""
    return terms is None or any(
        term and all(item.matches(labels, name) for item in term) for term in terms
    )


#: The labels of a namespace by its name; None = unknown.
NamespaceLabels = Callable[[str], Mapping[str, str] | None]
#: Every namespace has its name as this label.
NAMESPACE_NAME = "kubernetes.io/metadata.name"


def only_names(_: str) -> Mapping[str, str] | None:
    """NamespaceLabels where namespaces were not read."""
    return None


@dataclass(frozen=True, slots=True)
class Peers:
    """Which pods a term means: those that a selector takes, in some namespaces.

    where: of further namespaces by their labels; None = of none, empty = of all.
    """

    namespaces: tuple[str, ...]
    selector: tuple[Expression, ...] | None
    where: tuple[Expression, ...] | None = None

    @property
    def named(self) -> bool:
        """Whether the namespaces can be matched by their names."""
        return all(item.key == NAMESPACE_NAME for item in self.where or ())

    def include(
        self,
        namespace: str,
        labels: Mapping[str, str],
        labels_of: NamespaceLabels = only_names,
    ) -> bool:
        """Whether the pod is one of them; a term without selector means none.

        A namespace with unknown labels may match, so it counts as one.
        """
        if self.selector is None or not all(item.matches(labels) for item in self.selector):
            return False
        if namespace in self.namespaces:
            return True
        if self.where is None:
            return False
        there: Mapping[str, str] | None = {NAMESPACE_NAME: namespace}
        if not self.named:
            there = labels_of(namespace)
        return there is None or all(item.matches(there) for item in self.where)


@dataclass(frozen=True, slots=True)
class Term:
    """A required term of inter-pod affinity or anti-affinity. key: the node label of a domain."""

    key: str
    peers: Peers


@dataclass(frozen=True, slots=True)
class Spread:
    """A topology spread constraint with DoNotSchedule.

    honor_affinity, honor_taints: whether nodes that the pod does not select or tolerate are left
    out when domains are counted.
    """

    key: str
    peers: Peers
    max_skew: int = 1
    min_domains: int = 1
    honor_affinity: bool = True
    honor_taints: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """Required constraints of a pod beside its node selector and tolerations.

    apart, beside: pods in whose domain it must not or must be; spread: pods that are to be spread
    over domains; ports: (address, protocol, port) on the host; unknown: constraints that cannot be
    evaluated here.
    """

    terms: Terms | None = None
    apart: tuple[Term, ...] = ()
    beside: tuple[Term, ...] = ()
    spread: tuple[Spread, ...] = ()
    ports: tuple[tuple[str, str, int], ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def needs_peers(self) -> tuple[Peers, ...]:
        """The pods that have to be known wherever they run, for this pod to be placed."""
        here = tuple(term.peers for term in self.apart if term.key != HOSTNAME)
        beside = tuple(term.peers for term in self.beside)
        return here + beside + tuple(item.peers for item in self.spread)


ANYWHERE = Placement()


def _selector(raw: object) -> tuple[Expression, ...] | None:
    if raw is None:
        return None
    selector = as_object(raw)
    labels = as_object(selector.get("matchLabels")).items()
    return tuple(Expression(key, "In", (as_text(value),)) for key, value in labels) + expressions(
        selector.get("matchExpressions")
    )


def _peers(term: Json, namespace: str, labels: Mapping[str, str]) -> Peers:
    """The term's pods. Its label keys mean the values that the pod itself has."""
    selector = _selector(term.get("labelSelector"))
    if selector is not None:
        for keys, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")):
            selector += tuple(
                Expression(key, operator, (labels[key],))
                for key in names(term.get(keys))
                if key in labels
            )
    named, where = names(term.get("namespaces")), _selector(term.get("namespaceSelector"))
    return Peers(named or (() if where is not None else (namespace,)), selector, where)


def _affinity(
    affinity: Json, kind: str, namespace: str, labels: Mapping[str, str]
) -> tuple[Term, ...]:
    return tuple(
        Term(as_text(term.get("topologyKey")), _peers(term, namespace, labels))
        for term in as_objects(as_object(affinity.get(kind)).get(REQUIRED))
    )


def _spread(spec: Json, namespace: str, labels: Mapping[str, str]) -> tuple[Spread, ...]:
    """Its defaults are the scheduler's: nodeAffinityPolicy Honor, nodeTaintsPolicy Ignore."""
    return tuple(
        Spread(
            key=as_text(item.get("topologyKey")),
            peers=_peers(item, namespace, labels),
            max_skew=as_whole(item.get("maxSkew")) or 1,
            min_domains=as_whole(item.get("minDomains")) or 1,
            honor_affinity=as_text(item.get("nodeAffinityPolicy")) != "Ignore",
            honor_taints=as_text(item.get("nodeTaintsPolicy")) == "Honor",
        )
        for item in as_objects(spec.get("topologySpreadConstraints"))
        if as_text(item.get("whenUnsatisfiable")) == "DoNotSchedule"
    )


def placement_from_spec(
    spec: Json, namespace: str, labels: Mapping[str, str] | None = None
) -> Placement:
    """The constraints of a pod with these labels. Most pods have none and share one value.

    Raises TypeError.
    """
    affinity, labels = as_object(spec.get("affinity")), labels or {}
    unknown = ["resourceClaims"] if as_list(spec.get("resourceClaims")) else []
    scheduler = as_text(spec.get("schedulerName")) or "default-scheduler"
    if scheduler != "default-scheduler":
        unknown.append(f"schedulerName {scheduler}")
    made = Placement(
        terms=node_terms(as_object(affinity.get("nodeAffinity")).get(REQUIRED)),
        apart=_affinity(affinity, "podAntiAffinity", namespace, labels),
        beside=_affinity(affinity, "podAffinity", namespace, labels),
        spread=_spread(spec, namespace, labels),
        ports=_host_ports(spec),
        unknown=tuple(unknown),
    )
    return ANYWHERE if made == ANYWHERE else made


def _host_ports(spec: Json) -> tuple[tuple[str, str, int], ...]:
    return tuple(
        (
            as_text(port.get("hostIP")) or "0.0.0.0",
            as_text(port.get("protocol")) or "TCP",
            host_port,
        )
        for key in ("containers", "initContainers")
        for container in as_objects(spec.get(key))
        for port in as_objects(container.get("ports"))
        if (host_port := as_whole(port.get("hostPort")))
    )


def ports_clash(
    ours: Iterable[tuple[str, str, int]], theirs: Iterable[tuple[str, str, int]]
) -> bool:
    """Whether two pods cannot be on one host; 0.0.0.0 and :: take every address."""
    every = ("0.0.0.0", "::")
    taken = list(theirs)
    return any(
        port == other and protocol == kind and (ip == there or ip in every or there in every)
        for ip, protocol, port in ours
        for there, kind, other in taken
    )
