"""Custom resources: pruning, defaults and validation by their structural schema.

https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/:
unknown fields and nulls are dropped, then defaults are filled in, then types, limits, patterns,
enums and list maps are checked. CEL rules are not evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from tests.simulation.cluster.messages import Json, clone

_FOLDER = Path(__file__).parents[3] / "chart/crds"
Problem = tuple[str, str]


@lru_cache(8)
def schema_of(file: str) -> Json:
    """The schema of the only version in a CustomResourceDefinition of the chart."""
    text = (_FOLDER / file).read_text(encoding="utf-8")
    (version,) = yaml.safe_load(text)["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    assert isinstance(schema, dict)
    return schema


def completed(schema: Json, value: Json) -> Json:
    """The object as it is stored: pruned, with defaults."""
    kept = {key: value[key] for key in ("apiVersion", "kind", "metadata") if key in value}
    done = _complete(schema, value)
    assert isinstance(done, dict)
    return {**done, **kept}


def _complete(schema: Json, value: Any) -> Any:
    if isinstance(value, dict):
        if "additionalProperties" in schema:
            inner = schema["additionalProperties"]
            return {k: _complete(inner, v) for k, v in value.items() if v is not None}
        known = schema.get("properties") or {}
        done = {
            key: _complete(known[key], item)
            for key, item in value.items()
            if key in known and item is not None
        }
        for key, inner in known.items():
            if key not in done and "default" in inner:
                done[key] = _complete(inner, clone(inner["default"]))
        return done
    if isinstance(value, list):
        return [_complete(schema.get("items") or {}, item) for item in value]
    return value


def problems(schema: Json, value: Any, path: str = "") -> Iterator[Problem]:
    """What is wrong: (field, message). Metadata is not checked."""
    wrong = _wrong_type(schema, value)
    if wrong:
        yield path or "<nil>", wrong
        return
    for name, check in _CHECKS.items():
        if name in schema and not check(value, schema[name]):
            yield path, f"Invalid value: {value!r}: {name} {schema[name]}"
    if isinstance(value, dict):
        for key in schema.get("required") or ():
            if key not in value:
                yield _join(path, key), "Required value"
        known = schema.get("properties") or {}
        for key, item in value.items():
            inner = known.get(key) or schema.get("additionalProperties")
            if inner and not (path == "" and key == "metadata"):
                yield from problems(inner, item, _join(path, key))
    elif isinstance(value, list):
        yield from _problems_of_list(schema, value, path)


def _problems_of_list(schema: Json, value: list[Any], path: str) -> Iterator[Problem]:
    for index, item in enumerate(value):
        yield from problems(schema.get("items") or {}, item, f"{path}[{index}]")
    names = schema.get("x-kubernetes-list-map-keys") or ()
    kind = schema.get("x-kubernetes-list-type")
    keys = [str([item.get(name) for name in names]) if names else str(item) for item in value]
    if kind in ("map", "set") and len(set(keys)) < len(keys):
        yield path, "Duplicate value"


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


def _wrong_type(schema: Json, value: Any) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        fits = isinstance(value, int | str) and not isinstance(value, bool)
        return "" if fits else f"Invalid value: {value!r}: must be an integer or a string"
    kind = schema.get("type")
    if kind is None:
        return ""
    fits = isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))
    return "" if fits else f"Invalid value: {value!r}: must be of type {kind}"


def _format(value: Any, name: Any) -> bool:
    match name:
        case "int32":
            return bool(-(2**31) <= value < 2**31)
        case "int64":
            return bool(-(2**63) <= value < 2**63)
        case "date-time":
            try:
                datetime.fromisoformat(value)
            except ValueError:
                return False
            return bool(
                re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$", value)
            )
    return True


_CHECKS: dict[str, Callable[[Any, Any], bool]] = {
    "enum": lambda value, allowed: value in allowed,
    "minimum": lambda value, least: value >= least,
    "maximum": lambda value, most: value <= most,
    "minLength": lambda value, least: len(value) >= least,
    "maxLength": lambda value, most: len(value) <= most,
    "pattern": lambda value, pattern: re.search(pattern, value) is not None,
    "maxItems": lambda value, most: len(value) <= most,
    "maxProperties": lambda value, most: len(value) <= most,
    "format": _format,
}
