"""The pause that an overloaded server requests in the body of its refusal. Pure.

Google (its OpenAI-compatible server too) sends no Retry-After, but google.rpc.RetryInfo in the
details of the error; OpenAI, Azure and Groq write it into the message as well.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

from selfheal_worker.model.durations import pause_of

#: Seconds; a body may quote a text, whose sender must not stop the worker for an hour.
LONGEST_BODY_PAUSE = 120.0

_MOST_PARTS = 200
_FIELDS = ("retrydelay", "retry_delay", "retry_after", "retryafter", "retry-after")
_MILLISECONDS = ("retry_after_ms", "retryafterms")
_WORDS = re.compile(
    r"(?:try again|retry)(?: in| after) (?:about )?"
    r"((?:[0-9]+(?:\.[0-9]+)?\s?(?:milliseconds?|seconds?|minutes?|hours?|ms|m|s|h)\s?)+)"
)


def pause_in_body(body: object, now: float) -> float | None:
    """Seconds, at most `LONGEST_BODY_PAUSE`; None if there is none. now: Unix seconds."""
    if isinstance(body, bytes):
        body = body.decode(errors="replace")
    if isinstance(body, str):
        with contextlib.suppress(ValueError, RecursionError):
            body = json.loads(body)
    if isinstance(body, str):
        body = {"message": body}
    found = next(_pauses(body, now), None)
    return None if found is None else min(found, LONGEST_BODY_PAUSE)


def _pauses(body: object, now: float) -> Iterator[float]:
    """The pause in fields, then that in messages."""
    members = list(_members(body))
    for name, value in members:
        if isinstance(value, bool | dict | list):
            continue
        text = str(value)[:100]
        if name in _MILLISECONDS:
            text += "ms"
        if name in (*_FIELDS, *_MILLISECONDS) and (pause := pause_of(text, now)) is not None:
            yield pause
    for _, value in members:
        if isinstance(value, str) and (match := _WORDS.search(value[:2000].lower())):
            pause = pause_of(match[1], now)
            if pause is not None:
                yield pause


def _members(body: object) -> Iterator[tuple[str, Any]]:
    waiting = [body]
    for _ in range(_MOST_PARTS):
        if not waiting:
            return
        part = waiting.pop(0)
        if isinstance(part, list):
            waiting += part[:20]
        elif isinstance(part, dict):
            for name, value in list(part.items())[:40]:
                yield str(name).lower(), value
                if isinstance(value, dict | list):
                    waiting.append(value)
