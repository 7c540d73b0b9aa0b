"""Task files: what may stand in one, and that all that is wrong is reported at once."""

from __future__ import annotations

import contextlib
import copy
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from selfheal_worker.task import answer, prompt, task_file
from selfheal_worker.task.answer import InvalidAnswerError
from selfheal_worker.task.task_file import TaskError

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "ticket-triage.yaml"
FILE: dict[str, Any] = yaml.safe_load(task_file.BUILT_IN.read_text())


def _parse(**changes: Any) -> Any:
    return task_file.parse(yaml.safe_dump(copy.deepcopy(FILE) | changes).encode(), "t.yaml")


def _problems(**changes: Any) -> list[str]:
    with pytest.raises(TaskError) as caught:
        _parse(**changes)
    lines = str(caught.value).splitlines()
    assert all(line.startswith("t.yaml: ") for line in lines)
    return [line.removeprefix("t.yaml: ") for line in lines]


@pytest.mark.parametrize("file", [task_file.BUILT_IN, EXAMPLE], ids=lambda f: f.stem)
def test_the_built_in_files_are_good(file: Path) -> None:
    task = task_file.load(file)
    assert task.examples
    for schema in (dict(task.schema), task.grammar()):
        jsonschema.Draft202012Validator.check_schema(schema)
        for example in task.examples:
            jsonschema.validate(example.answer, schema)
    asked = prompt.messages(task, "x")
    assert [role for role, _ in asked[:2]] == ["system", "human"]
    assert asked[-1][1].count("x") == 1


def test_all_that_is_wrong_is_reported_at_once() -> None:
    schema = {
        "type": "object",
        "properties": {
            "id": {"type": "boolean"},
            "mood": {"type": "string", "enum": [True, "off"]},
            "level": {"type": "integer", "minimum": 3},
            "notes": {"type": "string", "pattern": "x"},
            "deep": {"type": "object"},
        },
    }
    problems = _problems(name="My Task", colour=1, prompt=" ", schema=schema, synonyms={})
    assert {problem.split(": ")[0] for problem in problems} == {
        "colour",
        "name",
        "prompt",
        "schema.properties.id",
        "schema.properties.mood.enum",
        "schema.properties.level",
        "schema.properties.notes.pattern",
        "schema.properties.notes.maxLength",
        "schema.properties.deep",
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"primary_emotion": "Hunger"}, "examples[0].answer: primary_emotion is not one of"),
        ({"primary_emotion": "anger"}, "examples[0].answer.primary_emotion: must be written as"),
        (
            {"key_phrases": ["not there"]},
            "examples[0].answer.key_phrases: must be verbatim excerpts of",
        ),
        ({"more": 1}, "examples[0].answer.more: is not a field"),
        ({"confidence_score": 2}, "examples[0].answer: confidence_score is not from 0 to 1"),
    ],
)
def test_an_example_must_be_right(change: dict[str, Any], said: str) -> None:
    example = copy.deepcopy(FILE["examples"][0])
    example["answer"] |= change
    (problem,) = _problems(examples=[example])
    assert problem.startswith(said)


@pytest.mark.parametrize(
    ("synonyms", "said"),
    [
        ({"mood": {}}, "synonyms.mood: is not a field"),
        ({"confidence_score": {}}, "synonyms.confidence_score: is not a field with labels"),
        ({"sentiment": {"Good": []}}, "synonyms.sentiment.Good: is not one of"),
        ({"sentiment": {"Positive": [True]}}, "synonyms.sentiment.Positive: must be a list"),
        (
            {"sentiment": {"Positive": ["ok"], "Neutral": ["OK"]}},
            "synonyms.sentiment.Positive: 'ok' is also a synonym of another",
        ),
    ],
)
def test_synonyms_must_fit(synonyms: dict[str, Any], said: str) -> None:
    assert any(problem.startswith(said) for problem in _problems(synonyms=synonyms))


@pytest.mark.parametrize("content", [b"", b"[]", b"a: [", b"\xff\xfe\x00", b"a" * 300_000])
def test_what_is_no_task_is_refused(content: bytes) -> None:
    with pytest.raises(TaskError, match=r"^t\.yaml: "):
        task_file.parse(content, "t.yaml")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"TASK_FILE=.*none\.yaml cannot be read: No such file"):
        task_file.load(tmp_path / "none.yaml")


