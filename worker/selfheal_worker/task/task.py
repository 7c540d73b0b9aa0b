"""A task for a model: data, read from a file (`task.task_file`). Pure.

A task has a prompt, a JSON schema of a small subset, whose properties are the fields of an answer,
and examples. `task.prompt` creates messages from it, `task.answer` validates answers against it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from selfheal_worker.task.answer_json import Wanted

MAX_PHRASE_CHARACTERS = 200
#: A number with a range is offered to a model in so many steps.
_STEPS = 20
#: Whole numbers of a range up to this size are offered one by one.
_MOST_WHOLE = 100


@dataclass(frozen=True, slots=True)
class Label:
    """One of a fixed set. words: synonyms of a label, in lower case, and the label itself."""

    name: str
    labels: tuple[str, ...]
    words: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Number:
    """A number in a range, both ends included."""

    name: str
    low: float
    high: float
    whole: bool = False

    @property
    def is_share(self) -> bool:
        """From 0 to 1: percentages are understood."""
        return (self.low, self.high, self.whole) == (0, 1, False)


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    name: str


@dataclass(frozen=True, slots=True)
class Words:
    """Text written by the model, at most longest characters."""

    name: str
    longest: int


@dataclass(frozen=True, slots=True)
class Phrases:
    """A list of at most `most` strings; verbatim: pieces of the text, what is not is dropped."""

    name: str
    most: int
    longest: int
    verbatim: bool


@dataclass(frozen=True, slots=True)
class Labels:
    """A list of labels of a fixed set, each at most once."""

    name: str
    one: Label
    most: int


Field = Label | Number | Flag | Words | Phrases | Labels


@dataclass(frozen=True, slots=True)
class Example:
    """A text and the answer that is wanted."""

    text: str
    answer: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Task:
    """A task, checked. schema is the file's own; subject is what a text is called (feedback)."""

    name: str
    version: str
    subject: str
    prompt: str
    schema: Mapping[str, Any]
    fields: tuple[Field, ...]
    examples: tuple[Example, ...] = ()
    # What no answer may repeat: the prompt's lines that are long enough to be distinctive.
    secrets: tuple[str, ...] = field(default=(), repr=False)
    #: By what an answer's object is found. Phrases may be missing: `task.answer` takes none then.
    wanted: Wanted = field(init=False, repr=False, compare=False)
    #: The fields whose text the model writes; what is verbatim is the author's.
    free: tuple[Words | Phrases, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = frozenset(one.name for one in self.fields)
        optional = {one.name for one in self.fields if isinstance(one, Phrases)}
        free = tuple(
            one
            for one in self.fields
            if isinstance(one, Words) or (isinstance(one, Phrases) and not one.verbatim)
        )
        object.__setattr__(self, "wanted", Wanted(names, names - optional or names))
        object.__setattr__(self, "free", free)

    def described(self) -> dict[str, str]:
        """The task's name and version, as results carry them."""
        return {"name": self.name, "version": self.version}

    @property
    def confidence(self) -> str | None:
        """The field that says how sure the model is: the first number from 0 to 1."""
        return next((f.name for f in self.fields if isinstance(f, Number) and f.is_share), None)

    def grammar(self) -> dict[str, Any]:
        """The schema as a model server gets it, to constrain what it writes.

        Servers derive a grammar from it, which supports lists of values and lengths, but no range
        of fractions: a small model would answer 1.5 each time. Ranges therefore become lists.
        """
        return {
            "type": "object",
            "properties": dict(self._offered()),
            "required": [one.name for one in self.fields],
            "additionalProperties": False,
        }

    def _offered(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for one in self.fields:
            given = self.schema["properties"][one.name]
            offered: dict[str, Any] = _offer(one)
            if "description" in given:
                offered["description"] = given["description"]
            yield one.name, offered


def _offer(one: Field) -> dict[str, Any]:
    match one:
        case Label(labels=labels):
            return {"type": "string", "enum": list(labels)}
        case Labels(one=label, most=most):
            listed = {"type": "string", "enum": list(label.labels)}
            return {"type": "array", "items": listed, "maxItems": most}
        case Number():
            offered = {"type": "integer" if one.whole else "number"}
            return offered | ({"enum": _steps(one)} if _steps(one) else {})
        case Flag():
            return {"type": "boolean"}
        case Words(longest=longest):
            return {"type": "string", "maxLength": longest}
        case Phrases(most=most, longest=longest):
            items: dict[str, Any] = {"type": "string", "maxLength": longest}
            return {"type": "array", "items": items, "maxItems": most}


def _steps(one: Number) -> list[float] | list[int]:
    if one.whole:
        low, high = int(one.low), int(one.high)
        return list(range(low, high + 1)) if high - low <= _MOST_WHOLE else []
    span = one.high - one.low
    return [round(one.low + span * step / _STEPS, 6) for step in range(_STEPS + 1)]
