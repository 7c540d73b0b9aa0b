"""What values change in the rules and dashboards that the chart renders."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from alerts.rules import ALERTS
from dashboards.boards import BOARDS
from tests.alerts.conftest import EVERYTHING
from tests.chart.rendering import CASES, Helm, by_kind

ON = "alerts.enabled=true"
_HPA = "autoscaling.mode=hpa autoscaling.minReplicas=1"


def _alerts(helm: Helm, *sets: str, values: dict[str, Any] | None = None) -> dict[str, Any]:
    manifest = by_kind(helm.template(*sets, values=values), "PrometheusRule")["selfheal"]
    rules = [rule for group in manifest["spec"]["groups"] for rule in group["rules"]]
    return {rule["alert"]: rule for rule in rules if "alert" in rule}


def test_every_alert_is_there_with_every_part(helm: Helm) -> None:
    assert set(_alerts(helm, values=EVERYTHING)) == {alert.name for alert in ALERTS}


def test_every_alert_leads_to_its_panel_and_its_runbook(helm: Helm) -> None:
    found = _alerts(helm, values=EVERYTHING)
    panels = {board.uid: board.panel_ids() for board in BOARDS}
    for alert in ALERTS:
        said = found[alert.name]["annotations"]
        number = panels[alert.dashboard][alert.panel]
        assert f"/d/{alert.dashboard}?viewPanel={number}&" in said["dashboard_url"], alert.name
        assert said["runbook_url"] == f"https://runbooks.example/{alert.name}.md", alert.name


@pytest.mark.parametrize(
    ("sets", "links"),
    [
        ((), set()),
        (("alerts.grafanaUrl=https://g.example",), {"dashboard_url"}),
        (("alerts.runbookUrl=https://r.example",), {"runbook_url"}),
    ],
)
def test_a_link_that_would_lead_nowhere_is_left_out(
    helm: Helm, sets: tuple[str, ...], links: set[str]
) -> None:
    for rule in _alerts(helm, ON, *sets).values():
        assert rule["annotations"].keys() == {"summary", "description"} | links
        assert all(rule["annotations"][link].startswith("https://") for link in links)


def test_without_any_scrape_nobody_is_woken(helm: Helm) -> None:
    """What is not known is reported as such, and not as what it might be."""
    silent = {"SelfhealRemediatorMetricsMissing", "SelfhealStateMetricsMissing"}
    for name, rule in _alerts(helm, values=EVERYTHING).items():
        blind = re.search(r"\babsent\(|\bvector\(0\)", rule["expr"])
        assert not blind or rule["labels"]["severity"] != "critical", name
        assert name not in silent or blind


def test_off_by_default(helm: Helm) -> None:
    assert not by_kind(helm.case("default"), "PrometheusRule")


def test_an_alert_can_be_switched_off_and_changed(helm: Helm) -> None:
    change = {
        "SelfhealNoConsumers": {"enabled": False},
        "SelfhealDeadLettersGrowing": {
            "threshold": 0,
            "for": "7m",
            "severity": "info",
            "labels": {"team": "other", "more": "x"},
            "annotations": {"summary": "over %threshold% in %queue%"},
        },
        "SelfhealHandlersHang": {"expr": "up{%worker%} > %threshold%"},
        "SelfhealNodeCordonedLong": {"for": "24h"},
    }
    found = _alerts(helm, values={"alerts": {"enabled": True, "rules": change}})
    assert "SelfhealNoConsumers" not in found
    changed = found["SelfhealDeadLettersGrowing"]
    assert changed["expr"].endswith("> 0")
    assert changed["for"] == "7m"
    held = found["SelfhealNodeCordonedLong"]["annotations"]
    assert "for 24h" in held["summary"]
    assert "at least 24h" in held["description"]
    assert changed["annotations"]["summary"] == "over 0 in feedback"
    assert changed["labels"] == {
        "severity": "info",
        "team": "other",
        "more": "x",
        "namespace": "selfheal",
        "release": "selfheal",
    }
    worker = 'namespace="selfheal",pod=~"selfheal-worker-[^-]+-[^-]+"'
    assert found["SelfhealHandlersHang"]["expr"] == f"up{{{worker}}} > 3"


def test_an_unknown_alert_is_refused_by_name(helm: Helm) -> None:
    said = helm.refusal(ON, "alerts.rules.SelfhealNoSuch.enabled=false")
    assert "SelfhealNoSuch" in said
    assert "SelfhealNoConsumers" in said


@pytest.mark.parametrize(
    ("off", "gone", "kept"),
    [
        ("remediator.enabled=false", "SelfhealNodeCordonedLong", "SelfhealModelBreakerOpen"),
        ("nodeProblemDetector.enabled=false", "SelfhealDetectorDown", "SelfhealDetectorSilent"),
        ("autoscaling.mode=none", "SelfhealScalerFailing", "SelfhealNoConsumers"),
        ("autoscaling.mode=none", "SelfhealWorkersAtMaximum", "SelfhealNoConsumers"),
        (_HPA, "SelfhealScalerMetricsMissing", "SelfhealWorkersAtMaximum"),
        (_HPA, "SelfhealScalerMetricsMissing", "SelfhealScalerFailing"),
        ("", "SelfhealRepairFailed", "SelfhealNodeCordonedLong"),
        ("", "SelfhealObjectsMissing", "SelfhealRemediatorNoLeader"),
    ],
)
def test_no_alert_on_what_is_not_there(helm: Helm, off: str, gone: str, kept: str) -> None:
    found = _alerts(helm, ON, *off.split())
    assert gone not in found
    assert kept in found


def test_missing_objects_are_watched_where_they_are_made_again(helm: Helm) -> None:
    found = _alerts(helm, ON, "remediator.config.restore.enabled=true")
    assert found["SelfhealObjectsMissing"]["expr"].startswith("max(selfheal_remediator_restore_m")


def test_a_broker_of_your_own_brings_its_alerts_by_its_matchers(helm: Helm) -> None:
    files = CASES["external-broker"]
    for matchers, there in (("", False), ('job="rabbitmq"', True)):
        values = {"alerts": {"enabled": True, "matchers": {"broker": matchers}}}
        rule = by_kind(helm.template(files=files, values=values), "PrometheusRule")["selfheal"]
        assert ("SelfhealNoConsumers" in json.dumps(rule)) is there
        assert (matchers.replace('"', '\\\\\\"') in json.dumps(json.dumps(rule))) or not there


@pytest.mark.parametrize(("mode", "prefix"), [("keda", "keda-hpa-"), ("hpa", "")])
def test_the_autoscaler_of_the_workers_is_watched_in_every_mode(
    helm: Helm, mode: str, prefix: str
) -> None:
    sets = (ON, f"autoscaling.mode={mode}", "autoscaling.minReplicas=1")
    rule = _alerts(helm, *sets)["SelfhealWorkersAtMaximum"]
    assert rule["expr"].count(f'horizontalpodautoscaler="{prefix}selfheal-worker"') == 2


def test_messages_that_keda_lets_lie_do_not_wait_for_anybody(helm: Helm) -> None:
    sets = ("autoscaling.keda.activationQueueLength=7",)
    assert "> (0 + 7) and" in _alerts(helm, ON, *sets)["SelfhealNoConsumers"]["expr"]
    # A HorizontalPodAutoscaler never goes to zero.
    rule = _alerts(helm, ON, *_HPA.split(), *sets)["SelfhealNoConsumers"]
    assert "> (0 + 0) and" in rule["expr"]


def test_the_production_file_has_every_alert_of_its_parts(helm: Helm) -> None:
    """A broker of one's own and no model server in the release."""
    [rule] = by_kind(helm.case("production"), "PrometheusRule").values()
    found = {
        one["alert"] for group in rule["spec"]["groups"] for one in group["rules"] if "alert" in one
    }
    optional = {"ollama", "ladder", "restore"}
    assert found == {alert.name for alert in ALERTS if not optional & set(alert.needs)}
    for group in rule["spec"]["groups"]:
        for one in group["rules"]:
            assert one.get("annotations", {"runbook_url": "", "dashboard_url": ""}).keys() >= {
                "runbook_url",
                "dashboard_url",
            }


