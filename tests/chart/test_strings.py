"""A text of the values is the same text in the objects, whatever YAML would make of it unquoted."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from jsonschema import Draft7Validator

from tests.chart.rendering import CHART, LONG, Helm, Manifest, Rendering, by_kind

Path = tuple[str | int, ...]
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
PLAIN = "plainly"
#: Numbers, booleans, nulls and dates of one YAML or another, all of which a name may be.
NAMES = ("1e3", "0123", "yes", "null", "0x1f", "1.5", "2001-01-01")
#: What a name cannot be and another text can.
TEXTS = (
    *("0x1F", "1_000", "12:30", "~", "a: b #c", "#x", " x ", "'x' \"y\" \\", "{x, [y", "*x", "- x"),
    *("a\nb\tc", "<x> & ü"),
)


def _merged(one: Any, other: Any) -> Any:
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return copy.deepcopy(other)
    return {k: _merged(one.get(k), other[k]) if k in other else one[k] for k in one | other}


EVERYTHING: dict[str, Any] = {
    "networkPolicy": {"enabled": True},
    "metrics": {"podMonitor": {"enabled": True}},
    "alerts": {
        "enabled": True,
        "rules": {
            "SelfhealNodeCordonedLong": {"labels": {}, "annotations": {}, "severity": "info"}
        },
    },
    "dashboards": {"grafanaOperator": {"enabled": True}},
    "verticalPodAutoscaler": {"enabled": True},
    "nodeProblemDetector": {
        "customPlugins": {
            "mine": {"config": {"plugin": "custom", "source": "s", "rules": []}, "scripts": {}}
        }
    },
}
#: With the release's own broker and model server.
INSIDE: dict[str, Any] = {
    **EVERYTHING,
    "model": {"provider": "ollama", "name": "m"},
    "ollama": {
        "enabled": True,
        "models": ["m"],
        "persistence": {"enabled": True},
        "serviceAccount": {"create": False},
    },
    "autoscaling": {"mode": "hpa", "minReplicas": 1},
    "rabbitmq": {"serviceAccount": {"create": False}},
    "worker": {"serviceAccount": {"create": False}},
}
OUTSIDE: dict[str, Any] = {
    **EVERYTHING,
    "model": {"provider": "openai", "name": "m", "baseUrl": "http://m", "active": "other"},
    "models": {
        "other": {
            "provider": "openai",
            "name": "m",
            "version": "1",
            "baseUrl": "http://m",
            "existingSecret": "key",
            "secretKey": "k",
        }
    },
    "rabbitmq": {"enabled": False},
    "broker": {
        "host": "b",
        "managementUrl": "https://b:15671/",
        "existingSecret": "s",
        "tls": {"enabled": True, "existingSecret": "s", "certKey": "a", "keyKey": "b"},
    },
    "worker": {"serviceAccount": {"create": False}},
}
EXTERNAL = ("broker.host", "broker.existingSecret", "broker.secretKeys", "broker.tls")
#: Values of a release, and what cannot be set to just any text beside them.
WORLDS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "inside": (
        INSIDE,
        (
            *("rabbitmq.auth.existingSecret", "rabbitmq.auth.username", *EXTERNAL),
            *(
                "queue.deadLetters",
                "queue.results",
                "model.provider",
                "model.name",
                "model.ca.existingC",
            ),
        ),
    ),
    "outside": (
        OUTSIDE,
        (
            *("broker.secretKeys.uri", "queue.name", "queue.results", "rabbitmq.", "ollama."),
            "model.ca.existingS",
        ),
    ),
    "a Secret of yours": (
        _merged(INSIDE, {"rabbitmq": {"auth": {"existingSecret": "s"}}}),
        (
            *("rabbitmq.auth.password", "rabbitmq.auth.monitor", *EXTERNAL),
            *(
                "queue.deadLetters",
                "queue.name",
                "model.provider",
                "model.name",
                "model.ca.existingS",
            ),
        ),
    ),
    "a URI": (
        _merged(OUTSIDE, {"broker": {"secretKeys": {"uri": "u"}}}),
        ("queue.deadLetters", "queue.results", "rabbitmq.", "ollama.", "model.ca.existingC"),
    ),
}
#: Not any text: the name of another value, a file, a template.
OTHERS = ("nameOverride", "fullnameOverride", "model.active", "model.fallback", "task", "extra")


#: What worlds have in common is tried with every text in one of them.
TRIED = [
    (world, text)
    for number, world in enumerate(WORLDS)
    for text in (*NAMES, *TEXTS)
    if LONG or number < 2 or text == "a: b #c"
]


#: Annotations that say what a pod read at its start.
CHECKSUMS = {"checksum/configuration", "checksum/passwords"}


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def _places(value: Any, schema: dict[str, Any], path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every place of a text, with its schema; maps and lists of texts have one of their own."""
    schema = _resolved(schema)
    if isinstance(value, dict):
        more = schema.get("additionalProperties")
        if more == {"type": "string"}:
            yield (*path, "added"), more
            return
        for key, item in value.items():
            inner = schema.get("properties", {}).get(key) or more
            if isinstance(inner, dict):
                yield from _places(item, inner, (*path, key))
    elif isinstance(value, list):
        items = schema.get("items", {})
        if value and isinstance(value[0], dict):
            yield from _places(value[0], items, (*path, 0))
        elif "items" in schema:
            yield (*path, len(value)), items
    elif value is None or isinstance(value, str):
        yield path, schema


