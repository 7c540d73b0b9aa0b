"""The order of faults is the seed's, and what must never be is seen when it is."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from ci.chaos import invariants, schedule
from ci.chaos.faults import FAULTS
from ci.chaos.schedule import Outcome

FOREIGN = "theirs"


def node(name: str, *, phase: str = "", cordoned: bool = False, **conditions: str) -> Any:
    """A node as the API shows it."""
    annotations = {invariants.STATE: json.dumps({"v": 1, "phase": phase})} if phase else {}
    told = {"Ready": "True", **conditions}
    return {
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"unschedulable": cordoned},
        "status": {"conditions": [{"type": k, "status": v} for k, v in told.items()]},
    }


def by_name(*nodes: Any) -> dict[str, Any]:
    return {one["metadata"]["name"]: one for one in nodes}


THEIRS = node(FOREIGN, cordoned=True)
HELD = node("a", phase="draining", cordoned=True)


def test_a_seed_is_an_order_with_every_fault_in_each_round() -> None:
    count = len(FAULTS)
    first = list(itertools.islice(schedule.order(list(FAULTS), 7), 2 * count))
    assert first == list(itertools.islice(schedule.order(sorted(FAULTS), 7), 2 * count))
    assert set(first[:count]) == set(first[count:]) == set(FAULTS)
    assert first != list(itertools.islice(schedule.order(list(FAULTS), 8), 2 * count))
    assert schedule.chance_of(7, 3).random() == schedule.chance_of(7, 3).random()
    assert schedule.chance_of(7, 3).random() != schedule.chance_of(7, 4).random()


def test_the_table_says_how_often_and_how_long() -> None:
    outcomes = [
        Outcome("b", 3.0),
        Outcome("b", 1.0),
        Outcome("b", 2.0, ("two nodes are drained at once",)),
        Outcome("a", None, ("a is not ready",)),
    ]
    assert schedule.table(outcomes) == [["a", "1", "0", "-", "-"], ["b", "3", "2", "2.0", "3.0"]]


@pytest.mark.parametrize(
    ("nodes", "by_hand", "said"),
    [
        ([THEIRS, HELD], [], []),
        ([THEIRS, node("a", cordoned=True)], ["a"], []),
        ([node(FOREIGN)], [], ["theirs, which somebody else had cordoned, was uncordoned"]),
        (
            [node(FOREIGN, phase="drained", cordoned=True)],
            [],
            ["theirs, which somebody else had cordoned, was taken over"],
        ),
        ([THEIRS, HELD], ["a"], ["a is held and was cordoned by a human"]),
        (
            [THEIRS, HELD, node("b", phase="draining", cordoned=True)],
            [],
            ["more than 2 nodes are cordoned: a, b, theirs", "2 nodes are drained at once"],
        ),
    ],
)
def test_what_must_never_be(nodes: list[Any], by_hand: list[str], said: list[str]) -> None:
    assert invariants.violations(by_name(*nodes), FOREIGN, by_hand) == said


def deployment(component: str, ready: int, wanted: int, seen: int = 1) -> Any:
    return {
        "kind": "Deployment",
        "metadata": {
            "name": component,
            "generation": 1,
            "labels": {"app.kubernetes.io/component": component},
        },
        "spec": {"replicas": wanted},
        "status": {"readyReplicas": ready, "observedGeneration": seen},
    }


@pytest.mark.parametrize(
    ("nodes", "workloads", "said"),
    [
        ([node("a"), THEIRS], [deployment("remediator", 2, 2), deployment("worker", 1, 4)], []),
        ([node("a", Ready="Unknown")], [], ["a is not ready"]),
        ([HELD], [], ["a is still held"]),
        ([node("a", DemoFault="True")], [], ["a still has DemoFault"]),
        ([], [deployment("worker", 0, 4)], ["Deployment worker has 0 of 1 pods ready"]),
        (
            [],
            [deployment("remediator", 1, 2, seen=0)],
            [
                "Deployment remediator is not seen by its controller",
                "Deployment remediator has 1 of 2 pods ready",
            ],
        ),
    ],
)
def test_what_is_not_back_is_named(nodes: list[Any], workloads: list[Any], said: list[str]) -> None:
    assert invariants.missing(nodes, workloads, FOREIGN, least_workers=1) == said
