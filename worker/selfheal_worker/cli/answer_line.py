"""An answer as one line for people, whatever its task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from selfheal_worker.logs import printable
from selfheal_worker.task.task_file import RESERVED


def answer_line(answer: Mapping[str, Any]) -> str:
    """`id: field=value, …` with the fields of the task; emotions in fewer words.

    Raises ValueError if none of a task's fields is present.
    """
    fields = {name: value for name, value in answer.items() if name not in RESERVED}
    if not fields:
        raise ValueError("no answer")
    name = f"{printable(answer['id'])}: " if "id" in answer else ""
    return name + (_emotion(fields) or ", ".join(f"{one}={_shown(fields[one])}" for one in fields))


def _emotion(fields: Mapping[str, Any]) -> str | None:
    """The built-in task's; None for any other."""
    match fields:
        case {
            "primary_emotion": str(emotion),
            "sentiment": str(sentiment),
            "confidence_score": int() | float() as confidence,
            "key_phrases": list(found),
        } if len(fields) == 4:
            phrases = ", ".join(map(repr, found)) or "none"
            return f"{emotion}, {sentiment}, confidence {confidence:.2f}, phrases: {phrases}"
    return None


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
