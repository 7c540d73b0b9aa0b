"""The Alertmanager example: valid, routes as it says, inhibits only alerts that there are."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from alerts.rules import ALERTS
from ci.generated import ROOT as REPOSITORY
from ci.parts import ensure

CONFIG = REPOSITORY / "alerts/alertmanager.yaml"


def test_amtool_accepts_it() -> None:
    done = _amtool("check-config", str(CONFIG))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["release=selfheal", "severity=critical", "team=platform"], "platform-pager"),
        (["release=selfheal", "severity=critical", "team=pipeline"], "pipeline-pager"),
        (["release=selfheal", "severity=warning", "team=platform"], "platform-tickets"),
        (["release=selfheal", "severity=warning", "team=pipeline"], "pipeline-tickets"),
        (["release=selfheal", "severity=info", "team=platform"], "nobody"),
        (["severity=critical"], "tickets"),
    ],
)
def test_routes(labels: list[str], receiver: str) -> None:
    routes = ["config", "routes", "test", f"--config.file={CONFIG}"]
    done = _amtool(*routes, f"--verify.receivers={receiver}", *labels)
    assert done.returncode == 0, done.stdout + done.stderr


def test_inhibition_names_alerts_that_there_are() -> None:
    names = [alert.name for alert in ALERTS]
    for rule in yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["inhibit_rules"]:
        sides = []
        for side in ("source_matchers", "target_matchers"):
            matcher, *_ = rule[side]
            match = re.fullmatch(r'alertname =(~?) "(.+)"', matcher)
            assert match, matcher
            sides.append({name for name in names if re.fullmatch(match[2], name)})
            assert sides[-1], matcher
            for one in match[2].split("|") if "(" not in match[2] else ():
                assert one in names, one
        assert not sides[0] & sides[1], rule


def test_nothing_that_wakes_nobody_mutes_what_wakes_somebody() -> None:
    for rule in yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["inhibit_rules"]:
        sources, targets = (
            {
                alert.severity
                for alert in ALERTS
                if re.fullmatch(rule[side][0].split('"')[1], alert.name)
            }
            for side in ("source_matchers", "target_matchers")
        )
        assert "critical" not in targets or sources == {"critical"}, rule


@pytest.mark.parametrize(
    ("policy", "explained"),
    [("selfheal/selfheal-worker", True), ("selfheal/selfheal-ollama", True), ("shop/web", False)],
)
def test_a_model_or_a_broker_that_is_away_pages_only_those_who_can_help(
    policy: str, explained: bool
) -> None:
    rules = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["inhibit_rules"]
    [rule] = [rule for rule in rules if "PolicyPodsDown" in rule["target_matchers"][0]]
    [sources] = rule["source_matchers"]
    for name in ("ModelServerNotReady", "ModelBreakerOpen", "BrokerUnreachable", "BrokerBlocked"):
        assert f"Selfheal{name}" in sources
    assert "SelfhealBrokerDown" in sources
    match = re.fullmatch(r'policy =~ "(.+)"', rule["target_matchers"][1])
    assert match
    assert bool(re.fullmatch(match[1], policy)) is explained


def _amtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    amtool = ensure(["amtool"])["amtool"]
    return subprocess.run([amtool, *arguments], capture_output=True, text=True, check=False)
