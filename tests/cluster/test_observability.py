"""Dashboards and alerts against a real Prometheus that has scraped the demo's real parts.

Every query of a panel, an annotation and a variable, and every selector of a rule, has data, or is
named in `expected_empty` with the reason.
"""

import json
import sys
import time

import pytest

from alerts.records import RECORDS
from alerts.rules import ALERTS
from ci.demo.expected_empty import PANELS, SELECTORS, SOMETIMES
from ci.pictures.queries import Span, filled, offered
from dashboards.boards import BOARDS

pytestmark = pytest.mark.cluster

_STEP = 5.0  # the local Prometheus scrapes that often
_VARIABLES = {
    "__rate_interval": "20s",
    "namespace": "selfheal",
    "release": "selfheal",
    "cluster": ".*",
    "broker": ".*",
    "queue": ".*",
}


@pytest.fixture(scope="module")
def prometheus(demo):
    """The one that has watched the demo."""
    return demo.cluster.prometheus


@pytest.fixture(scope="module")
def ask(demo, prometheus):
    """The series of an expression over the whole demo."""
    start = demo.report["begun"]
    end = start + demo.report["seconds"]

    def over_the_demo(expr):
        return prometheus.range(filled(expr, _VARIABLES), start, end, _STEP)

    return over_the_demo


@pytest.fixture(scope="module")
def rules(prometheus):
    """The rules as Prometheus evaluates them."""
    return [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]


def _panel_queries():
    return [
        (f"{board.uid} / {panel.title} / {query.legend or number}", query.expr)
        for board in BOARDS
        for row in board.rows
        for panel in row.panels
        for number, query in enumerate(panel.queries)
    ]


def _judged(found, reasons):
    """What is empty without a reason, and which reasons are not true."""
    empty = {name for name, series in found.items() if not series}
    unexplained = empty - reasons.keys() - SOMETIMES.keys()
    stale = (reasons.keys() - SOMETIMES.keys()) - empty
    return sorted(unexplained), sorted(stale)


def _say(capsys, text):
    with capsys.disabled():
        sys.stdout.write(f"\n{text}\n")


def test_every_query_of_a_panel_has_data_or_a_reason(ask, capsys):
    queries = dict(_panel_queries())
    assert len(queries) == len(_panel_queries()), "two queries of one name"
    found = {name: ask(expr) for name, expr in queries.items()}
    with_data = sum(map(bool, found.values()))
    _say(capsys, f"queries of panels with data: {with_data} of {len(found)}")
    assert _judged(found, PANELS) == ([], [])


def test_annotations_mark_deployments_and_actions(ask):
    for board in BOARDS:
        marks = json.loads(board.text())["annotations"]["list"]
        assert [mark["name"] for mark in marks] == ["Deployments", "Remediation"]
        deployments, actions = (mark["expr"] for mark in marks)
        assert ask(actions)
        # Nothing is rolled out in the demo, and that KEDA scales is not marked.
        for metric in ("metadata_generation", "spec_replicas"):
            assert f"kube_deployment_{metric}" in deployments
            assert ask(f'changes(kube_deployment_{metric}{{namespace="selfheal"}}[2m]) > 0')


def test_variables_offer_the_release(demo, prometheus):
    wanted = {"namespace": "selfheal", "release": "selfheal"}
    wanted |= {"broker": "selfheal", "queue": "feedback"}
    variables = json.loads(BOARDS[0].text())["templating"]["list"]
    # This Prometheus watches one cluster, its series have no label for it.
    assert {one["name"] for one in variables} == {"datasource", "cluster", *wanted}
    span = Span(demo.report["begun"], time.time(), _STEP)
    for variable in variables:
        if expected := wanted.get(variable["name"]):
            # Other releases may have been there since.
            values = offered(prometheus, variable, _VARIABLES | span.windows, span)
            assert expected in values, variable["name"]


def test_every_rule_is_evaluated_and_every_series_that_it_asks_for_is_there(
    ask, rules, prometheus, capsys
):
    names = {rule["name"] for rule in rules}
    # The demo's release has no Ollama and no rule with steps after a drain, and restores nothing.
    absent = {"ollama", "ladder", "restore"}
    assert {alert.name for alert in ALERTS if absent.isdisjoint(alert.needs)} <= names
    assert {record.name for record in RECORDS} <= names
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    selectors = {
        _short(matchers): _text(matchers)
        for rule in rules
        for matchers in _selectors(prometheus.api("parse_query", query=rule["query"]))
    }
    found = {name: ask(selector) for name, selector in sorted(selectors.items())}
    with_data = sum(map(bool, found.values()))
    _say(
        capsys,
        f"rules evaluated: {len(rules)}; their selectors with data: {with_data} of {len(found)}",
    )
    assert _judged(found, SELECTORS) == ([], [])


def _selectors(node):
    """The matchers of each vector selector in an expression's tree."""
    if isinstance(node, list):
        for one in node:
            yield from _selectors(one)
    elif isinstance(node, dict):
        if node.get("type") in ("vectorSelector", "matrixSelector") and "matchers" in node:
            yield node["matchers"]
        for one in node.values():
            yield from _selectors(one)


def _text(matchers):
    texts = [f"{one['name']}{one['type']}{json.dumps(one['value'])}" for one in matchers]
    return "{" + ",".join(sorted(texts)) + "}"


def _short(matchers):
    """For people: without the place, but for KEDA, whose label `namespace` has two names."""
    [name] = [one["value"] for one in matchers if one["name"] == "__name__"]
    place = {"__name__", "pod"} | (set() if name.startswith("keda_") else {"namespace"})
    return name + _text([one for one in matchers if one["name"] not in place])


def test_nothing_fires_after_a_demo_that_succeeded(ask):
    fired = {series["metric"]["alertname"] for series in ask('ALERTS{alertstate="firing"}')}
    assert fired == set()


#: Seconds: a worker's start, its freezing, and a cooldown.
SOON = 120


@pytest.mark.parametrize(
    "job", ["selfheal", "selfheal-queues", "keda", "kube-state-metrics", "cadvisor"]
)
def test_every_job_of_the_example_finds_its_targets(ask, job):
    series = ask(f'up{{job="{job}"}}')
    assert series
    answered: dict[str, bool] = {}
    for one in series:
        up = "1" in {value for _, value in one["values"]}
        container = one["metric"].get("container", "")
        answered[container] = answered.get(container, False) or up
        # One that was frozen or taken away soon after it came may have missed all its scrapes.
        if float(one["values"][-1][0]) - float(one["values"][0][0]) > SOON:
            assert up, one["metric"]
    assert all(answered.values()), answered


@pytest.mark.parametrize(("container", "most"), [("worker", 200), ("remediator", 300)])
def test_a_process_has_few_series(ask, container, most, capsys):
    seen = ask(f'max(scrape_samples_scraped{{container="{container}"}})')
    highest = max(float(value) for one in seen for _, value in one["values"])
    _say(capsys, f"series of a {container}: {highest:.0f} (at most {most})")
    assert 0 < highest <= most


def test_the_demo_says_what_prometheus_saw_and_where_it_is(demo, prometheus):
    assert f"Prometheus stays at {prometheus.url}" in demo.out
    empty = [text for text, value in demo.report["prometheus"].items() if value is None]
    assert empty == []
