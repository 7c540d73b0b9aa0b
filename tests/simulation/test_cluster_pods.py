"""Pods of the modelled cluster: deleted, evicted, scheduled, run by kubelets."""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.cluster.client import (
    MERGE,
    NODES,
    PODS,
    Json,
    World,
)
from tests.simulation.cluster.kubelets import Behaviour
from tests.simulation.cluster.messages import clone

# -- deleting ---------------------------------------------------------------------------


def test_a_pod_is_deleted_with_its_grace_and_goes_when_its_kubelet_has_stopped_it() -> None:
    world = World()
    world.pod("a", terminationGracePeriodSeconds=20)
    world.cluster.kubelets.behaviour = lambda _: Behaviour(stop=60.0)
    answer = world.send("DELETE", f"{PODS}/a")
    meta = answer.json()["metadata"]
    assert (answer.status, meta["deletionGracePeriodSeconds"]) == (200, 20)
    longer = world.send("DELETE", f"{PODS}/a", {"gracePeriodSeconds": 50}).json()
    assert longer["metadata"]["deletionTimestamp"] == meta["deletionTimestamp"]
    world.send("DELETE", f"{PODS}/a", {"gracePeriodSeconds": 5})
    assert world.there("a")["metadata"]["deletionGracePeriodSeconds"] == 5
    world.time.run(4.0)
    world.there("a")
    world.time.run(2.0)
    assert world.store.get("pods", "default", "a") is None


@pytest.mark.parametrize("why", ["dead kubelet", "hangs", "finalizer"])
def test_what_keeps_a_pod_terminating(why: str) -> None:
    world = World()
    pod = world.pod("a", nodeName="n0")
    if why == "dead kubelet":
        world.cluster.kubelets.of["n0"].die()
    elif why == "hangs":
        world.cluster.kubelets.behaviour = lambda _: Behaviour(stop=None)
    else:
        keep = {"metadata": {"finalizers": ["a/b"]}}
        world.send("PATCH", f"{PODS}/a", keep, MERGE)
    assert world.evict("a").status == 201
    world.time.run(300.0)
    assert world.there("a")["metadata"]["uid"] == pod["metadata"]["uid"]
    if why == "dead kubelet":
        world.cluster.kubelets.of["n0"].revive()
    elif why == "hangs":
        world.cluster.kubelets.release("default", "a")
    else:
        world.send("PATCH", f"{PODS}/a", {"metadata": {"finalizers": None}}, MERGE)
    world.time.run(5.0)
    assert world.store.get("pods", "default", "a") is None


@pytest.mark.parametrize(
    ("spec", "phase"), [({"nodeSelector": {"no": "node"}}, "Pending"), ({}, "Succeeded")]
)
def test_a_pod_that_runs_nowhere_is_deleted_at_once(spec: Json, phase: str) -> None:
    world = World()
    world.pod("a", **spec)
    if phase == "Succeeded":
        key = "pods", "default", "a"
        world.store.change(key, lambda raw: raw["status"].update(phase="Succeeded"))
    assert world.there("a")["status"]["phase"] == phase
    assert world.send("DELETE", f"{PODS}/a").json()["status"] == "Success"
    assert world.store.get("pods", "default", "a") is None


# -- evicting ---------------------------------------------------------------------------


def _two_budgets(world: World) -> None:
    world.budget("x", "a", 1)
    world.budget("y", "a", 1)


EVICTIONS: list[tuple[str, Any, int, str, str | None]] = [
    ("no budget", lambda w: None, 201, "", None),
    ("allowed", lambda w: w.budget("x", "a", 1), 201, "", None),
    ("used up", lambda w: w.budget("x", "a", 0), 429, "needs 1 healthy pods and has 1", None),
    (
        "not observed",
        lambda w: w.budget("x", "a", 1, status={"observedGeneration": 0}),
        *(429, "still being processed", "10"),
    ),
    ("two", _two_budgets, 500, "more than one PodDisruptionBudget", None),
    ("negative", lambda w: w.budget("x", "a", -1), 403, "is negative", None),
    (
        "too many",
        lambda w: w.budget(
            "x", "a", 1, status={"disruptedPods": {f"p{n}": "" for n in range(2001)}}
        ),
        *(403, "too big", None),
    ),
    ("of others", lambda w: w.budget("x", "b", 0), 201, "", None),
]


@pytest.mark.parametrize(
    ("prepare", "status", "text", "retry"),
    [e[1:] for e in EVICTIONS],
    ids=[e[0] for e in EVICTIONS],
)
def test_evictions(prepare: Any, status: int, text: str, retry: str | None) -> None:
    world = World()
    world.pod("a")
    prepare(world)
    for query in ("?dryRun=All", ""):
        answer = world.evict("a", query=query)
        assert answer.status == status
        assert text in answer.body.decode()
        assert answer.headers.get("Retry-After") == retry
        marked = "deletionTimestamp" in world.there("a")["metadata"]
        assert marked is (status == 201 and not query)


def test_an_eviction_decrements_the_budget_and_says_why_the_pod_goes() -> None:
    world = World()
    world.pod("a")
    world.budget("x", "a", 1)
    assert world.evict("a").status == 201
    budget = world.store.get("poddisruptionbudgets", "default", "x")
    assert budget is not None
    assert budget["status"]["disruptionsAllowed"] == 0
    assert list(budget["status"]["disruptedPods"]) == ["a"]
    (target,) = [c for c in world.there("a")["status"]["conditions"] if "Target" in c["type"]]
    assert (target["type"], target["reason"]) == ("DisruptionTarget", "EvictionByEvictionAPI")


