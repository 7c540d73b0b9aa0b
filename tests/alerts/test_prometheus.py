"""The Prometheus example: valid, and it scrapes what alerts and dashboards ask for."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from alerts.contract import ADDED_LABELS, FOREIGN, families
from ci.generated import ROOT as REPOSITORY
from tests.alerts.promtool import check_config
from tests.chart.rendering import Helm

CONFIG = REPOSITORY / "alerts/prometheus.yaml"


@pytest.fixture(scope="module")
def jobs() -> dict[str, dict[str, Any]]:
    """The scrape jobs by name."""
    found = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["scrape_configs"]
    return {job["job_name"]: job for job in found}


def test_promtool_accepts_it() -> None:
    assert check_config(CONFIG) == ""


def test_what_it_adds_to_our_series_is_in_the_list(
    helm: Helm, jobs: dict[str, dict[str, Any]]
) -> None:
    """And the labels of the chart's pods, which other configurations copy, are none of ours."""
    listed = {label for labels in ADDED_LABELS.values() for label in labels}
    added = {rule.get("target_label") for rule in jobs["selfheal"]["relabel_configs"]} - {None}
    assert added == {"namespace", "pod", "container", "node"}
    assert added <= listed
    ours = {label for family in families() for label in family.labels}
    pods = [one["spec"]["template"] for one in helm.template() if one["kind"] == "Deployment"]
    for pod in pods:
        copied = {re.sub(r"\W", "_", label) for label in pod["metadata"]["labels"]}
        assert not copied & ours
    assert pods


def test_labels_of_objects_are_kept_where_targets_have_them_too(
    jobs: dict[str, dict[str, Any]],
) -> None:
    """Else all nodes would be the one on which kube-state-metrics runs."""
    honoured = {name for name, job in jobs.items() if job.get("honor_labels")}
    assert honoured == {"kube-state-metrics", "cadvisor"}


def test_what_is_kept_of_the_kubelets_is_what_is_asked_for(jobs: dict[str, dict[str, Any]]) -> None:
    [kept] = jobs["cadvisor"]["metric_relabel_configs"]
    [cadvisor] = [foreign for foreign in FOREIGN if foreign.exporter.startswith("cAdvisor")]
    for name in cadvisor.metrics:
        assert re.fullmatch(kept["regex"], name), name


def test_every_port_with_metrics_of_the_chart_is_a_target(
    helm: Helm, jobs: dict[str, dict[str, Any]]
) -> None:
    """As the PodMonitors have it: the same pods, ports, paths and parameters."""
    rendered = helm.template("metrics.podMonitor.enabled=true")
    monitors = [one for one in rendered if one["kind"] == "PodMonitor"]
    assert len(monitors) == 4
    chosen = jobs["selfheal"]["relabel_configs"][1]["regex"]
    for monitor in monitors:
        component = monitor["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            if endpoint["path"] == "/metrics":
                assert re.fullmatch(chosen, f"{component};{endpoint['port']}"), component
            else:
                queues = jobs["selfheal-queues"]
                assert endpoint["path"] == queues["metrics_path"]
                assert endpoint["params"] == queues["params"]
