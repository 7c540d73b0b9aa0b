"""How long until a time that a server wrote down, in any of the forms that servers use. Pure."""

from __future__ import annotations

import email.utils
import math
import re
from datetime import UTC, datetime

#: Seconds; what is longer is cut: limits are raised, and clocks are wrong.
LONGEST_PAUSE = 3600.0

# A number from here on is a time since 1970 and no length: in seconds, and in milliseconds; a
# thousand times more each in micro- and nanoseconds.
_EPOCH = 1e9
_EPOCH_MILLISECONDS = 1e12
_LONGEST_TEXT = 100
_UNITS = {
    **dict.fromkeys(("ns", "nanos", "nanosecond"), 1e-9),
    **dict.fromkeys(("us", "µs", "μs", "micros", "microsecond"), 1e-6),
    **dict.fromkeys(("ms", "msec", "millis", "millisecond"), 1e-3),
    **dict.fromkeys(("s", "sec", "second"), 1.0),
    **dict.fromkeys(("m", "min", "minute"), 60.0),
    **dict.fromkeys(("h", "hr", "hour"), 3600.0),
    **dict.fromkeys(("d", "day"), 86400.0),
}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-zµμ]+)")
_BETWEEN = re.compile(r"(?:\s|,|and)*")
_ISO = re.compile(
    r"P(?:([0-9.]+)D)?(?:T(?:([0-9.]+)H)?(?:([0-9.]+)M)?(?:([0-9.]+)S)?)?", re.IGNORECASE
)
_CLOCK = re.compile(r"(?:([0-9]{1,4}):)?([0-9]{1,2}):([0-9]{1,2}(?:\.[0-9]+)?)")


def pause_of(text: str, now: float) -> float | None:
    """Seconds from now (Unix seconds), 0 for what is past, at most `LONGEST_PAUSE`.

    "2", "0.5", "6m0s", "1m 30s", "20ms", "2 minutes", "PT1M30S", "00:01:30", a date of HTTP or of
    RFC 3339, a time since 1970 in seconds or smaller units; of several numbers (a header that was
    sent twice) the largest. None for anything else.
    """
    text = text.strip().strip('"').strip()
    if not text or len(text) > _LONGEST_TEXT:
        return None
    if (plain := number(text)) is not None:
        return bounded(_from_number(plain, now))
    length = _length(text)
    if length is not None:
        return bounded(length)
    moment = _moment(text)
    if moment is not None:
        return bounded(moment - now)
    several = [number(part.strip()) for part in text.split(",")]
    known = [one for one in several if one is not None]
    if len(several) == len(known):
        return bounded(max(_from_number(one, now) for one in known))
    return None


def number(text: str) -> float | None:
    """A number, None for anything else and for NaN."""
    text = text.strip().strip('"')
    if len(text) > _LONGEST_TEXT or "_" in text:
        return None
    try:
        found = float(text)
    except ValueError:
        return None
    return None if math.isnan(found) else found


def bounded(seconds: float) -> float:
    """Seconds from 0 to `LONGEST_PAUSE`."""
    return min(max(seconds, 0.0), LONGEST_PAUSE)


def _from_number(plain: float, now: float) -> float:
    if plain < _EPOCH or math.isinf(plain):
        return plain
    while plain >= _EPOCH_MILLISECONDS:
        plain /= 1000
    return plain - now


def _length(text: str) -> float | None:
    parts = [float(part or 0) for part in iso.groups()] if (iso := _iso(text)) else []
    if parts:
        days, hours, minutes, seconds = parts
        return days * 86400 + hours * 3600 + minutes * 60 + seconds
    if clock := _CLOCK.fullmatch(text):
        return float(clock[1] or 0) * 3600 + float(clock[2]) * 60 + float(clock[3])
    return _units(text.lower())


def _iso(text: str) -> re.Match[str] | None:
    match = _ISO.fullmatch(text)
    if match is None or not any(match.groups()):
        return None
    good = all(part is None or number(part) is not None for part in match.groups())
    return match if good else None


def _units(text: str) -> float | None:
    total, at = 0.0, 0
    for part in _PART.finditer(text):
        if _BETWEEN.fullmatch(text, at, part.start()) is None:
            return None
        factor = _UNITS.get(part[2]) or _UNITS.get(part[2].removesuffix("s"))
        if factor is None:
            return None
        total += float(part[1]) * factor
        at = part.end()
    return total if at and at == len(text) else None


def _moment(text: str) -> float | None:
    for read in (email.utils.parsedate_to_datetime, datetime.fromisoformat):
        try:
            found = read(text)
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
        except (ValueError, TypeError, OverflowError, IndexError, AttributeError):
            continue
    return None
