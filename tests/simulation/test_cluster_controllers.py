"""The modelled controllers act as those of kube-controller-manager do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.simulation.cluster import conditions, objects
from tests.simulation.cluster.eviction import evict, is_ready
from tests.simulation.cluster.kubelets import Behaviour
from tests.simulation.cluster.messages import Json
from tests.simulation.cluster.statuses import Refused
from tests.simulation.cluster.store import Stored
from tests.simulation.test_cluster_model import World


def pods(world: World, app: str) -> list[Stored]:
    """The pods of a workload."""
    found = world.store.all("pods", "default")
    return [pod for pod in found if pod["metadata"]["labels"].get("app") == app]


def names(world: World, app: str) -> list[str]:
    """Their names."""
    return [pod["metadata"]["name"] for pod in pods(world, app)]


def nodes_of(world: World, app: str) -> list[str]:
    """Where they are."""
    return sorted(pod["spec"].get("nodeName", "") for pod in pods(world, app))


def change(world: World, plural: str, name: str, **spec: Any) -> None:
    """Change a workload's or node's spec."""
    namespace = "" if plural == "nodes" else "default"
    world.store.change((plural, namespace, name), lambda raw: raw["spec"].update(spec))


def new_image(world: World, plural: str, name: str, image: str = "app:2") -> None:
    """Change the pod template."""

    def edit(raw: Json) -> None:
        raw["spec"]["template"]["spec"]["containers"][0]["image"] = image

    world.store.change((plural, "default", name), edit)


def image_of(pod: Json) -> str:
    """Of its first container."""
    return str(pod["spec"]["containers"][0]["image"])


def put_out(world: World, pod: str) -> int:
    """Evict it; the status of the answer."""
    body = {"metadata": {"name": pod}}
    try:
        return evict(world.store, "default", pod, body, "me", dry=False).status
    except Refused as refusal:
        return refusal.response.status


def the(world: World, plural: str, name: str) -> Stored:
    """An object that is there."""
    found = world.store.get(plural, "default", name)
    assert found is not None
    return found


# -- workloads --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["deployment", "replica_set", "stateful_set"])
def test_an_evicted_pod_is_replaced_elsewhere(kind: str) -> None:
    world = World()
    make: Callable[..., Json] = getattr(objects, kind)
    world.cluster.add(make("default", "web", 2))
    world.time.run(10.0)
    change(world, "nodes", "n0", unschedulable=True)
    for pod in pods(world, "web"):
        if pod["spec"]["nodeName"] == "n0":
            assert put_out(world, pod["metadata"]["name"]) == 201
    world.time.run(10.0)
    assert nodes_of(world, "web") == ["n1", "n1"]
    assert all(map(is_ready, pods(world, "web")))


def test_a_stateful_sets_pods_come_one_after_the_other_and_keep_their_names() -> None:
    world = World()
    world.cluster.add(objects.stateful_set("default", "db", 3))
    world.time.run(1.5)
    assert names(world, "db") == ["db-0"]
    world.time.run(10.0)
    assert names(world, "db") == ["db-0", "db-1", "db-2"]
    uid = world.there("db-1")["metadata"]["uid"]
    world.cluster.kubelets.behaviour = lambda _: Behaviour(stop=20.0)
    put_out(world, "db-1")
    world.time.run(15.0)
    assert world.there("db-1")["metadata"]["uid"] == uid, "its name is used until it is gone"
    world.time.run(10.0)
    assert world.there("db-1")["metadata"]["uid"] != uid


def test_a_parallel_stateful_sets_pods_come_together() -> None:
    world = World()
    world.cluster.add(objects.stateful_set("default", "db", 3, parallel=True))
    world.time.run(0.5)
    assert len(names(world, "db")) == 3


def test_a_stateful_set_stays_at_a_broken_pod_when_its_template_is_repaired() -> None:
    world = World()
    world.cluster.add(objects.stateful_set("default", "db", 2))
    world.time.run(10.0)
    world.cluster.kubelets.behaviour = lambda pod: Behaviour(
        ready=None if image_of(pod) == "broken" else 1.0
    )
    new_image(world, "statefulsets", "db", "broken")
    world.time.run(20.0)
    new_image(world, "statefulsets", "db", "app:3")
    world.time.run(60.0)
    assert [image_of(pod) for pod in pods(world, "db")] == ["app:1", "broken"]
    put_out(world, "db-1")
    world.time.run(20.0)
    assert [image_of(pod) for pod in pods(world, "db")] == ["app:3", "app:3"]
    status = the(world, "statefulsets", "db")["status"]
    assert status["currentRevision"] == status["updateRevision"]


def test_a_deployments_rollout_keeps_its_pods_available_and_reports_its_end() -> None:
    world = World(nodes=3)
    world.cluster.add(objects.deployment("default", "web", 4))
    world.time.run(10.0)
    least = [4]

    def count() -> None:
        least.append(sum(map(is_ready, pods(world, "web"))))
        world.time.after(0.1, count)

    count()
    new_image(world, "deployments", "web")
    world.time.run(30.0)
    assert {image_of(pod) for pod in pods(world, "web")} == {"app:2"}
    assert (min(least), len(pods(world, "web"))) == (3, 4)
    deployment = the(world, "deployments", "web")
    progressing = conditions.find(deployment, "Progressing")
    assert progressing is not None
    assert (progressing["status"], progressing["reason"]) == ("True", "NewReplicaSetAvailable")
    assert deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"


def test_a_rollout_that_makes_no_progress_misses_its_deadline() -> None:
    world = World()
    world.cluster.add(objects.deployment("default", "web", 2))
    world.time.run(10.0)
    world.cluster.kubelets.behaviour = lambda _: Behaviour(ready=None)
    new_image(world, "deployments", "web")
    world.time.run(550.0)
    assert conditions.status_of(the(world, "deployments", "web"), "Progressing") == "True"
    world.time.run(100.0)
    found = conditions.find(the(world, "deployments", "web"), "Progressing")
    assert found is not None
    assert (found["status"], found["reason"]) == ("False", "ProgressDeadlineExceeded")


def test_pods_that_fail_later_are_no_rollout() -> None:
    world = World()
    world.cluster.add(objects.deployment("default", "web", 2))
    world.time.run(10.0)
    world.cluster.kubelets.set_ready("default", names(world, "web")[0], ready=False)
    world.time.run(900.0)
    deployment = the(world, "deployments", "web")
    found = conditions.find(deployment, "Progressing")
    assert found is not None
    assert (found["status"], found["reason"]) == ("True", "NewReplicaSetAvailable")
    assert deployment["status"]["availableReplicas"] == 1


def test_a_scaled_down_workload_has_fewer_pods() -> None:
    world = World()
    world.cluster.add(objects.deployment("default", "web", 3))
    world.time.run(10.0)
    change(world, "deployments", "web", replicas=1)
    world.time.run(10.0)
    assert len(pods(world, "web")) == 1


def test_a_deleted_workload_takes_its_pods_with_it() -> None:
    world = World()
    world.cluster.add(objects.deployment("default", "web", 2))
    world.time.run(10.0)
    world.send("DELETE", "/apis/apps/v1/namespaces/default/deployments/web")
    world.time.run(10.0)
    assert pods(world, "web") == []
    assert world.store.all("replicasets") == []


def test_a_daemon_sets_pods_return_to_a_cordoned_node() -> None:
    world = World()
    world.cluster.add(objects.daemon_set("default", "agent"))
    world.time.run(10.0)
    change(world, "nodes", "n0", unschedulable=True)
    world.time.run(5.0)
    assert nodes_of(world, "agent") == ["n0", "n1"]
    (pod,) = [p for p in pods(world, "agent") if p["spec"]["nodeName"] == "n0"]
    put_out(world, pod["metadata"]["name"])
    world.time.run(10.0)
    assert nodes_of(world, "agent") == ["n0", "n1"]
    world.cluster.add_node("n2")
    world.time.run(10.0)
    assert nodes_of(world, "agent") == ["n0", "n1", "n2"]


def test_a_daemon_set_is_not_on_nodes_whose_taints_it_does_not_tolerate() -> None:
    world = World()
    world.cluster.add_node("cp", control_plane=True)
    world.cluster.add(objects.daemon_set("default", "agent"))
    world.time.run(10.0)
    assert nodes_of(world, "agent") == ["n0", "n1"]


@pytest.mark.parametrize(("code", "condition"), [(0, "Complete"), (1, "Failed")])
def test_a_job_ends(code: int, condition: str) -> None:
    world = World()
    world.cluster.kubelets.behaviour = lambda _: Behaviour(run=5.0, exit_code=code)
    world.cluster.add(objects.job("default", "once"))
    world.time.run(30.0)
    job = the(world, "jobs", "once")
    assert (conditions.status_of(job, "Complete") == "True") is (code == 0)
    world.time.run(900.0)
    assert conditions.status_of(the(world, "jobs", "once"), condition) == "True"


# -- budgets ----------------------------------------------------------------------------


def _status(world: World) -> tuple[int, int, int, int]:
    status = the(world, "poddisruptionbudgets", "b")["status"]
    names = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")
    return tuple(status.get(name, 0) for name in names)


@pytest.mark.parametrize(
    ("kind", "replicas", "spec", "status"),
    [
        ("deployment", 3, {"minAvailable": 2}, (1, 3, 2, 3)),
        ("deployment", 3, {"maxUnavailable": 1}, (1, 3, 2, 3)),
        ("deployment", 3, {"minAvailable": "50%"}, (1, 3, 2, 3)),
        ("deployment", 3, {"maxUnavailable": "34%"}, (2, 3, 1, 3)),
        ("deployment", 1, {"minAvailable": 1}, (0, 1, 1, 1)),
        ("deployment", 3, {"maxUnavailable": 0}, (0, 3, 3, 3)),
        ("stateful_set", 3, {"maxUnavailable": 1}, (1, 3, 2, 3)),
        ("deployment", 0, {"maxUnavailable": 1}, (0, 0, 0, 0)),
        ("daemon_set", None, {"minAvailable": 1}, (1, 2, 1, 2)),
    ],
)
def test_what_a_budget_allows(
    kind: str, replicas: int | None, spec: Json, status: tuple[int, int, int, int]
) -> None:
    world = World()
    make: Callable[..., Json] = getattr(objects, kind)
    world.cluster.add(make("default", "web", *([] if replicas is None else [replicas])))
    world.cluster.add(objects.budget("default", "b", {"app": "web"}, **spec))
    world.time.run(20.0)
    assert _status(world) == status


def test_a_budget_of_owners_without_a_scale_allows_nothing() -> None:
    world = World()
    world.cluster.add(objects.daemon_set("default", "web"))
    world.cluster.add(objects.budget("default", "b", {"app": "web"}, maxUnavailable=1))
    world.time.run(20.0)
    budget = the(world, "poddisruptionbudgets", "b")
    found = conditions.find(budget, "DisruptionAllowed")
    assert found is not None
    assert (budget["status"]["disruptionsAllowed"], found["reason"]) == (0, "SyncFailed")


def test_a_budget_lets_pods_go_one_after_the_other() -> None:
    world = World()
    world.cluster.add(objects.deployment("default", "web", 3))
    world.cluster.add(objects.budget("default", "b", {"app": "web"}, maxUnavailable=1))
    world.time.run(10.0)
    first, second, _ = names(world, "web")
    assert (put_out(world, first), put_out(world, second)) == (201, 429)
    world.time.run(10.0)
    assert put_out(world, second) == 201


def test_an_accepted_eviction_that_deletes_nothing_is_forgotten_after_two_minutes() -> None:
    world = World()
    world.cluster.add(objects.deployment("default", "web", 2))
    world.cluster.add(objects.budget("default", "b", {"app": "web"}, maxUnavailable=1))
    world.time.run(10.0)
    name, other = names(world, "web")
    body = {"metadata": {"name": name}, "deleteOptions": {"preconditions": {"uid": "other"}}}
    with pytest.raises(Refused):
        evict(world.store, "default", name, body, "me", dry=False)
    world.time.run(60.0)
    assert put_out(world, other) == 429
    world.time.run(70.0)
    assert put_out(world, other) == 201


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


def test_a_controller_that_does_not_run_does_its_work_later() -> None:
    world = World()
    world.cluster.add(objects.deployment("default", "web", 2))
    world.time.run(10.0)
    world.cluster.queues["replicasets"].paused = True
    gone = names(world, "web")[0]
    put_out(world, gone)
    world.time.run(30.0)
    assert len(pods(world, "web")) == 1
    world.cluster.queues["replicasets"].paused = False
    world.time.run(10.0)
    assert len(pods(world, "web")) == 2


def test_the_same_seed_gives_the_same_run() -> None:
    def story() -> list[tuple[int, tuple[str, str, str], str]]:
        world = World(nodes=3)
        changes: list[tuple[int, tuple[str, str, str], str]] = []
        world.store.subscribe(
            lambda change: changes.append((change.version, change.key, change.by))
        )
        world.cluster.add(objects.deployment("default", "web", 5))
        world.cluster.add(objects.stateful_set("default", "db", 3))
        world.cluster.add(objects.budget("default", "b", {"app": "web"}, minAvailable=4))
        world.time.run(20.0)
        world.cluster.kubelets.of["n1"].reboot(100.0)
        world.time.run(400.0)
        return changes

    assert story() == story()
