"""Reads chart/values.yaml with its comments: the one place where a value is described.

A key's comment block starts with `# -- ` and is its description; a line `# @schema {…}` in it is
JSON Schema that is merged over what the default value says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

DESCRIPTION = "# -- "
SCHEMA = "# @schema "


class ValuesError(Exception):
    """values.yaml has keys that are not described, or annotations that are no JSON."""


@dataclass(frozen=True)
class Value:
    """One key of values.yaml: its dotted path, default, description and children, if it has any."""

    path: str
    default: Any
    description: str
    schema: dict[str, Any]
    children: dict[str, Value] = field(default_factory=dict)

    def leaves(self) -> Iterator[Value]:
        """What a user sets: keys without described children, in the order of the file."""
        if not self.children:
            yield self
        for child in self.children.values():
            yield from child.leaves()


def read(text: str) -> dict[str, Value]:
    """The keys of values.yaml. Raises ValuesError that names every key without a description."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise ValuesError("values.yaml: a mapping is expected")
    problems: list[str] = []
    values = _read_mapping(root, "", text.splitlines(), yaml.safe_load(text), problems)
    if problems:
        raise ValuesError("\n".join(problems))
    return values


def _read_mapping(
    node: yaml.MappingNode,
    prefix: str,
    lines: list[str],
    default: dict[str, Any],
    problems: list[str],
) -> dict[str, Value]:
    values = {}
    for key_node, value_node in node.value:
        key = key_node.value
        path = f"{prefix}{key}"
        line = key_node.start_mark.line
        description, annotation = _comment(lines, line, path, problems)
        if not description:
            problems.append(f"values.yaml line {line + 1}: {path} has no `# -- ` description")
        children: dict[str, Value] = {}
        opaque = "$ref" in annotation or "type" in annotation or "anyOf" in annotation
        if isinstance(value_node, yaml.MappingNode) and not opaque:
            children = _read_mapping(value_node, f"{path}.", lines, default[key], problems)
        values[key] = Value(path, default[key], description, annotation, children)
    return values


def _comment(
    lines: list[str], line: int, path: str, problems: list[str]
) -> tuple[str, dict[str, Any]]:
    block: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        block.insert(0, lines[line].strip())
    words: list[str] = []
    annotation: dict[str, Any] = {}
    for text in block:
        if text.startswith(SCHEMA):
            try:
                annotation = json.loads(text.removeprefix(SCHEMA))
            except json.JSONDecodeError as error:
                problems.append(f"values.yaml: the @schema of {path} is no JSON: {error}")
        elif text.startswith(DESCRIPTION):
            words = [text.removeprefix(DESCRIPTION)]
        elif words:
            words.append(text.removeprefix("#").strip())
    return " ".join(words), annotation
