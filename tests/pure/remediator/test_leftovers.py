"""Whatever comes and goes, a long-lived process keeps no more than one that has just begun."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from selfheal_remediator.config import Config
from selfheal_remediator.healing.engine import Healing
from selfheal_remediator.healing.plan import Owner
from selfheal_remediator.healing.pod_health import WatchedPod
from selfheal_remediator.kube.informer import Change
from selfheal_remediator.node.actions import Action
from selfheal_remediator.node.annotation import STATE_KEY, Phase, State
from selfheal_remediator.node.planner import Planner
from selfheal_remediator.node.room_checks import RoomCheck
from tests.pure.remediator.builders import NOW, OWNER, condition, config, node
from tests.pure.remediator.healing_world import around, policy, watched
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
    nodes.put(0, "True")  # a replica that rests forgets what is over at a change
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


# -- policies and their pods -----------------------------------------------------------------

WATCHED = st.lists(
    st.one_of(
        st.tuples(st.just("adopt"), st.sampled_from("ab"), st.integers(0, 1)),
        st.tuples(st.just("drop"), st.sampled_from("ab"), st.integers(0, 1)),
        st.tuples(st.just("select"), st.sampled_from("ab"), st.integers(0, 1)),
        st.tuples(st.just("ready"), st.sampled_from("ab"), st.integers(0, 5)),
        st.tuples(st.just("broken"), st.sampled_from("ab"), st.integers(0, 5)),
        st.tuples(st.just("gone"), st.sampled_from("ab"), st.integers(0, 5)),
        st.tuples(st.just("turn"), st.sampled_from(["", "paused"]), st.integers(1, 90)),
    ),
    max_size=60,
)


def _trouble(node: str, name: str) -> str:
    return "it is not ready" if name == node else ""


class Policies:
    """Policies, pods and Deployments that come and go; each time with other uids."""

    def __init__(self) -> None:
        self.healing, self.now, self.round = Healing(10.0), NOW, 0
        self.pods: dict[tuple[str, str], WatchedPod] = {}

    def pod(self, name: str, number: int, *, ready: bool) -> None:
        """Three owners; a pod of each may be on each of the nodes."""
        owner = f"{self.round}-{number % 3}"
        found = watched(
            f"{name}-{number}",
            uid=f"{self.round}-{name}-{number}",
            owner_name=owner,
            owner_uid=f"rs-{owner}",
            node=f"node-{self.round}-{number % 2}",
            ready=ready,
            ready_changed=self.now,
        )
        before = self.pods.get((name, found.name))
        self.pods[name, found.name] = found
        self.healing.pod_changed(f"ns/{name}", Change(found.name, before, found))

    def gone(self, name: str, number: int) -> None:
        pod = self.pods.pop((name, f"{name}-{number}"), None)
        if pod is not None:
            self.healing.pod_changed(f"ns/{name}", Change(pod.name, pod, None))

    def turn(self, stopped: str, seconds: float) -> None:
        self.now += seconds
        trouble = partial(_trouble, f"node-{self.round}-1")
        plan = self.healing.evaluate(self.now, around(stopped=stopped, node_trouble=trouble))
        for pod in plan.lookups:
            name = pod.owner_name
            made = Owner(f"deploy-{name}", "Deployment", name, "apps/v1", 2, "", "1")
            self.healing.owner_known(pod.owner_uid, made)
        for action in plan.restarts:
            self.healing.accepted(action, self.now)

    def end(self) -> None:
        """All pods, their owners, nodes and a policy are deleted, and a day passes."""
        for name, pod in list(self.pods):
            self.gone(name, int(pod.rpartition("-")[2]))
        for number in range(3):
            self.healing.owner_known(f"rs-{self.round}-{number}", None)
            self.healing.node_gone(f"node-{self.round}-{number}")
        self.healing.drop("ns/b")
        self.healing.adopt(policy("a"), self.now)
        self.healing.pods_known("ns/a")
        for seconds in (10.0, 2 * A_DAY, 10.0):
            self.turn("", seconds)
        self.round += 1


@settings(max_examples=60, deadline=None)
@given(WATCHED)
def test_of_policies_and_pods_that_came_and_went_nothing_is_left(
    steps: list[tuple[str, str, int]],
) -> None:
    made, sizes = Policies(), []
    for _ in range(ROUNDS):
        for kind, name, number in steps:
            key = f"ns/{name}"
            if kind == "adopt":
                made.healing.adopt(policy(name), made.now)
                made.healing.pods_known(key)
            elif kind == "drop":
                made.healing.drop(key)
            elif kind == "select":
                made.healing.selector_changed(key, made.now)
                made.healing.pods_known(key)
            elif kind == "gone":
                made.gone(name, number)
            elif kind == "turn":
                made.turn(name, float(number))
            else:
                made.pod(name, number, ready=kind == "ready")
        made.end()
        sizes.append(objects_of(made.healing))
    assert sizes[-1] < sizes[1] + ROUNDS - 2
