"""One thread at a time warms a model up, and one that never returns does not stop the others."""

from __future__ import annotations

import pytest

from selfheal_worker.model.load_time import LONGEST_LOAD
from selfheal_worker.model.waking import Waking
from selfheal_worker.runtime import REAL


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(REAL, "monotonic", made)
    return made


def test_a_thread_that_never_returns_is_waited_for_as_long_as_the_longest_load_takes(
    clock: Clock,
) -> None:
    waking = Waking()
    assert waking.acquire(-1)
    clock.now += LONGEST_LOAD
    assert waking.acquire(0) is None
    clock.now += 1
    assert waking.acquire(0)
    assert waking.acquire(0) is None


def test_a_thread_that_returns_late_takes_nothing_from_the_one_that_came_after_it(
    clock: Clock,
) -> None:
    waking = Waking()
    late = waking.acquire(-1)
    clock.now += LONGEST_LOAD + 1
    second = waking.acquire(0)
    assert late
    assert second
    waking.release(late)
    assert waking.acquire(0) is None
    waking.release(second)
    assert waking.acquire(0)


def test_the_time_counts_from_when_the_thread_got_its_turn(clock: Clock) -> None:
    waking = Waking()
    first = waking.acquire(-1)
    assert first
    clock.now += LONGEST_LOAD + 1
    waking.release(first)
    clock.now += LONGEST_LOAD + 1
    assert waking.acquire(0)
    clock.now += LONGEST_LOAD
    assert waking.acquire(0) is None
