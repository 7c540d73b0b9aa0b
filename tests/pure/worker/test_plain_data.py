"""JSON and YAML from people: what cannot be read is an error with its place, never a traceback."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from selfheal_worker import config
from selfheal_worker.config import SettingsError
from selfheal_worker.plain_data import PlainDataError, read_json, read_yaml
from selfheal_worker.task import task_file
from selfheal_worker.task.task_file import TaskError

HUGE = "9" * 400
JSON = {
    "deep lists": ("[" * 100_000, "nested deeper|is not JSON"),
    "deep objects": ('{"a":' * 5000 + "1" + "}" * 5000, "nested deeper"),
    "a little too deep": ('{"a":' * 70 + "1" + "}" * 70, "nested deeper than 64"),
    "many digits": ('{"a": ' + HUGE + "}", "a number of 400 digits"),
    "too many digits to convert": ('{"a": ' + "9" * 5000 + "}", "a number of 5000 digits"),
    "NaN": ('{"a": NaN}', "contains NaN"),
    "infinity": ('{"a": [-Infinity]}', "contains -Infinity"),
    "beyond a float": ('{"a": 1e999}', "out of range"),
    "a surrogate": ('{"a": "\\ud800"}', "lone surrogate"),
    "a surrogate in a key": ('{"\\udfff": 1}', "lone surrogate"),
    "a key twice": ('{"a": {"b": 1, "b": 2}}', 'names "b" twice'),
    "cut off": ('{"a": ', "is not JSON: .* at character 6"),
}
BOMB = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))])
MERGES = "\n".join(
    ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 60))]
)
YAML = {
    "deep lists": ("[" * 100_000, "at line 1: nested deeper"),
    "deep mappings": ("{a: " * 5000, "at line 1: nested deeper"),
    "deep blocks": ("- " * 5000 + "x", "at line 1: nested deeper"),
    "a date": ("a: 1\nb: 2026-01-31", 'at line 2: "2026-01-31" is a date'),
    "an impossible date": ("a: 2026-02-31", "at line 1: .* is a date"),
    "a time": ("a: 2026-02-28T10:00:00Z", "is a date"),
    "an impossible time": ("a: 2026-02-28T99:00:00Z", "is a date"),
    "a date by its tag": ("a: !!timestamp x", "is a date"),
    "many digits": (f"a: {HUGE}", "at line 1: a number out of range"),
    "too many digits to convert": ("a: " + "9" * 5000, "at line 1: a number out of range"),
    "not a number": ("a: .nan", "not a JSON number"),
    "infinity": ("a: [-.inf]", "not a JSON number"),
    "beyond a float": ("a: 1.0e+999", "not a JSON number"),
    "a tag": ("a: !!python/object:os.system x", "the tag .* is not allowed"),
    "a tag of its own": ("a: !secret x", "the tag .* is not allowed"),
    "a set": ("a: !!set {x: null}", "the tag set is not allowed"),
    "bytes": ("a: !!binary aGk=", "the tag binary is not allowed"),
    "no number": ("a: !!int x", 'at line 1: "x" is no int'),
    "no float": ("a: !!float x", 'at line 1: "x" is no float'),
    "no bool": ("a: !!bool maybe", 'at line 1: "maybe" is no bool'),
    "a key that is true": ("a:\n  yes: 1", "at line 2: a key must be a string"),
    "a key that is a number": ("1: a", "a key must be a string"),
    "a key that is a list": ("? [a]\n: b", "a key must be a string"),
    "a key twice": ("a: 1\na: 2", 'at line 2: "a" is given twice'),
    "an alias in itself": ("a: &a [*a]", "an alias refers to a value that contains it"),
    "aliases of aliases": (BOMB, "more than 50000 values"),
    "merges of merges": (MERGES, "more than 50000 values"),
    "no such alias": ("a: *b", "is not YAML at line 1"),
    "two documents": ("a: 1\n---\nb: 2", "is not YAML at line"),
    "a surrogate": ('a: "\\ud800"', "is not YAML|lone surrogate"),
    "no UTF-8": ("a: \udcff", "is not YAML"),
}


@pytest.mark.parametrize(("content", "said"), JSON.values(), ids=list(JSON))
def test_json_that_cannot_be_taken(content: str, said: str) -> None:
    with pytest.raises(PlainDataError, match=said):
        read_json(content)


@pytest.fixture(params=["C", "Python"])
def _either_reader(request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML is installed with libyaml or without it."""
    if request.param == "Python":
        monkeypatch.setattr(yaml, "CSafeLoader", yaml.SafeLoader, raising=False)


