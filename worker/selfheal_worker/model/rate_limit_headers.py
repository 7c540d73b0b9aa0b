"""How long a model server wants to be left alone, from the headers of its answer. Pure.

Sources: RFC 9110 (Retry-After), RFC 9651 and the IETF draft on RateLimit headers
(draft-ietf-httpapi-ratelimit-headers: a list of policies since -08, limit, remaining and reset in
one header in -07, three headers before), and the API references of OpenAI (retry-after-ms,
x-ratelimit-*), Azure OpenAI (x-ms-retry-after-ms as Azure's SDKs read it), Anthropic
(anthropic-ratelimit-*), Mistral (ratelimitbysize-*), Cerebras (x-ratelimit-*-tokens-minute) and
OpenRouter (X-RateLimit-Reset in milliseconds).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from selfheal_worker.model.durations import LONGEST_PAUSE, bounded, number, pause_of

__all__ = ["LONGEST_PAUSE", "pause_asked"]

_MILLISECONDS = ("retry-after-ms", "x-ms-retry-after-ms", "x-retry-after-ms")
_SECONDS = ("retry-after", "x-retry-after")
_RESETS = (
    *("x-ratelimit-reset", "x-rate-limit-reset", "ratelimit-reset", "x-ratelimit-reset-after"),
    *("x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"),
)
# x-ratelimit-remaining-requests, anthropic-ratelimit-tokens-remaining, ratelimit-remaining, …
_REMAINING = re.compile(
    r"(?:[a-z]+-)?rate-?limit(?:bysize)?-(?:[a-z-]+-)?remaining(?:-[a-z0-9-]+)?"
)
# A header may be many lines, joined; what is longer than this is no quota.
_LONGEST_HEADER = 2000
_MEMBER = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^",])+')
_PARAMETER = re.compile(r'([a-z][a-z0-9_-]*)\s*=\s*"?(-?[0-9][0-9.]*)')


def pause_asked(
    headers: Mapping[str, str], now: float, *, refused: bool, overloaded: bool = False
) -> float | None:
    """Seconds until the next call, at most `LONGEST_PAUSE`; None if there is none.

    refused: the answer is an error, where Retry-After counts before what is left of a quota.
    overloaded: its status says that there are too many calls, so that a reset alone counts where
    the server does not say what is left. now: Unix seconds.
    """
    lower = {name.lower(): value[:_LONGEST_HEADER] for name, value in headers.items()}
    if refused and (requested := _retry_after(lower, now)) is not None:
        return requested
    waits = [*_used_up(lower, now), *_policies(lower.get("ratelimit", ""), now)]
    if not waits and overloaded and not any("remaining" in name for name in lower):
        found = (pause_of(lower.get(name, ""), now) for name in _RESETS)
        waits = [pause for pause in found if pause is not None]
    return max(waits) if waits else None


def _retry_after(headers: Mapping[str, str], now: float) -> float | None:
    for name in _MILLISECONDS:
        milliseconds = number(headers.get(name, ""))
        if milliseconds is not None:
            return bounded(milliseconds / 1000)
    found = (pause_of(headers.get(name, ""), now) for name in _SECONDS)
    return next((pause for pause in found if pause is not None), None)


def _used_up(headers: Mapping[str, str], now: float) -> Iterator[float]:
    """The waits of quotas of which nothing is left, each in a header of its own."""
    for name, value in headers.items():
        if not _REMAINING.fullmatch(name):
            continue
        left = number(value)
        if left is None or left > 0:
            continue
        reset = name.replace("remaining", "reset")
        # Kong has one reset for all of its windows.
        for other in (reset, f"{reset}-after", name.partition("remaining")[0] + "reset"):
            until = pause_of(headers.get(other, ""), now)
            if until is not None:
                yield until
                break


def _policies(text: str, now: float) -> Iterator[float]:
    """The waits of used-up policies in a RateLimit header of either draft.

    `"burst";r=0;t=5, "daily";r=10;t=3600`, or `limit=100, remaining=0, reset=30`.
    """
    together: dict[str, str] = {}
    for member in _MEMBER.findall(text.lower()):
        name, _, parameters = member.partition(";")
        own = dict(_PARAMETER.findall(parameters))
        if "r" in own:
            yield from _policy(own["r"], own.get("t", ""), now)
        else:
            together |= dict(_PARAMETER.findall(name)) | own
    if "remaining" in together:
        yield from _policy(together["remaining"], together.get("reset", ""), now)
    elif "r" in together:
        yield from _policy(together["r"], together.get("t", ""), now)


def _policy(remaining: str, reset: str, now: float) -> Iterator[float]:
    left, until = number(remaining), pause_of(reset, now)
    if left is not None and left <= 0 and until is not None and math.isfinite(until):
        yield until
