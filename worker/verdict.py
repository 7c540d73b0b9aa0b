"""What a model may say: the schema, and how an answer is brought into it. Pure.

An answer is data from outside, as the text is: labels come from a fixed set, the confidence is a
number from 0 to 1, and a phrase that is not in the text is dropped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EMOTIONS = ("Joy", "Sadness", "Anger", "Fear", "Surprise", "Disgust", "Neutral")
SENTIMENTS = ("Positive", "Negative", "Neutral")
MAX_PHRASES = 10
MAX_PHRASE_CHARACTERS = 200

SCHEMA: dict[str, Any] = {
    "title": "Verdict",
    "type": "object",
    "properties": {
        "primary_emotion": {"type": "string", "enum": list(EMOTIONS)},
        "sentiment": {"type": "string", "enum": list(SENTIMENTS)},
        "confidence_score": {"type": "number", "minimum": 0, "maximum": 1},
        "key_phrases": {"type": "array", "items": {"type": "string"}, "maxItems": MAX_PHRASES},
    },
    "required": ["primary_emotion", "sentiment", "confidence_score", "key_phrases"],
    "additionalProperties": False,
}

_EMOTION_WORDS = {
    "joy": "Joy happiness happy joyful delight delighted love excitement gratitude satisfaction",
    "sadness": "Sadness sad sorrow grief disappointment disappointed unhappy",
    "anger": "Anger angry rage frustration frustrated annoyance annoyed irritation furious",
    "fear": "Fear afraid anxiety anxious worry worried nervousness scared",
    "surprise": "Surprise surprised astonishment amazement shock shocked",
    "disgust": "Disgust disgusted revulsion contempt",
    "neutral": "Neutral none calm indifferent indifference",
}
_EMOTION_OF = {
    word.lower(): words.split()[0] for words in _EMOTION_WORDS.values() for word in words.split()
}
_SENTIMENT_OF = {
    "positive": "Positive",
    "pos": "Positive",
    "negative": "Negative",
    "neg": "Negative",
    "neutral": "Neutral",
    "mixed": "Neutral",
}
_PERCENT = re.compile(r"^\s*([0-9]{1,3}(?:\.[0-9]+)?)\s*(%?)\s*$")


class BadVerdictError(ValueError):
    """An answer that cannot be brought into the schema. Quotes at most the name of a field."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A checked answer: labels of the fixed sets, confidence from 0 to 1, verbatim phrases."""

    primary_emotion: str
    sentiment: str
    confidence_score: float
    key_phrases: tuple[str, ...]

    def fields(self) -> dict[str, Any]:
        """The part of a result that the model is answerable for."""
        return {
            "primary_emotion": self.primary_emotion,
            "sentiment": self.sentiment,
            "confidence_score": self.confidence_score,
            "key_phrases": list(self.key_phrases),
        }


def check(content: str | Mapping[str, Any], text: str) -> Verdict:
    """Bring a model's answer about text into the schema. Raises `BadVerdictError`.

    Letter case, common synonyms, percentages, and a fence or talk around the JSON are mended;
    a label outside the sets, a confidence out of range or a missing field is not.
    """
    fields = _object(content) if isinstance(content, str) else content
    return Verdict(
        primary_emotion=_label(fields, "primary_emotion", _EMOTION_OF),
        sentiment=_label(fields, "sentiment", _SENTIMENT_OF),
        confidence_score=_confidence(fields.get("confidence_score")),
        key_phrases=_phrases(fields.get("key_phrases"), text),
    )


def _object(content: str) -> Mapping[str, Any]:
    start, end = content.find("{"), content.rfind("}")
    if start < 0 or end < start:
        raise BadVerdictError("the answer holds no JSON object")
    try:
        found = json.loads(content[start : end + 1])
    except (ValueError, RecursionError):
        raise BadVerdictError("the answer is not JSON") from None
    if not isinstance(found, dict):
        raise BadVerdictError("the answer is not a JSON object")
    return found


def _label(fields: Mapping[str, Any], name: str, known: Mapping[str, str]) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise BadVerdictError(f"{name} is missing or not a string")
    label = known.get(value.strip().strip(".!'\"").lower())
    if label is None:
        raise BadVerdictError(f"{name} is not one of {', '.join(dict.fromkeys(known.values()))}")
    return label


def _confidence(value: object) -> float:
    number = value
    if isinstance(value, str) and (match := _PERCENT.match(value)):
        number = float(match[1]) / (100 if match[2] else 1)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise BadVerdictError("confidence_score is missing or not a number")
    if 1 < number <= 100 and float(number).is_integer():
        number = number / 100  # "confidence": 85
    if not 0 <= number <= 1:  # NaN is not, either
        raise BadVerdictError("confidence_score is not from 0 to 1")
    return round(float(number), 4)


def _phrases(value: object, text: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        return ()
    kept: dict[str, None] = {}
    for phrase in value:
        if isinstance(phrase, str) and (piece := _verbatim(phrase.strip(), text)):
            kept.setdefault(piece)
        if len(kept) == MAX_PHRASES:
            break
    return tuple(kept)


def _verbatim(phrase: str, text: str) -> str | None:
    """The text's own spelling of phrase, or None when the text does not hold it."""
    if not phrase or len(phrase) > MAX_PHRASE_CHARACTERS:
        return None
    if phrase in text:
        return phrase
    found = re.search(re.escape(phrase), text, re.IGNORECASE)
    return found[0] if found else None
