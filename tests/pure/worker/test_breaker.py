from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_worker.model.breaker import (
    ACCESS_PAUSE,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    RARE_PAUSE,
    THRESHOLD,
    Breaker,
    State,
    due,
    failed,
    probed,
    probing,
    succeeded,
)


def test_failures_in_a_row_open_it_and_a_success_between_does_not() -> None:
    breaker = Breaker()
    for _ in range(THRESHOLD - 1):
        breaker = failed(breaker, 10.0, away=False)
    assert breaker.closed
    assert failed(succeeded(breaker), 10.0, away=False).closed
    opened = failed(breaker, 10.0, away=False)
    assert opened.state is State.OPEN
    assert not due(opened, 10.0 + FIRST_PAUSE - 0.01)
    assert due(opened, 10.0 + FIRST_PAUSE)


def test_one_refused_connection_opens_it() -> None:
    assert failed(Breaker(), 0.0, away=True).state is State.OPEN


def test_only_a_probe_closes_it() -> None:
    opened = failed(Breaker(), 0.0, away=True)
    assert succeeded(opened) is opened
    assert failed(opened, 5.0, away=True) is opened
    started = probing(opened)
    assert not due(started, 1e9)
    assert succeeded(started) is started
    assert probed(started, 5.0, succeeded=True) == Breaker()


def test_the_pause_between_probes_doubles_up_to_the_longest() -> None:
    breaker = failed(Breaker(), 0.0, away=True)
    pauses = []
    for _ in range(8):
        breaker = probed(probing(breaker), 100.0, succeeded=False)
        pauses.append(breaker.probe_at - 100.0)
    assert pauses == [2] + [LONGEST_PAUSE] * 7


@given(st.lists(st.sampled_from(["good", "bad", "away", "tick"]), max_size=60))
def test_it_always_comes_back(events: list[str]) -> None:
    breaker, now = Breaker(), 0.0
    for event in events:
        now += 1
        if event == "good":
            breaker = succeeded(breaker)
        elif event == "tick":
            if due(breaker, now):
                breaker = probed(probing(breaker), now, succeeded=False)
        else:
            breaker = failed(breaker, now, away=event == "away")
    if not breaker.closed:
        now += LONGEST_PAUSE
        assert due(breaker, now)
        assert probed(probing(breaker), now, succeeded=True).closed


@pytest.mark.parametrize(
    ("succeeded", "replaced"), list(itertools.product((True, False), repeat=2))
)
def test_only_the_probe_that_is_under_way_changes_it(succeeded: bool, replaced: bool) -> None:
    """Every order of two probes' answers: the first was replaced after its deadline."""
    first = probing(failed(Breaker(), 0.0, away=True), until=10.0)
    assert not due(first, 9.9)
    assert due(first, 10.0)
    second = probing(first, until=20.0)
    assert probed(second, 11.0, succeeded=replaced, probe=first.probe) is second
    ended = probed(second, 12.0, succeeded=succeeded, probe=second.probe)
    assert ended.closed == succeeded
    assert probed(ended, 13.0, succeeded=replaced, probe=first.probe) is ended
    again = probing(ended)
    assert probed(again, 14.0, succeeded=replaced, probe=first.probe) is again
    assert probed(again, 14.0, succeeded=replaced, probe=second.probe) is again


_EVENTS = ("start", "first", "second", "failure", "success")


@pytest.mark.parametrize("order", list(itertools.permutations(_EVENTS)))
def test_no_order_of_events_leaves_it_probing_for_ever(order: tuple[str, ...]) -> None:
    breaker = probing(failed(Breaker(), 0.0, away=True), until=10.0)
    first, second = breaker.probe, breaker.probe + 1
    for event in order:
        if event == "start" and due(breaker, 10.0):
            breaker = probing(breaker, until=20.0)
        elif event == "first":
            breaker = probed(breaker, 10.0, succeeded=False, probe=first)
        elif event == "second":
            breaker = probed(breaker, 10.0, succeeded=True, probe=second)
        elif event == "failure":
            breaker = failed(breaker, 10.0, away=True)
        else:
            breaker = succeeded(breaker)
    assert breaker.closed or due(breaker, 20.0)


def test_probes_become_rare_and_those_of_a_refused_key_rarer_and_none_are_in_step() -> None:
    def pauses(number: int, *, access: bool, chance: float = 1.0) -> list[float]:
        breaker, found = failed(Breaker(), 0.0, away=True), []
        for _ in range(number):
            breaker = probed(probing(breaker), 0.0, succeeded=False, access=access, chance=chance)
            found.append(breaker.probe_at)
        return found

    fast, slow = pauses(40, access=False), pauses(40, access=True)
    assert max(fast[:20]) == LONGEST_PAUSE
    assert fast == sorted(fast)
    assert fast[-1] == RARE_PAUSE
    assert slow[:3] == [2, 4, 8]
    assert slow[-1] == ACCESS_PAUSE
    assert pauses(3, access=False, chance=0.0) == [1, 1.5, 1.5]
