"""Resources: quantities, and what the scheduler counts for a pod. Pure.

Sources: Kubernetes' resource quantities (apimachinery), the effective requests of a pod with
sidecars (KEP-753), and pod-level resources (KEP-2837).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from math import ceil

from selfheal_remediator.failures import Json
from selfheal_remediator.kube.json_values import as_object, as_objects, as_text

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


def amounts(resources: object) -> dict[str, int]:
    """Whole units of each resource, rounded up: millicores of CPU, bytes, devices.

    Raises ValueError for what is no quantity, TypeError for what is no text.
    """
    return {
        name: ceil(exact(as_text(text)) * (1000 if name == "cpu" else 1))
        for name, text in as_object(resources).items()
    }


def allocatable(resources: object) -> dict[str, int]:
    """As `amounts`; what is no quantity counts as none, so that nothing is placed on it."""
    found: dict[str, int] = {}
    for name, text in as_object(resources).items():
        try:
            found.update(amounts({name: text}))
        except (TypeError, ValueError):
            found[name] = 0
    return found


def pod_requests(spec: Json) -> dict[str, int]:
    """What the scheduler counts for a pod, per resource. Raises ValueError, TypeError.

    A sidecar counts beside every init container after it and beside the containers; pod-level
    requests replace the sum; the RuntimeClass's overhead comes on top.
    """
    total: dict[str, int] = {}
    for container in as_objects(spec.get("containers")):
        _add(total, _requests(container))
    sidecars: dict[str, int] = {}
    largest: dict[str, int] = {}
    for container in as_objects(spec.get("initContainers")):
        step = dict(sidecars)
        _add(step, _requests(container))
        if as_text(container.get("restartPolicy")) == "Always":
            _add(total, _requests(container))
            sidecars = step
        _raise_to(largest, step)
    _raise_to(total, largest)
    level = as_object(spec.get("resources"))
    for name, amount in amounts(level.get("limits")).items():
        total.setdefault(name, amount)
    total.update(amounts(level.get("requests")))
    _add(total, amounts(spec.get("overhead")))
    return total


def _requests(container: Json) -> dict[str, int]:
    """A container's requests; one that is missing equals its limit."""
    resources = as_object(container.get("resources"))
    return {**amounts(resources.get("limits")), **amounts(resources.get("requests"))}


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount


def _raise_to(total: dict[str, int], other: Mapping[str, int]) -> None:
    for name, amount in other.items():
        total[name] = max(total.get(name, 0), amount)
