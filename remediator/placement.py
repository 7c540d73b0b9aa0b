"""What a pod asks of a node: requests as the scheduler sums them, and required constraints. Pure.

Sources: Kubernetes' resource quantities (apimachinery), the effective requests of a pod with
sidecars (KEP-753), pod-level resources (KEP-2837), and the scheduler's filters. What cannot be
evaluated from one node and its pods is named, so that it is never taken for a yes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil
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
        """Whether it holds; an operator that is not known never does."""
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


#: Terms of which one must hold, each of expressions that must all hold.
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


@dataclass(frozen=True, slots=True)
class Peers:
    """Which pods a term of inter-pod affinity means. namespaces None = all."""

    namespaces: tuple[str, ...] | None
    selector: tuple[Expression, ...] | None

    def include(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether the pod is one of them; a term without selector means none."""
        if self.selector is None:
            return False
        if self.namespaces is not None and namespace not in self.namespaces:
            return False
        return all(item.matches(labels) for item in self.selector)


@dataclass(frozen=True, slots=True)
class Placement:
    """Required constraints of a pod beside its node selector and tolerations.

    apart, beside: pods that must not or must be on the same host; spread: pods of which at most
    so many may be on one host; ports: (address, protocol, port) on the host; unknown: constraints
    that cannot be evaluated from one node and its pods.
    """

    terms: Terms | None = None
    apart: tuple[Peers, ...] = ()
    beside: tuple[Peers, ...] = ()
    spread: tuple[tuple[Peers, int], ...] = ()
    ports: tuple[tuple[str, str, int], ...] = ()
    unknown: tuple[str, ...] = ()


ANYWHERE = Placement()


def _selector(raw: Json | None) -> tuple[Expression, ...] | None:
    if raw is None:
        return None
    labels = (raw.get("matchLabels") or {}).items()
    return tuple(Expression(key, "In", (value,)) for key, value in labels) + expressions(
        raw.get("matchExpressions")
    )


def _peers(term: Json, kind: str, namespace: str, unknown: list[str]) -> Peers | None:
    """The term's pods; None when the term cannot be evaluated, which is then noted."""
    key = term.get("topologyKey") or ""
    elsewhere = term.get("namespaceSelector")
    if key != HOSTNAME or elsewhere:
        unknown.append(f"{kind} by {key}" + (" with a namespaceSelector" if elsewhere else ""))
        return None
    # An empty namespaceSelector takes all namespaces, none at all those that are named.
    own = None if elsewhere is not None else tuple(term.get("namespaces") or (namespace,))
    return Peers(own, _selector(term.get("labelSelector")))


def placement_from_spec(spec: Json, namespace: str) -> Placement:
    """The constraints of a pod's spec. Most pods have none and share one value."""
    affinity = spec.get("affinity") or {}
    unknown: list[str] = []
    found: dict[str, list[Peers]] = {}
    for kind in ("podAntiAffinity", "podAffinity"):
        terms = (affinity.get(kind) or {}).get(REQUIRED) or ()
        peers = [_peers(term, kind, namespace, unknown) for term in terms]
        found[kind] = [item for item in peers if item is not None]
    spread = []
    for item in spec.get("topologySpreadConstraints") or ():
        if item.get("whenUnsatisfiable") == "DoNotSchedule":
            one = _peers(item, "topologySpreadConstraint", namespace, unknown)
            if one is not None:
                spread.append((one, int(item.get("maxSkew") or 1)))
    if spec.get("resourceClaims"):
        unknown.append("resourceClaims")
    if (spec.get("schedulerName") or "default-scheduler") != "default-scheduler":
        unknown.append(f"schedulerName {spec['schedulerName']}")
    made = Placement(
        terms=node_terms((affinity.get("nodeAffinity") or {}).get(REQUIRED)),
        apart=tuple(found["podAntiAffinity"]),
        beside=tuple(found["podAffinity"]),
        spread=tuple(spread),
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
