"""Nodes that wait for a limit are weighed together, as if each were weighed alone."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from selfheal_remediator.kube.informer import Change
from selfheal_remediator.kube.objects import ZONE_LABEL, Node, Taint
from selfheal_remediator.node.annotation import Phase, State
from selfheal_remediator.node.limits import CountedNode, Tally, check_cordon
from selfheal_remediator.node.planner import Planner
from tests.pure.remediator.builders import NOW, OWNER, condition, config, node, rule


def _planner(nodes: list[Node], action: str = "cordon", **limits: Any) -> Planner:
    rules = config(rule(action=action), limits=limits, signal={"enabled": False})
    planner = Planner(rules, OWNER, 0.0)
    for item in nodes:
        planner.apply(Change(item.name, None, item), NOW)
    return planner


def _bad(number: int, zone: str = "", **more: Any) -> Node:
    fault = condition("True", transition=NOW - 9000 - number)
    return node(f"n{number:04}", fault, labels={ZONE_LABEL: zone}, **more)


def _cordoned(number: int) -> Node:
    state = State(Phase.CORDONED, OWNER, "Fault", "True", action="drain", since=int(NOW) - number)
    return _bad(number, state=state, unschedulable=True)


def _calls(work: Callable[[], object]) -> int:
    """How many Python functions are called by it."""
    count = 0

    def note(_frame: object, event: str, _arg: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(
    ("make", "limits", "cause"),
    [
        (_bad, {"maxUnavailable": 5}, "maxUnavailable"),
        (_bad, {"maxUnavailable": "100%", "rate": {"count": 5, "window": "1h"}}, "rate"),
        (_bad, {"maxUnavailable": "100%", "minInterval": "1h"}, "minInterval"),
        (_cordoned, {"maxUnavailable": "100%", "maxDraining": 1}, "maxDraining"),
    ],
)
def test_to_weigh_again_the_many_that_wait_for_a_limit_costs_next_to_nothing(
    make: Callable[[int], Node], limits: dict[str, Any], cause: str
) -> None:
    planner = _planner([make(number) for number in range(600)], "drain", **limits)
    begun = len(planner.plan(NOW).actions)
    assert planner.plan(NOW + 1).limited_by == {cause: 600 - begun}
    assert _calls(lambda: planner.plan(NOW + 1)) < 200


def test_the_most_urgent_goes_first_and_each_that_waits_says_for_what() -> None:
    nodes = [_bad(number, "ab"[number % 2]) for number in range(6)]
    nodes += [node("c", labels={ZONE_LABEL: "b"})]
    planner = _planner(nodes, maxUnavailable=3, maxUnavailablePerZone=2)
    assert [action.node for action in planner.plan(NOW).actions] == ["n0000", "n0001", "n0002"]
    waiting = {entry.blocked.text for entry in planner.entries.values() if entry.blocked}
    assert waiting == {"3 of 7 nodes cordoned, allowed 3"}
    # One recovers, one goes away: neither waits any more.
    planner.apply(Change("n0003", None, node("n0003", condition("False"), version="2")), NOW)
    planner.apply(Change("n0004", nodes[4], None), NOW)
    assert planner.plan(NOW + 1).limited_by == {"maxUnavailable": 1}


@given(
    nodes=st.lists(
        st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans(), st.booleans()),
        min_size=1,
        max_size=12,
    ),
    most=st.integers(1, 8),
    per_zone=st.none() | st.integers(1, 3),
    keep=st.integers(0, 3),
)
@example(
    nodes=[("a", True, False, master) for master in (False, True, True, False, True)],
    most=3,
    per_zone=None,
    keep=0,
)
def test_it_is_decided_as_if_each_node_were_weighed_alone(
    nodes: list[tuple[str, bool, bool, bool]], most: int, per_zone: int | None, keep: int
) -> None:
    limits: dict[str, Any] = {"maxUnavailable": most, "minSchedulable": keep}
    if per_zone is not None:
        limits["maxUnavailablePerZone"] = per_zone
    made, counted = [], []
    for number, (zone, bad, tainted, master) in enumerate(nodes):
        labels = {ZONE_LABEL: zone}
        if master:
            labels["node-role.kubernetes.io/control-plane"] = ""
        fault = condition("True" if bad else "False", transition=NOW - 9000 + number)
        taints = (Taint("mine", "", "NoSchedule"),) if tainted else ()
        made.append(node(f"n{number:04}", fault, labels=labels, taints=taints))
        counted.append(CountedNode(zone=zone, tainted=tainted, control_plane=master))
    rules = config(
        rule(action="cordon"), limits=limits, signal={"enabled": False}, controlPlane=True
    )
    planner = Planner(rules, OWNER, 0.0)
    for item in made:
        planner.apply(Change(item.name, None, item), NOW)
    tally = Tally.of(counted, (), len(made))
    bad_ones = {
        item.name: one
        for item, one, (_, bad, _, _) in zip(made, counted, nodes, strict=True)
        if bad
    }
    #: Of each node, what it had to wait for at any moment of the plan: limits fill one by one.
    causes: dict[str, set[str]] = {name: set() for name in bad_ones}
    wanted = []
    for name, one in bad_ones.items():
        for other, its in bad_ones.items():
            if reason := check_cordon(rules.limits, tally, its, NOW):
                causes[other].add(reason.cause)
        if check_cordon(rules.limits, tally, one, NOW) is None:
            tally.add_cordon(one, NOW)
            wanted.append(name)
    plan = planner.plan(NOW)
    assert [action.node for action in plan.actions] == wanted
    found = {e.node.name: e.blocked.cause for e in planner.entries.values() if e.blocked}
    assert found.keys() == bad_ones.keys() - set(wanted)
    assert all(cause in causes[name] for name, cause in found.items())