def _accepts(schema: dict[str, Any], text: str) -> bool:
    validator = Draft7Validator({**schema, "$defs": SCHEMA["$defs"]})
    return bool(validator.is_valid(text))


@cache
def _places_for(world: str, text: str) -> tuple[Path, ...]:
    """The places that take this text."""
    base, without = WORLDS[world]
    return tuple(
        path
        for path, schema in _places(_merged(DEFAULTS, base), SCHEMA)
        if not ".".join(map(str, path)).startswith((*OTHERS, *without)) and _accepts(schema, text)
    )


def _values(world: str, places: Sequence[Path], text: str) -> dict[str, Any]:
    """The world's values with the text in all these places."""
    values: Any = copy.deepcopy(_merged(DEFAULTS, WORLDS[world][0]))
    for *steps, last in places:
        node = values
        for step in steps:
            node = node[step]
        if isinstance(node, list) and last == len(node):
            node.append(text)
        else:
            node[last] = text
    return dict(values)


def _rendered(helm: Helm, values: dict[str, Any]) -> list[Manifest]:
    # As JSON: PyYAML leaves texts unquoted that are numbers to others, such as 1e3.
    groups = ("keda.sh/v1alpha1", "monitoring.coreos.com/v1", "autoscaling.k8s.io/v1")
    flags = tuple(f"--api-versions={group}" for group in groups)
    return helm.render(Rendering(values=json.dumps(values), flags=flags))


def _forms(text: str) -> Iterator[str]:
    """The text as it stands in other texts: in JSON, in JSON inside of JSON, in a URL."""
    yield text
    for ascii in (True, False):
        once = json.dumps(text, ensure_ascii=ascii)[1:-1]
        yield once
        yield json.dumps(once)[1:-1]
    yield quote(text, safe="")


def _unhashed(text: str) -> str:
    """The name of a Job without the hash of what it does."""
    return re.sub(r"-(topology|passwords)-[0-9a-f]{8,10}$", r"-\1", text)


