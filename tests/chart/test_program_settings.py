"""What the chart hands to worker and remediator is what their own settings take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ci.chart.values import read
from selfheal_remediator.config import Config, parse_config
from selfheal_remediator.quantities import Amount
from selfheal_worker.config import KEY_PREFIX, Settings, load
from tests.chart.rendering import (
    CASES,
    CHART,
    FIXED,
    Helm,
    Manifest,
    by_kind,
    containers_of,
    environment,
    pod_specs,
)

SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
#: Keys that the worker and the remediator read; others are for Kubernetes and Helm.
READ = (
    *("queue.", "model.", "faults.", "broker.port", "broker.heartbeatSeconds"),
    *("worker.concurrency", "worker.shutdownGraceSeconds", "remediator.config."),
)
#: What stands for any number, where a number has no maximum.
MANY = 2**31 - 1

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


def test_all_optional_limits_reach_the_remediator(helm: Helm) -> None:
    limits = "remediator.config.limits"
    manifests = helm.template(
        *FIXED,
        f"{limits}.maxAllowed=3",
        f"{limits}.maxUnavailablePerZone=1",
        f"{limits}.rate.count=2",
        f"{limits}.rate.window=1h",
    )
    text = by_kind(manifests, "ConfigMap")["selfheal-remediator"]["data"]["remediator.yaml"]
    config = parse_config(text, "rendered")
    assert config.limits.max_allowed == 3
    assert config.limits.rate is not None
    assert config.limits.rate.window == 3600


#: Which certificates they trust; read by the libraries of the worker's HTTP clients.
OF_CLIENTS = {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"}


@every_case
def test_the_worker_knows_every_variable(helm: Helm, case: str) -> None:
    known = {name.upper() for name in Settings.model_fields} | OF_CLIENTS
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
            variables = environment(spec["containers"][0])
            given = {k.lower(): v for k, v in variables.items() if k not in OF_CLIENTS}
            plain = {name: value for name, value in given.items() if isinstance(value, str)}
            settings = Settings.model_validate(plain)
            assert settings.shutdown_grace >= settings.model_deadline


def test_the_programs_take_the_most_that_the_schema_allows(helm: Helm) -> None:
    """Helm would install what is refused only when a pod starts."""
    values = _at_the_limits()
    manifests = helm.template(*FIXED, values=values)
    pod = by_kind(manifests, "Deployment")["selfheal-worker"]["spec"]["template"]["spec"]
    variables = environment(pod["containers"][0])
    settings = load({name: value for name, value in variables.items() if isinstance(value, str)})
    assert settings.concurrency == values["worker"]["concurrency"]
    text = by_kind(manifests, "ConfigMap")["selfheal-remediator"]["data"]["remediator.yaml"]
    assert parse_config(text, "rendered").limits.max_unavailable_per_group == Amount(
        MANY, percent=False
    )


def _at_the_limits() -> Manifest:
    """Values, each the most that the schema takes."""
    named = SCHEMA["$defs"]["namedModel"]["properties"]
    model = {name: most for name, schema in named.items() if (most := _most(schema, name))}
    condition = _most(SCHEMA["$defs"]["rule"]["properties"]["condition"], "Condition")
    config = {
        "limits": {"groupLabel": "group"},
        "rules": [{"condition": condition, "action": "drain"}],
        "policies": {"progressTimeout": "30s"},
    }
    values: Manifest = {
        "models": {"named": {"provider": "builtin", **model}},
        "remediator": {"externalConditions": [condition], "config": config},
    }
    for path, most in _limits():
        *parents, last = path.split(".")
        here = values
        for parent in parents:
            here = here.setdefault(parent, {})
        here[last] = most
    return values


def _limits() -> Iterator[tuple[str, Any]]:
    """The path and the most of each number, list of numbers and limited text that is read."""
    for top in read((CHART / "values.yaml").read_text(encoding="utf-8")).values():
        for leaf in top.leaves():
            schema = SCHEMA
            for key in leaf.path.split("."):
                schema = schema["properties"].get(key, {"properties": {}})
            most = _most(schema, leaf.path.rpartition(".")[2])
            if most and leaf.path.startswith(READ):
                yield leaf.path, most


def _most(schema: Manifest, name: str) -> Any:
    """The most that a schema takes: a number, or a text of its name's first letter; else None."""
    if "$ref" in schema:
        return _most(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], name)
    for key, which in (("anyOf", max), ("allOf", min)):
        if key in schema:
            found = [_most(one, name) for one in schema[key]]
            return which((most for most in found if isinstance(most, int)), default=None)
    if schema.get("type") == "array" and isinstance(most := _most(schema["items"], name), int):
        return [1, most]
    if any(kind in schema.get("type", "") for kind in ("integer", "number")):
        return schema.get("maximum", MANY)
    return name[0] * schema["maxLength"] if "maxLength" in schema else None
