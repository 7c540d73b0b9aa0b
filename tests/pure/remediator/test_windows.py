"""Maintenance windows: open when a clock on the wall says so, also when the clocks change."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from selfheal_remediator.windows import DAYS, Window, window_open

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata")
CLOCK = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.sampled_from([0, 15, 30, 45]))
#: 2026 and 2027, with all their changes of the clocks.
MOMENTS = st.integers(1_767_225_600, 1_830_297_600).map(float)


def window(**settings: Any) -> Window:
    return Window.model_validate({"start": "22:00", "end": "04:00", **settings})


@st.composite
def any_window(draw: st.DrawFn) -> Window:
    days = draw(st.lists(st.sampled_from(DAYS), min_size=1, unique=True))
    start = draw(CLOCK)
    ends = st.fixed_dictionaries({"end": CLOCK.filter(lambda end: end != start)})
    lasts = st.fixed_dictionaries({"duration": st.integers(1, 48).map("{}h".format)})
    zone = draw(st.sampled_from(ZONES))
    return Window.model_validate(
        {"days": days, "start": start, "timeZone": zone, **draw(ends | lasts)}
    )


def moment(text: str, zone: str, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


@given(st.lists(any_window(), min_size=1, max_size=3), MOMENTS, st.floats(0, 1))
def test_nothing_changes_before_the_next_change_and_something_does_then(
    windows: list[Window], now: float, part: float
) -> None:
    found = window_open(windows, now)
    if found.change is None:
        return
    assert found.change > now
    between = min(now + part * (found.change - now), found.change - 1)
    assert window_open(windows, max(now, between)) == found
    assert window_open(windows, found.change).open is not found.open


@given(any_window().filter(lambda window: window.end is not None), MOMENTS)
def test_by_day_it_is_open_when_the_wall_clock_is_within(found: Window, now: float) -> None:
    zone = ZoneInfo(found.time_zone)
    here = datetime.fromtimestamp(now, zone)
    offsets = {datetime.fromtimestamp(now + hours * 3600, zone).utcoffset() for hours in (-30, 30)}
    if len(offsets) > 1:
        return  # the clocks change: see the table below
    clock, end = f"{here:%H:%M}", found.end or ""
    today, before = DAYS[here.weekday()], DAYS[here.weekday() - 1]
    if found.start < end:
        expected = today in found.days and found.start <= clock < end
    else:
        expected = (today in found.days and clock >= found.start) or (
            before in found.days and clock < end
        )
    assert window_open([found], now).open is expected


@given(st.lists(any_window(), min_size=1, max_size=3), MOMENTS)
def test_several_are_open_when_one_is(windows: list[Window], now: float) -> None:
    alone = [window_open([one], now).open for one in windows]
    assert window_open(windows, now).open is any(alone)


@pytest.mark.parametrize(
    ("at", "fold", "is_open", "changes"),
    [
        # Berlin: 2026-03-29 02:00 becomes 03:00, 2026-10-25 03:00 becomes 02:00.
        ("2026-03-28T23:00", 0, True, "2026-03-29T04:00"),
        ("2026-03-29T03:00", 0, True, "2026-03-29T04:00"),
        ("2026-10-25T02:30", 0, True, "2026-10-25T04:00"),
        ("2026-10-25T02:30", 1, True, "2026-10-25T04:00"),
        ("2026-10-25T04:00", 0, False, "2026-10-25T22:00"),
    ],
)
def test_over_a_change_of_the_clocks_the_wall_clock_counts(
    at: str, fold: int, is_open: bool, changes: str
) -> None:
    found = window_open([window(timeZone="Europe/Berlin")], moment(at, "Europe/Berlin", fold))
    assert found == (is_open, moment(changes, "Europe/Berlin"))


def test_a_start_that_the_clocks_skip_is_so_much_later() -> None:
    skipped = window(start="02:30", end=None, duration="1h", timeZone="Europe/Berlin")
    now = moment("2026-03-29T01:00", "Europe/Berlin")
    opens = window_open([skipped], now)
    assert opens == (False, moment("2026-03-29T03:30", "Europe/Berlin"))


def test_a_window_that_the_clocks_skip_opens_on_the_next_of_its_days() -> None:
    sunday = window(days=["Sun"], start="02:45", end="03:15", timeZone="Europe/Berlin")
    now = moment("2026-03-29T01:00", "Europe/Berlin")
    assert window_open([sunday], now) == (False, moment("2026-04-05T02:45", "Europe/Berlin"))


def test_one_without_an_end_within_weeks_is_open_for_now() -> None:
    always = window(start="00:00", end=None, duration="24h")
    assert window_open([always], 1_800_000_000.0) == (True, None)


def test_without_windows_nothing_waits() -> None:
    assert window_open([], 0.0) == (True, None)


def test_a_time_that_yaml_made_a_number_is_understood() -> None:
    assert window(start=22 * 60 + 30).start == "22:30"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"start": 22}, "22 is not a time of day"),
        ({"start": "24:00"}, "'24:00' is not a time of day"),
        ({"start": "04:00"}, "start and end are both 04:00"),
        ({"end": None}, "exactly one of end and duration"),
        ({"duration": "1h"}, "exactly one of end and duration"),
        ({"end": None, "duration": "8d"}, "duration must be from 1m to 7d"),
        ({"timeZone": "Mars/Olympus"}, "'Mars/Olympus' is not a time zone of the IANA database"),
        ({"timeZone": "../etc/passwd"}, "is not a time zone of the IANA database"),
        ({"timeZone": ""}, "is not a time zone of the IANA database"),
        ({"days": ["Monday"]}, "'Mon', 'Tue'"),
        ({"days": []}, "at least 1 item"),
    ],
)
def test_a_bad_window_is_refused_with_what_is_allowed(
    settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem.replace(".", r"\.")):
        window(**settings)
