"""For how long everything is stopped for an uninstall, whatever clock the one who asks has."""

from __future__ import annotations

import pytest

from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.kube.lease import LONGEST_STOP, STOP_FOR_KEY, STOP_KEY, Stop
from tests.pure.remediator.builders import NOW


def _stop_request(skew: float, seconds: int) -> dict[str, str]:
    """What an uninstall writes whose clock is ahead by so much."""
    return {STOP_KEY: time_text(NOW + skew + seconds), STOP_FOR_KEY: str(seconds)}


@pytest.mark.parametrize("skew", [-7200, -120, 0, 120, 7200, 10**8])
def test_it_lasts_for_the_requested_time_by_our_own_clock(skew: float) -> None:
    stop, request = Stop(), _stop_request(skew, 90)
    assert stop.read(request, NOW) == NOW + 90
    assert stop.read(request, NOW + 50) == NOW + 90
    assert stop.read({}, NOW + 60) == 0.0
    assert stop.read(request, NOW + 70) == NOW + 160  # asked for again


def test_another_one_begins_again() -> None:
    stop = Stop()
    stop.read(_stop_request(0, 90), NOW)
    assert stop.read(_stop_request(30, 60), NOW + 30) == NOW + 90


def test_one_of_an_earlier_installation_stops_nothing() -> None:
    assert Stop().read(_stop_request(-100_000, 90), NOW) <= NOW


@pytest.mark.parametrize("seconds", ["", "soon", "-5", "1e9", "\u0661", "9" * 5000])
def test_without_a_number_the_time_counts(seconds: str) -> None:
    request = {STOP_KEY: time_text(NOW + 90), STOP_FOR_KEY: seconds}
    assert Stop().read(request, NOW) == NOW + 90


@pytest.mark.parametrize(
    "text", ["soon", "", "2026-01-01T00:00:00", "9999-99-99T00:00:00Z", "0001-01-01T00:00:00"]
)
def test_what_is_no_time_stops_nothing(text: str) -> None:
    assert Stop().read({STOP_KEY: text}, NOW) == 0.0


def test_any_time_however_far_away_can_be_reported() -> None:
    until = Stop().read({STOP_KEY: "9999-12-31T23:59:59-23:59"}, NOW)
    assert time_text(until)
    request = {STOP_KEY: time_text(NOW), STOP_FOR_KEY: "999999999"}
    assert Stop().read(request, NOW) == NOW + LONGEST_STOP
