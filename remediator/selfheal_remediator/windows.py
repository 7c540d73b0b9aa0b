"""Maintenance windows: weekly times in a time zone, in which disruptive work may begin. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Annotated, Literal, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from selfheal_remediator.strict import Duration, Strict

Day = Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
DAYS: tuple[Day, ...] = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
#: The longest window, and how far ahead the next change is searched for: a weekly window that
#: one change of the clocks skips opens a week later.
LONGEST_DAYS, AHEAD_DAYS = 7, 21


def _clock_time(value: object) -> object:
    # YAML 1.1 reads an unquoted 22:00 as a number in base 60: 1320. No such number is below 60.
    if isinstance(value, int) and not isinstance(value, bool) and 60 <= value < 24 * 60:
        value = f"{value // 60:02}:{value % 60:02}"
    found = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f'{value!r} is not a time of day ("22:00"; 00:00 to 23:59)')
    return f"{int(found[1]):02}:{found[2]}"


def _time_zone(name: str) -> str:
    _zone(name)
    return name


@lru_cache(64)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise ValueError(
            f"{name!r:.100} is not a time zone of the IANA database, as Europe/Berlin or UTC"
        ) from error


ClockTime = Annotated[str, BeforeValidator(_clock_time)]


class Window(Strict):
    """On these days from `start` to `end` (on the next day, unless later than start), or so long.

    A time that the clocks skip counts as so much later, one that they repeat as the first of both;
    a window that ends by then does not open on that day.
    """

    days: tuple[Day, ...] = Field(default=DAYS, min_length=1)
    start: ClockTime
    end: ClockTime | None = None
    duration: Duration | None = None
    time_zone: Annotated[str, AfterValidator(_time_zone)] = "UTC"

    @model_validator(mode="after")
    def _one_end(self) -> Window:
        if (self.end is None) == (self.duration is None):
            raise ValueError("exactly one of end and duration is required")
        if self.end == self.start:
            raise ValueError(
                f"start and end are both {self.start}; for a whole day set duration: 24h"
            )
        longest = LONGEST_DAYS * 86400
        if self.duration is not None and not 60 <= self.duration <= longest:
            raise ValueError(f"duration must be from 1m to {LONGEST_DAYS}d, got {self.duration:g}s")
        return self

    @property
    def length(self) -> float:
        """Seconds from its start to its end, but for a change of the clocks between them."""
        if self.duration is not None:
            return self.duration
        assert self.end is not None
        begin, end = (time.fromisoformat(clock) for clock in (self.start, self.end))
        minutes = (end.hour - begin.hour) * 60 + end.minute - begin.minute
        return float(minutes % (24 * 60) * 60)


class Opening(NamedTuple):
    """Whether a window is open. change: when that ends (seconds since the epoch); None = not
    within AHEAD_DAYS."""

    open: bool
    change: float | None


def window_open(windows: Sequence[Window], now: float) -> Opening:
    """Whether any of the windows is open, and until when that stays so. Without windows: open."""
    if not windows:
        return Opening(True, None)
    limit = now + AHEAD_DAYS * 86400
    spans = sorted(span for window in windows for span in _spans(window, now))
    closes = now
    for begin, end in spans:
        if begin <= closes < end:
            closes = end
    if closes > now:
        return Opening(True, closes if closes < limit else None)
    starts = [begin for begin, _ in spans if now < begin < limit]
    return Opening(False, min(starts, default=None))


def _spans(window: Window, now: float) -> Iterator[tuple[float, float]]:
    """From when to when it is open, from those that may have begun before `now` on."""
    zone = _zone(window.time_zone)
    today = datetime.fromtimestamp(now, UTC).date()
    for offset in range(-LONGEST_DAYS - 2, AHEAD_DAYS + 2):
        day = today + timedelta(days=offset)
        if DAYS[day.weekday()] not in window.days:
            continue
        begin = _moment(day, window.start, zone)
        if window.duration is not None:
            end = begin + window.duration
        else:
            assert window.end is not None
            last = day if window.end > window.start else day + timedelta(days=1)
            end = _moment(last, window.end, zone)
        if end > begin:
            yield begin, end


def _moment(day: date, clock_time: str, zone: ZoneInfo) -> float:
    return datetime.combine(day, time.fromisoformat(clock_time), zone).timestamp()
