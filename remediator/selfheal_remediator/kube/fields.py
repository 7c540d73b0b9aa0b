"""Types of fields in JSON that pydantic reads and writes.

Nothing is taken for another type: true is no number, 5 no text, "5" no number.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, Strict, ValidationError

from selfheal_remediator.kube.json_values import timestamp
from selfheal_remediator.quantities import parse_duration

#: The first and last moment that the API can write (years 1 and 9999).
_FIRST, _LAST = -62135596800.0, 253402300799.0
#: So many mistakes are described.
MOST = 5


def _encodable(text: str) -> str:
    """JSON may contain lone surrogates, logs may not. Raises UnicodeEncodeError."""
    text.encode()
    return text


def _moment(value: object) -> object:
    if not isinstance(value, str) or not value:
        raise ValueError("allowed is a time such as 2026-01-31T12:00:00Z")
    return timestamp(value)


def _duration(value: object) -> float:
    if not isinstance(value, str):
        raise ValueError("allowed is a duration such as 30s, 5m, 1h30m")
    return parse_duration(value)


def time_text(seconds: float) -> str:
    """A time as the API writes it (whole seconds); the first or last that it can, beyond those."""
    seconds = min(max(seconds, _FIRST), _LAST)
    whole = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    return whole.replace("+00:00", "Z")


Text = Annotated[str, Strict(), AfterValidator(_encodable)]
Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict()]
#: Seconds since the epoch.
Moment = Annotated[
    float, BeforeValidator(_moment), PlainSerializer(time_text, return_type=str, when_used="json")
]
#: Seconds.
Duration = Annotated[float, BeforeValidator(_duration)]


def mistakes(error: ValidationError) -> str:
    """For each value that is wrong: where it is, what it is, and what is allowed."""
    items = error.errors(include_url=False)
    more = [f"and {len(items) - MOST} more"] if len(items) > MOST else []
    return "; ".join([*(_mistake(item) for item in items[:MOST]), *more])


def _mistake(item: Any) -> str:
    where = ""
    for part in item["loc"]:
        where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else part
    if item["type"] == "missing":
        return f"{where} is missing"
    allowed = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return f"{where} is {item['input']!r:.100}: {allowed:.150}"