def test_a_release_of_only_a_broker_is_watched(helm: Helm) -> None:
    off = ("worker.enabled=false", "remediator.enabled=false", "nodeProblemDetector.enabled=false")
    found = set(_alerts(helm, ON, *off, "topology.enabled=false"))
    assert {"SelfhealBrokerDown", "SelfhealBrokerDiskLow", "SelfhealOutOfMemory"} <= found
    assert not {"SelfhealNoConsumers", "SelfhealStateMetricsMissing"} & found


def test_objectives_and_links_are_in_the_rules(helm: Helm) -> None:
    found = _alerts(
        helm,
        ON,
        "alerts.objectives.success=0.999",
        "alerts.objectives.queueWaitSeconds=300",
        "alerts.grafanaUrl=https://g.example/",
        "alerts.runbookUrl=https://r.example/",
        "queue.name=tickets",
    )
    burn = found["SelfhealResultsBurnFast"]
    assert "14.4 * 0.001)" in burn["expr"]
    assert burn["annotations"]["runbook_url"] == "https://r.example/SelfhealResultsBurnFast.md"
    assert burn["annotations"]["dashboard_url"].startswith("https://g.example/d/selfheal-worker?")
    assert 'queue="tickets"' in found["SelfhealNoConsumers"]["expr"]
    assert 'queue="tickets.results"' in found["SelfhealResultsNotRead"]["expr"]


def test_dashboards_are_what_the_code_builds(helm: Helm) -> None:
    maps = by_kind(helm.case("default"), "ConfigMap")
    for board in BOARDS:
        found = maps[f"selfheal-dashboard-{board.uid.removeprefix('selfheal-')}"]
        assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
        [text] = found["data"].values()
        assert json.loads(text) == json.loads(board.text())


def test_dashboards_have_fixed_uids_variables_and_links() -> None:
    uids = {board.uid for board in BOARDS}
    for board in BOARDS:
        model = json.loads(board.text())
        assert model["uid"] == board.uid
        names = [variable["name"] for variable in model["templating"]["list"]]
        assert names == ["datasource", "cluster", "namespace", "release", "broker", "queue"]
        assert {link["url"].removeprefix("/d/") for link in model["links"]} == uids - {board.uid}
        panels = [panel for panel in model["panels"] if panel["type"] != "row"]
        ids = {panel["title"]: panel["id"] for panel in panels}
        assert ids == board.panel_ids()
        for panel in panels:
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["fieldConfig"]["defaults"]["noValue"], panel["title"]


def test_dashboards_can_be_switched_off(helm: Helm) -> None:
    maps = by_kind(helm.template("dashboards.enabled=false"), "ConfigMap")
    assert not [name for name in maps if "dashboard" in name]
