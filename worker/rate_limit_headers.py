"""How long a model server wants to be left alone, from the headers of its answer. Pure.

Sources: RFC 9110 (Retry-After), RFC 9651 and the IETF draft on RateLimit headers, and the API
references of OpenAI (retry-after-ms, x-ratelimit-*), Azure OpenAI, Anthropic
(anthropic-ratelimit-*) and OpenRouter (X-RateLimit-Reset in milliseconds).
"""

from __future__ import annotations

import email.utils
import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

LONGEST_PAUSE = 3600.0

# A number from here on is a time since 1970 and no length: in seconds, and in milliseconds.
_EPOCH = 1e9
_EPOCH_MILLISECONDS = 1e12
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")
_LENGTH = re.compile(rf"(?:{_PART.pattern})+")
_COUNTED = ("requests", "tokens", "input-tokens", "output-tokens", "project-tokens")
#: What is left and when there is more, in the forms of the servers.
_QUOTAS = (
    *((f"x-ratelimit-remaining-{what}", f"x-ratelimit-reset-{what}") for what in _COUNTED),
    *((f"anthropic-ratelimit-{w}-remaining", f"anthropic-ratelimit-{w}-reset") for w in _COUNTED),
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ("ratelimit-remaining", "ratelimit-reset"),
)


def pause_asked(headers: Mapping[str, str], now: float, *, refused: bool) -> float | None:
    """Seconds until the next call, at most `LONGEST_PAUSE`; None where nothing was said.

    refused: the answer is an error, where Retry-After counts before what is left of a quota. now:
    Unix seconds.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    if refused and (said := _retry_after(lower, now)) is not None:
        return said
    waits = list(_used_up(lower, now))
    return max(waits) if waits else None


def _retry_after(headers: Mapping[str, str], now: float) -> float | None:
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return _bounded(milliseconds / 1000)
    return _length(headers.get("retry-after", ""), now)


def _used_up(headers: Mapping[str, str], now: float) -> Iterator[float]:
    for remaining, reset in _QUOTAS:
        left = _number(headers.get(remaining, ""))
        if left is None or left > 0:
            continue
        until = _length(headers.get(reset, ""), now)
        if until is not None:
            yield until


def _length(said: str, now: float) -> float | None:
    """ "2", "0.5", "6m0s", "20ms", a date of HTTP or of RFC 3339, a time since 1970."""
    said = said.strip()
    number = _number(said)
    if number is not None:
        if number >= _EPOCH_MILLISECONDS:
            return _bounded(number / 1000 - now)
        return _bounded(number - now if number >= _EPOCH else number)
    if _LENGTH.fullmatch(said):
        return _bounded(sum(float(n) * _UNITS[unit] for n, unit in _PART.findall(said)))
    moment = _moment(said)
    return None if moment is None else _bounded(moment - now)


def _number(said: str) -> float | None:
    try:
        number = float(said)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _moment(said: str) -> float | None:
    for read in (email.utils.parsedate_to_datetime, datetime.fromisoformat):
        try:
            found = read(said)
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
        except (ValueError, TypeError, OverflowError):
            continue
    return None


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), LONGEST_PAUSE)
