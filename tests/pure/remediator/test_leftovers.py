"""Whatever comes and goes, a long-lived process keeps no more than one that has just begun."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from selfheal_remediator.config import Config
from selfheal_remediator.kube.informer import Change
from selfheal_remediator.node.actions import Action
from selfheal_remediator.node.annotation import STATE_KEY, Phase, State
from selfheal_remediator.node.planner import Planner
from selfheal_remediator.node.room_checks import RoomCheck
from tests.pure.remediator.builders import NOW, OWNER, condition, config, node
from tests.support.sizes import objects_of

#: Longer than anything is remembered: the flap window, the population's peak.
A_DAY = 86400.0
#: What keeps one object more in each of them is found.
ROUNDS = 8
GROUPS = [
    {"name": name, "nodeSelector": {"matchLabels": {"pool": name}}, "limits": {"maxDraining": 2}}
    for name in ("a", "b")
]
VALUES = {
    "groups": GROUPS,
    "limits": {"maxUnavailable": "50%", "rate": {"count": 9, "window": "1h"}, "groupLabel": "team"},
    "recovery": {"flapWindow": "2h"},
}


class Nodes:
    """Machines that come, change and go, under a planner that acts, or rests."""

    def __init__(self, made: Config) -> None:
        self.planner, self.now, self.made, self.orders = Planner(made, OWNER, NOW), NOW, 0, 0
        self.there: dict[str, int] = {}
        self.given: list[Action] = []

    def put(self, number: int, status: str, *, no_room: bool = False) -> None:
        """One of ten names; after it was deleted another machine (uid) has it."""
        name = f"n{number}"
        if name not in self.there:
            self.made += 1
            self.there[name] = self.made
        self.orders += 1
        machine = node(
            name,
            condition(status, reason=f"{self.orders} errors"),
            uid=f"{name}-{self.there[name]}",
            version=str(self.orders),
            labels={
                "pool": "abc"[number % 3],
                "team": f"team-{self.there[name]}",
                "topology.kubernetes.io/zone": f"zone-{self.there[name]}",
            },
        )
        if no_room:
            second = int(self.now) - 60
            state = State(
                *(Phase.CORDONED, OWNER, "Fault", "True", "Why"),
                first_seen=second,
                since=second,
                action="drain",
                cordons=(second,),
                no_room=second,
            )
            annotations = {STATE_KEY: state.to_json()}
            machine = replace(machine, unschedulable=True, annotations=annotations)
        self.planner.apply(Change(name, None, machine), self.now)
        if not number % 4:
            self.planner.mark({name: "medik8s"})

    def delete(self, number: int) -> None:
        name = f"n{number}"
        if self.there.pop(name, None) is not None:
            self.planner.apply(Change(name, node(name), None), self.now)

    def turn(self, how: str) -> None:
        """One turn of the main loop."""
        if how != "rest":
            stopped = {"paused": how} if how == "paused" else {}
            self.given += self.planner.plan(self.now, **stopped).actions
        self.planner.take_changed()

    def answer(self, made: bool) -> None:
        """What became of the oldest change that was handed out."""
        if not self.given:
            return
        action = self.given.pop(0)
        entry = self.planner.entries.get(action.uid)
        if entry is None or not made:
            self.planner.failed(action, self.now)
            return
        self.orders += 1
        state = action.state.to_json() if action.state is not None else ""
        seen = replace(entry.actual, version=str(self.orders), annotations={STATE_KEY: state})
        self.planner.settled(action, seen, self.now)

    def room(self, number: int) -> None:
        """It was checked whether the pods of a node that there was fit elsewhere."""
        entry = self.planner.entry_named(f"n{number}")
        if entry is not None:
            self.planner.rooms.checked(entry.node.uid, RoomCheck(self.now, fits=False))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 9), st.sampled_from(["True", "False"])),
        st.tuples(st.just("no room"), st.integers(0, 9)),
        st.tuples(st.just("delete"), st.integers(0, 9)),
        st.tuples(st.just("turn"), st.sampled_from(["acts", "acts", "rest", "paused"])),
        st.tuples(st.just("answer"), st.booleans()),
        st.tuples(st.just("room"), st.integers(0, 9)),
        st.tuples(st.just("wait"), st.sampled_from([1.0, 31.0, 61.0, 8000.0])),
    ),
    max_size=60,
)


def _round(nodes: Nodes, steps: list[tuple[object, ...]], end: str) -> None:
    """All these steps, then all nodes go, and a day passes."""
    for kind, *more in steps:
        if kind == "put":
            nodes.put(int(str(more[0])), str(more[1]))
        elif kind == "no room":
            nodes.put(int(str(more[0])), "True", no_room=True)
        elif kind == "delete":
            nodes.delete(int(str(more[0])))
        elif kind == "turn":
            nodes.turn(str(more[0]))
        elif kind == "answer":
            nodes.answer(bool(more[0]))
        elif kind == "room":
            nodes.room(int(str(more[0])))
        else:
            nodes.now += float(str(more[0]))
    for number in range(10):
        nodes.delete(number)
    while nodes.given:
        nodes.answer(made=True)
    nodes.planner.mark({})
    nodes.turn(end)
    nodes.now += A_DAY
    nodes.put(0, "True")  # a replica that rests lets go of what is over at a change
    nodes.delete(0)
    nodes.turn(end)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.sampled_from(["acts", "rest", "paused"]), st.booleans())
def test_of_nodes_that_came_and_went_nothing_is_left(
    steps: list[tuple[object, ...]], end: str, dry_run: bool
) -> None:
    """Whether it leads, does not, is read-only (both rest), or is paused."""
    nodes = Nodes(config(**VALUES, mode="dryRun" if dry_run else "enforce"))
    nodes.planner.rooms.found = {}
    sizes = []
    for _ in range(ROUNDS):
        _round(nodes, steps, end)
        sizes.append(objects_of(nodes.planner))
    assert sizes[-1] < sizes[1] + ROUNDS - 2
