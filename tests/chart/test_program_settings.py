"""What the chart hands to worker and remediator is what their own settings take."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ci.chart.values import read
from selfheal_remediator.config import Config, SettingsError, parse_config
from selfheal_remediator.quantities import Amount
from selfheal_worker.config import KEY_PREFIX, Settings, load
from tests.chart.rendering import (
    CASES,
    CHART,
    FIXED,
    Helm,
    Manifest,
    Rendering,
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
    """Somebody who runs `plan` before the install sees what the install would do."""
    maps = by_kind(helm.case("default"), "ConfigMap")
    config = parse_config(maps["selfheal-remediator"]["data"]["remediator.yaml"], "rendered")
    assert config == Config()


def test_every_setting_of_the_remediator_is_a_value(helm: Helm) -> None:
    """All but the Lease's place, which the chart decides, and the request rate; what is
    off, and groups where there are any."""
    maps = by_kind(helm.case("default"), "ConfigMap")
    rendered = yaml.safe_load(maps["selfheal-remediator"]["data"]["remediator.yaml"])
    known = {field.alias or name for name, field in Config.model_fields.items()}
    assert known - rendered.keys() == {"api", "groups", "restore", "statusPage", "taint"}


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


def test_a_taint_reaches_the_remediator(helm: Helm) -> None:
    taint = {"key": "example.com/bad", "value": "on", "effect": "NoSchedule", "cordon": False}
    values = {"remediator": {"config": {"taint": taint}}}
    manifests = helm.render(Rendering(values=_as_json(values)))
    text = by_kind(manifests, "ConfigMap")["selfheal-remediator"]["data"]["remediator.yaml"]
    found = parse_config(text, "rendered").taint
    assert found is not None
    assert found.model_dump(by_alias=True) == taint


def test_groups_reach_the_remediator(helm: Helm) -> None:
    group = {
        "name": "gpu",
        "nodeSelector": {
            "matchLabels": {"pool": "gpu"},
            "matchExpressions": [{"key": "old", "operator": "DoesNotExist"}],
        },
        "rules": [{"condition": "GpuLost", "action": "drain"}],
        "limits": {"maxUnavailable": "5%", "maxDraining": 1, "rate": {"count": 1, "window": "1h"}},
        "mode": "observe",
        "maintenanceWindows": [
            {"days": ["Sat"], "start": "22:00", "end": "04:00", "timeZone": "Europe/Berlin"},
            {"start": "1:30", "duration": "2h"},
        ],
        "outsideWindows": {"cordon": "wait", "startedDrain": "pause"},
    }
    values = {"remediator": {"config": {"groups": [group]}}}
    manifests = helm.render(Rendering(values=_as_json(values)))
    text = by_kind(manifests, "ConfigMap")["selfheal-remediator"]["data"]["remediator.yaml"]
    (found,) = parse_config(text, "rendered").groups
    wanted = {key: found.model_dump(by_alias=True, exclude_unset=True)[key] for key in group}
    assert wanted["maintenanceWindows"][1] == {"start": "01:30", "duration": 7200.0}
    assert wanted["outsideWindows"] == group["outsideWindows"]
    assert found.limits.max_unavailable == Amount(5, True)


#: What readers of YAML 1.1 and 1.2, and Go's and Python's, take for something else than a text when
#: it is not quoted, and what they cannot read at all.
ODD = (
    *("=", "<<", "y", "N", "on", "No", "TRUE", "null", "~", ".inf", ".nan", "0x1", "0x_", "0o7"),
    *("0b11", "0b_", "0777", "1e3", "1e+21", "1_000", "+.5", "1.", "12:30", "190:20:30", "-", "?"),
    *("2001-01-01", "2001-13-41", "2001-01-01T00:00:00Z", "!x", "!!int x", "&a", "*a", "@x", "`x"),
    *("%x", "|", ">-", "- a", "a: b", "y:", "#", "a #b", "---", "...", "{", "]", ",", "'", '"'),
    *("\\", "\\n", " x", "x ", "\tx", "a\nb", "a\n", "\n a\n  b\n", "a\r\nb", "a\x7fb", "a\x85b"),
    *("a\u2028b", "\ufeffx", "<x> & ü", "{{ .Release.Name }}", "word " * 40),
)


def test_texts_reach_the_remediator_as_they_were_written(helm: Helm) -> None:
    rules = [{"condition": text, "action": "observe"} for text in ODD]
    rules += [{"condition": "c", "action": "observe", "reason": re.escape(text)} for text in ODD]
    labels = {text: text for text in ODD if re.fullmatch("[A-Za-z0-9]([-.\\w]*[A-Za-z0-9])?", text)}
    assert len(labels) >= 14
    config = {"rules": rules, "nodeSelector": labels, "limits": {"groupLabel": "1e3"}}
    values = {"nodeProblemDetector": {"enabled": False}, "remediator": {"config": config}}
    manifests = helm.render(Rendering(values=_as_json(values)))
    text = by_kind(manifests, "ConfigMap")["selfheal-remediator"]["data"]["remediator.yaml"]
    read = parse_config(text, "rendered")
    assert [rule.condition for rule in read.rules[: len(ODD)]] == list(ODD)
    assert [rule.reason for rule in read.rules[len(ODD) :]] == [re.escape(text) for text in ODD]
    assert read.node_selector == labels
    assert read.limits.group_label == "1e3"


def test_texts_reach_the_worker_as_they_were_written(helm: Helm) -> None:
    """A task too: a YAML file of the user's is not read and written again."""
    numbers = {"int": 10_000_000, "small": 0.000001, "yes": True, "no": None, "list": [1, 1.5, "1"]}
    options = {**{text: text for text in ODD}, **numbers}
    named = {"provider": "langchain", "name": "m", "options": options}
    task = "".join(f"{text}\n" for text in ODD) + "end: no line break"
    values = {
        "model": {"provider": "langchain", "name": "=", "options": options},
        "models": {"other": named},
        "task": task,
    }
    manifests = helm.render(Rendering(values=_as_json(values)))
    pod = by_kind(manifests, "Deployment")["selfheal-worker"]["spec"]["template"]["spec"]
    variables = environment(pod["containers"][0])
    settings = load({name: value for name, value in variables.items() if isinstance(value, str)})
    assert settings.model_name == "="
    assert settings.model_options == options
    assert settings.models["other"].options == options
    assert by_kind(manifests, "ConfigMap")["selfheal-worker-task"]["data"]["task.yaml"] == task


