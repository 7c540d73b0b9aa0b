"""values.yaml, its schema and its table say the same; what is not in them is refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ci.chart.__main__ import generated
from ci.chart.values import Value, ValuesError, read
from tests.chart.rendering import (
    CASES,
    CHART,
    FIXED,
    GROUPS,
    OPERATORS,
    Helm,
    by_kind,
    workloads,
)
from tests.chart.schemas import problems

SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))


def test_generated_files_are_fresh() -> None:
    for path, text in generated().items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run `python -m ci.chart write`"


def test_a_key_without_description_is_an_error() -> None:
    with pytest.raises(ValuesError, match=r"line 3: a\.b has no"):
        read("# -- Something.\na:\n  b: 1\n")


def test_an_annotation_that_is_no_json_is_an_error() -> None:
    with pytest.raises(ValuesError, match="the @schema of a is no JSON"):
        read("# -- Something.\n# @schema {nope\na: 1\n")


def _objects(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object with named properties in the schema, with its path."""
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict):
            yield path, schema
        for key, value in schema.items():
            yield from _objects(value, f"{path}/{key}")
    elif isinstance(schema, list):
        for index, item in enumerate(schema):
            yield from _objects(item, f"{path}/{index}")


def test_every_key_is_described() -> None:
    for path, schema in _objects(SCHEMA):
        for key, value in schema["properties"].items():
            assert value.get("description"), f"{path}: {key}"


def test_only_what_belongs_to_others_is_open() -> None:
    """`global` is shared with other charts; a detector's monitor is documented by the detector, a
    pod template by Kubernetes, an object that a step creates by whoever acts on it."""
    opened = {
        path for path, schema in _objects(SCHEMA) if schema.get("additionalProperties") is not False
    }
    assert opened == {
        "/properties/global",
        "/$defs/jobStep/properties/template",
        "/$defs/jobStep/properties/template/properties/metadata",
        "/$defs/monitor",
        "/$defs/resourceStep/properties/template",
    }


def _places(values: dict[str, Value]) -> Iterator[str]:
    """The paths of all mappings whose keys are the chart's own."""
    for value in values.values():
        if value.children and value.path != "global":
            yield f"{value.path}."
            yield from _places(value.children)


def test_an_unknown_key_is_refused_by_name_and_place(helm: Helm) -> None:
    """At each level that values.yaml has, except in maps of the user's own names."""
    strict = ["", *_places(read((CHART / "values.yaml").read_text(encoding="utf-8")))]
    assert len(strict) > 30
    message = helm.refusal(values=_nested([f"{place}nope" for place in strict]))
    for place in strict:
        pointer = "/" + place.removesuffix(".").replace(".", "/") if place else ""
        assert f"at '{pointer}': additional properties 'nope' not allowed" in message, place


