"""What a real Prometheus makes of our metrics, on targets that have every label of the list."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from alerts.contract import ADDED_LABELS, families
from ci.cluster.prometheus import Prometheus
from ci.parts import PartsError
from ci.pictures.serving import serving as prometheus_with
from dashboards.boards import BOARDS
from selfheal_remediator.metrics import Metrics, named, publish
from tests.alerts.promtool import rule_groups
from tests.alerts.test_queries import filled
from tests.chart.rendering import Helm, by_kind
from tests.support.loopback import Handler, serving
from tests.support.waiting import until

#: Where the remediator runs, and what it cordoned: node -> phase.
_HERE, _CORDONED = "node-1", {"node-2": "draining", "node-4": "repair_failed"}
_ALERTS = ("SelfhealNodeCordonedLong", "SelfhealRepairFailed", "SelfhealNodesCordoned")
_OURS = '{__name__=~"(selfheal|gen_ai|process)_.+"}'


def _remediator() -> bytes:
    metrics = Metrics()
    info: dict[tuple[str, ...], float]
    info = {(node, "KernelDeadlock", phase): 0.0 for node, phase in _CORDONED.items()}
    publish(metrics.nodes.cordoned_info, named(info))
    return metrics.render()


def _everything() -> bytes:
    """One series of each name that worker and remediator have."""
    lines = []
    for family in families():
        for series in family.series:
            names = [*family.labels, *(["le"] if series.endswith("_bucket") else [])]
            labels = ",".join(f'{name}="1"' for name in names)
            lines.append(f"{series}{{{labels}}} 1\n")
    return "".join(lines).encode()


#: By their pods; the alerts are about the first.
_PAGES: dict[str, Callable[[], bytes]] = {
    "selfheal-remediator-5c4b9-aaaaa": _remediator,
    "everything": _everything,
}


class _Pages(Handler):
    def do_GET(self) -> None:
        self.reply(_PAGES[self.path[1:]](), headers={"Content-Type": "text/plain; version=0.0.4"})


def _jobs(address: str) -> list[dict[str, Any]]:
    """As the configurations of the list: honor_labels is off."""
    added = {label: "target" for labels in ADDED_LABELS.values() for label in labels}
    labels = {**added, "namespace": "selfheal", "node": _HERE}
    own = [{"job": pod, "instance": address, "pod": pod} for pod in _PAGES]
    return [
        {
            "job_name": one["pod"],
            "metrics_path": f"/{one['pod']}",
            "static_configs": [{"targets": [address], "labels": {**labels, **one}}],
        }
        for one in own
    ]


@pytest.fixture(scope="module")
def prometheus(
    helm: Helm, unavailable: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """It has scraped both pages, and evaluated the rules, whose alerts wait for nothing here."""
    home = tmp_path_factory.mktemp("prometheus")
    at_once = {
        "enabled": True,
        "interval": "1s",
        "rules": {name: {"for": "0m"} for name in _ALERTS},
    }
    ladder = [{"condition": "KernelDeadlock", "action": "drain", "then": [{"wait": "1m"}]}]
    values = {"alerts": at_once, "remediator": {"config": {"rules": ladder}}}
    [rule] = by_kind(helm.template(values=values), "PrometheusRule").values()
    (home / "rules.yaml").write_text(yaml.safe_dump(rule_groups(rule)), encoding="utf-8")
    with serving(_Pages) as pages:
        configuration = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": _jobs(pages.address),
        }
        try:
            with prometheus_with(home, yaml.safe_dump(configuration)) as server:
                expected = {name for family in families() for name in family.series}
                until("every page is scraped", lambda: expected <= _names(server))
                until("the alerts fire", lambda: _fired(server).keys() >= set(_ALERTS))
                yield server
        except PartsError as error:
            unavailable(str(error))


def _names(server: Prometheus) -> set[str]:
    return {one["metric"]["__name__"] for one in server.query(_OURS)}


def _fired(server: Prometheus) -> dict[str, list[dict[str, Any]]]:
    """The alerts that fire, by name."""
    found: dict[str, list[dict[str, Any]]] = {}
    for alert in server.api("alerts")["alerts"]:
        if alert["state"] == "firing":
            found.setdefault(alert["labels"]["alertname"], []).append(alert)
    return found


def test_no_label_of_ours_is_renamed(prometheus: Prometheus) -> None:
    renamed = {
        (one["metric"]["__name__"], label)
        for one in prometheus.query(_OURS)
        for label in one["metric"]
        if label.startswith("exported_")
    }
    assert renamed == set()


def test_an_alert_names_the_node_that_was_cordoned(prometheus: Prometheus) -> None:
    fired = _fired(prometheus)
    of = {name: {alert["labels"].get("cordoned_node") for alert in fired[name]} for name in _ALERTS}
    assert of["SelfhealNodeCordonedLong"] == _CORDONED.keys()
    assert of["SelfhealRepairFailed"] == {"node-4"}
    [count] = fired["SelfhealNodesCordoned"]
    assert float(count["value"]) == len(_CORDONED)
    for name in ("SelfhealNodeCordonedLong", "SelfhealRepairFailed"):
        for alert in fired[name]:
            assert "node" not in alert["labels"]
            for text in (alert["annotations"]["summary"], alert["annotations"]["description"]):
                assert alert["labels"]["cordoned_node"] in text
                assert _HERE not in text


def test_the_panel_shows_each_cordoned_node(prometheus: Prometheus) -> None:
    [panel] = [
        panel
        for board in BOARDS
        for row in board.rows
        for panel in row.panels
        if panel.title == "Nodes cordoned"
    ]
    [query] = panel.queries
    shown = {one["metric"]["cordoned_node"] for one in prometheus.query(filled(query.expr))}
    assert shown == _CORDONED.keys()
    assert query.legend.startswith("{{cordoned_node}}")
