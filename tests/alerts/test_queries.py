"""Every query of a dashboard on series that stand still: a panel never shows NaN."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from dashboards.boards import BOARDS
from tests.alerts.promtool import Expression, wrong

VARIABLES = {
    "$__rate_interval": "5m",
    "$namespace": "selfheal",
    "$release": "selfheal",
    "$cluster": ".*",
    "$broker": ".*",
    "$queue": ".*",
}
#: What a label may be, where a query asks for it by a pattern.
_CANDIDATES = {
    "pod": ("selfheal-worker-a-b", "selfheal-remediator-a-b", "selfheal-rabbitmq-0"),
    "horizontalpodautoscaler": ("keda-hpa-selfheal-worker", "selfheal-ollama"),
    "deployment": ("selfheal-worker", "selfheal-ollama"),
    "le": ("60.0",),
    "action": ("cordon",),
    "condition": ("KernelDeadlock", "ScalingActive"),
    "phase": ("Running",),
    "severity": ("critical",),
}
_SELECTOR = re.compile(r"\b([a-zA-Z_]\w*)\{([^}]*)\}")
_MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')


def filled(expr: str) -> str:
    """The query with Grafana's variables put in."""
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    return expr


def series_of(expr: str) -> Iterator[str]:
    """One series for each selector of a query; of a histogram's buckets two."""
    for metric, matchers in _SELECTOR.findall(expr):
        found: dict[str, str] = {}
        for label, operator, value in _MATCHER.findall(matchers):
            if not _accepts(operator, value, found.get(label, "")):
                found[label] = _chosen(label, operator, value)
        buckets = ("60.0", "+Inf") if metric.endswith("_bucket") else ("",)
        for bucket in buckets:
            labels = found | ({"le": bucket} if bucket else {})
            pairs = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
            yield f"{metric}{{{pairs}}}"


def _accepts(operator: str, pattern: str, value: str) -> bool:
    same = value == pattern if operator in ("=", "!=") else bool(re.fullmatch(pattern, value))
    return same is (operator in ("=", "=~"))


def _chosen(label: str, operator: str, pattern: str) -> str:
    candidates = [pattern] if operator == "=" else [*_CANDIDATES.get(label, ()), "x"]
    return next(value for value in candidates if _accepts(operator, pattern, value))


def _queries() -> Mapping[str, str]:
    return {
        f"{board.uid} / {panel.title} / {number}": filled(query.expr)
        for board in BOARDS
        for row in board.rows
        for panel in row.panels
        for number, query in enumerate(panel.queries)
    }


@pytest.mark.parametrize("values", ["0x30", "7x30"])
def test_no_query_is_not_a_number_when_nothing_happens(values: str, tmp_path: Path) -> None:
    """Idle workers, and none that was ever used: 0 / 0 would be a tile that says NaN."""
    queries = _queries()
    series = {name: values for expr in queries.values() for name in series_of(expr)}
    asked = {name: Expression(f"({expr}) != ({expr})", "20m") for name, expr in queries.items()}
    assert wrong(asked, series, tmp_path) == []
