"""What the chart hands to worker and remediator is what their own settings take."""

from __future__ import annotations

import pytest
import yaml

from remediator.settings import Config, parse_config
from tests.chart.rendering import CASES, FIXED, Helm, by_kind, containers_of, environment, pod_specs
from worker.settings import KEY_PREFIX, Settings

every_case = pytest.mark.parametrize("case", CASES)


@every_case
def test_the_remediator_reads_its_configuration(helm: Helm, case: str) -> None:
    maps = by_kind(helm.case(case), "ConfigMap")
    for name in {"selfheal-remediator"} & maps.keys():
        config = parse_config(maps[name]["data"]["remediator.yaml"], name)
        assert config.lease.name == "selfheal-remediator"


def test_the_defaults_of_chart_and_remediator_are_the_same(helm: Helm) -> None:
    """Somebody who runs `plan` before the install is told what the install would do."""
    maps = by_kind(helm.case("default"), "ConfigMap")
    config = parse_config(maps["selfheal-remediator"]["data"]["remediator.yaml"], "rendered")
    assert config == Config()


def test_every_setting_of_the_remediator_is_a_value(helm: Helm) -> None:
    """All but the Lease's place, which the chart decides, and the request rate."""
    maps = by_kind(helm.case("default"), "ConfigMap")
    rendered = yaml.safe_load(maps["selfheal-remediator"]["data"]["remediator.yaml"])
    known = {field.alias or name for name, field in Config.model_fields.items()}
    assert known - rendered.keys() == {"api"}


def test_all_optional_brakes_reach_the_remediator(helm: Helm) -> None:
    brakes = "remediator.config.brakes"
    manifests = helm.template(
        *FIXED,
        f"{brakes}.maxHeldCeiling=3",
        f"{brakes}.maxHeldPerZone=1",
        f"{brakes}.rate.count=2",
        f"{brakes}.rate.window=1h",
    )
    text = by_kind(manifests, "ConfigMap")["selfheal-remediator"]["data"]["remediator.yaml"]
    config = parse_config(text, "rendered")
    assert config.brakes.max_held_ceiling == 3
    assert config.brakes.rate is not None
    assert config.brakes.rate.window == 3600


@every_case
def test_the_worker_knows_every_variable(helm: Helm, case: str) -> None:
    known = {name.upper() for name in Settings.model_fields}
    for owner, spec in pod_specs(helm.case(case)):
        if owner["metadata"]["labels"]["app.kubernetes.io/component"] in {"worker", "topology"}:
            for container in containers_of(spec):
                assert {
                    name for name in environment(container) if not name.startswith(KEY_PREFIX)
                } <= known


@every_case
def test_the_worker_takes_every_value(helm: Helm, case: str) -> None:
    for owner, spec in pod_specs(helm.case(case)):
        if owner["metadata"]["labels"]["app.kubernetes.io/component"] == "worker":
            given = {k.lower(): v for k, v in environment(spec["containers"][0]).items()}
            plain = {name: value for name, value in given.items() if isinstance(value, str)}
            settings = Settings.model_validate(plain)
            assert settings.shutdown_grace >= settings.model_deadline
