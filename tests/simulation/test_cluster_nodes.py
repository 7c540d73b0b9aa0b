"""The modelled nodes: their kubelets, conditions, taints, and the pods on them."""

from __future__ import annotations

import pytest

from tests.simulation.cluster import conditions, objects
from tests.simulation.cluster.client import World
from tests.simulation.cluster.eviction import evict, is_ready
from tests.simulation.cluster.kubelets import Behaviour
from tests.simulation.cluster.messages import Json
from tests.simulation.cluster.people import Person
from tests.simulation.test_cluster_controllers import change, names, nodes_of, pods, put_out

# -- nodes ------------------------------------------------------------------------------


def _taints(world: World, name: str) -> set[tuple[str, str]]:
    taints = world.cluster.node(name)["spec"].get("taints") or ()
    return {(taint["key"].partition("/")[2], taint["effect"]) for taint in taints}


def test_a_silent_kubelet_makes_its_node_unknown_and_its_pods_go_after_five_minutes() -> None:
    world = World()
    world.cluster.add(objects.deployment("default", "web", 1, nodeName="n0"))
    world.time.run(10.0)
    (pod,) = names(world, "web")
    heartbeat = _ready(world, "n0")["lastHeartbeatTime"]
    world.cluster.kubelets.of["n0"].die()
    world.time.run(45.0)
    assert _ready(world, "n0")["status"] == "True"
    world.time.run(15.0)
    ready = _ready(world, "n0")
    assert (ready["status"], ready["reason"]) == ("Unknown", "NodeStatusUnknown")
    assert ready["lastHeartbeatTime"] == heartbeat
    assert _taints(world, "n0") == {("unreachable", "NoSchedule"), ("unreachable", "NoExecute")}
    assert not is_ready(world.there(pod))
    world.time.run(280.0)
    assert "deletionTimestamp" not in world.there(pod)["metadata"]
    world.time.run(30.0)
    assert "deletionTimestamp" in world.there(pod)["metadata"]
    world.cluster.kubelets.of["n0"].revive()
    world.time.run(10.0)
    assert world.store.get("pods", "default", pod) is None
    assert _taints(world, "n0") == set()


def _ready(world: World, name: str) -> Json:
    found = conditions.find(world.cluster.node(name), "Ready")
    assert found is not None
    return found


def test_when_no_node_is_ready_no_pods_are_taken_away() -> None:
    world = World()
    world.cluster.add(objects.deployment("default", "web", 2))
    world.time.run(10.0)
    for kubelet in world.cluster.kubelets.of.values():
        kubelet.die()
    world.time.run(900.0)
    for name in ("n0", "n1"):
        assert _ready(world, name)["status"] == "Unknown"
        assert _taints(world, name) == {("unreachable", "NoSchedule")}
    assert not any("deletionTimestamp" in pod["metadata"] for pod in pods(world, "web"))


def test_a_cordon_is_a_taint_and_keeps_what_is_not_the_controllers() -> None:
    world = World()
    own = {"key": "mine/x", "effect": "NoSchedule"}
    change(world, "nodes", "n0", unschedulable=True, taints=[own])
    world.time.run(2.0)
    assert _taints(world, "n0") == {("x", "NoSchedule"), ("unschedulable", "NoSchedule")}
    change(world, "nodes", "n0", unschedulable=False)
    world.time.run(2.0)
    assert _taints(world, "n0") == {("x", "NoSchedule")}


def test_pods_of_a_node_that_is_gone_are_collected() -> None:
    world = World()
    world.cluster.add(objects.deployment("default", "web", 2))
    world.time.run(10.0)
    world.cluster.kubelets.vanish("n0")
    world.store.remove(("nodes", "", "n0"))
    world.time.run(30.0)
    assert "n0" in nodes_of(world, "web")
    world.time.run(60.0)
    assert nodes_of(world, "web") == ["n1", "n1"]


def test_a_node_of_the_same_name_is_another_node() -> None:
    world = World()
    uid = world.cluster.node("n0")["metadata"]["uid"]
    world.cluster.kubelets.vanish("n0")
    world.store.remove(("nodes", "", "n0"))
    world.cluster.add_node("n0")
    world.time.run(5.0)
    assert world.cluster.node("n0")["metadata"]["uid"] != uid
    assert _ready(world, "n0")["status"] == "True"


# -- containers -------------------------------------------------------------------------


def _container(world: World, name: str) -> Json:
    (found,) = world.there(name)["status"]["containerStatuses"]
    assert isinstance(found, dict)
    return found


