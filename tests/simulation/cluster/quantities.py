"""Resource quantities, and what a pod requests."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from math import ceil

from tests.simulation.cluster.messages import Json

_SUFFIXES = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    **{name: Fraction(10 ** (3 * n)) for n, name in enumerate(("k", "M", "G", "T", "P"), 1)},
    **{name: Fraction(1024**n) for n, name in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi"), 1)},
}
#: Thousandths by resource.
Amounts = dict[str, int]


@lru_cache(4096)
def quantity(text: str) -> int:
    """A quantity such as 100m or 1Gi, in thousandths, rounded up."""
    for suffix in (text[-2:], text[-1:]):
        if suffix in _SUFFIXES:
            return ceil(Fraction(text[: -len(suffix)]) * _SUFFIXES[suffix] * 1000)
    return ceil(Fraction(text) * 1000)


def amounts(raw: Mapping[str, object] | None) -> Amounts:
    """Quantities by resource."""
    return {name: quantity(str(value)) for name, value in (raw or {}).items()}


def requests(pod: Json) -> Amounts:
    """What a pod requests: the sum of its containers, or an init container that needs more; one
    `pods`."""
    spec = pod["spec"]
    total: Amounts = {"pods": 1000}
    for container in spec.get("containers") or ():
        _add(total, _of(container))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers") or ():
        needed = _of(container)
        if container.get("restartPolicy") == "Always":
            _add(sidecars, needed)
            needed = sidecars
        else:
            needed = _sum(sidecars, needed)
        peak = {k: max(peak.get(k, 0), v) for k, v in {**peak, **needed}.items()}
    _add(total, sidecars)
    total = {k: max(total.get(k, 0), peak.get(k, 0)) for k in {**total, **peak}}
    return _sum(total, amounts(spec.get("overhead")))


def _of(container: Json) -> Amounts:
    return amounts((container.get("resources") or {}).get("requests"))


def _sum(one: Amounts, other: Amounts) -> Amounts:
    both = dict(one)
    _add(both, other)
    return both


def _add(total: Amounts, more: Amounts) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + value


def count_of(value: object, total: int, *, up: bool) -> int:
    """An int-or-percent of a total (apimachinery's pkg/util/intstr)."""
    if isinstance(value, str) and value.endswith("%"):
        share = int(value[:-1]) * total
        return -(-share // 100) if up else share // 100
    return int(str(value))
