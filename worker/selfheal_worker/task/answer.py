"""What a model may say: how an answer is brought into a task's schema. Pure.

An answer is data from outside, as the text is: labels come from a fixed set, numbers stay in their
range, and a phrase that is not in the text is dropped.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfheal_worker.task import answer_json, leaks
from selfheal_worker.task.excerpts import Excerpts
from selfheal_worker.task.task import Field, Flag, Label, Labels, Number, Phrases, Task, Words

_PERCENT = re.compile(r"^\s*(-?[0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(%?)\s*$")
# A number this low is a mark out of five or ten and no percentage.
_LEAST_PERCENT = 10
# Around a label, as a model writes it; or a part of the label itself.
_MARKS = " .!'\""


class InvalidAnswerError(ValueError):
    """An answer that cannot be brought into the schema. Quotes at most the name of a field."""


@dataclass(frozen=True, slots=True)
class ValidatedAnswer:
    """A checked answer: one value for each of the task's fields."""

    values: Mapping[str, Any]
    # Phrases that should be verbatim and are not in the text.
    dropped: int = 0

    def fields(self) -> dict[str, Any]:
        """The part of a result that the model is answerable for."""
        return dict(self.values)


def check(
    content: str | Mapping[str, Any], text: str, task: Task, *, clamp: bool = False
) -> ValidatedAnswer:
    """Bring a model's answer about text into the task's schema. Raises `InvalidAnswerError`.

    Letter case, synonyms, percentages, and a fence, reasoning or prose around the JSON are
    repaired; a label outside its set or a missing field is not. A number out of its range is only
    repaired with clamp: it is set to the nearer bound.
    """
    answer = _object(content, task)
    values = {one.name: _value(one, answer.get(one.name), text, clamp) for one in task.fields}
    # The original answer, not the parsed one: a field may be shorter than a line of the prompt.
    for one in task.free:
        if leaks.repeats(_free_words(one, answer.get(one.name)), task.secrets, text):
            raise InvalidAnswerError("the answer repeats the instructions")
    return ValidatedAnswer(values, _dropped(answer, values, task))


def _free_words(one: Words | Phrases, value: object) -> list[str]:
    """The parts of a value that the model wrote."""
    if isinstance(one, Words) and isinstance(value, str):
        return [value]
    if isinstance(one, Phrases) and isinstance(value, list | tuple):
        return [item for item in value if isinstance(item, str)]
    return []


def _dropped(answer: Mapping[str, Any], values: Mapping[str, Any], task: Task) -> int:
    """How many verbatim phrases the answer had that are not in the text, or too long."""
    lost = 0
    for one in task.fields:
        given = answer.get(one.name)
        if isinstance(one, Phrases) and one.verbatim and isinstance(given, list | tuple):
            different = {item.strip() for item in given if isinstance(item, str)} - {""}
            lost += max(0, min(len(different), one.most) - len(values[one.name]))
    return lost


def _object(content: str | Mapping[str, Any], task: Task) -> Mapping[str, Any]:
    if not isinstance(content, str):
        return answer_json.unwrapped(content, task.wanted)
    found = answer_json.find(content, task.wanted)
    if found is None:
        raise InvalidAnswerError("the answer contains no JSON object")
    return found


def _value(one: Field, value: object, text: str, clamp: bool) -> Any:
    match one:
        case Label():
            return _label(one, value)
        case Number():
            return _number(one, value, clamp)
        case Flag():
            return _flag(one, value)
        case Words():
            return _words(one, value)
        case Phrases():
            return _phrases(one, value, text)
        case Labels():
            return _labels(one, value)


def _label(one: Label, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidAnswerError(f"{one.name} is missing or not a string")
    label = _named(one.words, value)
    if label is None:
        raise InvalidAnswerError(f"{one.name} is not one of {', '.join(one.labels)}")
    return label


def _named(words: Mapping[str, str], value: str) -> str | None:
    """The label that a model means, whose marks around it may be the model's or the label's own."""
    plain = unicodedata.normalize("NFC", value).strip().lower()
    for form in (plain, plain.strip("'\""), plain.strip(_MARKS)):
        if form in words:
            return words[form]
    bare = plain.strip(_MARKS)
    meant = {
        label
        for word, label in words.items()
        if bare and unicodedata.normalize("NFC", word).strip(_MARKS) == bare
    }
    return meant.pop() if len(meant) == 1 else None


def _labels(one: Labels, value: object) -> list[str]:
    if not isinstance(value, list | tuple):
        raise InvalidAnswerError(f"{one.name} is missing or not a list")
    label = Label(one.name, one.one.labels, one.one.words)
    return list(dict.fromkeys(_label(label, item) for item in value))[: one.most]


def _number(one: Number, value: object, clamp: bool) -> float | int:
    number = value
    if isinstance(value, str) and (match := _PERCENT.match(value)):
        number = float(match[1]) / (100 if match[2] and one.is_share else 1)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise InvalidAnswerError(f"{one.name} is missing or not a number")
    if _LEAST_PERCENT < number <= 100 and one.is_share and float(number).is_integer():
        number = number / 100  # "confidence": 85
    if clamp and not (isinstance(number, float) and math.isnan(number)):
        number = min(max(number, one.low), one.high)
    if not one.low <= number <= one.high:  # NaN is not, either
        raise InvalidAnswerError(f"{one.name} is not from {one.low:g} to {one.high:g}")
    if one.whole:
        if not float(number).is_integer():
            raise InvalidAnswerError(f"{one.name} is not a whole number")
        return int(number)
    return round(float(number), 4)


def _flag(one: Flag, value: object) -> bool:
    words = {"true": True, "yes": True, "false": False, "no": False}
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    if not isinstance(value, bool):
        raise InvalidAnswerError(f"{one.name} is missing or neither true nor false")
    return value


def _words(one: Words, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidAnswerError(f"{one.name} is missing or not a string")
    # JSON carries lone surrogates, UTF-8 does not.
    return value.encode(errors="replace").decode().strip()[: one.longest]


def _phrases(one: Phrases, value: object, text: str) -> list[str]:
    if not isinstance(value, list | tuple):
        return []
    kept: dict[str, None] = {}
    excerpts = Excerpts(text)
    for phrase in value:
        if isinstance(phrase, str) and (piece := _phrase(one, phrase.strip(), excerpts)):
            kept.setdefault(piece)
        if len(kept) == one.most:
            break
    return list(kept)


def _phrase(one: Phrases, phrase: str, excerpts: Excerpts) -> str | None:
    """The phrase for the result: a verbatim one in the text's own spelling."""
    if not phrase or len(phrase) > one.longest:
        return None
    if not one.verbatim:
        return phrase.encode(errors="replace").decode()
    found = excerpts.find(phrase)
    return found if found and len(found) <= one.longest else None