def _nested(paths: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for path in paths:
        here = values
        *parents, last = path.split(".")
        for parent in parents:
            here = here.setdefault(parent, {})
        here[last] = {}
    return values


def _dropped(keep: set[str]) -> dict[str, Any]:
    """Values with null for each key of values.yaml that the schema requires (`required`) or not."""
    values: dict[str, Any] = {}
    for top in read((CHART / "values.yaml").read_text(encoding="utf-8")).values():
        for leaf in top.leaves():
            *parents, key = leaf.path.split(".")
            schema, here = SCHEMA, values
            for parent in parents:
                schema = schema["properties"][parent]
            if ("required" if key in schema["required"] else "optional") in keep:
                for parent in parents:
                    here = here.setdefault(parent, {})
                here[key] = None
    return values


def test_what_has_a_default_and_no_meaning_without_cannot_be_dropped(helm: Helm) -> None:
    message = helm.refusal(values=_dropped({"required"}))
    for key in ("concurrency", "maxReplicas", "pollingInterval", "username", "stabilizationWindow"):
        assert re.search(rf"missing propert.*'{key}'", message), key


def test_what_may_be_dropped_leaves_valid_manifests(helm: Helm, crds: tuple[Path, ...]) -> None:
    values = _dropped({"optional"})
    assert values["worker"]["resources"] is None
    manifests = helm.template(values=values)
    assert [p for m in manifests for p in problems(m, "1.34", crds)] == []


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("autoscaling.mode=both", "'keda', 'hpa', 'none', 'auto'"),
        ("worker.image.pullPolicy=Sometimes", "'Always', 'IfNotPresent', 'Never'"),
        ("worker.image.digest=sha256:12", "/worker/image/digest"),
        ("worker.concurrency=0", "/worker/concurrency"),
        ("worker.concurrency=many", "/worker/concurrency"),
        ("worker.concurrency=1025", "/worker/concurrency"),
        ("model.deadlineSeconds=3600.5", "/model/deadlineSeconds"),
        ("model.temperature=2.5", "/model/temperature"),
        ("worker.resources.limits.memory=lots", "/worker/resources/limits/memory"),
        (
            "remediator.config.recovery.stabilizationWindow=5",
            "/remediator/config/recovery/stabilizationWindow",
        ),
        (
            "remediator.config.recovery.stabilizationWindow=5 minutes",
            "/remediator/config/recovery/stabilizationWindow",
        ),
        ("remediator.config.rules[0].condition=A", "/remediator/config/rules/0"),
        (
            "remediator.config.limits.maxUnavailable=120%",
            "/remediator/config/limits/maxUnavailable",
        ),
        ("rabbitmq.plugins={rabbitmq_prometheus}", "/rabbitmq/plugins"),
        ("broker.managementUrl=https://user:pw@b:15671", "/broker/managementUrl"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(helm: Helm, assignment: str, said: str) -> None:
    assert said in helm.refusal(assignment)


def test_every_example_is_in_the_table() -> None:
    rows = (CHART / "README.md").read_text(encoding="utf-8").partition("## Examples")[2]
    table = rows.partition("## Good to know")[0]
    assert set(re.findall(r"`([a-z0-9-]+)`[,| ]", table)) >= CASES.keys() - {"default"}


def _umbrella(folder: Path, values: dict[str, Any], *dependencies: dict[str, str]) -> Path:
    """A chart of somebody's that has this one as a dependency, once or more often."""
    umbrella = folder / "umbrella"
    (umbrella / "charts").mkdir(parents=True)
    (umbrella / "charts" / "selfheal").symlink_to(CHART)
    needed = [{"name": "selfheal", "version": ">=0.0.0", **one} for one in dependencies]
    about = {"apiVersion": "v2", "name": "umbrella", "version": "1.0.0", "dependencies": needed}
    (umbrella / "Chart.yaml").write_text(json.dumps(about))
    (umbrella / "values.yaml").write_text(json.dumps(values))
    return umbrella


def test_works_as_a_dependency(helm: Helm, helm3: Helm, tmp_path: Path) -> None:
    """In an umbrella chart, with `condition: selfheal.enabled` and globals of its own."""
    values = {
        "global": {"company": "acme", "imageRegistry": "registry.acme"},
        "selfheal": {"enabled": True, "queue": {"name": "acme"}},
    }
    umbrella = _umbrella(tmp_path, values, {"condition": "selfheal.enabled"})
    for each in (helm, helm3):
        manifests = each.template(chart=umbrella, release="acme")
        worker = by_kind(manifests, "Deployment")["acme-selfheal-worker"]
        image = worker["spec"]["template"]["spec"]["containers"][0]["image"]
        assert image.startswith("registry.acme/selfheal-worker:")
        assert each.template("selfheal.enabled=false", chart=umbrella, release="acme") == []


def test_two_pipelines_in_one_umbrella_keep_apart(helm: Helm, tmp_path: Path) -> None:
    """No selector of one finds pods of the other."""
    alone = {"remediator": {"enabled": False}, "nodeProblemDetector": {"enabled": False}}
    aliases = ("reviews", "tickets")
    umbrella = _umbrella(
        tmp_path, dict.fromkeys(aliases, alone), *({"alias": alias} for alias in aliases)
    )
    manifests = helm.template("tickets.queue.name=tickets", chart=umbrella, release="acme")
    names = [(m["kind"], m["metadata"]["name"]) for m in manifests]
    assert len(names) == len(set(names))
    pods = [m["spec"]["template"]["metadata"]["labels"] for m in workloads(manifests)]
    assert len(pods) == 2 * len({labels["app.kubernetes.io/component"] for labels in pods})
    for service in by_kind(manifests, "Service").values():
        selector = service["spec"]["selector"]
        assert sum(selector.items() <= labels.items() for labels in pods) == 1


def test_anchors_may_stand_at_the_top(helm: Helm) -> None:
    anchors = {"x-common": {"image": {"tag": "1"}}, "x-resources": None}
    assert helm.template(*FIXED, values=anchors) == helm.template(*FIXED)
    assert "common" in helm.refusal(values={"common": {}})
    assert "x-common" in helm.refusal(values={"worker": {"x-common": {}}})


def _numbers(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of the integers without a maximum."""
    while "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    if "integer" in (schema.get("type", ()), *schema.get("type", ())) and "maximum" not in schema:
        yield path
    for key, value in schema.get("properties", {}).items():
        yield from _numbers(value, (*path, key))


@pytest.mark.parametrize("mode", ["keda", "hpa", "none"])
def test_a_large_number_is_written_in_full(helm: Helm, mode: str) -> None:
    """Not in the form 3e+06, which is a text to some readers of YAML."""
    values: dict[str, Any] = {}
    paths = list(_numbers(SCHEMA))
    assert ("worker", "replicas") in paths
    for *parents, key in paths:
        here = values
        for parent in parents:
            here = here.setdefault(parent, {})
        here[key] = 3_000_000
    values["autoscaling"]["mode"] = mode
    values["worker"]["priorityClass"]["value"] = -1
    values["remediator"]["config"]["limits"]["groupLabel"] = "group"
    values["ollama"].update(enabled=True, models=["m"], gpu={"count": 0})
    values["model"] = {**values.get("model", {}), "provider": "ollama", "name": "m"}
    values["alerts"] = {"enabled": True}
    text = str(helm.template(*FIXED, values=values, flags=GROUPS[OPERATORS]))
    assert re.findall(r".{20}\de\+\d+", text) == []
    assert "3000000" in text


#: How a sentence begins that is only understood below its heading.
CONTEXT = re.compile(
    r"(Its|Their|Those|Of|Make (one|it|them)|Run it|Have (one|a \w+\.)|Hold it|Look)\b"
)


def test_each_description_stands_alone() -> None:
    """In the table of README.md no heading is above it."""
    for value in read((CHART / "values.yaml").read_text(encoding="utf-8")).values():
        for leaf in value.leaves():
            assert not CONTEXT.match(leaf.description), f"{leaf.path}: {leaf.description}"
            assert len(re.findall(r"[\w`]+", leaf.description)) >= 4, leaf.path


def test_what_most_installs_set_is_on_the_first_two_screens(helm: Helm) -> None:
    """As an example that works."""
    lines = (CHART / "values.yaml").read_text(encoding="utf-8").splitlines()[:80]
    example = yaml.safe_load("\n".join(one[1:] for one in lines if one.startswith("#   ")))
    assert example.keys() >= {"worker", "model", "rabbitmq", "broker", "autoscaling", "remediator"}
    assert example["worker"]["image"]
    assert example["remediator"]["image"]
    names = {(m["kind"], m["metadata"]["name"]) for m in helm.template(values=example)}
    assert ("Deployment", "selfheal-worker") in names


def test_the_chart_names_no_address_that_leads_nowhere() -> None:
    """The project has no page of its own yet; its name in annotations is no address."""
    about = (CHART / "Chart.yaml").read_text(encoding="utf-8")
    hosts = {host.rstrip("/") for host in re.findall(r"https?://([^/\s\]]+)", about)}
    assert hosts == {"artifacthub.io"}


def test_the_chart_says_what_an_index_of_charts_asks_for() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    for key in ("icon", "maintainers", "keywords"):
        assert about[key], key
    noted = about["annotations"]
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    images = {one["image"] for one in yaml.safe_load(noted["artifacthub.io/images"])}
    parts = [values[part]["image"] for part in ("rabbitmq", "ollama", "nodeProblemDetector")]
    assert images == {f"{image['repository']}:{image['tag']}" for image in parts}
    (crd,) = yaml.safe_load(noted["artifacthub.io/crds"])
    made = yaml.safe_load((CHART / "crds" / "healingpolicy.yaml").read_text(encoding="utf-8"))
    assert (crd["name"], crd["kind"]) == (made["metadata"]["name"], made["spec"]["names"]["kind"])
    assert crd["version"] in [version["name"] for version in made["spec"]["versions"]]


def test_the_example_of_a_policy_for_an_index_of_charts_is_valid() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    [example] = yaml.safe_load(about["annotations"]["artifacthub.io/crdsExamples"])
    assert example["kind"] == "HealingPolicy"
    assert problems(example, "1.34", (CHART / "crds",)) == []