def test_each_kind_of_field_is_held_to_its_shape() -> None:
    task = task_file.load(EXAMPLE)
    good = dict(task.examples[0].answer)
    text = task.examples[0].text
    assert answer.check(good, text, task).fields() == good
    assert answer.check(good | {"urgency": "4"}, text, task).values["urgency"] == 4
    assert answer.check(good | {"needs_human": "Yes"}, text, task).values["needs_human"] is True
    wrong: dict[str, Any] = {
        "category": "Weather",
        "urgency": 2.5,
        "needs_human": "maybe",
        "topics": ["refund", "weather"],
        "summary": 7,
    }
    for name, value in wrong.items():
        with pytest.raises(InvalidAnswerError, match=f"^{name} "):
            answer.check(good | {name: value}, text, task)


def test_words_of_the_models_own_may_not_repeat_the_prompt() -> None:
    task = task_file.load(EXAMPLE)
    good = dict(task.examples[0].answer)
    for line in task.secrets:
        with pytest.raises(InvalidAnswerError, match="repeats the instructions"):
            answer.check(good | {"summary": f"I was told: {line}"[:300]}, "x", task)
    assert task.secrets


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": ["string", "null"], "maxLength": 9}, "must have one type"),
        ({"type": {"a": 1}}, "must have one type"),
        ({"type": None}, "must have one type"),
        ({"type": "string", "enum": {"a": 1}}, ".enum: must be 2 to 200 strings"),
        ({"type": "string", "enum": [["a"], "b"]}, ".enum: must be 2 to 200 strings"),
        ({"type": "string", "maxLength": [1]}, ".maxLength: must be given"),
        ({"type": "array", "items": [{"type": "string"}], "maxItems": 2}, ".items: must have type"),
        ({"type": "array", "items": {"type": ["string"]}, "maxItems": 2}, ".items: must have type"),
        ({"type": "boolean", "description": ["x"]}, ".description: must be a string"),
        ({"type": "number", "minimum": [0], "maximum": 1}, "must have a minimum and a maximum"),
        ({"type": "integer", "minimum": 0, "maximum": 10**16}, "between -10"),
        ({"type": "number", "minimum": 1, "maximum": 1}, "must have a minimum below"),
    ],
)
def test_a_property_of_an_odd_kind_is_an_error_with_its_place(schema: Any, said: str) -> None:
    changed = copy.deepcopy(FILE["schema"])
    changed["properties"]["odd"] = schema
    changed.pop("required", None)
    problems = _problems(schema=changed)
    assert any(one.startswith("schema.properties.odd") and said in one for one in problems)


@pytest.mark.parametrize("key", ["minimum", "maximum"])
@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("digits", [41, 400, 5000])
def test_a_range_of_hundreds_of_digits_is_an_error(key: str, sign: str, digits: int) -> None:
    content = yaml.safe_dump(FILE)
    content = re.sub(rf"{key}: [01]\b", f"{key}: {sign}{'9' * digits}", content, count=1)
    with pytest.raises(TaskError, match=r"^t\.yaml: at line \d+: a number out of range$"):
        task_file.parse(content.encode(), "t.yaml")


@pytest.mark.parametrize("odd", ["2026-01-31", "2026-02-31", ".nan", "!!set {a: null}"])
def test_what_json_does_not_have_in_an_example_is_an_error(odd: str) -> None:
    content = yaml.safe_dump(FILE) + "\n"
    content = content.replace("primary_emotion: Joy", f"primary_emotion: {odd}", 1)
    assert odd in content
    with pytest.raises(TaskError, match=r"^t\.yaml: at line \d+: "):
        task_file.parse(content.encode(), "t.yaml")


@pytest.mark.parametrize("part", ["name", "synonyms", "examples", "schema", "prompt", "version"])
@pytest.mark.parametrize("value", [[], {}, [[1]], {"a": {"b": 1}}, 7, 1.5, True, None, "", "x"])
def test_any_value_in_any_place_is_read_or_refused_in_words(part: str, value: Any) -> None:
    with contextlib.suppress(TaskError):
        _parse(**{part: value})