def test_texts_reach_the_detector_as_they_were_written(helm: Helm) -> None:
    scripts = {f"{number}.sh": text for number, text in enumerate(ODD)}
    rules = [{"type": "temporary", "reason": "R", "pattern": text} for text in ODD]
    monitor = {"plugin": "kmsg", "source": "s", "logPath": "/dev/kmsg", "rules": rules}
    plugin = {"plugin": "custom", "source": "s", "rules": []}
    values = {
        "nodeProblemDetector": {
            "systemLogMonitors": {"mine": monitor},
            "customPlugins": {"own": {"config": plugin, "scripts": scripts}},
        }
    }
    maps = by_kind(helm.render(Rendering(values=_as_json(values))), "ConfigMap")
    assert maps["selfheal-plugin-own"]["data"] == scripts
    read = json.loads(maps["selfheal-node-problem-detector"]["data"]["mine.json"])
    assert [rule["pattern"] for rule in read["rules"]] == list(ODD)


@pytest.mark.parametrize("value", ["10 minutes", "10", "", "soon", "-1s", 0])
def test_a_duration_that_the_remediator_refuses_is_refused_by_its_key(
    helm: Helm, value: Any
) -> None:
    """And not by a pod that does not start."""
    values = {"remediator": {"config": {"observeFirst": value}}}
    assert "/remediator/config/observeFirst" in helm.refusal(values=values)


LONG = f"{'a' * 254}/b"


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("nodeSelector", {LONG: "x"}),
        ("excludeNodeSelector", {"a": "b" * 64}),
        ("taint", {"key": LONG}),
        ("taint", {"key": f"a..b/{'c' * 5}"}),
        ("limits", {"groupLabel": LONG}),
        ("policies", {"namespaces": ["a.b"]}),
        ("groups", [{"name": "a", "nodeSelector": {"matchLabels": {LONG: "x"}}}]),
        (
            "groups",
            [
                {"name": "a", "nodeSelector": {"matchExpressions": [one]}}
                for one in ({"key": LONG, "operator": "Exists"},)
            ],
        ),
        *[
            ("rules", [{"condition": "A", "action": "drain", "then": [step]}])
            for step in (
                {"webhook": {"url": "https://x", "secretFile": "/x", "labels": [LONG]}},
                {"machine": {"mode": "delete", "namespace": "A"}},
                {
                    "job": {
                        "template": {
                            "metadata": {"annotations": {LONG: ""}},
                            "spec": {"containers": [{"name": "c"}]},
                        }
                    }
                },
                {
                    "resource": {
                        "template": {
                            "apiVersion": "v1",
                            "kind": "A",
                            "metadata": {"name": "a", "labels": {LONG: ""}},
                        },
                        "succeeded": {"condition": "A"},
                    }
                },
            )
        ],
    ],
)
def test_a_name_that_kubernetes_refuses_is_refused_by_chart_and_remediator(
    helm: Helm, where: str, value: Any
) -> None:
    assert f"/remediator/config/{where}" in helm.refusal(
        values={"remediator": {"config": {where: value}}}
    )
    with pytest.raises(SettingsError, match=f"^here: {where}.* allowed|and no namespace"):
        parse_config(json.dumps({where: value}), "here")


@pytest.mark.parametrize("key", ["name", "deadLetters", "results"])
def test_a_queue_is_not_called_what_the_worker_refuses(helm: Helm, key: str) -> None:
    assert f"/queue/{key}" in helm.refusal(values={"queue": {key: "a\nb"}})


@pytest.mark.parametrize(
    ("value", "observes"), [("10m", True), ("500ms", True), ("0s", False), ("0h0m", False)]
)
def test_the_notes_say_whether_it_observes_first(helm: Helm, value: str, observes: bool) -> None:
    notes = helm.notes(f"remediator.config.observeFirst={value}")
    assert (f"only reports what it would do, for {value}" in notes) is observes


def _as_json(values: Manifest) -> str:
    """Helm's parser takes neither surrogate pairs in escapes nor raw control characters."""
    text = json.dumps(values, ensure_ascii=False)
    return re.sub(r"[\x7f-\x9f\u2028\u2029\ufeff]", lambda found: f"\\u{ord(found[0]):04x}", text)


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
