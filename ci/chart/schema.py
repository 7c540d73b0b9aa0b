"""chart/values.schema.json from chart/values.yaml: strict, every key described."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ci.chart.values import Value

DEFINITIONS = Path(__file__).with_name("definitions.json")
#: Definitions that may be set to null, as users do to leave a setting out.
DROPPABLE = {
    f"#/$defs/{name}"
    for name in (
        *("annotations", "labels", "lookedFor", "object", "objects", "resources"),
        *("secretNames", "stringMap"),
    )
}


def schema(values: Mapping[str, Value]) -> dict[str, Any]:
    """The JSON Schema (draft 7, which every Helm reads) of these values."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the selfheal chart",
        **_object(values),
        # For users' YAML anchors.
        "patternProperties": {"^x-": {"description": "Yours: the chart does not read it."}},
        "$defs": json.loads(DEFINITIONS.read_text(encoding="utf-8")),
    }


def _object(values: Mapping[str, Value]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {key: _property(value) for key, value in values.items()},
        # Each key has a default, so one can only be missing when it was set to null.
        "required": [key for key, value in values.items() if not _may_be_null(value)],
        "additionalProperties": False,
    }


def _may_be_null(value: Value) -> bool:
    return value.default is None or value.schema.get("$ref") in DROPPABLE


def _property(value: Value) -> dict[str, Any]:
    if "additionalProperties" in value.schema and not value.children:
        found = {"type": "object"}
    elif value.children or value.default == {}:
        found = _object(value.children)
    else:
        found = {"type": _type(value)}
    if {"$ref", "anyOf", "enum"} & value.schema.keys():
        # The reference or the alternatives give the type.
        found = {}
    return {"description": value.description, **found, **value.schema}


def _type(value: Value) -> str:
    for kind, name in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string")):
        if isinstance(value.default, kind):
            return name
    if isinstance(value.default, list) and "items" in value.schema:
        return "array"
    if "type" in value.schema or "$ref" in value.schema or "anyOf" in value.schema:
        return "null"
    raise TypeError(f"values.yaml: {value.path} needs a `# @schema` that gives its type")
