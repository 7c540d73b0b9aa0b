"""How many calls at once an overloaded server gets, and what workers that share it make of that."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_worker.model import adaptive_limit, slot_rotation
from selfheal_worker.model.adaptive_limit import (
    AdaptiveLimit,
    answered,
    failed,
    next_at,
    overloaded,
    rotated,
    sent,
)
from tests.pure.worker.overloaded_server import World

NEVER = -math.inf


def running(number: int, limit: float | None = None) -> AdaptiveLimit:
    return AdaptiveLimit(limit=limit, running=number)


def test_there_is_no_limit_until_the_first_overload() -> None:
    state = AdaptiveLimit()
    for _ in range(1000):
        assert next_at(state) == NEVER
        state = sent(state)
    assert answered(state, 0.0, 1.0, 0.5).limit is None
    assert failed(state).limit is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (running(8), 7.0),  # no more than were under way
        (running(20), 18.0),
        (running(10, 20.0), 9.0),
        (running(20, 20.0), 18.0),
        (running(2, 1.4), 1.0),
        (running(1, 1.0), 1.0),
    ],
)
def test_an_overload_lowers_the_limit(before: AdaptiveLimit, after: float) -> None:
    assert overloaded(before, 0.0, 1.0, 0.5).limit == pytest.approx(after)


def test_calls_that_were_sent_before_the_last_decrease_lower_it_to_what_is_under_way() -> None:
    state = overloaded(running(40), 0.0, 1.0, 0.5)
    assert state.limit == pytest.approx(36.0)
    for left in (38, 37, 36):
        state = overloaded(state, 0.9, 1.1, 0.5)
        assert (state.running, state.limit) == (left, pytest.approx(36.0))
    state = overloaded(state, 0.9, 1.1, 0.5)
    assert (state.running, state.limit) == (35, 35.0)
    assert overloaded(sent(state), 1.2, 1.3, 0.5).limit == pytest.approx(0.9 * 35)


def test_an_answer_raises_the_limit_only_if_all_that_it_allows_were_used() -> None:
    at = running(3, 3.5)._replace(lowered_to=3.5)
    assert answered(at, 0.0, 1.0, 0.5).limit == pytest.approx(3.5 + 0.1 / 3.5)
    assert answered(at._replace(running=2), 0.0, 1.0, 0.5).limit == 3.5
    assert failed(at).limit == 3.5


def test_the_longer_nothing_is_refused_the_faster_the_limit_grows() -> None:
    steps = []
    state = AdaptiveLimit(limit=4.0, lowered_to=4.0)
    for _ in range(400):
        before = state.limit or 0.0
        state = answered(state._replace(running=math.floor(before)), 0.0, 1.0, 0.5)
        steps.append((state.limit or 0.0) * 1.0 - before)
    assert max(steps) <= 1.0
    assert (state.limit or 0) > 16


def pauses(chance: float, seconds: float | None, number: int = 60) -> list[float]:
    """Of a worker that is refused again and again."""
    state, now, found = AdaptiveLimit(seconds=seconds), 0.0, []
    for _ in range(number):
        state = overloaded(sent(state), now, now, chance)
        found.append(next_at(state) - now)
        now = next_at(state)
    return found


def test_the_first_pauses_grow_and_are_spread() -> None:
    early, late = pauses(0.0, None), pauses(1.0, None)
    assert all(b >= a - 1e-9 for a, b in itertools.pairwise(early))
    assert all(b == pytest.approx(3 * a) for a, b in zip(early, late, strict=True))
    assert max(late) == pytest.approx(4.5)


@pytest.mark.parametrize("seconds", [0.05, 1.0, 10.0, 100.0])
def test_a_server_that_refuses_everything_is_asked_ever_more_rarely(seconds: float) -> None:
    for chance in (0.0, 0.5, 0.999):
        found = pauses(chance, seconds)
        assert min(found) >= 0.5 * seconds * 0.6
        assert max(found) <= max(2 * 120, 8 * seconds)
        later = found[20:]
        assert sum(later) / len(later) >= min(6 * seconds, 30)
    assert pauses(0.1, seconds) != pauses(0.9, seconds)


def test_others_that_run_need_no_pause_their_end_is_the_next_turn() -> None:
    state = overloaded(running(2, 2.0), 0.0, 1.0, 0.5)
    assert (next_at(state), next_at(failed(state))) == (math.inf, 1.0)


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_a_pause_that_was_asked_for_is_kept_and_spread(chance: float) -> None:
    state = adaptive_limit.paused(AdaptiveLimit(), 100.0, 20.0, chance)
    assert 120.0 <= next_at(state) <= 122.0
    assert next_at(adaptive_limit.paused(state, 100.0, 1.0, chance)) == next_at(state)


def test_a_server_that_refuses_everything_for_long_counts_as_unavailable() -> None:
    state = AdaptiveLimit()
    for second in range(25):
        state = overloaded(sent(state), second, second, 0.5)
        assert adaptive_limit.starved(state, second) == (second >= 20)
    state = answered(sent(state), 25, 26, 0.5)
    assert not adaptive_limit.starved(state, 1000)


#: How a call can end, and what each end does.
ENDS = {
    "answered": lambda state, at, now, chance: answered(state, at, now, chance),
    "failed": lambda state, at, now, chance: rotated(failed(state), at, now, chance),
    "overloaded": overloaded,
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("limit", [None, 1.0, 3.5])
@pytest.mark.parametrize("seconds", [None, 2.0])
def test_what_each_end_of_a_call_does(end: str, limit: float | None, seconds: float | None) -> None:
    before = AdaptiveLimit(
        limit=limit,
        running=3,
        refused=7,
        refused_since=1.0,
        step=4,
        missed_periods=2,
        seconds=seconds,
        period=80.0,
    )
    after = ENDS[end](before, 100.0, 102.0, 0.5)
    assert after.running == 2
    if end == "overloaded":
        assert (after.refused, after.refused_since) == (8, 1.0)
        assert (after.seconds, after.period) == (seconds, 80.0)
        assert after.limit is not None
        assert after.limit <= (limit or 3)
        return
    # It was not one call too many: refusals in a row are over, with the pauses that they caused.
    assert (after.refused, after.refused_since) == (0, math.inf)
    assert (after.step, after.missed_periods) == (0, 0)
    if end == "failed":
        assert after.limit == limit
        assert (after.seconds, after.period) == (seconds, 80.0)


@pytest.mark.parametrize("end", ["answered", "failed"])
def test_refusals_with_another_end_between_them_are_not_a_server_that_refuses_all(end: str) -> None:
    """A text that is refused for what it says, or a call that passes its deadline, had a slot."""
    state = AdaptiveLimit()
    for second in range(100):
        kind = end if second % 6 == 5 else "overloaded"
        state = ENDS[kind](sent(state), second, second, 0.5)
        assert not adaptive_limit.starved(state, second)


@pytest.mark.parametrize("end", ["answered", "failed"])
def test_any_end_of_a_call_hands_over_the_slots_and_claims_them_again(end: str) -> None:
    held = AdaptiveLimit(limit=1.0, running=1, seconds=2.0, period=80.0)
    state = ENDS[end](held, 79.0, 81.0, 0.5)
    assert state.released
    assert next_at(state) > 81.0
    back = next_at(state)
    state = ENDS[end](sent(state), back, back + 2.0, 0.5)
    assert (state.released, state.unclaimed) == (False, True)


@given(
    st.lists(st.tuples(st.sampled_from(sorted(ENDS)), st.floats(0, 30), st.floats(0, 1))),
    st.integers(1, 8),
)
def test_it_counts_as_unavailable_only_after_nothing_but_refusals(
    ends: list[tuple[str, float, float]], at_once: int
) -> None:
    state, now, in_a_row, since = AdaptiveLimit(), 0.0, 0, math.inf
    for number, (end, seconds, chance) in enumerate(ends):
        while state.running < at_once:
            state = sent(state)
        now += seconds
        state = ENDS[end](state, max(0.0, now - seconds), now, chance)
        in_a_row = in_a_row + 1 if end == "overloaded" else 0
        since = min(since, now) if in_a_row else math.inf
        assert (state.refused, state.refused_since) == (in_a_row, since), number
        if adaptive_limit.starved(state, now):
            assert in_a_row >= 5
            assert now - since >= 20


@given(st.lists(st.tuples(st.sampled_from("sarf"), st.floats(0, 5), st.floats(0, 1))))
def test_a_limit_is_never_below_one_and_never_blocks_for_ever(
    steps: list[tuple[str, float, float]],
) -> None:
    state, now, begun = AdaptiveLimit(), 0.0, []
    for step, seconds, chance in steps:
        now += seconds
        if step == "s":
            if next_at(state) <= now:
                begun.append(now)
                state = sent(state)
        elif begun:
            at = begun.pop(0)
            if step == "f":
                state = failed(state)
            else:
                state = (answered if step == "a" else overloaded)(state, at, now, chance)
        assert state.running == len(begun)
        assert state.limit is None or state.limit >= 1
    assert begun or next_at(state) <= now + 180 + 8 * (state.seconds or 0)


@pytest.mark.parametrize("seconds", [0.05, 0.3, 3.0])
@pytest.mark.parametrize("seed", range(5))
def test_four_workers_on_two_slots_use_them_and_waste_few_calls(seconds: float, seed: int) -> None:
    world = World(4, 8, 2, 1000, seconds, seed)
    world.limits = [AdaptiveLimit(seconds=seconds)] * 4  # each has had its warm-up answered
    world.run()
    assert sum(world.answers) == 1000
    assert world.calls_per_answer <= 1.5
    assert world.capacity_used >= 0.9


SHARED = [(4, 2), (10, 8), (3, 1), (20, 3)]


def shared(
    workers: int,
    slots: int,
    seconds: float,
    seed: int,
    limit: float | None = None,
    ahead: tuple[float, ...] = (),
) -> World:
    """Workers that have had their warm-up answered; calls take half as long to one and a half."""
    world = World(workers, 8, slots, 1000 * slots, seconds, seed, spread=0.5, ahead=ahead)
    world.limits = [AdaptiveLimit(seconds=seconds, limit=limit)] * workers
    return world.run()


@pytest.mark.parametrize("seconds", [0.05, 0.3, 2.0])
@pytest.mark.parametrize(("workers", "slots"), SHARED)
def test_workers_use_the_slots_and_waste_few_calls(
    workers: int, slots: int, seconds: float
) -> None:
    for seed in (1, 2):
        world = shared(workers, slots, seconds, seed)
        assert sum(world.answers) == 1000 * slots
        assert world.capacity_used >= 0.9
        assert world.calls_per_answer <= 1.5


@pytest.mark.parametrize("seconds", [0.05, 0.3, 2.0])
@pytest.mark.parametrize(("workers", "slots"), SHARED)
def test_workers_that_were_refused_take_turns(workers: int, slots: int, seconds: float) -> None:
    for seed in (1, 2):
        world = shared(workers, slots, seconds, seed, limit=1.0)
        periods = max(world.longest_waits) / slot_rotation.period(seconds, 0.0)
        assert periods <= 3 + 2 * workers / slots


@pytest.mark.parametrize("seconds", [0.05, 0.3, 2.0])
@pytest.mark.parametrize(("workers", "slots"), SHARED)
def test_clocks_that_disagree_cost_neither_capacity_nor_calls(
    workers: int, slots: int, seconds: float
) -> None:
    ahead = tuple(7.3 * worker for worker in range(workers))
    world = shared(workers, slots, seconds, 1, ahead=ahead)
    assert world.capacity_used >= 0.9
    assert world.calls_per_answer <= 1.5


@pytest.mark.parametrize("seconds", [0.05, 0.3, 2.0])
@pytest.mark.parametrize("slots", [(2, 8, 3), (8, 2, 8)])
def test_a_server_whose_slots_come_and_go_is_used(slots: tuple[int, ...], seconds: float) -> None:
    changes = ((150 * seconds, slots[1]), (400 * seconds, slots[2]))
    world = World(10, 8, slots[0], 4000, seconds, 1, spread=0.5, changes=changes)
    world.limits = [AdaptiveLimit(seconds=seconds)] * 10
    world.run()
    assert world.capacity_used >= 0.9
    assert world.calls_per_answer <= 1.5


def test_a_server_that_refuses_everything_is_not_hammered() -> None:
    world = World(10, 8, 0, 1000, seconds=0.3, seed=1)
    world.limits = [AdaptiveLimit(seconds=0.3)] * 10
    world.run(until=60)
    before = world.calls
    world.run(until=660)
    assert world.calls - before <= 10 * 600 / (10 * 0.3)
    assert before <= 10 * (8 + 60 / (6 * 0.3))


@pytest.mark.parametrize("seed", range(5))
def test_ten_workers_on_eight_slots_converge_and_all_of_them_get_answers(seed: int) -> None:
    world = World(10, 8, 8, 5000, seconds=0.3, seed=seed).run()
    assert sum(world.answers) == 5000
    assert world.calls_per_answer <= 1.5
    assert world.capacity_used >= 0.9
    assert min(world.answers) >= 50
    allowed = sum(math.floor(one.limit or 8) for one in world.limits)
    assert allowed <= 20


@pytest.mark.parametrize("slots", [1, 2, 5, 20])
def test_one_worker_finds_the_slots_that_there_are(slots: int) -> None:
    world = World(1, 32, slots, 3000, seed=3).run()
    assert world.calls_per_answer <= 1.25
    assert world.capacity_used >= 0.85


def test_a_server_that_grows_is_used_again() -> None:
    world = World(2, 16, 2, 20_000, seconds=0.3, seed=1).run(until=60)
    before = sum(world.answers)
    world.slots = 32
    world.run(until=180)
    at = sum(world.answers)
    world.run(until=210)
    assert (sum(world.answers) - at) * 0.3 / 32 / 30 >= 0.85
    assert before * 0.3 / 2 / 60 >= 0.9
