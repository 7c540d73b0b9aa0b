"""Names that Kubernetes makes from the chart's are those that alerts and dashboards look for."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.chart.rendering import CHART, GROUPS, OPERATORS, Helm, by_kind

#: Helm allows 53 characters.
LONG = "the-longest-name-that-helm-allows-for-a-release-0123x"
#: What Kubernetes appends to the name of a Deployment, and to what it makes pods' names from.
HASH, RANDOM = "-0123456789", "abcde"
#: The part before the random one is cut to this.
LONGEST_BASE = 58


def _pod_of(deployment: str) -> str:
    return f"{deployment}{HASH}-"[:LONGEST_BASE] + RANDOM


@pytest.mark.parametrize("values", [{}, {"fullnameOverride": LONG}, {"nameOverride": "n" * 50}])
def test_alerts_and_dashboards_find_the_pods_of_a_long_name(
    helm: Helm, values: dict[str, Any]
) -> None:
    values = {
        "alerts": {"enabled": True},
        "ollama": {"enabled": True, "models": ["m"]},
        "model": {"provider": "ollama", "name": "m"},
        **values,
    }
    manifests = helm.template(values=values, release=LONG, flags=GROUPS[OPERATORS])
    deployments = by_kind(manifests, "Deployment")
    [rules] = by_kind(manifests, "PrometheusRule").values()
    for name in deployments:
        release, _, component = name.rpartition("-")
        matchers = set(re.findall(rf'pod=~"({release}-[^"]*{component}[^"]*)"', str(rules)))
        assert matchers, name
        for path in (CHART / "files" / "dashboards").glob("*.json"):
            matchers |= {
                found.replace("$release", release)
                for found in re.findall(
                    rf'pod=~\\"(\$release-{component}[^"]*)\\"', path.read_text(encoding="utf-8")
                )
            }
        for matcher in matchers:
            assert re.fullmatch(matcher, _pod_of(name)), (matcher, _pod_of(name))
