"""Lint of the dashboards: what Grafana's own linter asks, and what makes a panel say nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from alerts.contract import families, known
from dashboards.boards import BOARDS
from dashboards.panels import Board, Panel, Query
from dashboards.remediation import PHASES, POLICY_STATES
from selfheal_remediator.healing.policy import State
from selfheal_remediator.node.annotation import Phase

every_board = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
#: Metrics that end like a counter's series and are gauges.
_GAUGES = {family.name for family in families() if family.kind == "gauge"}
_UNITS = {"short", "s", "cps", "reqps", "percentunit", "bytes"}
#: Of Grafana 11.0; an older one would be migrated when it is loaded.
_SCHEMA = 39


def _queries(board: Board) -> Iterator[tuple[Panel, Query]]:
    for row in board.rows:
        for panel in row.panels:
            for query in panel.queries:
                yield panel, query


def _model(board: Board) -> dict[str, Any]:
    return dict(json.loads(board.text()))


@every_board
def test_counters_are_never_shown_as_they_are(board: Board) -> None:
    for panel, query in _queries(board):
        for match in re.finditer(r"\b(\w+_(?:total|bucket|count|sum))\{", query.expr):
            if match[1] not in _GAUGES:
                before = query.expr[: match.start()]
                # The last value is the growth of a process that began within the window.
                forms = ("rate(", "increase(", "last_over_time(")
                assert before.endswith(forms), f"{panel.title}: {match[1]}"


@every_board
def test_windows_follow_the_scrape_interval_or_say_their_length_in_the_description(
    board: Board,
) -> None:
    words = {"1m": "minute", "5m": "5 minutes", "30m": "30 minutes", "1h": "hour"}
    for panel, query in _queries(board):
        for window in re.findall(r"\[(\d+[smhd]|\$\w+)\]", query.expr):
            said = f"{panel.description} {panel.title} {query.legend}"
            fits = window == "$__rate_interval" or words.get(window, window) in said
            assert fits or window in said, f"{panel.title}: {window}"


@every_board
def test_a_legend_names_only_labels_that_are_left(board: Board) -> None:
    for panel, query in _queries(board):
        wanted = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
        left = {
            label.strip()
            for group in re.findall(r"\bby \(([^)]*)\)", query.expr)
            for label in group.split(",")
        }
        assert wanted <= left, f"{panel.title}: {query.legend}"


@every_board
def test_quantiles_keep_the_bounds_of_the_buckets(board: Board) -> None:
    for panel, query in _queries(board):
        if "histogram_quantile" in query.expr:
            assert re.search(r"sum by \((?:[^)]*, )?le[,)]", query.expr), panel.title


@every_board
def test_panels_of_several_queries_distinguish_them(board: Board) -> None:
    for row in board.rows:
        for panel in row.panels:
            legends = [query.legend for query in panel.queries]
            assert len(set(legends)) == len(legends), panel.title
            assert len(legends) == 1 or all(legends), panel.title


@every_board
def test_selectors_follow_the_variables(board: Board) -> None:
    for panel, query in _queries(board):
        for match in re.finditer(r"(\w+)\{([^}]*)\}", query.expr):
            if match[1] in known():
                assert 'cluster=~"$cluster"' in match[2], f"{panel.title}: {match[1]}"
            if match[1].startswith("keda_"):
                assert 'namespace="$namespace"' in match[2], f"{panel.title}: {match[1]}"


@every_board
def test_units_and_thresholds_make_sense(board: Board) -> None:
    for row in board.rows:
        for panel in row.panels:
            assert panel.unit in _UNITS, f"{panel.title}: {panel.unit}"
            values = [value for value, _ in panel.steps]
            assert values[0] is None, panel.title
            steps = [value for value in values[1:] if value is not None]
            assert values[1:] == sorted(steps), panel.title


@every_board
def test_the_schema_is_of_grafana_11_and_nobody_edits_what_the_code_builds(board: Board) -> None:
    model = _model(board)
    assert model["schemaVersion"] == _SCHEMA
    assert model["editable"] is False
    assert len(model["uid"]) <= 40
    assert model["tags"] == ["selfheal"]
    assert model["timezone"] == "browser"


@every_board
def test_panels_lie_beside_each_other(board: Board) -> None:
    taken: set[tuple[int, int]] = set()
    ids = set()
    for panel in _model(board)["panels"]:
        assert panel["id"] not in ids
        ids.add(panel["id"])
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


@every_board
def test_links_lead_to_the_other_boards_and_keep_what_was_chosen(board: Board) -> None:
    uids = {other.uid for other in BOARDS}
    links = _model(board)["links"]
    assert {f"/d/{uid}" for uid in uids - {board.uid}} == {link["url"] for link in links}
    assert all(link["includeVars"] and link["keepTime"] for link in links)


@every_board
def test_each_variable_depends_only_on_those_before_it(board: Board) -> None:
    before: set[str] = set()
    for variable in _model(board)["templating"]["list"]:
        query = variable["query"]
        used = set(re.findall(r"\$(\w+)", query if isinstance(query, str) else query["query"]))
        assert used <= before | {"__range"}, variable["name"]
        before.add(variable["name"])


@pytest.mark.parametrize(
    ("series", "release"),
    [
        ('selfheal_worker_ready{namespace="a",pod="b-c-worker-7d9f5-x1abc"} 1 5', "b-c"),
        ('selfheal_worker_ready{pod="my-worker-worker-7d9f5-x1abc",z="y"} 1 5', "my-worker"),
        ('selfheal_remediator_leader{pod="b-remediator-7d9f5-x1abc"} 0 5', "b"),
        # Of workers at zero replicas, as kube-state-metrics' own pod tells it.
        (
            "kube_horizontalpodautoscaler_spec_max_replicas"
            '{pod="state-metrics-7d9f5-x1abc",horizontalpodautoscaler="keda-hpa-b-worker"} 5 5',
            "b",
        ),
    ],
)
def test_a_release_is_found_by_its_pods_and_without_any_by_its_autoscaler(
    series: str, release: str
) -> None:
    for variable in (v for board in BOARDS for v in _model(board)["templating"]["list"]):
        if variable["name"] == "release":
            # What Grafana makes of a series of query_result, and how it reads a regex.
            match = re.search(variable["regex"].strip("/"), series)
            assert match
            assert match[1] == release
        elif variable["name"] in ("cluster", "namespace"):
            [names] = re.findall(r'__name__=~"([^"]*)"', variable["query"]["query"])
            assert series.split("{")[0] in names.split("|")


@every_board
def test_several_lines_have_a_legend_and_no_area_hides_another(board: Board) -> None:
    panels = {panel.title: panel for row in board.rows for panel in row.panels}
    for model in _model(board)["panels"]:
        if model["type"] == "timeseries":
            panel = panels[model["title"]]
            many = len(panel.queries) > 1 or "{{" in panel.queries[0].legend
            assert model["options"]["legend"]["showLegend"] is many, panel.title
            filled = model["fieldConfig"]["defaults"]["custom"]["fillOpacity"] > 0
            assert filled is (panel.stack or not many), panel.title


@every_board
def test_a_timeline_has_the_colours_and_words_of_its_values(board: Board) -> None:
    panels = {panel.title: panel for row in board.rows for panel in row.panels}
    for model in _model(board)["panels"]:
        if model["type"] == "state-timeline":
            # Grafana's default for this panel is a scale from green to red, whatever the steps are.
            assert model["fieldConfig"]["defaults"]["color"] == {"mode": "thresholds"}
            panel = panels[model["title"]]
            values = {str(value) for value, _ in panel.steps if value is not None}
            assert values <= panel.mappings.keys(), panel.title


def test_timelines_of_states_know_each_state() -> None:
    assert set(PHASES) == {phase.value for phase in Phase if phase.cordoned}
    assert set(POLICY_STATES) == {state.value for state in State}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("my-worker-worker-7d9f5c6b8-x2m4d", "worker-x2m4d"),
        ("selfheal-worker-7d9f5c6b8-x2m4d worker", "worker-x2m4d worker"),
        ("selfheal-remediator-5f7c9d8b6-tq7zn leads", "remediator-tq7zn leads"),
        ("selfheal-rabbitmq-0", "rabbitmq-0"),
        ("worker requested", "worker requested"),
        ("maximum per worker", "maximum per worker"),
    ],
)
def test_legends_shorten_the_names_of_pods(name: str, shown: str) -> None:
    found = [
        panel["transformations"]
        for board in BOARDS
        for panel in _model(board)["panels"]
        if any(
            "{{pod}}" in target["legendFormat"]
            for target in panel.get("targets", ())
            if "legendFormat" in target
        )
    ]
    assert found
    for [transformation] in found:
        options = transformation["options"]
        pattern = options["renamePattern"].replace("$", "\\")
        assert re.sub(options["regex"].strip("/"), pattern, name) == shown
