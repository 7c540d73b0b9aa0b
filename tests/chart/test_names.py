"""Names that Kubernetes makes from the chart's are those that alerts and dashboards search for."""

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


@pytest.mark.parametrize("key", ["release", "fullnameOverride", "nameOverride"])
def test_names_that_differ_only_at_their_end_stay_two(helm: Helm, key: str) -> None:
    """In one namespace the second would take over the objects of the first."""

    def made(name: str) -> set[tuple[str, str]]:
        if key == "release":
            manifests = helm.template(release=name)
        else:
            manifests = helm.template(f"{key}={name}")
        return {(m["kind"], m["metadata"]["name"]) for m in manifests}

    first, second = (made(f"feedback-of-the-europe-region-team-{end}") for end in ("a", "b"))
    assert not first & second
    for _, name in first | second:
        assert len(name) <= 63
        assert "--" not in name


def test_a_short_name_is_left_as_it_is(helm: Helm) -> None:
    exact = "n" * 35
    assert f"{exact}-worker" in by_kind(helm.template(f"fullnameOverride={exact}"), "Deployment")


def test_a_release_with_dots_in_its_name_has_services(helm: Helm) -> None:
    """Helm allows them, and the name of a Service cannot have them."""
    one, other = (
        set(by_kind(helm.template(release=name), "Service")) for name in ("team.a", "team-a")
    )
    assert not one & other
    for name in one | other:
        assert re.fullmatch(r"[a-z0-9-]{1,63}", name)


def test_every_name_of_the_longest_release_fits(helm: Helm) -> None:
    manifests = helm.template(
        "ollama.enabled=true",
        "ollama.models={m}",
        "model.provider=ollama",
        "model.name=m",
        "networkPolicy.enabled=true",
        release=LONG,
        flags=GROUPS[OPERATORS],
    )
    for manifest in manifests:
        # The class of a rank has the namespace in its name, and may be longer.
        if manifest["kind"] != "PriorityClass":
            assert len(manifest["metadata"]["name"]) <= 63, manifest["metadata"]["name"]
        for value in manifest["metadata"]["labels"].values():
            assert len(value) <= 63


@pytest.mark.parametrize("name", ["1st", "2024", "0123-feedback.eu", "9" * 53, "1-selfheal"])
@pytest.mark.parametrize("key", ["release", "fullnameOverride", "nameOverride"])
def test_a_name_that_begins_with_a_digit_has_services(helm: Helm, key: str, name: str) -> None:
    """Kubernetes allows that for every object of the chart but a Service."""
    release = name if key != "fullnameOverride" else "team"
    values = {key: name} if key != "release" else {}
    with_ollama = {"ollama": {"enabled": True, "models": ["m"]}}
    model = {"model": {"provider": "ollama", "name": "m"}}
    manifests = helm.template(values={**values, **with_ollama, **model}, release=release)
    services = by_kind(manifests, "Service")
    assert len(services) == 2
    for service in services:
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", service)
    [worker] = by_kind(manifests, "Deployment").keys() & {
        f"{service.removesuffix('-ollama')}-worker" for service in services
    }
    assert len(worker) <= 42