@pytest.mark.parametrize(
    ("healthy", "desired", "policy", "status"),
    [
        (1, 1, None, 201),
        (0, 1, None, 429),
        (0, 0, None, 429),
        (0, 1, "AlwaysAllow", 201),
        (0, 1, "IfHealthyBudget", 429),
    ],
)
def test_an_unready_pod_passes_a_budget_that_is_healthy_without_it(
    healthy: int, desired: int, policy: str | None, status: int
) -> None:
    world = World()
    world.pod("a", ready=False)
    more = {"unhealthyPodEvictionPolicy": policy} if policy else {}
    counts = {"currentHealthy": healthy, "desiredHealthy": desired}
    world.budget("x", "a", 0, status=counts, **more)
    key = "poddisruptionbudgets", "default", "x"
    world.store.change(key, lambda raw: raw["status"].update(observedGeneration=9))
    assert world.evict("a").status == status


@pytest.mark.parametrize("state", ["Pending", "Succeeded", "terminating"])
def test_budgets_say_nothing_about_pods_that_serve_nobody(state: str) -> None:
    world = World()
    world.pod("a")
    if state == "terminating":
        world.cluster.kubelets.behaviour = lambda _: Behaviour(stop=None)
        world.send("DELETE", f"{PODS}/a")
    else:
        key = "pods", "default", "a"
        world.store.change(key, lambda raw: raw["status"].update(phase=state))
    world.budget("x", "a", 0)
    assert world.evict("a").status == 201


def test_another_pod_of_the_name_is_not_evicted_and_has_cost_a_disruption() -> None:
    world = World()
    world.pod("a")
    world.budget("x", "a", 1)
    answer = world.evict("a", uid="other")
    assert answer.status == 409
    assert "the UID in the precondition (other) does not match" in answer.json()["message"]
    budget = world.store.get("poddisruptionbudgets", "default", "x")
    assert budget is not None
    assert budget["status"]["disruptionsAllowed"] == 0
    world.there("a")


def test_nothing_is_evicted_from_a_namespace_that_ends() -> None:
    world = World()
    world.pod("a")
    key = "namespaces", "", "default"
    world.store.change(
        key, lambda raw: raw["metadata"].update(deletionTimestamp="x", finalizers=["k"])
    )
    answer = world.evict("a")
    causes = answer.json()["details"]["causes"]
    assert (answer.status, causes[0]["reason"]) == (403, "NamespaceTerminating")


def test_grace_zero_removes_the_object_though_its_kubelet_is_dead() -> None:
    world = World()
    world.pod("a", nodeName="n0")
    world.cluster.kubelets.of["n0"].die()
    assert world.evict("a", gracePeriodSeconds=0).status == 201
    assert world.store.get("pods", "default", "a") is None


# -- scheduling and kubelets ------------------------------------------------------------

CORDONED = {"spec": {"unschedulable": True}}
TOLERATES_CORDON = [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ({}, "n1"),
        ({"tolerations": TOLERATES_CORDON, "nodeSelector": {"kubernetes.io/hostname": "n0"}}, "n0"),
        ({"nodeName": "n0"}, "n0"),
        ({"nodeSelector": {"kubernetes.io/hostname": "n0"}}, None),
        ({"cpu": "64"}, None),
        ({"requests": {"nvidia.com/gpu": "1"}}, None),
    ],
)
def test_where_a_pod_goes(spec: Json, where: str | None) -> None:
    world = World()
    world.send("PATCH", f"{NODES}/n0", CORDONED, MERGE)
    assert world.pod("a", **clone(spec))["spec"].get("nodeName") == where


def test_a_pod_that_fitted_nowhere_goes_to_a_node_that_is_uncordoned() -> None:
    world = World(nodes=1)
    world.send("PATCH", f"{NODES}/n0", CORDONED, MERGE)
    pod = world.pod("a")
    (condition,) = pod["status"]["conditions"]
    assert (condition["type"], condition["reason"]) == ("PodScheduled", "Unschedulable")
    world.send("PATCH", f"{NODES}/n0", {"spec": {"unschedulable": None}}, MERGE)
    world.time.run(5.0)
    assert world.there("a")["spec"]["nodeName"] == "n0"


def test_a_reboot_gives_a_new_boot_id_and_restarts_containers() -> None:
    world = World(nodes=1)
    world.pod("a")
    before = world.cluster.node("n0")["status"]["nodeInfo"]["bootID"]
    world.cluster.kubelets.of["n0"].reboot(30.0)
    world.time.run(29.0)
    assert world.cluster.node("n0")["status"]["nodeInfo"]["bootID"] == before
    world.time.run(2.0)
    assert world.cluster.node("n0")["status"]["nodeInfo"]["bootID"] != before
    (container,) = world.there("a")["status"]["containerStatuses"]
    assert (container["restartCount"], container["ready"]) == (1, True)


def test_a_pod_is_found_by_its_address() -> None:
    world = World()
    pod = world.pod("a")
    world.pod("b")
    found = world.cluster.pod_at(pod["status"]["podIP"])
    assert found is not None
    assert found["metadata"]["name"] == "a"
