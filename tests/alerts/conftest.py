"""The rules as the chart renders them, and the tools that read them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ci.parts import PartsError, ensure
from tests.alerts.promtool import rule_groups
from tests.chart.rendering import Helm, by_kind

#: Every part of the release, so that no alert is left out.
EVERYTHING = {
    "alerts": {
        "enabled": True,
        "grafanaUrl": "https://grafana.example",
        "runbookUrl": "https://runbooks.example/",
    },
    "ollama": {"enabled": True, "models": ["a"]},
    "model": {"provider": "ollama", "name": "a"},
    "remediator": {
        "config": {
            "rules": [{"condition": "KernelDeadlock", "action": "drain", "then": [{"wait": "1m"}]}],
            "restore": {"enabled": True},
        }
    },
}


@pytest.fixture(scope="session", autouse=True)
def _tools(unavailable: Callable[[str], None]) -> None:
    """promtool and amtool, for whoever asks ci.parts for them afterwards."""
    try:
        ensure(["promtool", "amtool"])
    except PartsError as error:
        unavailable(str(error))


@pytest.fixture(scope="session")
def helm(unavailable: Callable[[str], None]) -> Helm:
    """Helm, with a cache of renderings that lasts for the session."""
    chosen = os.environ.get("SELFHEAL_TEST_HELM")
    if chosen:
        return Helm(Path(chosen))
    try:
        return Helm(ensure(["helm"])["helm"])
    except PartsError as error:
        unavailable(f"no Helm: {error}")
        raise


@pytest.fixture(scope="session")
def rules(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of rules that Prometheus would read."""
    manifest = by_kind(helm.template(values=EVERYTHING), "PrometheusRule")["selfheal"]
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text(yaml.safe_dump(rule_groups(manifest)), encoding="utf-8")
    return path
