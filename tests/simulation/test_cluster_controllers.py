"""The modelled controllers act as those of kube-controller-manager do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.simulation.cluster import conditions, objects
from tests.simulation.cluster.client import World
from tests.simulation.cluster.eviction import evict, is_ready
from tests.simulation.cluster.jobs import JOB_NAME
from tests.simulation.cluster.kubelets import Behaviour
from tests.simulation.cluster.messages import Json
from tests.simulation.cluster.statuses import Refused
from tests.simulation.cluster.store import Change, Stored


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


def test_below_the_partition_pods_keep_the_old_template_also_when_they_are_replaced() -> None:
    world = World()
    world.cluster.add(objects.stateful_set("default", "db", 3))
    world.time.run(15.0)
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    change(world, "statefulsets", "db", updateStrategy=strategy)
    new_image(world, "statefulsets", "db")
    world.time.run(20.0)
    put_out(world, "db-0")
    world.time.run(20.0)
    assert [image_of(pod) for pod in pods(world, "db")] == ["app:1", "app:1", "app:2"]
    status = the(world, "statefulsets", "db")["status"]
    assert (status["updatedReplicas"], status["currentReplicas"]) == (1, 2)


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
    reasons: set[tuple[str, str]] = set()

    def note(change: Change) -> None:
        if change.key[0] == "deployments":
            found = conditions.find(change.last, "Progressing")
            assert found is not None
            reasons.add((found["status"], found["reason"]))

    world.store.subscribe(note)
    failing = names(world, "web")[0]
    world.cluster.kubelets.set_ready("default", failing, ready=False)
    world.time.run(900.0)
    assert the(world, "deployments", "web")["status"]["availableReplicas"] == 1
    world.cluster.kubelets.set_ready("default", failing, ready=True)
    world.time.run(10.0)
    assert the(world, "deployments", "web")["status"]["availableReplicas"] == 2
    assert reasons == {("True", "NewReplicaSetAvailable")}


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


def test_a_job_fails_at_its_deadline_and_its_pods_name_it() -> None:
    world = World()
    raw = objects.job("default", "slow")
    raw["spec"]["activeDeadlineSeconds"] = 20
    world.cluster.add(raw)
    world.time.run(15.0)
    [pod] = world.store.all("pods", "default")
    assert pod["metadata"]["labels"][JOB_NAME] == "slow"
    assert conditions.status_of(the(world, "jobs", "slow"), "Failed") == ""
    world.time.run(10.0)
    failed = conditions.find(the(world, "jobs", "slow"), "Failed")
    assert failed is not None
    assert (failed["status"], failed["reason"]) == ("True", "DeadlineExceeded")
    assert world.store.all("pods", "default") == []


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


def test_a_pod_that_is_being_deleted_is_not_healthy() -> None:
    world = World()
    world.cluster.add(objects.deployment("default", "web", 3))
    world.cluster.add(objects.budget("default", "b", {"app": "web"}, maxUnavailable=2))
    world.time.run(10.0)
    world.cluster.kubelets.behaviour = lambda _: Behaviour(ready=None, stop=None)
    world.send("DELETE", f"/api/v1/namespaces/default/pods/{names(world, 'web')[0]}")
    world.time.run(10.0)
    assert _status(world) == (1, 2, 1, 3)


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


# -- all of them ------------------------------------------------------------------------


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
