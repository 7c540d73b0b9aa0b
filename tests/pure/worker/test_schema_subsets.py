"""The schema that is sent has the keywords alone that servers take."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from selfheal_worker.model import schema_subsets
from selfheal_worker.task import task_file
from selfheal_worker.task.task import Task

TRIAGE = Path(__file__).parents[3] / "docs" / "examples" / "ticket-triage.yaml"
TASKS = [task_file.load(), task_file.load(TRIAGE)]


def _parts(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for one in schema["properties"].values():
        yield one
        if "items" in one:
            yield one["items"]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_strict_mode_gets_its_keywords_and_a_type_everywhere(task: Task) -> None:
    schema = schema_subsets.strict(task.grammar())
    assert schema.keys() == {"type", "properties", "required", "additionalProperties"}
    assert schema["additionalProperties"] is False
    assert schema["required"] == [one.name for one in task.fields]
    for part in _parts(schema):
        assert part.keys() <= {"type", "description", "enum", "items"}
        assert isinstance(part["type"], str)
    assert len(json.dumps(schema)) < 15_000


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_what_is_left_out_is_in_the_grammar_and_so_in_our_own_check(task: Task) -> None:
    bounded = {key for part in _parts(task.grammar()) for key in part}
    assert {"maxItems", "maxLength"} <= bounded


def _listed(most: int, **item: Any) -> dict[str, Any]:
    return {"type": "array", "maxItems": most, "items": {"type": "string", **item}}


@pytest.mark.parametrize(
    ("part", "kept"),
    [
        ({"type": "string", "maxLength": 1999}, {"maxLength"}),
        ({"type": "string", "maxLength": 2000}, set()),
        ({"type": "string", "maxLength": 100_000}, set()),
        (_listed(5000), set()),
        (_listed(50, maxLength=2000), {"maxItems"}),
        (_listed(50, maxLength=40), {"maxItems"}),
        (_listed(5, maxLength=200), {"maxItems", "maxLength"}),
    ],
)
def test_a_grammar_of_llama_cpp_has_no_bound_that_its_parser_refuses(
    part: dict[str, Any], kept: set[str]
) -> None:
    schema = schema_subsets.repeatable({"type": "object", "properties": {"a": part}})
    keys = {key for one in _parts(schema) for key in one}
    assert keys & {"maxItems", "maxLength"} == kept


#: What a version of vLLM with xgrammar refuses, by type; "" is any type.
VLLM_REFUSES = {
    "": {
        "pattern",
        "format",
        "patternProperties",
        "propertyNames",
        "allOf",
        "oneOf",
        "not",
        "$ref",
    },
    "array": {"minItems", "maxItems", "uniqueItems", "contains", "minContains", "maxContains"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "string": {"minLength", "maxLength"},
    "object": {"minProperties", "maxProperties"},
}


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_no_form_of_the_request_has_a_keyword_that_vllm_refuses(task: Task) -> None:
    forms = (
        schema_subsets.strict(task.grammar()),
        schema_subsets.response_format(task)["json_schema"]["schema"],
        schema_subsets.tool(task)["function"]["parameters"],
    )
    for schema in forms:
        for part in (schema, *_parts(schema)):
            assert not part.keys() & (VLLM_REFUSES[""] | VLLM_REFUSES.get(part["type"], set()))
