"""Every query of a dashboard on series that stand still: a panel never shows NaN."""

from __future__ import annotations

import json
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


_NODES = ("n1", "n2")
_PLACE = 'namespace="shop",pod="p'
_HAS = {f'kube_node_status_allocatable{{node="{n}",resource="cpu"}}': "4x30" for n in _NODES}
_EXTERNAL = 'namespace="messaging",pod="rabbit-server-0",vhost="/",queue="feedback"'
_BUNDLED = 'namespace="selfheal",pod="selfheal-rabbitmq-0",vhost="/",queue="feedback"'
_READY = "rabbitmq_detailed_queue_messages_ready"
_DEPLOYMENT = '{namespace="selfheal",deployment="selfheal-worker"}'


def _cpu(pod: int, rate: str, labels: str = "") -> dict[str, str]:
    name = "container_cpu_usage_seconds_total"
    node = f'{_PLACE}{pod}",node="{_NODES[pod % 2]}",uid="u{pod}"'
    return {
        f'{name}{{{_PLACE}{pod}",container="c"{labels}}}': rate,
        f"kube_pod_info{{{node}}}": "1x30",
        f'kube_pod_container_resource_requests{{{node},container="c",resource="cpu"}}': "1x30",
        f'kube_pod_status_phase{{{node},phase="Running"}}': "1x30",
    }


def _query(title: str, number: int = 0) -> str:
    return _queries()[f"selfheal-overview / {title} / {number}"]


@pytest.mark.parametrize("labels", ["", ',node="n1"', ',node="wrong"'])
def test_nodes_are_distinguished_without_a_label_of_the_kubelets(
    labels: str, tmp_path: Path
) -> None:
    series = {**_HAS, **_cpu(1, "0+120x30", labels), **_cpu(2, "0+60x30", labels)}
    samples = (('{node="n2"}', 0.5), ('{node="n1"}', 0.25))
    asked = {"cpu": Expression(_query("CPU by node"), "20m", samples)}
    assert wrong(asked, series, tmp_path) == []


def test_what_was_evicted_and_left_behind_requests_nothing(tmp_path: Path) -> None:
    series = {**_HAS, **_cpu(1, "0x30"), **_cpu(2, "0x30")}
    for left in (3, 5):
        node = f'{_PLACE}{left}",node="n2",uid="u{left}"'
        asks = f'kube_pod_container_resource_requests{{{node},container="c",resource="cpu"}}'
        series |= {asks: "3x30", f'kube_pod_status_phase{{{node},phase="Failed"}}': "1x30"}
        series |= {f'kube_pod_status_phase{{{node},phase="Running"}}': "0x30"}
    samples = (('{node="n1"}', 0.25), ('{node="n2"}', 0.25))
    asked = {"requested": Expression(_query("CPU requested by node"), "20m", samples)}
    assert wrong(asked, series, tmp_path) == []


@pytest.mark.parametrize("title", ["CPU by node", "CPU requested by node"])
def test_of_a_hundred_nodes_ten_are_shown(title: str, tmp_path: Path) -> None:
    series: dict[str, str] = {}
    for number in range(100):
        node = f'node="n{number}"'
        pod = f'{_PLACE}{number}",{node},uid="u{number}"'
        series |= {
            f'kube_node_status_allocatable{{{node},resource="cpu"}}': "4x30",
            f'container_cpu_usage_seconds_total{{{_PLACE}{number}",container="c"}}': "0+60x30",
            f"kube_pod_info{{{pod}}}": "1x30",
            f'kube_pod_container_resource_requests{{{pod},container="c",resource="cpu"}}': "1x30",
            f'kube_pod_status_phase{{{pod},phase="Running"}}': "1x30",
        }
    asked = {"ten": Expression(f"count({_query(title)})", "20m", (("{}", 10),))}
    assert wrong(asked, series, tmp_path) == []


def test_a_broker_of_ones_own_is_shown_and_the_release_s_own_before_it(tmp_path: Path) -> None:
    expr = _query("Queue depth")
    external, bundled = {f"{_READY}{{{_EXTERNAL}}}": "7x30"}, {f"{_READY}{{{_BUNDLED}}}": "3x30"}
    own = '{namespace="messaging",queue="feedback"}'
    assert wrong({"own": Expression(expr, "5m", ((own, 7),))}, external, tmp_path) == []
    of = '{namespace="selfheal",statefulset="selfheal-rabbitmq"}'
    stateful = f"kube_statefulset_status_replicas_ready{of}"
    # While its own is down, another one's queues would be taken for its.
    assert wrong({"down": Expression(expr, "5m")}, {**external, stateful: "0x30"}, tmp_path) == []
    both = Expression(expr, "5m", (('{namespace="selfheal",queue="feedback"}', 3),))
    assert wrong({"both": both}, {**external, **bundled}, tmp_path) == []


@pytest.mark.parametrize(
    ("generation", "replicas", "at", "marked"),
    [
        ("1x5 2x20", "1x5 3x20", "6m", False),  # scaled out
        ("1x5 2 3x20", "1x5 0 3x20", "7m", False),  # scaled twice
        ("1x5 2x20", "3x25", "6m", True),  # rolled out
        ("1x5 2 3x20", "1x5 3x21", "7m", True),  # scaled, then rolled out
        ("4x30", "3x30", "7m", False),
    ],
)
def test_what_is_rolled_out_is_marked_and_scaling_is_not(
    generation: str, replicas: str, at: str, marked: bool, tmp_path: Path
) -> None:
    [mark] = [
        m for m in json.loads(BOARDS[0].text())["annotations"]["list"] if m["name"] == "Deployments"
    ]
    series = {
        f"kube_deployment_metadata_generation{_DEPLOYMENT}": generation,
        f"kube_deployment_spec_replicas{_DEPLOYMENT}": replicas,
    }
    samples = (("{}", 1.0),) if marked else ()
    asked = {"mark": Expression(f"count({filled(mark['expr'])})", at, samples)}
    assert wrong(asked, series, tmp_path) == []
