"""What only a read of a cluster shows, asked with answers that are made up here.

`lookup` finds nothing without a cluster, so a template beside the chart's own hands them over; that
the chart asks for the right objects is tested on a real API server (tests/control_plane/chart/).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chart.rendering import CHART, FIXED, Helm, by_kind

Ask = Callable[..., list[str]]


@pytest.fixture
def ask(helm: Helm, tmp_path: Path) -> Ask:
    """Asks a template that gives a JSON list: its name, what it is given, the values."""
    chart = tmp_path / "selfheal"
    shutil.copytree(CHART, chart)

    def asked(template: str, given: dict[str, Any], *sets: str) -> list[str]:
        (chart / "given.json").write_text(json.dumps(given))
        (chart / "templates" / "probe.yaml").write_text(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: probe}\ndata:\n"
            '  {{- $given := merge (dict "root" $) (.Files.Get "given.json" | fromJson) }}\n'
            f'  said: {{{{ include "{template}" $given | toJson }}}}\n'
        )
        made = by_kind(helm.template(*FIXED, *sets, chart=chart), "ConfigMap")["probe"]
        said: list[str] = json.loads(made["data"]["said"])
        return said

    return asked


def _broker(storage_class: str | None = None, **claim: Any) -> dict[str, Any]:
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "2Gi"}},
        **({} if storage_class is None else {"storageClassName": storage_class}),
        **claim,
    }
    return {
        "live": {
            "metadata": {"name": "selfheal-rabbitmq"},
            "spec": {"volumeClaimTemplates": [{"spec": spec}]},
        }
    }


WITHOUT_A_VOLUME = {"live": {"metadata": {"name": "selfheal-rabbitmq"}, "spec": {}}}


@pytest.mark.parametrize(
    ("live", "sets"),
    [
        ({"live": {}}, ["rabbitmq.persistence.size=9Gi"]),
        (_broker(), []),
        (_broker(), ["rabbitmq.persistence.size=2048Mi"]),
        (_broker(), ["rabbitmq.persistence.size=2147483648"]),
        (_broker(), ["rabbitmq.persistence.whenDeleted=Delete"]),
        (_broker("fast"), ["rabbitmq.persistence.storageClass=fast"]),
        (_broker(""), ["rabbitmq.persistence.storageClass=-"]),
        (WITHOUT_A_VOLUME, ["rabbitmq.persistence.enabled=false", "rabbitmq.persistence.size=9Gi"]),
    ],
)
def test_a_volume_that_stays_as_it_is_is_no_problem(
    ask: Ask, live: dict[str, Any], sets: list[str]
) -> None:
    assert ask("selfheal.guards.persistence", live, *sets) == []


@pytest.mark.parametrize(
    ("live", "sets", "said"),
    [
        (
            _broker(),
            ["rabbitmq.persistence.size=4Gi"],
            "size is 4Gi, and the live broker's claim has 2Gi",
        ),
        (
            _broker(),
            ["rabbitmq.persistence.size=2G"],
            "size is 2G, and the live broker's claim has 2Gi",
        ),
        (
            _broker(),
            ["rabbitmq.persistence.storageClass=fast"],
            'storageClass is "fast", and the live broker\'s claim has ""',
        ),
        (_broker("fast"), [], 'storageClass is "", and the live broker\'s claim has "fast"'),
        (
            _broker(),
            ["rabbitmq.persistence.storageClass=-"],
            'storageClass is "-", and the live broker\'s claim has ""',
        ),
        (
            _broker(),
            ["rabbitmq.persistence.accessModes={ReadWriteOncePod}"],
            "accessModes is ReadWriteOncePod, and the live broker's claim has ReadWriteOnce",
        ),
        (
            _broker(),
            ["rabbitmq.persistence.enabled=false"],
            "enabled is false, and the live broker has one",
        ),
        (WITHOUT_A_VOLUME, [], "enabled is true, and the live broker has no volume"),
    ],
)
def test_a_change_of_a_live_volume_is_refused_with_the_steps(
    ask: Ask, live: dict[str, Any], sets: list[str], said: str
) -> None:
    [problem] = ask("selfheal.guards.persistence", live, *sets)
    assert f"rabbitmq.persistence.{said}" in problem
    assert "set it back" in problem
    assert "delete statefulset selfheal-rabbitmq --cascade=orphan" in problem


def _keda(version: str | None, *, behavior: bool = True) -> dict[str, Any]:
    """The type ScaledObject as a KEDA of this version brings it."""
    fields: dict[str, Any] = {
        "failureThreshold": {},
        "replicas": {},
        **({"behavior": {}} if behavior else {}),
    }
    schema = {"properties": {"spec": {"properties": {"fallback": {"properties": fields}}}}}
    labels = {} if version is None else {"labels": {"app.kubernetes.io/version": version}}
    return {
        "definition": {
            "metadata": {"name": "scaledobjects.keda.sh", **labels},
            "spec": {"versions": [{"name": "v1alpha1", "schema": {"openAPIV3Schema": schema}}]},
        }
    }


STATIC = "autoscaling.keda.fallback.behavior=static"


@pytest.mark.parametrize(
    ("given", "sets"),
    [
        ({"definition": {}}, []),
        (_keda(None), []),
        (_keda("main"), []),
        (_keda("2.17.0"), []),
        (_keda("v2.20.2"), []),
        (_keda("2.16.1", behavior=False), [STATIC]),
        (_keda("2.16.1", behavior=False), ["autoscaling.keda.fallback.enabled=false"]),
        (_keda(None, behavior=False), [STATIC]),
    ],
)
def test_a_keda_that_can_do_it_is_no_problem(
    ask: Ask, given: dict[str, Any], sets: list[str]
) -> None:
    assert ask("selfheal.guards.keda", given, *sets) == []


@pytest.mark.parametrize(
    ("given", "sets", "said"),
    [
        (_keda("2.15.1", behavior=False), [], "this cluster has KEDA 2.15.1, which cannot log in"),
        (_keda("v2.9.0", behavior=False), [STATIC], "this cluster has KEDA 2.9.0, which cannot"),
        (_keda("2.16.1", behavior=False), [], "this cluster's KEDA 2.16.1 does not know"),
        (_keda(None, behavior=False), [], "this cluster's KEDA does not know"),
    ],
)
def test_a_keda_that_is_too_old_is_refused_with_what_to_do(
    ask: Ask, given: dict[str, Any], sets: list[str], said: str
) -> None:
    [problem] = ask("selfheal.guards.keda", given, *sets)
    assert said in problem
    assert "upgrade KEDA to 2.17 or newer, or set autoscaling." in problem


def test_an_old_keda_gets_no_field_that_it_does_not_know(helm: Helm) -> None:
    fallback = by_kind(helm.template(*FIXED, STATIC), "ScaledObject")["selfheal-worker"]["spec"]
    assert fallback["fallback"] == {"failureThreshold": 3, "replicas": 1}
    assert fallback["triggers"][0]["metricType"] == "AverageValue"
