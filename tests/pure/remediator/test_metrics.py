"""How many series a remediator has, and which nodes they name."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

from alerts.contract import LABELS, families
from selfheal_remediator.metrics import NAMED, Metrics, named, publish

_BUDGET = 330
_CHART = Path(__file__).parents[3] / "chart" / "values.yaml"
_RULES = yaml.safe_load(_CHART.read_text(encoding="utf-8"))["remediator"]["config"]["rules"]
#: Of labels whose values are the cluster's: the default rules that cordon, a bad day's answers.
_OPEN = {
    "condition": tuple(r["condition"] for r in _RULES if r["action"] != "observe"),
    "policy": ("selfheal/selfheal-worker",),
    "code": ("0", "200", "201", "404", "409", "429", "500"),
}
_SEEN_CODES = {("GET", "200"), ("GET", "500"), ("PATCH", "200"), ("PATCH", "409"), ("PATCH", "500")}
_SEEN_CODES |= {("POST", "201"), ("POST", "404"), ("POST", "429"), ("POST", "500"), ("WATCH", "0")}
_SEEN_CODES |= {("WATCH", "200"), ("GET", "0"), ("PATCH", "0"), ("POST", "0"), ("WATCH", "500")}


def _values(metric: str, label: str) -> tuple[str, ...]:
    known = LABELS[metric, label]
    return _OPEN[label] if isinstance(known, str) else known


def _samples(metrics: Metrics) -> int:
    text = metrics.render().decode()
    return len([line for line in text.splitlines() if not line.startswith("#")])


def _collectors(metrics: Metrics) -> dict[str, Counter | Gauge | Histogram]:
    """All metrics by their names, also those that have no series yet."""
    return {
        next(iter(collector.describe())).name: collector
        for subject in vars(metrics).values()
        for collector in vars(subject).values()
        if isinstance(collector, Counter | Gauge | Histogram)
    }


def test_a_thousand_nodes_and_everything_that_can_happen_at_once_are_330_series() -> None:
    metrics = Metrics()
    metrics.api.watch_age("nodes", lambda: 0.0)
    cordoned: dict[tuple[str, ...], float]
    cordoned = {(f"node-{n}", "KernelDeadlock", "draining"): float(n) for n in range(1000)}
    publish(metrics.nodes.cordoned_info, named(cordoned))
    labels_of = {family.name: family.labels for family in families()}
    made = _collectors(metrics)
    process = {family.name for family in ProcessCollector(registry=None).collect()}
    every = {family.name for family in metrics.registry.collect()}
    assert every - process - made.keys() == {"selfheal_remediator_nodes_watch_age_seconds"}
    for name, collector in made.items():
        labels, values = labels_of[name], set[tuple[str, ...]]()
        if "cordoned_node" in labels:
            continue  # made above
        if labels == ("verb", "code"):
            values |= _SEEN_CODES
        else:
            values = set(product(*(_values(name, label) for label in labels)))
        for one in values if labels else ():
            collector.labels(**dict(zip(labels, one, strict=True)))
    assert _samples(metrics) <= _BUDGET
    assert _samples(metrics) > NAMED * 2  # nothing was left out by mistake


def test_counters_are_there_before_the_first_event_or_its_increase_is_never_seen() -> None:
    metrics = Metrics()
    metrics.nodes.may_cordon(["KernelDeadlock"])
    metrics.healing.set_policies(["shop/web"], complete=True)
    said = metrics.render().decode()
    for series in (
        'actions_total{action="cordon",result="failed"}',
        'drain_duration_seconds_count{result="no-room"}',
        'evictions_total{outcome="pdb"}',
        'events_total{result="dropped"}',
        'healing_refused_total{cause="pdb"}',
        'healing_restarts_total{cause="no-progress",policy="shop/web"}',
        'condition_to_cordon_seconds_count{condition="KernelDeadlock"}',
    ):
        assert f"selfheal_remediator_{series} 0.0" in said


def test_of_many_cordoned_nodes_those_cordoned_longest_are_named() -> None:
    cordoned: dict[tuple[str, ...], float]
    cordoned = {(f"n{n:04}", "C", "drained"): float(-n) for n in range(NAMED + 10)}
    found = named(cordoned)
    assert len(found) == NAMED
    assert ("n0009", "C", "drained") not in found
    assert found[(f"n{NAMED + 9:04}", "C", "drained")] == 1


@pytest.mark.parametrize("count", [0, 1, NAMED])
def test_few_cordoned_nodes_are_all_named(count: int) -> None:
    cordoned: dict[tuple[str, ...], float]
    cordoned = {(f"n{n}", "C", "drained"): 5.0 for n in range(count)}
    assert named(cordoned).keys() == cordoned.keys()
