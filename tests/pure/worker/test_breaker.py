from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.breaker import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
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


def test_one_word_that_nobody_is_there_opens_it() -> None:
    assert failed(Breaker(), 0.0, away=True).state is State.OPEN


def test_only_a_probe_closes_it() -> None:
    opened = failed(Breaker(), 0.0, away=True)
    assert succeeded(opened) is opened
    assert failed(opened, 5.0, away=True) is opened
    started = probing(opened)
    assert not due(started, 1e9)
    assert succeeded(started) is started
    assert probed(started, 5.0, well=True) == Breaker()


def test_the_pause_between_probes_doubles_up_to_the_longest() -> None:
    breaker = failed(Breaker(), 0.0, away=True)
    pauses = []
    for _ in range(8):
        breaker = probed(probing(breaker), 100.0, well=False)
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
                breaker = probed(probing(breaker), now, well=False)
        else:
            breaker = failed(breaker, now, away=event == "away")
    if not breaker.closed:
        now += LONGEST_PAUSE
        assert due(breaker, now)
        assert probed(probing(breaker), now, well=True).closed
