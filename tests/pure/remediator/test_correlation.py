"""A finding about a node binds every policy, in whatever order things become known."""

from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import replace
from functools import cache
from itertools import permutations

import pytest

from selfheal_remediator.healing.engine import Healing
from selfheal_remediator.healing.plan import RECALLED, RestartAction
from selfheal_remediator.healing.pod_health import WatchedPod
from selfheal_remediator.healing.policy import policy_from_json
from selfheal_remediator.healing.progress_reports import Probe
from selfheal_remediator.kube.informer import Change
from selfheal_remediator.node.skip_reason import SkipReason
from tests.pure.remediator.healing_world import NODES, World, around, policy_json

WEB, API, DB = "ns/web", "ns/api", "ns/db"


def world(*owners: str, spec: dict[str, object] | None = None, **more: object) -> World:
    """A policy for each owner (`web` and `api` by default), a pod of each on every node."""
    names = owners or ("web", "api")
    documents = {f"ns/{name}": policy_json(name, **(spec or {})) for name in names}
    made = World(documents, dict.fromkeys(names, 3), **more)  # type: ignore[arg-type]
    made.run(60)
    return made


def break_on(made: World, node: str, *owners: str) -> None:
    """The owners' pods on the node stop being ready; all owners' by default."""
    for pod in made.pods.values():
        if pod.node == node and (not owners or pod.owner_name in owners):
            made.workers[pod.uid].broken = True


def evicted_from(made: World, node: str) -> list[str]:
    """Owners whose pods were restarted on the node."""
    return [order.pod.owner_name for order in made.restarts if order.pod.node == node]


def test_a_pause_of_any_length_leaves_the_finding_in_force_after_it() -> None:
    made = world(around=around(stopped="paused: until both are seen"))
    break_on(made, NODES[0])
    made.run(1200)
    assert set(made.healing.findings) == {NODES[0]}
    made.around = around()
    made.run(300)
    assert made.restarts == []


@pytest.mark.parametrize("owner", ["web", "api"])
def test_a_sibling_that_starts_elsewhere_does_not_end_a_finding(owner: str) -> None:
    made = world()
    break_on(made, NODES[0])
    made.run(60)
    assert set(made.healing.findings) == {NODES[0]}
    made.wanted[owner] = 4  # the new pod is not ready yet
    made.run(60)
    assert made.restarts == []


@pytest.mark.parametrize("key", [WEB, API])
@pytest.mark.parametrize("change", ["symptoms", "selector", "paused"])
def test_a_changed_policy_does_not_end_a_finding(key: str, change: str) -> None:
    made = world()
    break_on(made, NODES[0])
    made.run(60)
    document = made.documents[key]
    document["metadata"]["generation"] = 2
    document["spec"] |= {
        "symptoms": {"unhealthyWhen": {"notReadyFor": "5m"}},
        "selector": {"selector": {"matchLabels": {"app": "other"}}},
        "paused": {"paused": True},
    }[change]
    made.healing.adopt(policy_from_json(document), made.now)
    made.run(200)
    assert made.restarts == []
    assert set(made.healing.findings) == {NODES[0]}


@pytest.mark.parametrize("urgent", ["web", "api"])
def test_a_new_leader_waits_until_the_other_owner_is_certain(urgent: str) -> None:
    """One policy restarts at the first failed look, the other needs six."""
    made = world(around=around(stopped="paused"))
    for name in ("web", "api"):
        made.documents[f"ns/{name}"]["spec"] |= (
            {"healthThreshold": "100%"} if name == urgent else {"failureThreshold": 6}
        )
    break_on(made, NODES[0])
    made.run(300)
    made.around = around()
    made.new_leader()
    made.run(120)
    assert made.restarts == []
    assert set(made.healing.findings) == {NODES[0]}


def test_a_resume_waits_until_the_other_owner_is_certain() -> None:
    made = world(around=around(stopped="paused"))
    break_on(made, NODES[0], "web")
    made.run(300)
    break_on(made, NODES[0], "api")
    made.run(20)  # it looks unhealthy, and is not certain
    made.around = around()
    made.run(120)
    assert made.restarts == []
    assert set(made.healing.findings) == {NODES[0]}


# -- every order -------------------------------------------------------------------------------


