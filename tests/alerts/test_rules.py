"""Each alert fires, stays quiet and recovers, as promtool sees the rules that the chart renders."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from alerts.rules import ALERTS
from tests.alerts.cases import CASES, FIRE_ON_NOTHING
from tests.alerts.promtool import Fired, Question, check_rules, firing

#: What a template says that could not be filled in.
BROKEN = re.compile(r"<no value>|<error|%!|%[a-zA-Z]+%|\{\{")
every_alert = pytest.mark.parametrize("name", [alert.name for alert in ALERTS])


@pytest.fixture(scope="module")
def fired(rules: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Fired]]:
    """What fires, by `alert.question`."""
    questions = {}
    for name, case in CASES.items():
        questions[f"{name}.fires"] = Question(name, case.fires, case.at)
        questions[f"{name}.over"] = Question(name, case.fires, case.over)
        questions[f"{name}.quiet"] = Question(name, case.quiet, case.at)
        questions[f"{name}.nothing"] = Question(name, {}, case.at)
    return firing(rules, questions, tmp_path_factory.mktemp("promtool"))


def test_every_alert_has_a_case() -> None:
    assert set(CASES) == {alert.name for alert in ALERTS}


def test_promtool_accepts_the_rules(rules: Path) -> None:
    assert check_rules(rules) == ""


@every_alert
def test_fires(fired: dict[str, list[Fired]], name: str) -> None:
    case = CASES[name]
    [one] = fired[f"{name}.fires"]
    assert dict(case.labels).items() <= dict(one.labels).items()
    assert {"severity", "team", "release", "namespace"} <= one.labels.keys()
    for key, text in one.annotations.items():
        assert not BROKEN.search(text), f"{key}: {text}"
    assert case.says in one.annotations["summary"] + one.annotations["description"]
    for key in ("summary", "description"):
        assert re.search(r"\d", one.annotations[key]), key


@every_alert
def test_recovers(fired: dict[str, list[Fired]], name: str) -> None:
    assert fired[f"{name}.over"] == []


@every_alert
def test_stays_quiet(fired: dict[str, list[Fired]], name: str) -> None:
    assert fired[f"{name}.quiet"] == []


@every_alert
def test_stays_quiet_without_series(fired: dict[str, list[Fired]], name: str) -> None:
    assert bool(fired[f"{name}.nothing"]) == (name in FIRE_ON_NOTHING)
