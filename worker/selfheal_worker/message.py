"""The format of a message, and why one is refused. Pure, but for new ids."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from selfheal_worker.plain_data import MAX_DEPTH, SURROGATE, is_text
from selfheal_worker.randomness import new_id

# A larger body is read by a handler's thread, and one at a time: decoded, it can take thirty times
# its size.
LARGE_BODY = 64 * 1024
MAX_ID_BYTES = 255  # an AMQP short string: the id is also the result's message_id

# Possessive: else a string of megabytes leaves the engine a way back for each of its characters.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_KNOWN = frozenset({"id", "text", "metadata"})


class PoisonError(Exception):
    """A message that no retry can fix. reason is for the dead letter's header.

    The exception's message describes the error and never quotes the body.
    """

    def __init__(self, reason: str, detail: str, error_class: str = "PoisonError") -> None:
        super().__init__(detail)
        self.reason = reason
        self.error_class = error_class


@dataclass(frozen=True, slots=True)
class Message:
    """A valid message. id is as in the body (str or int); extra has its unknown fields.

    text has U+FFFD in place of lone surrogates, which JSON allows and UTF-8 does not.
    """

    id: str | int
    id_generated: bool
    text: str
    metadata: Any
    extra: dict[str, Any]

    def passed_through(self) -> dict[str, Any]:
        """The fields that a result repeats as they came."""
        passed: dict[str, Any] = {}
        if self.metadata is not None:
            passed["metadata"] = self.metadata
        if self.extra:
            passed["extra"] = self.extra
        return passed


def check_size(size: int, max_body_bytes: int) -> None:
    """Raises `PoisonError` (body_too_large); to be called before a body is decoded."""
    if size > max_body_bytes:
        raise PoisonError(
            "body_too_large", f"the body has {size} bytes, at most {max_body_bytes} are allowed"
        )


def parse(
    body: bytes,
    *,
    message_id: str | None,
    max_text_bytes: int,
    fresh_id: Callable[[], str] = new_id,
    max_body_bytes: int | None = None,
) -> Message:
    """Read a body. Raises `PoisonError` with one of the reasons body_too_large, malformed_json,
    not_an_object, nested_too_deep, missing_text, text_not_a_string, blank_text, text_too_large,
    bad_id.

    The id is the body's `id`, else the AMQP message_id, else a fresh one; never a hash of the
    text, because two equal texts are two messages.
    """
    if max_body_bytes is not None:
        check_size(len(body), max_body_bytes)
    fields = _object(body)
    text = _text(fields, max_text_bytes)
    identity = _id(fields.get("id"))
    generated = False
    if identity is None:
        identity = message_id or fresh_id()
        generated = not message_id
    return Message(
        id=identity,
        id_generated=generated,
        text=text,
        metadata=fields.get("metadata"),
        extra={name: value for name, value in fields.items() if name not in _KNOWN},
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        content = body.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise PoisonError(
            "malformed_json", f"not UTF-8 at byte {error.start}", "UnicodeDecodeError"
        ) from None
    # A cheap bound first: few bodies have enough brackets to be worth the walk.
    if content.count("[") + content.count("{") > MAX_DEPTH and _depth(content) > MAX_DEPTH:
        raise PoisonError("nested_too_deep", f"nested deeper than {MAX_DEPTH} levels")
    try:
        fields = _DECODER.decode(content)
    except json.JSONDecodeError as error:
        raise PoisonError(
            "malformed_json", f"not JSON: {error.msg} at character {error.pos}", "JSONDecodeError"
        ) from None
    except (ValueError, RecursionError) as error:
        # Integers of more digits than Python converts, NaN and Infinity.
        raise PoisonError(
            "malformed_json", "not JSON: a number out of range", type(error).__name__
        ) from None
    if not isinstance(fields, dict):
        raise PoisonError("not_an_object", f"expected a JSON object, got {_kind(fields)}")
    return fields


def _text(fields: dict[str, Any], max_text_bytes: int) -> str:
    if "text" not in fields:
        raise PoisonError("missing_text", "the object has no field 'text'")
    text = fields["text"]
    if not isinstance(text, str):
        raise PoisonError("text_not_a_string", f"'text' must be a string, got {_kind(text)}")
    if not text.isascii():
        text = SURROGATE.sub("\ufffd", text)
    if not text.strip() or not text.replace("\x00", "").strip():
        raise PoisonError("blank_text", "'text' is blank")
    if len(text) * 4 > max_text_bytes:
        size = len(text.encode())
        if size > max_text_bytes:
            raise PoisonError(
                "text_too_large", f"'text' has {size} bytes, at most {max_text_bytes} are allowed"
            )
    return text


def _id(value: object) -> str | int | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise PoisonError("bad_id", f"'id' must be a string or an integer, got {_kind(value)}")
    if isinstance(value, str):
        if not is_text(value):
            raise PoisonError("bad_id", "'id' contains a lone surrogate")
        size = len(value.encode())
    else:
        size = len(str(value))
    if size > MAX_ID_BYTES:
        raise PoisonError("bad_id", f"'id' has {size} bytes, at most {MAX_ID_BYTES} are allowed")
    return value


def _depth(content: str) -> int:
    """How deep the brackets outside of strings are nested."""
    deepest = depth = 0
    for found in _STRING_OR_BRACKET.finditer(content):
        bracket = content[found.start()]
        if bracket in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif bracket in "]}":
            depth -= 1
    return deepest


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):  # 1e999 would leave as Infinity, which is not JSON
        raise ValueError("out of range")
    return number


#: Made once: to make one takes no less time than to decode a message.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number")
