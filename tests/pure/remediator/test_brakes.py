"""Brakes pace holds: whatever is asked in whatever order, the budget is never passed."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from remediator.brakes import Member, Tally, ask_drain, ask_hold, budget
from remediator.settings import Brakes

MEMBERS = st.builds(
    Member,
    zone=st.sampled_from(["a", "b", ""]),
    control_plane=st.booleans(),
    held=st.booleans(),
    unavailable=st.booleans(),
    draining=st.just(False),
)
BRAKES = st.builds(
    lambda amount, floor, ceiling, zone, interval, rate: Brakes.model_validate(
        {
            "maxHeld": amount,
            "maxHeldFloor": floor,
            "maxHeldCeiling": ceiling,
            "maxHeldPerZone": zone,
            "minInterval": interval,
            "rate": rate,
        }
    ),
    st.one_of(st.integers(0, 10), st.integers(0, 100).map(lambda n: f"{n}%")),
    st.integers(0, 3),
    st.none() | st.integers(0, 6),
    st.none() | st.integers(0, 3),
    st.integers(0, 20),
    st.none() | st.fixed_dictionaries({"count": st.integers(1, 3), "window": st.integers(1, 50)}),
)


@given(BRAKES, st.lists(MEMBERS, max_size=40), st.lists(st.integers(0, 30), max_size=40))
def test_no_sequence_of_holds_passes_a_budget(
    brakes: Brakes, members: list[Member], pauses: list[int]
) -> None:
    tally = Tally.of(members, (), 0)
    limit = budget(brakes, tally.population)
    held_before, now = tally.held, 0.0
    granted: list[float] = []
    for member, pause in zip([m for m in members if not m.held], pauses, strict=False):
        now += pause
        control_plane_before = tally.control_plane_held
        if ask_hold(brakes, tally, member, now) is None:
            tally.add_hold(member, now)
            granted.append(now)
            if member.control_plane:
                assert control_plane_before == 0
    assert tally.held <= max(limit, held_before)
    if brakes.max_held_per_zone is not None and not held_before:
        assert all(
            count <= max(brakes.max_held_per_zone.of(tally.zones[zone]), 1)
            for zone, count in tally.zones_held.items()
        )
    assert all(b - a >= brakes.min_interval for a, b in pairwise(granted))
    if brakes.rate:
        for start in granted:
            inside = [t for t in granted if start <= t < start + brakes.rate.window]
            assert len(inside) <= brakes.rate.count


@given(st.integers(2, 200))
def test_the_default_allows_one_of_two_and_a_tenth_of_many(population: int) -> None:
    assert budget(Brakes(), population) == max(1, population // 10)


def test_nodes_that_are_out_for_other_reasons_count() -> None:
    brakes = Brakes.model_validate({"maxHeld": 2})
    members = [Member(unavailable=True), Member(unavailable=True), Member()]
    refused = ask_hold(brakes, Tally.of(members, (), 0), Member(), 0)
    assert refused is not None
    assert refused.brake == "unavailable"
    # A node that is out anyway costs no capacity.
    assert ask_hold(brakes, Tally.of(members, (), 0), Member(unavailable=True), 0) is None


def test_a_shrinking_pool_does_not_shrink_the_budget() -> None:
    members = [Member() for _ in range(9)]
    brakes = Brakes.model_validate({"maxHeld": "10%", "maxHeldFloor": 0})
    assert ask_hold(brakes, Tally.of(members, (), 0), Member(), 0) is not None
    assert ask_hold(brakes, Tally.of(members, (), 10), Member(), 0) is None


def test_a_pace_says_when_it_opens() -> None:
    brakes = Brakes.model_validate({"maxHeld": 9, "rate": {"count": 2, "window": "1m"}})
    refused = ask_hold(brakes, Tally.of([Member()] * 10, [0, 10, 20], 0), Member(), 30)
    assert refused is not None
    assert refused.until == 70


def test_drains_have_their_own_limit() -> None:
    brakes = Brakes.model_validate({"maxDraining": 1})
    assert ask_drain(brakes, Tally()) is None
    assert ask_drain(brakes, Tally(draining=1)) is not None