def test_a_container_that_crashes_is_started_again_ever_later() -> None:
    world = World()
    world.cluster.kubelets.behaviour = lambda _: Behaviour(ready=0.5, crash=2.0, exit_code=3)
    world.cluster.add(objects.pod("default", "a"))
    world.time.run(2.5)
    assert (_container(world, "a")["ready"], _container(world, "a")["restartCount"]) == (True, 0)
    counts = []
    for _ in range(4):
        world.time.run(60.0)
        counts.append(_container(world, "a")["restartCount"])
    # Starts at 1, 3, 15 (10 s later), 37 (20), 79 (40), 161 (80) seconds; each lives for two.
    assert counts == [4, 5, 6, 6]
    container = _container(world, "a")
    assert container["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert container["lastState"]["terminated"]["exitCode"] == 3
    assert not is_ready(world.there("a"))
    world.cluster.kubelets.behaviour = lambda _: Behaviour(ready=0.5)
    world.time.run(800.0)
    assert is_ready(world.there("a"))


def test_a_container_that_cannot_start_waits_with_its_reason() -> None:
    world = World()
    world.cluster.kubelets.behaviour = lambda _: Behaviour(waiting="ImagePullBackOff")
    world.cluster.add(objects.pod("default", "a"))
    world.time.run(60.0)
    assert _container(world, "a")["state"]["waiting"]["reason"] == "ImagePullBackOff"
    assert world.there("a")["status"]["phase"] == "Pending"
    assert put_out(world, "a") == 201


# -- more of nodes and namespaces -------------------------------------------------------


def test_a_deleted_node_is_registered_again_only_when_its_kubelet_starts() -> None:
    world = World()
    uid = world.cluster.node("n0")["metadata"]["uid"]
    world.store.remove(("nodes", "", "n0"))
    world.time.run(400.0)
    assert world.store.get("nodes", "", "n0") is None
    world.cluster.kubelets.of["n0"].reboot(10.0)
    world.time.run(20.0)
    assert world.cluster.node("n0")["metadata"]["uid"] != uid
    assert _ready(world, "n0")["status"] == "True"


def test_a_mirror_pod_comes_back_as_another_object() -> None:
    world = World()
    world.cluster.static_pods.add("n0", "proxy")
    world.time.run(5.0)
    before = world.store.get("pods", "kube-system", "proxy-n0")
    assert before is not None
    assert is_ready(before)
    assert evict(
        *(world.store, "kube-system", "proxy-n0", {"metadata": {"name": "proxy-n0"}}, "me"),
        dry=False,
    )
    world.time.run(10.0)
    after = world.store.get("pods", "kube-system", "proxy-n0")
    assert after is not None
    assert before["metadata"]["uid"] != after["metadata"]["uid"]
    assert after["spec"]["nodeName"] == "n0"


def test_a_namespace_ends_when_it_is_empty_and_takes_nothing_meanwhile() -> None:
    world = World()
    world.cluster.add(objects.deployment("default", "web", 2))
    world.time.run(10.0)
    world.cluster.kubelets.behaviour = lambda _: Behaviour(stop=20.0)
    assert world.send("DELETE", "/api/v1/namespaces/default").status == 200
    world.time.run(10.0)
    assert [bool(pod["metadata"].get("deletionTimestamp")) for pod in pods(world, "web")] == [
        True
    ] * 2
    event = {"kind": "Event", "metadata": {"name": "e"}, "involvedObject": {}}
    refused = world.send("POST", "/api/v1/namespaces/default/events", event)
    assert (refused.status, refused.json()["reason"]) == (403, "Forbidden")
    world.time.run(30.0)
    assert world.store.get("namespaces", "", "default") is None
    assert world.send("POST", "/api/v1/namespaces/default/events", event).status == 404


@pytest.mark.parametrize("key", ["kubernetes.io/hostname", "topology.topolvm.io/node"])
def test_a_pod_stays_with_the_volume_of_its_node(key: str) -> None:
    world = World()
    for name in ("n0", "n1"):
        Person(world.cluster).label("nodes", "", name, **{key: name})
    world.cluster.add(objects.volume("v", "n0", key))
    world.cluster.add(objects.claim("default", "c", "v"))
    world.cluster.add(objects.replica_set("default", "db", 1, volumes=objects.claimed("c")))
    world.time.run(10.0)
    assert nodes_of(world, "db") == ["n0"]
    change(world, "nodes", "n0", unschedulable=True)
    put_out(world, names(world, "db")[0])
    world.time.run(30.0)
    assert nodes_of(world, "db") == [""]
