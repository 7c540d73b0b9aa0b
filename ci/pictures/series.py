"""Series as text, of values at fixed steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

STEP = 30
COUNT = 361
END = 1_767_236_220  # 2026-01-01 02:57 UTC
START = END - STEP * (COUNT - 1)
NAMESPACE = RELEASE = "selfheal"

GIB = 1 << 30
MIB = 1 << 20
LATENCY = (0.005, 0.025, 0.1, 0.5, 2.5, 10, 30)

#: The value at each step; None where there is no sample.
Values = Sequence[float | None]
#: The value by the step, or the same at each.
Course = Callable[[int], float] | float


def noise(step: int, seed: int = 0) -> float:
    """From -1 to 1, the same each time."""
    return math.sin(step * 1.7 + seed * 2.3) * 0.6 + math.sin(step * 0.31 + seed) * 0.4


def between(*spans: tuple[int, int, float], other: float | None = 0.0) -> list[float | None]:
    """A value from one step until another, and `other` outside of all spans."""
    values: list[float | None] = [other] * COUNT
    for first, last, value in spans:
        values[first:last] = [value] * (last - first)
    return values


def grown(rates: Sequence[float | None]) -> list[float | None]:
    """A counter that grows by these; None stays None."""
    total = 0.0
    grown: list[float | None] = []
    for rate in rates:
        total += rate or 0.0
        grown.append(None if rate is None else total)
    return grown


def each(course: Course) -> list[float | None]:
    """At all steps."""
    return [at_step(course, step) for step in range(COUNT)]


def at_step(course: Course, step: int) -> float:
    """Its value at this one."""
    return course(step) if callable(course) else course


def times(values: Values, factor: float) -> list[float | None]:
    """Each multiplied."""
    return [None if value is None else value * factor for value in values]


def rising(*steps: int) -> list[float | None]:
    """A counter that grows by one at each of these."""
    return each(lambda step: float(sum(step >= one for one in steps)))


class Night:
    """The text that `promtool tsdb create-blocks-from openmetrics` reads."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, name: str, values: Values, **labels: str) -> None:
        """One series."""
        text = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        self._lines += (
            f"{name}{{{text}}} {value:.12g} {START + STEP * step}"
            for step, value in enumerate(values)
            if value is not None
        )

    def histogram(
        self,
        name: str,
        rates: Values,
        middle: Course,
        bounds: Sequence[float],
        **labels: str,
    ) -> None:
        """The series of a histogram of values around `middle`, most within a factor of two."""
        for bound in (*bounds, math.inf):
            part = [
                None if rate is None else rate * _share(bound, at_step(middle, step))
                for step, rate in enumerate(rates)
            ]
            text = "+Inf" if bound == math.inf else f"{float(bound)}"
            self.add(f"{name}_bucket", grown(part), **labels, le=text)
        self.add(f"{name}_count", grown(rates), **labels)
        spent = [
            None if rate is None else rate * at_step(middle, s) for s, rate in enumerate(rates)
        ]
        self.add(f"{name}_sum", grown(spent), **labels)

    def text(self) -> str:
        """All of it."""
        return "\n".join([*self._lines, "# EOF", ""])


def _share(bound: float, middle: float) -> float:
    """How much of a log-normal distribution is below."""
    if bound == math.inf:
        return 1.0
    return 0.5 * (1 + math.erf(math.log(bound / middle) / 0.7))


def target(pod: str, container: str) -> dict[str, str]:
    """The labels that Prometheus gives to what it scrapes from a pod."""
    place = {"namespace": NAMESPACE, "pod": pod, "container": container}
    return place | {"job": NAMESPACE, "instance": f"{pod}:8080"}
