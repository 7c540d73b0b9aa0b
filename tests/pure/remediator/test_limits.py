"""Limits pace holds: whatever is asked in whatever order, the budget is never passed."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_remediator.config import DisruptionLimits
from selfheal_remediator.node.limits import (
    CountedNode,
    Tally,
    budget,
    check_cordon,
    check_drain,
    zone_outage,
)

NODES = st.builds(
    CountedNode,
    zone=st.sampled_from(["a", "b", ""]),
    group=st.sampled_from(["g", "h", ""]),
    control_plane=st.booleans(),
    cordoned=st.booleans(),
    unavailable=st.booleans(),
    draining=st.just(False),
)
ANY_LIMITS = st.builds(
    lambda amount, floor, ceiling, zone, group, interval, rate: DisruptionLimits.model_validate(
        {
            "maxUnavailable": amount,
            "minAllowed": floor,
            "maxAllowed": ceiling,
            "maxUnavailablePerZone": zone,
            "groupLabel": "pool",
            "maxUnavailablePerGroup": group,
            "minInterval": interval,
            "rate": rate,
        }
    ),
    st.one_of(st.integers(0, 10), st.integers(0, 100).map(lambda n: f"{n}%")),
    st.integers(0, 3),
    st.none() | st.integers(0, 6),
    st.none() | st.integers(0, 3),
    st.none() | st.integers(0, 3),
    st.integers(0, 20),
    st.none() | st.fixed_dictionaries({"count": st.integers(1, 3), "window": st.integers(1, 50)}),
)


@given(ANY_LIMITS, st.lists(NODES, max_size=40), st.lists(st.integers(0, 30), max_size=40))
def test_no_sequence_of_cordons_passes_a_budget(
    limits: DisruptionLimits, nodes: list[CountedNode], pauses: list[int]
) -> None:
    tally = Tally.of(nodes, (), 0)
    limit = budget(limits, tally.population)
    cordoned_before, now = tally.cordoned, 0.0
    granted: list[float] = []
    for node, pause in zip([m for m in nodes if not m.cordoned], pauses, strict=False):
        now += pause
        out_before = tally.control_plane_out - (node.control_plane and node.unavailable)
        if check_cordon(limits, tally, node, now) is None:
            tally.add_cordon(node, now)
            granted.append(now)
            if node.control_plane:
                assert out_before == 0
    assert tally.cordoned <= max(limit, cordoned_before)
    if limits.max_unavailable_per_zone is not None and not cordoned_before:
        assert all(
            count <= max(limits.max_unavailable_per_zone.of(tally.zones[zone]), 1)
            for zone, count in tally.zones_cordoned.items()
        )
    if limits.max_unavailable_per_group is not None and not cordoned_before:
        assert all(
            count <= max(limits.max_unavailable_per_group.of(tally.groups[group]), 1)
            for group, count in tally.groups_cordoned.items()
        )
    assert all(b - a >= limits.min_interval for a, b in pairwise(granted))
    if limits.rate:
        for start in granted:
            inside = [t for t in granted if start <= t < start + limits.rate.window]
            assert len(inside) <= limits.rate.count


@given(st.integers(2, 200))
def test_the_default_allows_one_of_two_and_a_tenth_of_many(population: int) -> None:
    assert budget(DisruptionLimits(), population) == max(1, population // 10)


def test_nodes_that_are_out_for_other_reasons_count() -> None:
    limits = DisruptionLimits.model_validate({"maxUnavailable": 2})
    nodes = [CountedNode(unavailable=True), CountedNode(unavailable=True), CountedNode()]
    refused = check_cordon(limits, Tally.of(nodes, (), 0), CountedNode(), 0)
    assert refused is not None
    assert refused.cause == "unavailable"
    # A node that is out anyway costs no capacity.
    assert check_cordon(limits, Tally.of(nodes, (), 0), CountedNode(unavailable=True), 0) is None


def test_a_shrinking_pool_does_not_shrink_the_budget() -> None:
    nodes = [CountedNode() for _ in range(9)]
    limits = DisruptionLimits.model_validate({"maxUnavailable": "10%", "minAllowed": 0})
    assert check_cordon(limits, Tally.of(nodes, (), 0), CountedNode(), 0) is not None
    assert check_cordon(limits, Tally.of(nodes, (), 10), CountedNode(), 0) is None


def test_a_pace_says_when_it_opens() -> None:
    limits = DisruptionLimits.model_validate(
        {"maxUnavailable": 9, "rate": {"count": 2, "window": "1m"}}
    )
    refused = check_cordon(
        limits, Tally.of([CountedNode()] * 10, [0, 10, 20], 0), CountedNode(), 30
    )
    assert refused is not None
    assert refused.until == 70


def _limit_reached(nodes: list[CountedNode], node: CountedNode, **limits: object) -> str:
    """Which limit a cordon of `node` reaches, empty = none."""
    about = DisruptionLimits.model_validate({"maxUnavailable": "100%", **limits})
    refused = check_cordon(about, Tally.of(nodes, (), 0), node, 0)
    return refused.cause if refused else ""


@pytest.mark.parametrize(
    ("out", "node", "expected"),
    [
        (
            CountedNode(control_plane=True, cordoned=True),
            CountedNode(control_plane=True),
            "controlPlane",
        ),
        (
            CountedNode(control_plane=True, unavailable=True),
            CountedNode(control_plane=True),
            "controlPlane",
        ),
        (CountedNode(control_plane=True, cordoned=True), CountedNode(), ""),
        (CountedNode(cordoned=True), CountedNode(control_plane=True), ""),
        (CountedNode(control_plane=True), CountedNode(control_plane=True), ""),
    ],
)
def test_control_plane_nodes_go_one_at_a_time(
    out: CountedNode, node: CountedNode, expected: str
) -> None:
    assert _limit_reached([out, node], node) == expected


def test_a_control_plane_node_that_is_unavailable_may_be_cordoned() -> None:
    dead = CountedNode(control_plane=True, unavailable=True)
    assert _limit_reached([dead, CountedNode(control_plane=True)], dead) == ""
    assert _limit_reached([dead, replace(dead, cordoned=True)], dead) == "controlPlane"


def test_a_control_plane_node_just_allowed_counts() -> None:
    node, about = (
        CountedNode(control_plane=True),
        DisruptionLimits.model_validate({"maxUnavailable": "100%"}),
    )
    tally = Tally.of([node, node], (), 0)
    assert check_cordon(about, tally, node, 0) is None
    tally.add_cordon(node, 0)
    refused = check_cordon(about, tally, node, 0)
    assert refused is not None
    assert refused.cause == "controlPlane"


@pytest.mark.parametrize("key", ["zone", "group"])
def test_each_zone_and_each_group_has_a_limit_of_its_own(key: str) -> None:
    def node(name: str, **more: Any) -> CountedNode:
        return CountedNode(**{key: name, **more})

    limits = {"groupLabel": "pool", f"maxUnavailablePer{key.title()}": "50%"}
    nodes = [
        node("a", cordoned=True),
        *[node("a")] * 3,
        node("b", cordoned=True),
        node("b"),
    ]
    assert _limit_reached(nodes, node("a"), **limits) == ""
    assert _limit_reached(nodes, node("b"), **limits) == key
    assert _limit_reached([node("a")], node("a"), **limits) == ""  # never less than one


@pytest.mark.parametrize("key", ["zone", "group"])
def test_drains_are_counted_by_zone_and_group(key: str) -> None:
    def node(name: str, **more: Any) -> CountedNode:
        return CountedNode(**{key: name, **more})

    about = DisruptionLimits.model_validate(
        {"maxDraining": 9, "groupLabel": "pool", f"maxDrainingPer{key.title()}": 1}
    )
    tally = Tally.of([node("a", cordoned=True, draining=True), node("b")], (), 0)
    refused = check_drain(about, tally, node("a"))
    assert refused is not None
    assert refused.cause == "maxDraining"
    assert key in refused.text
    assert check_drain(about, tally, node("b")) is None
    tally.add_drain(node("b"))
    assert check_drain(about, tally, node("b")) is not None
    assert tally.draining == 2
    tally.add_drain(node("b"), -1)
    assert check_drain(about, tally, node("b")) is None


@pytest.mark.parametrize(
    ("silent", "nodes", "down"), [(3, 5, True), (2, 3, False), (3, 6, False), (55, 100, True)]
)
def test_a_zone_that_falls_silent_is_left_alone_and_the_others_continue(
    silent: int, nodes: int, down: bool
) -> None:
    lost = CountedNode(zone="a", unavailable=True, silent=True)
    there = CountedNode(zone="a")
    population = [lost] * silent + [there] * (nodes - silent) + [CountedNode(zone="b")] * 200
    limited_by = "zoneOutage" if down else ""
    assert _limit_reached(population, there) == limited_by
    assert _limit_reached(population, lost) == limited_by
    assert _limit_reached(population, CountedNode(zone="b")) == ""
    tally = Tally.of(population, (), 0)
    refused = check_drain(DisruptionLimits(), tally, there)
    assert (refused.cause if refused else "") == limited_by
    assert check_drain(DisruptionLimits(), tally, CountedNode(zone="b")) is None


def test_an_outage_passes() -> None:
    lost = CountedNode(zone="a", unavailable=True, silent=True)
    tally = Tally.of([lost] * 4, (), 0)
    assert zone_outage(tally, "a") is not None
    for _ in range(2):
        tally.count(lost, -1)
        tally.count(CountedNode(zone="a"), 1)
    assert zone_outage(tally, "a") is None
    assert (tally.silent, tally.unavailable, tally.population) == (2, 2, 4)


def test_nodes_without_a_zone_are_no_zone() -> None:
    lost = CountedNode(unavailable=True, silent=True)
    assert _limit_reached([lost] * 4, lost) == ""


@given(st.lists(NODES, max_size=20), st.data())
def test_counts_are_what_a_fresh_count_would_be(
    nodes: list[CountedNode], data: st.DataObject
) -> None:
    """Taken in and out in any order, the counters agree with counting afresh."""
    gone = data.draw(st.sets(st.integers(0, max(0, len(nodes) - 1))))
    kept = [node for number, node in enumerate(nodes) if number not in gone]
    tally = Tally.of(nodes, (), 0)
    for number in sorted(gone & set(range(len(nodes)))):
        tally.count(nodes[number], -1)
    fresh = Tally.of(kept, (), 0)
    assert _numbers(tally) == _numbers(fresh)
    assert fresh.population == len(kept)
    assert fresh.cordoned == sum(m.cordoned for m in kept)
    assert fresh.unavailable == sum(m.unavailable and not m.cordoned for m in kept)
    assert fresh.control_plane_out == sum(
        m.control_plane and (m.cordoned or m.unavailable) for m in kept
    )


def _numbers(tally: Tally) -> list[object]:
    return [
        +value if isinstance(value, Counter) else value
        for name in Tally.__slots__
        for value in [getattr(tally, name)]
    ]


def test_a_copy_is_changed_on_its_own() -> None:
    tally = Tally.of([CountedNode(zone="a", group="g")] * 3, (), 0)
    copy = tally.copy((), 0)
    copy.add_cordon(CountedNode(zone="a", group="g"), 0)
    copy.add_drain(CountedNode(zone="a", group="g"))
    assert _numbers(tally) == _numbers(Tally.of([CountedNode(zone="a", group="g")] * 3, (), 0))


def test_a_cordon_of_a_node_that_was_unavailable_moves_it() -> None:
    tally = Tally.of([CountedNode(unavailable=True), CountedNode()], (), 0)
    tally.add_cordon(CountedNode(unavailable=True), 5)
    assert (tally.cordoned, tally.unavailable, tally.cordon_times) == (1, 0, [5])


def test_a_pause_between_two_cordons_is_kept_and_ends() -> None:
    limits = DisruptionLimits.model_validate({"maxUnavailable": 9, "minInterval": "10s"})
    tally = Tally.of([CountedNode()] * 9, [100], 0)
    refused = check_cordon(limits, tally, CountedNode(), 109)
    assert refused is not None
    assert (refused.cause, refused.until) == ("minInterval", 110)
    assert check_cordon(limits, tally, CountedNode(), 110) is None


@pytest.mark.parametrize(
    ("limits", "population", "allowed"),
    [
        ({"maxUnavailable": "10%", "minAllowed": 3}, 10, 3),
        ({"maxUnavailable": "50%", "maxAllowed": 4}, 100, 4),
        ({"maxUnavailable": "50%", "minAllowed": 9, "maxAllowed": 4}, 10, 4),
        ({"maxUnavailable": 7}, 3, 7),
        ({"maxUnavailable": 0, "minAllowed": 0}, 100, 0),
    ],
)
def test_floor_and_ceiling(limits: dict[str, object], population: int, allowed: int) -> None:
    assert budget(DisruptionLimits.model_validate(limits), population) == allowed


def test_drains_have_their_own_limit() -> None:
    limits = DisruptionLimits.model_validate({"maxDraining": 1})
    assert check_drain(limits, Tally(), CountedNode()) is None
    assert check_drain(limits, Tally(draining=1), CountedNode()) is not None
