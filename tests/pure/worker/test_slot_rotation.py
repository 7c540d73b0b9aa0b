"""When workers on a server with too few slots change places."""

from __future__ import annotations

import itertools

import pytest

from selfheal_worker.model import adaptive_limit, slot_rotation
from selfheal_worker.model.adaptive_limit import AdaptiveLimit, answered, next_at, overloaded, sent

UNIX = 1_700_000_000.0


@pytest.mark.parametrize(
    ("seconds", "before", "wanted"),
    [
        (0.001, 0.0, 10.0),
        (0.27, 0.0, 10.0),
        (0.3, 0.0, 20.0),
        (2.0, 0.0, 80.0),
        (2.3, 80.0, 80.0),  # not given up for a little
        (1.0, 80.0, 80.0),
        (0.8, 80.0, 40.0),
        (3.4, 80.0, 160.0),
    ],
)
def test_a_period_is_a_power_of_two_and_kept(seconds: float, before: float, wanted: float) -> None:
    assert slot_rotation.period(seconds, before) == wanted


def test_boundaries_of_a_period_are_boundaries_of_all_shorter_ones() -> None:
    long = slot_rotation.period(5.0, 0.0)
    for seconds in (0.1, 0.5, 2.0):
        length = slot_rotation.period(seconds, 0.0)
        for ahead in (0.0, UNIX):
            begun = slot_rotation.boundary(slot_rotation.number(77.0, ahead, long), ahead, long)
            which = slot_rotation.number(begun + 0.001, ahead, length)
            assert slot_rotation.boundary(which, ahead, length) == pytest.approx(begun)


def test_who_was_refused_asks_before_the_others_return_and_the_longest_refused_first() -> None:
    latest = [slot_rotation.asks_at(100.0, 2.0, missed, 1.0) for missed in range(20)]
    assert all(b < a for a, b in itertools.pairwise(at for _, at in latest))
    assert latest[0][1] < slot_rotation.returns_at(100.0, 2.0, 0.0)
    assert all(first > 100.0 for first, _ in latest)


def holding(**more: float) -> AdaptiveLimit:
    return AdaptiveLimit(limit=1.0, running=1, seconds=2.0, period=80.0, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("ahead", [0.0, UNIX])
def test_a_slot_is_let_go_by_the_call_during_which_a_period_begins(ahead: float) -> None:
    begun = slot_rotation.boundary(slot_rotation.number(500.0, ahead, 80.0), ahead, 80.0)
    before = answered(holding(), begun - 3.0, begun - 1.0, 0.5, ahead)
    assert next_at(before) <= begun - 1.0
    during = answered(holding(), begun - 1.0, begun + 1.0, 0.5, ahead)
    assert next_at(during) == slot_rotation.returns_at(begun, during.seconds or 0.0, 0.5)
    assert next_at(answered(holding(), begun + 0.1, begun + 2.1, 0.5, ahead)) <= begun + 2.1


def test_a_server_that_refused_nothing_is_used_without_a_break() -> None:
    state = AdaptiveLimit(running=8, seconds=2.0, period=80.0)
    assert next_at(answered(state, 79.0, 81.0, 0.5)) <= 81.0


def test_slots_that_nobody_took_are_let_go_half_as_often() -> None:
    state = answered(holding(), 79.0, 81.0, 0.5)
    state = answered(sent(state), next_at(state), next_at(state) + 2.0, 0.5)
    assert state.unclaimed
    assert next_at(answered(sent(state), 239.0, 241.0, 0.5)) < 241.0
    assert next_at(answered(sent(state), 319.0, 321.0, 0.5)) > 321.0


def test_slots_that_were_taken_are_let_go_the_next_time() -> None:
    state = answered(holding(), 79.0, 81.0, 0.5)
    at = next_at(state)
    state = overloaded(sent(state), at, at, 0.5)
    assert not state.unclaimed
    assert not state.released
    assert next_at(state) >= at + 2.0


def test_who_waits_asks_at_the_boundary_though_its_pause_is_longer() -> None:
    state = AdaptiveLimit(limit=1.0, running=1, seconds=2.0, period=80.0, step=9, missed_periods=9)
    state = overloaded(state, 70.0, 70.0, 0.5)
    assert 80.0 < next_at(state) < slot_rotation.returns_at(80.0, 2.0, 0.0)
    assert state.missed_periods == 10


def test_a_pause_that_the_server_asked_for_is_kept_over_a_boundary() -> None:
    state = adaptive_limit.paused(holding(), 70.0, 60.0, 0.0)
    assert next_at(overloaded(state, 70.0, 70.0, 0.5)) >= 130.0
    assert (
        adaptive_limit.paused(answered(holding(), 79.0, 81.0, 0.5), 81.0, 60.0, 0.0).not_before
        == 141.0
    )