@cache
def _unhealthy(hung: bool) -> World:
    """Pods of both owners unready, or hung, on the first node, for long."""
    spec: dict[str, object] = {
        "unhealthyWhen": {"noProgressFor": "60s"},
        "progress": {"port": 8080},
    }
    made = world(spec=spec if hung else {})
    for pod in made.pods.values():
        if pod.node == NODES[0] and hung:
            worker = made.workers[pod.uid]
            worker.work, worker.last_progress = (made.now, made.now + 1e9), made.now
        elif pod.node == NODES[0]:
            made.workers[pod.uid].broken = True
    made.now += 300
    made.controllers()
    return made


class Interleaving:
    """`web` and `api` unready on the first node and ready elsewhere, reported in a given order.

    Restarts that are ordered stay on their way until `send` is called, which sends what was not
    called back.
    """

    def __init__(self, *, stopped: bool, progress: bool = False) -> None:
        self.progress = progress
        self.made = copy(_unhealthy(progress))
        self.made.documents = deepcopy(self.made.documents)
        self.stopped = stopped
        self.probes: tuple[Probe, ...] = ()
        self.on_the_way: list[RestartAction] = []
        self.sent: list[RestartAction] = []
        self.healing = Healing(10.0)

    def run(self, seconds: int, step: int = 1) -> None:
        """Time passes: what is asked for is answered, what is ordered is on its way."""
        for _ in range(seconds // step):
            self.made.now += step
            self.look()
            if self.progress:
                self.answers()

    def look(self) -> None:
        now = self.made.now
        plan = self.healing.evaluate(now, around(stopped="paused" if self.stopped else ""))
        for pod in plan.lookups:
            self.healing.owner_known(pod.owner_uid, self.made.owner(pod.owner_name))
        gone = [(order.policy, order.at) for order, _ in plan.recalls]
        for order in [one for one in self.on_the_way if (one.policy, one.at) in gone]:
            self.on_the_way.remove(order)
            self.healing.refused(order, SkipReason(RECALLED, ""), now)
        self.on_the_way += plan.restarts
        self.probes = plan.probes

    def answers(self) -> None:
        for ask in self.probes:
            self.healing.answered(ask.policy, ask.uid, self.made.reading(ask.uid), self.made.now)

    def adopt(self, key: str) -> None:
        self.healing.adopt(policy_from_json(self.made.documents[key]), self.made.now)

    def list(self, key: str) -> None:
        for pod in self.made.of(key.partition("/")[2]):
            self.healing.pod_changed(key, Change(pod.name, None, pod))
        self.healing.pods_known(key)

    def adopt_and_list(self, key: str) -> None:
        self.adopt(key)
        self.list(key)

    def reconfigure(self) -> None:
        """As a new leader: all is reported again."""
        known = [
            (key, policy_state.known) for key, policy_state in self.healing.policy_states.items()
        ]
        self.on_the_way.clear()
        self.healing = Healing(10.0)
        for key, listed in known:
            self.adopt(key)
            if listed:
                self.list(key)

    def change(self, key: str) -> None:
        """The policy asks for other symptoms, by which the pod is unhealthy too."""
        document = self.made.documents[key]
        document["metadata"]["generation"] += 1
        when = document["spec"]["unhealthyWhen"]
        when["waitingReasons"] = [*when.get("waitingReasons", ()), "CrashLoopBackOff"]
        if key in self.healing.policy_states:
            self.adopt(key)

    def send(self) -> None:
        for order in self.on_the_way:
            self.sent.append(order)
            self.healing.accepted(order, self.made.now)
        self.on_the_way.clear()


STEPS: dict[str, Callable[[Interleaving], None]] = {
    "web is listed": lambda it: it.adopt_and_list(WEB),
    "api is listed": lambda it: it.adopt_and_list(API),
    "resume": lambda it: setattr(it, "stopped", False),
    "new leader": lambda it: it.reconfigure(),
    "web changes": lambda it: it.change(WEB),
    "the job is sent": lambda it: it.send(),
}


@pytest.mark.parametrize("between", [0, 12])
@pytest.mark.parametrize("progress", [False, True], ids=["not ready", "hung"])
def test_in_whatever_order_it_is_reported_the_node_is_found_and_no_pod_restarted(
    between: int, progress: bool
) -> None:
    """Policies are known from the start (both adopted), their pods listed in any order."""
    for order in permutations(STEPS):
        it = Interleaving(stopped=True, progress=progress)
        for key in (WEB, API):
            it.adopt(key)
        for step in order:
            STEPS[step](it)
            it.run(between, step=1 if between < 12 else 3)
        it.run(90, step=5)
        it.send()
        it.run(10, step=5)
        assert it.sent == [], order
        assert set(it.healing.findings) == {NODES[0]}, order


@pytest.mark.parametrize("owners", [("web", "api"), ("web", "api", "db")])
def test_several_nodes_at_once_and_the_end_of_a_finding(owners: tuple[str, ...]) -> None:
    made = World({f"ns/{name}": policy_json(name) for name in owners}, dict.fromkeys(owners, 6))
    made.run(60)
    names = [pod.name for pod in made.pods.values() if pod.node in NODES[:2]]
    assert len(names) == 4 * len(owners)
    for owner in owners:  # one owner's pods are healthy on the third node only
        for pod in made.of(owner):
            made.workers[pod.uid].broken = pod.node == NODES[0]
    made.run(100)
    assert set(made.healing.findings) == {NODES[0]}
    assert f"pods of {len(owners)} owners" in made.healing.findings[NODES[0]].text
    assert made.restarts == []
    for pod in made.of(owners[0]):
        made.workers[pod.uid].broken = False
    made.run(100)
    if len(owners) == 2:  # one owner's pods alone are its own matter
        assert made.healing.findings == {}
        assert set(evicted_from(made, NODES[0])) == {owners[1]}
    else:
        assert set(made.healing.findings) == {NODES[0]}
        assert made.restarts == []


def test_two_nodes_are_found_at_once() -> None:
    """`web` and `api` are unhealthy on one node, `db` and `log` on another."""
    pairs = {NODES[0]: ("web", "api"), NODES[1]: ("db", "log")}
    made = world("web", "api", "db", "log")
    for node, owners in pairs.items():
        break_on(made, node, *owners)
    made.run(120)
    assert set(made.healing.findings) == set(pairs)
    assert made.restarts == []


def test_one_owner_under_two_policies_is_one_owner() -> None:
    made = world("web")
    again = policy_json("web")
    again["metadata"] |= {"name": "also", "uid": "uid-also"}
    made.documents["ns/also"] = again
    made.new_leader()
    told = made.notify

    def tell(pod: WatchedPod, old: WatchedPod | None, new: WatchedPod | None) -> None:
        told(pod, old, new)
        made.healing.pod_changed("ns/also", Change(pod.name, old, new))

    made.notify = tell  # type: ignore[method-assign]
    for pod in made.of("web"):
        tell(pod, None, pod)
    break_on(made, NODES[0])
    made.run(60)
    assert made.healing.findings == {}
    assert evicted_from(made, NODES[0]) == ["web"]


def test_what_is_never_known_is_waited_for_within_bounds() -> None:
    """A policy whose pods are never listed, and a pod that never says how its work goes."""
    made = world()
    made.healing.adopt(policy_from_json(policy_json("new")), made.now)
    break_on(made, NODES[0], "web")
    made.run(45)
    assert made.restarts == []
    made.run(30)
    assert evicted_from(made, NODES[0]) == ["web"]


@pytest.mark.parametrize("what", ["finding", "stopped", "paused", "healthy", "node", "selector"])
def test_an_ordered_restart_is_cancelled(what: str) -> None:
    trouble = {"node": ""}
    made = world(around=around(node_trouble=lambda _: trouble["node"]))
    made.carry_out = lambda action: made.restarts.append(action)  # type: ignore[method-assign]
    break_on(made, NODES[0], "web")
    while not made.restarts:
        made.tick()
    [order] = made.restarts
    policy_state = made.healing.policy_states[WEB]
    if what == "finding":
        break_on(made, NODES[0], "api")
    elif what == "stopped":
        made.around = replace(made.around, stopped="paused: by a human")
    elif what == "paused":
        policy_state.policy = replace(policy_state.policy, paused=True)
    elif what == "healthy":
        for worker in made.workers.values():
            worker.broken = False
    elif what == "node":
        trouble["node"] = "it is being drained"
    else:
        made.healing.selector_changed(WEB, made.now)
    recalls = [recall for _ in range(40) for recall in made.tick().recalls]
    assert {(recalled.pod.uid, skip_reason.cause) for recalled, skip_reason in recalls} == {
        (order.pod.uid, RECALLED)
    }
    made.healing.refused(order, recalls[0][1], made.now)
    record = policy_state.records["deploy-web"]
    assert (record.restarts, record.failures, record.pod) == ((), 0, "")