@pytest.mark.usefixtures("_either_reader")
@pytest.mark.parametrize(("content", "said"), YAML.values(), ids=list(YAML))
def test_yaml_that_cannot_be_taken(content: str, said: str) -> None:
    with pytest.raises(PlainDataError, match=said):
        read_yaml(content.encode(errors="surrogateescape"))
    with pytest.raises(TaskError, match=rf"^t\.yaml: .*(?:{said})"):
        task_file.parse(content.encode(errors="surrogateescape"), "t.yaml")


@pytest.mark.usefixtures("_either_reader")
@pytest.mark.parametrize(
    "content",
    [
        "a: [1, 2.5, true, null, x, 'é', '2026-01-31', -0.0]\nb: {c: {}}",
        "a: &one [x]\nb: *one\nc: {<<: {d: 1}, e: 2}",
        '{"a": 1, "b": [1e3, "\\u00e9"]}',
        "",
        "just words",
    ],
)
def test_plain_yaml_is_read_as_before(content: str) -> None:
    assert read_yaml(content.encode()) == yaml.safe_load(content)


def test_plain_json_is_read_as_before() -> None:
    content = '{"a": [1, 2.5, true, null, "é", "\\ud83d\\ude00"], "b": {"c": {}}, "d": -1e-300}'
    assert read_json(content) == json.loads(content)


@pytest.mark.parametrize("variable", ["MODELS", "MODEL_OPTIONS"])
@pytest.mark.parametrize(("content", "said"), JSON.values(), ids=list(JSON))
def test_a_setting_in_json_names_its_variable(variable: str, content: str, said: str) -> None:
    given = {variable: content, "AMQP_HOST": "h"}
    with pytest.raises(SettingsError, match=rf"^{variable}: .*(?:{said})"):
        config.load(given)


def test_a_secret_in_such_a_setting_is_not_quoted() -> None:
    for content in ('{"a": "hunter2"', '{"a": "hunter2", "b": NaN}', '["hunter2"]'):
        with pytest.raises(SettingsError) as caught:
            config.load({"MODEL_OPTIONS": content, "AMQP_HOST": "h"})
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("variable", ["QUEUE_NAME", "MODEL_NAME", "AMQP_PASSWORD", "TASK_FILE"])
def test_a_variable_that_is_no_text_is_named(variable: str) -> None:
    given = {"AMQP_HOST": "h", variable: b"sec\xffret".decode(errors="surrogateescape")}
    with pytest.raises(SettingsError, match=f"^{variable}: is not UTF-8$"):
        config.load(given)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MODEL_SEED", HUGE),
        ("MODEL_SEED", "9" * 5000),
        ("DLQ_MAX_LENGTH", HUGE),
        ("RESULTS_MAX_LENGTH", HUGE),
        ("MODEL_REQUESTS_PER_MINUTE", "inf"),
        ("MODEL_REQUESTS_PER_MINUTE", "nan"),
        ("MODEL_DEADLINE", "nan"),
        ("MODEL_TEMPERATURE", "nan"),
        ("SHUTDOWN_GRACE", "inf"),
        ("CONCURRENCY", HUGE),
        ("RETRY_DELAYS", "1,²"),
        ("MODELS", '{"a": {"provider": "ollama", "seed": ' + "9" * 39 + "}}"),
        ("MODELS", '{"a": {"provider": "ollama", "requestsPerMinute": 1e300}}'),
    ],
)
def test_a_number_out_of_range_names_its_variable(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{variable}: "):
        config.load({"AMQP_HOST": "h", variable: value})