def _differences(plain: Any, odd: Any, text: str, path: str = "") -> Iterator[str]:
    """Where `odd` is not what `plain` is with the text instead of PLAIN."""
    if type(plain) is not type(odd):
        yield f"{path}: {odd!r} and not {plain!r}"
    elif isinstance(plain, dict):
        expected = {key.replace(PLAIN, text) for key in plain}
        if expected != odd.keys():
            yield f"{path} has {sorted(map(str, odd))} and not {sorted(expected)}"
            return
        for key in plain.keys() - CHECKSUMS:
            yield from _differences(
                plain[key], odd[key.replace(PLAIN, text)], text, f"{path}.{key}"
            )
    elif isinstance(plain, list):
        if len(plain) != len(odd):
            yield f"{path} has {len(odd)} items"
        for number, (one, other) in enumerate(zip(plain, odd, strict=False)):
            yield from _differences(one, other, text, f"{path}.{number}")
    elif isinstance(plain, str):
        yield from _of_texts(plain, odd, text, path)
    elif plain != odd:
        yield f"{path}: {odd!r} and not {plain!r}"


def _of_texts(plain: str, odd: str, text: str, path: str) -> Iterator[str]:
    if PLAIN in plain and (plain.startswith('{"') or path.endswith((".yaml", ".json"))):
        # A document of its own, read as the program in the pod reads it.
        yield from _differences(yaml.safe_load(plain), yaml.safe_load(odd), text, f"{path}:")
    elif _unhashed(odd) not in {_unhashed(plain).replace(PLAIN, form) for form in _forms(text)}:
        yield f"{path}: {odd!r} and not {plain!r}"


@pytest.mark.parametrize(("world", "text"), TRIED)
def test_a_text_stays_what_it_is(helm: Helm, world: str, text: str) -> None:
    places = [path for path in _places_for(world, text) if path in _places_for(world, PLAIN)]
    assert len(places) > 40  # the others take names of objects only
    plain = _rendered(helm, _values(world, places, PLAIN))
    odd = _rendered(helm, _values(world, places, text))
    assert list(_differences(plain, odd, text)) == []


@pytest.mark.parametrize("text", ["0123", "123456", "1.50"])
def test_a_quantity_stays_what_it_is(helm: Helm, text: str) -> None:
    """An unquoted 0123 is 83 to YAML."""
    sizes = {component: {"persistence": {"size": text}} for component in ("rabbitmq", "ollama")}
    manifests = _rendered(helm, _merged(DEFAULTS, _merged(INSIDE, sizes)))
    [broker] = by_kind(manifests, "StatefulSet").values()
    claims = [
        *broker["spec"]["volumeClaimTemplates"],
        *by_kind(manifests, "PersistentVolumeClaim").values(),
    ]
    assert [claim["spec"]["resources"]["requests"]["storage"] for claim in claims] == [text, text]


@pytest.mark.parametrize("text", ["a: b", "#x", "UP", "x ", "-x", "a/b", "a_b", "a\nb"])
@pytest.mark.parametrize(
    "key",
    ["nameOverride", "fullnameOverride", "dashboards.namespace", "nodeProblemDetector.namespace"],
)
def test_what_can_be_no_name_is_refused_by_its_key(helm: Helm, key: str, text: str) -> None:
    above, _, last = key.rpartition(".")
    values: dict[str, Any] = {above: {last: text}} if above else {last: text}
    assert last in helm.refusal(values=values)


@pytest.mark.parametrize("text", NAMES)
def test_a_name_of_digits_is_part_of_every_other(helm: Helm, text: str) -> None:
    for key in ("nameOverride", "fullnameOverride"):
        manifests = _rendered(helm, _merged(DEFAULTS, _merged(INSIDE, {key: text})))
        for manifest in manifests:
            assert text.replace(".", "-") in manifest["metadata"]["name"]


def test_no_text_of_a_template_stands_unquoted() -> None:
    """A number, a boolean or a constant need not be."""
    bare = re.compile(
        r"(?:^|[ {,])(name|namespace|storage|interval|for|whenDeleted|secretName): "
        r"\{\{([^{}]*)\}\}"
    )
    found = [
        f"{path.name}: {line.strip()}"
        for path in sorted((CHART / "templates").rglob("*"))
        if path.suffix in {".yaml", ".tpl"}
        for line in path.read_text(encoding="utf-8").splitlines()
        for match in bare.finditer(line)
        if not re.search(r"\| (quote|toJson|toRawJson)$", match[2].strip())
    ]
    assert found == []
