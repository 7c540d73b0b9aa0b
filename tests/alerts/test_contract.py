"""Code, page, dashboards and alerts name the same metrics."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from alerts.__main__ import generated
from alerts.contract import ADDED_LABELS, FOREIGN, LABELS, families, known
from alerts.records import RECORDS, UNANSWERABLE
from alerts.rules import ALERTS
from ci.generated import ROOT as REPOSITORY
from dashboards.boards import BOARDS
from selfheal_worker.metrics import DEAD_LETTER_REASONS
from tests.alerts.promtool import check_rules

_GROUPING = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR = re.compile(r"(?<![\w:$.])([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?(?!\s*\()(?![\w:(])")
#: Labels of targets by which the process itself is meant, and those of expressions.
_OF_PROCESSES = {"namespace", "cluster", "pod", "instance", "le", "of"}
_WORDS = {"and", "or", "unless", "bool", "by", "on", "without", "ignoring", "offset"}


def selectors(expr: str) -> Iterator[tuple[str, set[str]]]:
    """(metric, labels it is selected by) of an expression."""
    bare = _GROUPING.sub("", re.sub(r"\[[^\]]*\]", "", _STRING.sub('""', expr)))
    for match in _SELECTOR.finditer(bare):
        if match[1] not in _WORDS:
            yield match[1], set(re.findall(r"(\w+)\s*[=!]", match[2] or ""))


def test_selectors_are_found() -> None:
    expr = (
        'sum by (a) (rate(x_total{p="{",q!~"b(c)"}[5m])) / on (z) y > bool 0 and time() - w{v=""}'
    )
    assert list(selectors(expr)) == [("x_total", {"p", "q"}), ("y", set()), ("w", {"v"})]


@pytest.mark.parametrize("path", generated(), ids=str)
def test_generated_files_are_fresh(path: Path) -> None:
    assert (REPOSITORY / path).read_text(encoding="utf-8") == generated()[path], (
        "run `python -m alerts write`"
    )


def test_every_label_says_its_values() -> None:
    names = {(family.name, label) for family in families() for label in family.labels}
    assert names == set(LABELS)


def test_no_label_of_ours_is_one_that_targets_or_alerts_have() -> None:
    """Prometheus would rename it, and what reads it would name something else, silently."""
    for added, labels in ADDED_LABELS.items():
        for family in families():
            assert not set(family.labels) & set(labels), f"{family.name}: {added}"


def _queries() -> Iterator[tuple[str, str, str]]:
    """Each alert and each query of a panel: title, expression, and the texts with its labels."""
    for alert in ALERTS:
        yield alert.name, alert.expr, alert.summary + alert.description
    for panel in (panel for board in BOARDS for row in board.rows for panel in row.panels):
        for query in panel.queries:
            yield panel.title, query.expr, query.legend


def test_what_is_shown_of_our_metrics_is_about_their_objects_or_their_process() -> None:
    """`by (node)` would be the node on which the remediator runs."""
    ours = {series: set(family.labels) for family in families() for series in family.series}
    theirs = {name: set(labels) for foreign in FOREIGN for name, labels in foreign.metrics.items()}
    seen = set()
    for title, expr, text in _queries():
        metrics = {metric for metric, _ in selectors(expr)}
        seen |= metrics & ours.keys()
        if not metrics & ours.keys():
            continue
        groups = re.split(r"[,\s]+", ",".join(_GROUPING.findall(expr)))
        shown = {*groups, *re.findall(r"\{\{ ?(?:\$labels\.)?(\w+) ?\}\}", text)} - {""}
        meant = set().union(_OF_PROCESSES, *((ours | theirs).get(metric, ()) for metric in metrics))
        assert shown <= meant, f"{title}: {shown - meant}"
    assert "selfheal_remediator_cordoned_node_info" in seen


def test_what_the_objective_leaves_out_is_what_the_worker_finds_in_the_message_itself() -> None:
    """Before any model is asked; the size of the body is checked where messages are taken."""
    text = (REPOSITORY / "worker/selfheal_worker/message.py").read_text(encoding="utf-8")
    found = {reason for reason in DEAD_LETTER_REASONS if f'"{reason}"' in text}
    assert found == set(UNANSWERABLE)


def test_the_states_of_nodes_are_those_of_the_code() -> None:
    package = REPOSITORY / "remediator/selfheal_remediator/node"
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in package.glob("*.py")]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    said = {
        constant.value
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "Assessment" and call.args
        for constant in ast.walk(call.args[0])
        if isinstance(constant, ast.Constant)
    }
    assert said
    assert said <= set(LABELS["selfheal_remediator_nodes", "state"])


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_dashboards_name_only_what_is_exported(board: object) -> None:
    exported = known()
    marks = json.loads(board.text())["annotations"]["list"]  # type: ignore[attr-defined]
    of_marks = [(mark["name"], mark["expr"]) for mark in marks]
    for title, expr in board.queries() + of_marks:  # type: ignore[attr-defined]
        found = list(selectors(expr))
        assert found, f"{title}: {expr}"
        for metric, labels in found:
            assert metric in exported, f"{title}: nothing exports {metric}"
            assert labels <= exported[metric], f"{title}: {metric} has no {labels}"


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_variables_ask_only_for_what_is_exported(board: object) -> None:
    variables = json.loads(board.text())["templating"]["list"]  # type: ignore[attr-defined]
    asked = [one["query"]["query"] for one in variables if one["type"] == "query"]
    for query in asked:
        [names] = re.findall(r'__name__=~"([^"]*)"', query)
        assert set(names.split("|")) <= known().keys(), query
    assert asked


def test_alerts_name_only_what_is_exported(rules: Path) -> None:
    exported = known()
    own = {record.name: frozenset({"namespace", "release"}) for record in RECORDS}
    groups = yaml.safe_load(rules.read_text(encoding="utf-8"))["groups"]
    names = [rule.get("alert", rule.get("record")) for group in groups for rule in group["rules"]]
    assert len(names) == len(ALERTS) + len(RECORDS)
    for rule in (rule for group in groups for rule in group["rules"]):
        for metric, labels in selectors(rule["expr"]):
            allowed = {**exported, **own}.get(metric)
            assert allowed is not None, f"{rule}: nothing exports {metric}"
            # The broker's matchers are for RabbitMQ's own labels too.
            assert labels <= allowed, f"{rule}: {metric} has no {labels - allowed}"


def test_every_query_of_a_dashboard_can_be_read(tmp_path: Path) -> None:
    """As a recording rule, with Grafana's variables put in."""
    rules = []
    for number, (_, expr) in enumerate(q for board in BOARDS for q in board.queries()):
        text = expr.replace("$__rate_interval", "1m").replace("$release", "selfheal")
        rules.append({"record": f"query:{number}", "expr": re.sub(r"\$\w+", "x", text)})
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    assert check_rules(path) == ""


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_panels_say_what_they_are(board: object) -> None:
    for row in board.rows:  # type: ignore[attr-defined]
        for panel in row.panels:
            assert panel.description.endswith("."), panel.title
            assert panel.unit, panel.title
            assert panel.empty, panel.title
            assert panel.queries, panel.title


def test_alerts_point_at_panels_and_runbooks() -> None:
    panels = {board.uid: board.panel_ids() for board in BOARDS}
    for alert in ALERTS:
        assert alert.panel in panels[alert.dashboard], alert.name
        assert (REPOSITORY / f"alerts/runbooks/{alert.name}.md").is_file(), alert.name
