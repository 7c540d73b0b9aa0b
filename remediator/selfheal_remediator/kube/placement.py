"""What a pod needs of a node: requests as the scheduler sums them, and required constraints. Pure.

Sources: Kubernetes' resource quantities (apimachinery), the effective requests of a pod with
sidecars (KEP-753), pod-level resources (KEP-2837), and the scheduler's filters. What cannot be
evaluated from one node and its pods is named, so that it is never taken for a yes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil
from types import MappingProxyType
from typing import Any

Json = Mapping[str, Any]
HOSTNAME = "kubernetes.io/hostname"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"

_NUMBER = re.compile(
    r"([+-]?(?:\d+\.?\d*|\.\d+))(?:[eE]([+-]?\d+)|(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]))?"
)
_BINARY = {f"{letter}i": 1 << 10 * power for power, letter in enumerate("KMGTPE", 1)}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


@lru_cache(4096)
def exact(text: str) -> Fraction:
    """A Kubernetes quantity (`250m`, `1Gi`, `1e3`), exactly. Raises ValueError."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no quantity")
    number, exponent, suffix = match.groups()
    if exponent is not None and abs(int(exponent)) > 30:
        raise ValueError(f"{text!r} is out of range")
    if suffix in _BINARY:
        return Fraction(number) * _BINARY[suffix]
    power = int(exponent) if exponent else _DECIMAL.get(suffix or "", 0)
    return Fraction(f"{number}e{power}")


def amounts(resources: Json | None) -> dict[str, int]:
    """Whole units of each resource, rounded up: millicores of CPU, bytes, devices.

    Raises ValueError for what is no quantity.
    """
    return {
        name: ceil(exact(str(text)) * (1000 if name == "cpu" else 1))
        for name, text in (resources or {}).items()
    }


def allocatable(resources: Json | None) -> dict[str, int]:
    """As `amounts`; what is no quantity counts as none, so that nothing is placed on it."""
    found: dict[str, int] = {}
    for name, text in (resources or {}).items():
        try:
            found.update(amounts({name: text}))
        except ValueError:
            found[name] = 0
    return found


def pod_requests(spec: Json) -> dict[str, int]:
    """What the scheduler counts for a pod, per resource. Raises ValueError.

    A sidecar counts beside every init container after it and beside the containers; pod-level
    requests replace the sum; the RuntimeClass's overhead comes on top.
    """
    total: dict[str, int] = {}
    for container in spec.get("containers") or ():
        _add(total, _asked(container))
    sidecars: dict[str, int] = {}
    largest: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        step = dict(sidecars)
        _add(step, _asked(container))
        if container.get("restartPolicy") == "Always":
            _add(total, _asked(container))
            sidecars = step
        _raise_to(largest, step)
    _raise_to(total, largest)
    level = spec.get("resources") or {}
    for name, amount in amounts(level.get("limits")).items():
        total.setdefault(name, amount)
    total.update(amounts(level.get("requests")))
    _add(total, amounts(spec.get("overhead")))
    return total


def _asked(container: Json) -> dict[str, int]:
    """A container's requests; one that is missing equals its limit."""
    resources = container.get("resources") or {}
    return {**amounts(resources.get("limits")), **amounts(resources.get("requests"))}


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount


def _raise_to(total: dict[str, int], other: Mapping[str, int]) -> None:
    for name, amount in other.items():
        total[name] = max(total.get(name, 0), amount)


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


def expressions(items: Iterable[Json] | None, *, field: bool = False) -> tuple[Expression, ...]:
    """Requirements from the API's JSON."""
    return tuple(
        Expression(item["key"], item["operator"], tuple(item.get("values") or ()), field)
        for item in items or ()
    )


def node_terms(selector: Json | None) -> Terms | None:
    """A required NodeSelector (of a pod or a PersistentVolume); None = there is none."""
    terms = tuple(
        expressions(term.get("matchExpressions")) + expressions(term.get("matchFields"), field=True)
        for term in (selector or {}).get("nodeSelectorTerms") or ()
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


def _selector(raw: Json | None) -> tuple[Expression, ...] | None:
    if raw is None:
        return None
    labels = (raw.get("matchLabels") or {}).items()
    return tuple(Expression(key, "In", (value,)) for key, value in labels) + expressions(
        raw.get("matchExpressions")
    )


def _peers(term: Json, namespace: str, labels: Mapping[str, str]) -> Peers:
    """The term's pods. Its label keys mean the values that the pod itself has."""
    selector = _selector(term.get("labelSelector"))
    if selector is not None:
        for keys, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")):
            selector += tuple(
                Expression(key, operator, (labels[key],))
                for key in term.get(keys) or ()
                if key in labels
            )
    named, where = tuple(term.get("namespaces") or ()), _selector(term.get("namespaceSelector"))
    return Peers(named or (() if where is not None else (namespace,)), selector, where)


def _affinity(
    affinity: Json, kind: str, namespace: str, labels: Mapping[str, str]
) -> tuple[Term, ...]:
    terms = (affinity.get(kind) or {}).get(REQUIRED) or ()
    return tuple(
        Term(str(term.get("topologyKey") or ""), _peers(term, namespace, labels)) for term in terms
    )


def _spread(spec: Json, namespace: str, labels: Mapping[str, str]) -> tuple[Spread, ...]:
    """Its defaults are the scheduler's: nodeAffinityPolicy Honor, nodeTaintsPolicy Ignore."""
    return tuple(
        Spread(
            key=str(item.get("topologyKey") or ""),
            peers=_peers(item, namespace, labels),
            max_skew=int(item.get("maxSkew") or 1),
            min_domains=int(item.get("minDomains") or 1),
            honor_affinity=item.get("nodeAffinityPolicy") != "Ignore",
            honor_taints=item.get("nodeTaintsPolicy") == "Honor",
        )
        for item in spec.get("topologySpreadConstraints") or ()
        if item.get("whenUnsatisfiable") == "DoNotSchedule"
    )


def placement_from_spec(
    spec: Json, namespace: str, labels: Mapping[str, str] = MappingProxyType({})
) -> Placement:
    """The constraints of a pod with these labels. Most pods have none and share one value."""
    affinity = spec.get("affinity") or {}
    unknown = ["resourceClaims"] if spec.get("resourceClaims") else []
    if (spec.get("schedulerName") or "default-scheduler") != "default-scheduler":
        unknown.append(f"schedulerName {spec['schedulerName']}")
    made = Placement(
        terms=node_terms((affinity.get("nodeAffinity") or {}).get(REQUIRED)),
        apart=_affinity(affinity, "podAntiAffinity", namespace, labels),
        beside=_affinity(affinity, "podAffinity", namespace, labels),
        spread=_spread(spec, namespace, labels),
        ports=_host_ports(spec),
        unknown=tuple(unknown),
    )
    return ANYWHERE if made == ANYWHERE else made


def _host_ports(spec: Json) -> tuple[tuple[str, str, int], ...]:
    return tuple(
        (port.get("hostIP") or "0.0.0.0", port.get("protocol") or "TCP", port["hostPort"])
        for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
        for port in container.get("ports") or ()
        if port.get("hostPort")
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
