"""Task files: reading and validation; all errors are reported at once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from selfheal_worker.plain_data import PlainDataError, read_yaml
from selfheal_worker.task import answer as validated
from selfheal_worker.task.task import (
    MAX_PHRASE_CHARACTERS,
    Example,
    Field,
    Flag,
    Label,
    Labels,
    Number,
    Phrases,
    Task,
    Words,
)

BUILT_IN = Path(__file__).with_name("tasks") / "emotion.yaml"

_MAX_BYTES = 256 * 1024
_MAX_FIELDS = 32
_MAX_LABELS = 200
_MAX_LABEL = 64
_MAX_PROMPT = 16_000
_LONGEST_WORDS = 2000
_MOST_ITEMS = 50
# A shorter line of a prompt may occur in an answer by chance.
_SECRET_LINE = 40
_KEYS = {"name", "version", "subject", "prompt", "schema", "synonyms", "examples"}
_SCHEMA_KEYS = {"type", "properties", "required", "additionalProperties", "title", "description"}
_PROPERTY_KEYS = {
    "string": {"enum", "maxLength"},
    "number": {"minimum", "maximum"},
    "integer": {"minimum", "maximum"},
    "boolean": set[str](),
    "array": {"items", "maxItems", "x-verbatim"},
}
#: What the worker itself writes into a result.
RESERVED = frozenset(
    {
        "id",
        "id_generated",
        "model",
        "task",
        "degraded",
        "truncated",
        "attempts",
        "timings",
        "metadata",
        "extra",
    }
)


class TaskError(Exception):
    """A task file is wrong; one line for each thing that is."""


def load(path: Path | None = None) -> Task:
    """Read a task file, or the built-in task. Raises `TaskError`."""
    source = path or BUILT_IN
    try:
        content = source.read_bytes()
    except OSError as error:
        raise TaskError(f"TASK_FILE={source} cannot be read: {error.strerror}") from None
    return parse(content, str(source))


def parse(content: bytes, source: str) -> Task:
    """A task from YAML (or JSON, which is YAML). Raises `TaskError`; source names it there."""
    if len(content) > _MAX_BYTES:
        raise TaskError(f"{source}: has {len(content)} bytes, at most {_MAX_BYTES} are allowed")
    try:
        found = read_yaml(content)
    except PlainDataError as error:
        raise TaskError(f"{source}: {error}") from None
    reader = _Reader()
    task = reader.task(found)
    if reader.problems or task is None:
        raise TaskError("\n".join(f"{source}: {problem}" for problem in reader.problems))
    return task


class _Reader:
    """Goes through a file and collects what is wrong, each with the place where it stands."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def wrong(self, where: str, what: str) -> None:
        self.problems.append(f"{where}: {what}")

    def task(self, found: Any) -> Task | None:
        if not isinstance(found, dict):
            self.wrong("the file", f"must be a mapping with {', '.join(sorted(_KEYS))}")
            return None
        self._known(found, _KEYS, "")
        name = self._string(found, "name", r"[a-z0-9][a-z0-9-]{0,62}", "small letters, digits, -")
        version = self._string(found, "version", r"\S{1,32}", "1 to 32 characters, no blanks")
        subject = self._string(found, "subject", r"[a-z][a-z ]{0,31}", "a noun", "text")
        prompt = found.get("prompt")
        if not isinstance(prompt, str) or not 0 < len(prompt.strip()) <= _MAX_PROMPT:
            self.wrong("prompt", f"must be a string of 1 to {_MAX_PROMPT} characters")
            prompt = ""
        fields = self._fields(found.get("schema"), self._synonyms(found))
        if self.problems:
            return None
        task = Task(
            name=name,
            version=version,
            subject=subject,
            prompt=prompt,
            schema=found["schema"],
            fields=tuple(fields),
            secrets=tuple(
                line.strip() for line in prompt.splitlines() if len(line.strip()) >= _SECRET_LINE
            ),
        )
        examples = self._examples(found.get("examples"), task)
        return None if self.problems else replace(task, examples=tuple(examples))

    def _known(self, found: Mapping[Any, Any], allowed: set[str], where: str) -> None:
        for key in found:
            if key not in allowed:
                self.wrong(f"{where}{key}", f"is not known; known are {', '.join(sorted(allowed))}")

    def _string(
        self, found: Mapping[str, Any], key: str, pattern: str, allowed: str, default: str = ""
    ) -> str:
        value = found.get(key, default)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)  # version: 2
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            self.wrong(key, f"must be given ({allowed})" if not value else f"must be {allowed}")
            return ""
        return value

    def _synonyms(self, found: Mapping[str, Any]) -> Mapping[str, Any]:
        synonyms = found.get("synonyms", {})
        if isinstance(synonyms, dict):
            return synonyms
        self.wrong("synonyms", "must be a mapping: field, label, list of words")
        return {}

    def _fields(self, schema: Any, synonyms: Mapping[str, Any]) -> list[Field]:
        if not isinstance(schema, dict) or schema.get("type") != "object":
            self.wrong("schema", "must be a JSON schema with type: object")
            return []
        self._known(schema, _SCHEMA_KEYS, "schema.")
        properties = schema.get("properties")
        if not isinstance(properties, dict) or not 0 < len(properties) <= _MAX_FIELDS:
            self.wrong("schema.properties", f"must have 1 to {_MAX_FIELDS} fields")
            return []
        if "required" in schema and schema["required"] != list(properties):
            self.wrong("schema.required", "must name all properties in their order (or be absent)")
        if schema.get("additionalProperties", False) is not False:
            self.wrong("schema.additionalProperties", "must be false (or absent)")
        fields = [self._field(str(name), one, synonyms) for name, one in properties.items()]
        listed = {one.name: one for one in fields if isinstance(one, Label | Labels)}
        for name in synonyms:
            if name not in properties:
                self.wrong(f"synonyms.{name}", "is not a field of the schema")
            elif name not in listed and all(fields):
                self.wrong(f"synonyms.{name}", "is not a field with labels (enum)")
        return [one for one in fields if one is not None]

    def _field(self, name: str, schema: Any, synonyms: Mapping[str, Any]) -> Field | None:
        where = f"schema.properties.{name}"
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", name):
            self.wrong(where, "must be a name of letters, digits and _")
        if name in RESERVED:
            self.wrong(where, "is a field that the worker itself writes; use another name")
        kind = schema.get("type") if isinstance(schema, dict) else None
        if not isinstance(kind, str) or kind not in _PROPERTY_KEYS:
            self.wrong(where, f"must have one type: {', '.join(_PROPERTY_KEYS)}")
            return None
        self._known(schema, _PROPERTY_KEYS[kind] | {"type", "description"}, f"{where}.")
        if not isinstance(schema.get("description", ""), str):
            self.wrong(f"{where}.description", "must be a string")
        match kind:
            case "string":
                return self._text(name, schema, synonyms.get(name), where)
            case "array":
                return self._array(name, schema, synonyms.get(name), where)
            case "boolean":
                return Flag(name)
        return self._number(name, schema, where)

    def _text(
        self, name: str, schema: Mapping[str, Any], synonyms: Any, where: str
    ) -> Label | Words | None:
        if "enum" in schema:
            return self._label(name, schema["enum"], synonyms, where)
        longest = self._count(schema, "maxLength", _LONGEST_WORDS, where)
        return Words(name, longest)

    def _label(self, name: str, labels: Any, synonyms: Any, where: str) -> Label | None:
        good = (
            isinstance(labels, list)
            and 1 < len(labels) <= _MAX_LABELS
            and all(isinstance(one, str) and 0 < len(one) <= _MAX_LABEL for one in labels)
        )
        if not good:
            self.wrong(
                f"{where}.enum",
                f"must be 2 to {_MAX_LABELS} strings of 1 to {_MAX_LABEL} characters"
                " (quote yes, no, on and off)",
            )
            return None
        words = {str(one).strip().lower(): str(one) for one in labels}
        if len(words) < len(labels):
            self.wrong(f"{where}.enum", "has labels that differ only in case")
        self._add_synonyms(name, words, set(labels), synonyms)
        return Label(name, tuple(labels), words)

    def _add_synonyms(
        self, name: str, words: dict[str, str], labels: set[str], synonyms: Any
    ) -> None:
        if synonyms is None:
            return
        if not isinstance(synonyms, dict):
            self.wrong(f"synonyms.{name}", "must be a mapping: label, list of words")
            return
        for label, others in synonyms.items():
            where = f"synonyms.{name}.{label}"
            if label not in labels:
                self.wrong(where, f"is not one of {', '.join(sorted(labels))}")
            elif not isinstance(others, list) or not all(isinstance(o, str) for o in others):
                self.wrong(where, "must be a list of strings (quote yes, no, on and off)")
            else:
                for other in others:
                    if words.setdefault(other.strip().lower(), label) != label:
                        self.wrong(where, f"{other!r} is also a synonym of another label")

    def _number(self, name: str, schema: Mapping[str, Any], where: str) -> Number | None:
        ends = [schema.get("minimum"), schema.get("maximum")]
        if not all(isinstance(e, int | float) and not isinstance(e, bool) for e in ends):
            self.wrong(where, "must have a minimum and a maximum")
            return None
        low, high = (float(end) for end in ends if end is not None)
        if not abs(low) + abs(high) < 1e15:
            self.wrong(where, "must have a minimum and a maximum between -10^15 and 10^15")
        elif not low < high:
            self.wrong(where, "must have a minimum below its maximum")
        return Number(name, low, high, whole=schema["type"] == "integer")

    def _array(
        self, name: str, schema: Mapping[str, Any], synonyms: Any, where: str
    ) -> Phrases | Labels | None:
        items = schema.get("items")
        if not isinstance(items, dict) or items.get("type") != "string":
            self.wrong(f"{where}.items", "must have type: string")
            return None
        self._known(items, {"type", "enum", "maxLength", "description"}, f"{where}.items.")
        most = self._count(schema, "maxItems", _MOST_ITEMS, where)
        if "enum" in items:
            one = self._label(name, items["enum"], synonyms, f"{where}.items")
            return Labels(name, one, most) if one else None
        verbatim = schema.get("x-verbatim", False)
        if not isinstance(verbatim, bool):
            self.wrong(f"{where}.x-verbatim", "must be true or false")
        longest = MAX_PHRASE_CHARACTERS
        if "maxLength" in items:
            longest = self._count(items, "maxLength", _LONGEST_WORDS, f"{where}.items")
        return Phrases(name, most, longest, verbatim is True)

    def _count(self, schema: Mapping[str, Any], key: str, most: int, where: str) -> int:
        value = schema.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
            return value
        self.wrong(f"{where}.{key}", f"must be given, a whole number from 1 to {most}")
        return 1

    def _examples(self, found: Any, task: Task) -> list[Example]:
        if found is None:
            return []
        if not isinstance(found, list):
            self.wrong("examples", "must be a list of text and answer")
            return []
        return [one for n, item in enumerate(found) if (one := self._example(n, item, task))]

    def _example(self, number: int, item: Any, task: Task) -> Example | None:
        where = f"examples[{number}]"
        if not isinstance(item, dict) or set(item) != {"text", "answer"}:
            self.wrong(where, "must have a text and an answer, and nothing else")
            return None
        text, answer = item["text"], item["answer"]
        if not isinstance(text, str) or not text.strip() or not isinstance(answer, dict):
            self.wrong(where, "must have a text that is not blank, and an answer that is a mapping")
            return None
        try:
            validated_fields = validated.check(answer, text, task).fields()
        except validated.InvalidAnswerError as error:
            self.wrong(f"{where}.answer", str(error))
            return None
        odd = [
            name
            for name in {*validated_fields, *answer}
            if validated_fields.get(name) != answer.get(name)
        ]
        for name in sorted(odd):
            self.wrong(f"{where}.answer.{name}", _why_odd(name, task, answer))
        return Example(text, {one.name: answer[one.name] for one in task.fields if not odd})


def _why_odd(name: str, task: Task, answer: Mapping[str, Any]) -> str:
    one = next((field for field in task.fields if field.name == name), None)
    if one is None:
        return "is not a field of the schema"
    if isinstance(one, Phrases) and one.verbatim:
        return "must be verbatim excerpts of the text"
    return f"must be written as in the schema (got {json.dumps(answer.get(name))[:80]})"
