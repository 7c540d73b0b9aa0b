"""Each alert is provoked on a real cluster by the long tests."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from urllib.request import urlopen

import pytest

from alerts.rules import ALERTS
from tests.chart.rendering import Helm, by_kind
from tests.provoked.scenarios import BY_THE_WAY, SCENARIOS
from tests.provoked.shortened import rules
from tests.provoked.stage import HERE


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


def test_the_stand_in_with_a_failing_thread_counts_as_the_remediator_does() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, HERE / "failing_thread.py"],
        env={**os.environ, "HTTP_PORT": str(port)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        failures = (line for line in process.stderr if line.startswith("thread provoked:"))
        next(failures)
        next(failures)
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    finally:
        process.kill()
        process.communicate()
    series = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    [name] = series
    assert float(series[name]) >= 2
    [alert] = [alert for alert in ALERTS if alert.name == "SelfhealActionsFailing"]
    assert f"{name}{{%remediator%}}" in alert.expr
