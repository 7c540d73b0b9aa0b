"""Each alert is provoked on a real cluster by the long tests."""

from __future__ import annotations

import json
import re

import pytest

from alerts.rules import ALERTS
from tests.chart.rendering import Helm, by_kind
from tests.provoked.scenarios import BY_THE_WAY, SCENARIOS
from tests.provoked.shortened import rules


def test_every_alert_has_a_scenario() -> None:
    by_scenario = {name for scenario in SCENARIOS for name in scenario.alerts}
    assert by_scenario | BY_THE_WAY == {alert.name for alert in ALERTS}


def test_the_chart_takes_the_shortened_alerts(helm: Helm) -> None:
    rendered = helm.template("alerts.enabled=true", values={"alerts": {"rules": rules()}})
    text = json.dumps(by_kind(rendered, "PrometheusRule")["selfheal"]["spec"]["groups"][1:])
    for window in ("[30m]", "[1h]", "%threshold%"):
        assert window not in text


@pytest.mark.parametrize("name", sorted(rules()))
def test_a_shortened_alert_asks_for_what_the_alert_asks_for(name: str) -> None:
    [alert] = [alert for alert in ALERTS if alert.name == name]
    own = rules()[name]["expr"]
    if "selfheal:" not in own:
        before = [re.split(r"\[|time\(\)", expr)[0] for expr in (own, alert.expr)]
        assert before[0] == before[1]
