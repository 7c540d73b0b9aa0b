"""Each alert fires, stays quiet and recovers, as promtool sees the rules that the chart renders."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from alerts.rules import ALERTS, Alert
from tests.alerts.cases import CASES, FIRE_ON_NOTHING, OUTAGE, at_maximum
from tests.alerts.promtool import Fired, Question, check_rules, firing, rule_groups
from tests.chart.rendering import Helm, Manifest, by_kind

#: What a template says that could not be filled in.
BROKEN = re.compile(r"<no value>|<error|%!|%[a-zA-Z]+%|\{\{")
every_case = pytest.mark.parametrize("name", CASES)


@pytest.fixture(scope="module")
def fired(rules: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Fired]]:
    """What fires, by `case.question`."""
    questions = {}
    for name, case in CASES.items():
        questions[f"{name}.fires"] = Question(case.alert, case.fires, case.at)
        questions[f"{name}.over"] = Question(case.alert, case.fires, case.over)
        questions[f"{name}.quiet"] = Question(case.alert, case.quiet, case.at)
        if name == case.alert:
            questions[f"{name}.nothing"] = Question(name, {}, case.at)
    return firing(rules, questions, tmp_path_factory.mktemp("promtool"))


def test_every_alert_has_a_case() -> None:
    assert {alert.name for alert in ALERTS} <= set(CASES)
    assert {case.alert for case in CASES.values()} == {alert.name for alert in ALERTS}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_no_value_is_printed_as_a_float(alert: Alert) -> None:
    """`{{ $value }}` of 1200000 is 1.2e+06."""
    for text in (alert.summary, alert.description):
        for said in re.findall(r"\{\{[^}]*\$value[^}]*\}\}", text):
            assert re.search(r"\| humanize(Percentage|Duration|1024)? \}\}", said), said


def test_promtool_accepts_the_rules(rules: Path) -> None:
    assert check_rules(rules) == ""


@every_case
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


@every_case
def test_recovers(fired: dict[str, list[Fired]], name: str) -> None:
    assert fired[f"{name}.over"] == []


@every_case
def test_stays_quiet(fired: dict[str, list[Fired]], name: str) -> None:
    assert fired[f"{name}.quiet"] == []


@pytest.mark.parametrize("name", [alert.name for alert in ALERTS])
def test_stays_quiet_without_series(fired: dict[str, list[Fired]], name: str) -> None:
    assert bool(fired[f"{name}.nothing"]) == (name in FIRE_ON_NOTHING)


def test_of_an_objective_that_promises_little_an_outage_is_reported(
    helm: Helm, tmp_path: Path
) -> None:
    """14.4 times the budget would be 288 % and 720 % of the messages."""
    objectives = {"objectives": {"queueWait": 0.8, "success": 0.5}, "enabled": True}
    manifest = by_kind(helm.template(values={"alerts": objectives}), "PrometheusRule")["selfheal"]
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump(rule_groups(manifest)), encoding="utf-8")
    questions = {
        alert: Question(alert, OUTAGE, "15m")
        for alert in ("SelfhealResultsBurnFast", "SelfhealQueueWaitBurnFast")
    }
    fired = firing(rules, questions, tmp_path)
    assert {alert: len(found) for alert, found in fired.items()} == dict.fromkeys(questions, 1)


def _ask(manifest: Manifest, questions: dict[str, Question], folder: Path) -> dict[str, int]:
    """How many alerts fire, by the questions' names."""
    rules = folder / "rules.yaml"
    rules.write_text(yaml.safe_dump(rule_groups(manifest)), encoding="utf-8")
    return {name: len(found) for name, found in firing(rules, questions, folder).items()}


def test_with_the_production_values_a_broker_of_ones_own_is_watched(
    helm: Helm, tmp_path: Path
) -> None:
    """With no worker to tell that it is down."""
    [manifest] = by_kind(helm.case("production"), "PrometheusRule").values()
    up = 'up{job="messaging/rabbitmq",pod="rabbit-server-0"}'
    other = {'up{job="messaging/publisher"}': "1x30"}
    down = Question("SelfhealBrokerDown", {up: "1x5 0x30", **other}, "20m")
    well = Question("SelfhealBrokerDown", {up: "1x35", **other}, "20m")
    missing = {
        name: Question(f"Selfheal{name}MetricsMissing", {}, "50m") for name in ("Broker", "Scaler")
    }
    found = _ask(manifest, {"down": down, "well": well, **missing}, tmp_path)
    assert found == {"down": 1, "well": 0, "Broker": 1, "Scaler": 1}


def test_in_mode_hpa_the_maximum_is_that_of_the_horizontal_pod_autoscaler(
    helm: Helm, tmp_path: Path
) -> None:
    sets = ("alerts.enabled=true", "autoscaling.mode=hpa", "autoscaling.minReplicas=1")
    manifest = by_kind(helm.template(*sets), "PrometheusRule")["selfheal"]
    questions = {
        name: Question("SelfhealWorkersAtMaximum", at_maximum(name, desired), "40m")
        for name, desired in (("selfheal-worker", 5), ("keda-hpa-selfheal-worker", 5))
    }
    questions["below"] = Question(
        "SelfhealWorkersAtMaximum", at_maximum("selfheal-worker", 4), "40m"
    )
    found = _ask(manifest, questions, tmp_path)
    assert found == {"selfheal-worker": 1, "keda-hpa-selfheal-worker": 0, "below": 0}


@pytest.mark.parametrize(("startup", "minutes"), [(60, 20), (1200, 20), (3600, 60), (3601, 61)])
def test_a_model_that_may_load_for_long_wakes_nobody_while_it_loads(
    helm: Helm, startup: int, minutes: int
) -> None:
    sets = ("alerts.enabled=true", "ollama.enabled=true", "ollama.models={a}")
    model = ("model.provider=ollama", "model.name=a", f"ollama.startupSeconds={startup}")
    manifest = by_kind(helm.template(*sets, *model), "PrometheusRule")["selfheal"]
    rules = {
        one.get("alert"): one for group in manifest["spec"]["groups"] for one in group["rules"]
    }
    assert rules["SelfhealModelServerNotReady"]["for"] == f"{minutes}m"
    assert f"for {minutes}m" in rules["SelfhealModelServerNotReady"]["annotations"]["description"]
    assert rules["SelfhealPolicyPodsDown"]["for"] == f"{minutes + 5}m"
    loaded = max(1200, startup) - 300
    assert f"time() - {loaded})" in rules["SelfhealModelBreakerOpen"]["expr"]
