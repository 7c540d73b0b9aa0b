"""The messages of a world: bodies and headers as publishers send them, and what is right for each.

Each message has a number, and its correlation_id names it: results and dead letters carry that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any

from tests.simulation.models.words import Nature, numbered

ANSWERED = "answered"

#: Of a header; whole numbers would look the same after a mistake.
_PART = Decimal("0.75")
_WORDS = (
    *("parcel", "late", "broken", "great", "thank", "you", "never", "again", "support", "kind"),
    *("the", "and", "was", "very", "angry", "happy", "price", "quality", "colour", "sad", "élan"),
)


@dataclass(frozen=True)
class Message:
    """One message. kind: its name in stories. right: its possible ends by itself, before any model
    has seen it: "answered", or the reasons of its dead letter. natures: what its text makes of
    each server. attempts: failed ones that it says it has. alone: whether it has an id."""

    number: int
    at: float
    kind: str
    body: bytes
    right: frozenset[str] = frozenset({ANSWERED})
    text: str = ""
    natures: Mapping[str, Nature] = field(default_factory=dict)
    headers: Mapping[str, Any] = field(default_factory=dict)
    message_id: str | None = None
    timestamp: int | None = None
    attempts: int = 0
    id: str | int | None = None

    @property
    def correlation_id(self) -> str:
        """By which results and dead letters are known."""
        return f"n{self.number}"

    @property
    def valid(self) -> bool:
        """Whether a model gets to see it."""
        return ANSWERED in self.right

    def story(self) -> str:
        """For people."""
        natures = ", ".join(
            f"{nature.value} at {server}"
            for server, nature in sorted(self.natures.items())
            if nature is not Nature.GOOD
        )
        return f"{self.at:9.2f} message {self.number} is published: {self.kind}" + (
            f" ({natures})" if natures else ""
        )


def number_of(correlation_id: str | None) -> int | None:
    """The message that a result or a dead letter belongs to."""
    if correlation_id is None or not correlation_id[1:].isdigit():
        return None
    return int(correlation_id[1:])


@dataclass(frozen=True)
class Sizes:
    """What the settings allow, in bytes."""

    text: int
    body: int


class Maker:
    """Makes messages of all kinds. chance: the world's."""

    def __init__(self, chance: Random, sizes: Sizes) -> None:
        self._chance = chance
        self._sizes = sizes

    def make(self, number: int, at: float, natures: Mapping[str, Nature]) -> Message:
        """One of any kind; most are good."""
        chance = self._chance
        if chance.random() < 0.8:
            return self._good(number, at, natures)
        kinds: tuple[Callable[[int, float], Message], ...] = (
            *(self._malformed, self._no_object, self._no_text, self._no_string, self._blank),
            *(self._text_too_large, self._bad_id, self._too_deep, self._body_too_large),
        )
        return chance.choice(kinds)(number, at)

    # --- good ones

    def _good(self, number: int, at: float, natures: Mapping[str, Nature]) -> Message:
        chance = self._chance
        text = numbered(number, " ".join(chance.choices(_WORDS, k=chance.randint(2, 20))))
        fields: dict[str, Any] = {"text": text}
        kind, headers, message_id, identity = "good", {}, None, None
        if chance.random() < 0.8:
            identity = chance.choice((f"id-{number}", number, "the same id"))
            fields["id"] = identity
        if chance.random() < 0.5:
            message_id = f"m-{number}"
        if chance.random() < 0.4:
            fields["metadata"] = {"n": number, "é": [1.5, None, "x"]}
        if chance.random() < 0.1:
            kind, fields["more"] = "good, deeply nested", _nested(60)
        elif chance.random() < 0.1:
            kind, fields["padding"] = "good, with a large body", "x" * min(80_000, self._room())
        if chance.random() < 0.2:
            headers = self._odd_headers()
            kind += ", with odd headers"
        attempts = 0
        if chance.random() < 0.05:
            attempts = 2
            headers = {"x-selfheal-attempts": 2}
            kind += ", after two attempts"
        return Message(
            number,
            at,
            kind,
            json.dumps(fields, ensure_ascii=chance.random() < 0.5).encode(),
            text=text,
            natures=natures,
            headers=headers,
            message_id=message_id,
            timestamp=self._timestamp(at),
            attempts=attempts,
            id=identity,
        )

    def _room(self) -> int:
        return self._sizes.body - 20_000

    def _odd_headers(self) -> dict[str, Any]:
        odd: tuple[dict[str, Any], ...] = (
            {"x-delivery-count": 7, "x-acquired-count": 9},
            {"x-selfheal-reason": "retries_exhausted", "x-selfheal-attempts": 4},
            {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
            {"x-selfheal-attempts": "many", "x-selfheal-first-time": 12},
            {"big": 2**62, "list": [1, "two", {"three": 3}], "empty": None, "part": _PART},
            {"x-death": [{"queue": "feedback", "count": 3, "reason": "rejected"}]},
        )
        return dict(self._chance.choice(odd))

    def _timestamp(self, at: float) -> int | None:
        seconds = 1_767_225_600 + int(at)
        return self._chance.choice((None, seconds, seconds * 1000, 0, seconds + 86_400))

    # --- those that no retry can fix

    def _poison(self, number: int, at: float, kind: str, body: bytes, reason: str) -> Message:
        return Message(number, at, kind, body, frozenset({reason}))

    def _malformed(self, number: int, at: float) -> Message:
        bodies = (b"{", b"", b"\xff\xfe", b'{"text": NaN}', b'{"text": "x", "n": 1e999}', b"{]")
        return self._poison(number, at, "no JSON", self._chance.choice(bodies), "malformed_json")

    def _no_object(self, number: int, at: float) -> Message:
        body = self._chance.choice((b"[]", b"null", b'"text"', b"12", b"[{}]"))
        return self._poison(number, at, "no object", body, "not_an_object")

    def _no_text(self, number: int, at: float) -> Message:
        return self._poison(number, at, "without text", b'{"id": "x"}', "missing_text")

    def _no_string(self, number: int, at: float) -> Message:
        body = self._chance.choice((b'{"text": 1}', b'{"text": null}', b'{"text": ["x"]}'))
        return self._poison(number, at, "whose text is no string", body, "text_not_a_string")

    def _blank(self, number: int, at: float) -> Message:
        body = self._chance.choice((b'{"text": " \\n"}', b'{"text": ""}', b'{"text": "\\u0000"}'))
        return self._poison(number, at, "with a blank text", body, "blank_text")

    def _text_too_large(self, number: int, at: float) -> Message:
        body = json.dumps({"text": "x" * (self._sizes.text + 1)}).encode()
        return self._poison(number, at, "whose text is too large", body, "text_too_large")

    def _bad_id(self, number: int, at: float) -> Message:
        found: object = self._chance.choice((1.5, True, [1], "x" * 256, {}))
        body = json.dumps({"text": "x", "id": found}).encode()
        return self._poison(number, at, "with a bad id", body, "bad_id")

    def _too_deep(self, number: int, at: float) -> Message:
        body = json.dumps({"text": "x", "more": _nested(70)}).encode()
        return self._poison(number, at, "nested too deep", body, "nested_too_deep")

    def _body_too_large(self, number: int, at: float) -> Message:
        body = b'{"text": "x", "more": "' + b"y" * self._sizes.body + b'"}'
        return self._poison(number, at, "whose body is too large", body, "body_too_large")


def good(number: int, at: float, natures: Mapping[str, Nature]) -> Message:
    """A plain good message."""
    text = f"[no. {number}] It works very well."
    body = json.dumps({"id": f"id-{number}", "text": text}).encode()
    return Message(number, at, "good", body, text=text, natures=natures, id=f"id-{number}")


def long_text(number: int, at: float, tokens: int, natures: Mapping[str, Nature]) -> Message:
    """A message whose text has about so many tokens."""
    text = numbered(number, "word " * tokens)
    body = json.dumps({"id": f"id-{number}", "text": text}).encode()
    return Message(
        number, at, f"of {tokens} tokens", body, text=text, natures=natures, id=f"id-{number}"
    )


def _nested(depth: int) -> Any:
    made: Any = "deep"
    for _ in range(depth):
        made = [made]
    return made
