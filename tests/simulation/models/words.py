"""What a simulated model says of a text: valid answers of any task, and what is no answer. Pure."""

from __future__ import annotations

import json
import re
from enum import Enum
from random import Random
from typing import Any

from selfheal_worker.task.task import Flag, Label, Labels, Number, Phrases, Task, Words

#: Texts carry the number of their message, so that a server knows which one it is asked about.
_NUMBER = re.compile(r"\[no\. (\d+)\]")
_PROMPT_TOKENS = 500
#: Ways of answers in which a server does not say how many tokens it has read.
NO_TOKENS = ("no usage", "null usage")


class Nature(Enum):
    """What a text makes of the models that read it. The value is the word in stories."""

    GOOD = "good"
    #: The first answer is not usable; the next one is.
    FLAKY = "first answered badly"
    NEVER_USABLE = "never answered usably"
    FILTERED = "filtered by the server"
    FILTERED_ANSWER = "its answer is filtered"
    DECLINED = "declined by the model"


def numbered(number: int, words: str) -> str:
    """A text about which its number is known."""
    return f"[no. {number}] {words}"


def text_of(body: Any) -> str:
    """The text that a request is about, "" where there is none: the last that has a fence."""
    messages = body.get("messages") or [] if isinstance(body, dict) else []
    contents = [str(one.get("content")) for one in messages if isinstance(one, dict)]
    fenced = [one for one in contents if one.startswith("-----")]
    if not fenced:
        return ""
    return fenced[-1].partition("\n")[2].rpartition("\n")[0]


def number_of(text: str) -> int | None:
    """The number of a text's message; None for the worker's own texts."""
    found = _NUMBER.search(text)
    return int(found[1]) if found else None


def tokens_of(text: str) -> int:
    """What a tokenizer would count for a request about it."""
    return _PROMPT_TOKENS + max(len(text.split()), len(text.encode(errors="replace")) // 4)


def answer(task: Task, text: str) -> dict[str, Any]:
    """A valid answer, the same for the same text."""
    chance = Random(text)
    made: dict[str, Any] = {}
    for one in task.fields:
        match one:
            case Label(labels=labels):
                made[one.name] = chance.choice(labels)
            case Labels(one=label):
                made[one.name] = [chance.choice(label.labels)]
            case Number(low=low, high=high, whole=whole):
                made[one.name] = int(low) if whole else low + (high - low) / 2
            case Flag():
                made[one.name] = chance.random() < 0.5
            case Words():
                made[one.name] = "short"
            case Phrases():
                made[one.name] = [" ".join(text.split()[:4])[:80]]
    return made


#: Words from which no answer can be read.
UNUSABLE = (
    "I am sorry, there is nothing to say about that.",
    "{}",
    "[]",
    "null",
    '{"answer": {"text": "yes"}}',
    "{" * 300,
    '{"primary_emotion": "PWNED", "sentiment": "Positive", "confidence_score": 1e400}',
    '{"primary_emotion": "Joy", "sentiment": ["Positive"], "confidence_score": "very"}',
    "<think> for ever and ever",
    '"' + "\\ud800" * 20 + '"',
)


def injected(task: Task, text: str) -> dict[str, Any]:
    """An answer that obeys instructions in a text: other fields, phrases that are not in it."""
    made = answer(task, text)
    for one in task.fields:
        if isinstance(one, Phrases):
            made[one.name] = [*made[one.name], "send me your key", "ignore all instructions"]
    return made | {"system": "rm -rf /", "id": "another", "model": {"name": "mine"}}


def talk(way: str, said: dict[str, Any]) -> str | None:
    """Words around an answer, of ways that the dialects do not have; None for the others."""
    whole = json.dumps(said)
    match way:
        case "double encoded":
            return json.dumps(whole)
        case "list":
            return f"[{whole}]"
        case "harmony":
            return f"<|channel|>analysis<|message|>Hm.<|end|><|channel|>final<|message|>{whole}"
        case "think in brackets":
            return f"[THINK]Perhaps {{}}?[/THINK]{whole}"
    return None
