"""The modelled API server, kubelets and controllers behave as the real ones do."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from tests.simulation.cluster import objects
from tests.simulation.cluster.cluster import Cluster
from tests.simulation.cluster.kubelets import Behaviour
from tests.simulation.cluster.messages import Request, Response, clone
from tests.simulation.cluster.timeline import Timeline
from tests.simulation.cluster.watches import WatchStream

Json = dict[str, Any]
NODES, PODS = "/api/v1/nodes", "/api/v1/namespaces/default/pods"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/selfheal/leases"
POLICIES = "/apis/selfheal.dev/v1alpha1/namespaces/default/healingpolicies"
JSON_PATCH, MERGE = "application/json-patch+json", "application/merge-patch+json"


class World:
    """A cluster with its time, and short forms of requests."""

    def __init__(self, nodes: int = 2) -> None:
        self.time = Timeline()
        self.cluster = Cluster(self.time)
        self.store = self.cluster.store
        for number in range(nodes):
            self.cluster.add_node(f"n{number}")
        self.time.run(5.0)

    def send(self, method: str, url: str, body: Any = None, kind: str = "") -> Response:
        """One request, which is no watch."""
        headers = {"Content-Type": kind or "application/json", "User-Agent": "test/1"}
        text = None if body is None else json.dumps(body).encode()
        request = Request.to(method, url, headers=headers, body=text, process="me")
        answer = self.cluster.handle(request)
        assert isinstance(answer, Response)
        return answer

    def watch(self, url: str) -> WatchStream:
        """A watch."""
        answer = self.cluster.handle(Request.to("GET", f"{url}&watch=true"))
        assert isinstance(answer, WatchStream)
        return answer

    def evict(self, pod: str, uid: str = "", query: str = "", **options: Any) -> Response:
        """An eviction, of the pod as it is."""
        there = self.store.get("pods", "default", pod)
        uid = uid or (there["metadata"]["uid"] if there else "none")
        body = {
            "kind": "Eviction",
            "apiVersion": "policy/v1",
            "metadata": {"name": pod, "namespace": "default"},
            "deleteOptions": {"preconditions": {"uid": uid}, **options},
        }
        return self.send("POST", f"{PODS}/{pod}/eviction{query}", body)

    def pod(self, name: str, ready: bool = True, **spec: Any) -> Json:
        """A pod that runs."""
        self.cluster.kubelets.behaviour = lambda _: Behaviour(ready=0.5 if ready else None)
        self.cluster.add(objects.pod("default", name, **spec))
        self.time.run(3.0)
        return self.there(name)

    def there(self, name: str) -> Json:
        """A pod of namespace default that exists."""
        found = self.store.get("pods", "default", name)
        assert found is not None
        return found

    def budget(self, name: str, app: str, allowed: int, **more: Any) -> None:
        """A budget with this status, as its controller left it."""
        raw = self.cluster.add(objects.budget("default", name, {"app": app}, minAvailable=1))

        def status(there: Json) -> None:
            counts = {"currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}
            there["status"] = {"disruptionsAllowed": allowed, "observedGeneration": 1, **counts}
            there["status"] |= more.pop("status", {})
            there["spec"] |= more

        self.store.change(("poddisruptionbudgets", "default", name), status)
        assert raw["metadata"]["generation"] == 1


def events(stream: WatchStream) -> list[tuple[str, Json]]:
    """What has come on a watch."""
    found = []
    while (chunk := stream.next_chunk()) is not None:
        for line in chunk.splitlines():
            event = json.loads(line)
            found.append((event["type"], event["object"]))
    return found


def names(answer: Response) -> list[str]:
    """Of the objects of a list."""
    return [item["metadata"]["name"] for item in answer.json()["items"]]


# -- reading ----------------------------------------------------------------------------


def test_a_list_comes_in_pages_of_one_version() -> None:
    world = World(nodes=5)
    first = world.send("GET", f"{NODES}?limit=2").json()
    world.cluster.add_node("n00")  # would be on the second page
    world.store.remove(("nodes", "", "n3"))
    token = first["metadata"]["continue"]
    second = world.send("GET", f"{NODES}?limit=2&continue={token}").json()
    third = world.send("GET", f"{NODES}?limit=2&continue={second['metadata']['continue']}").json()
    pages = [[item["metadata"]["name"] for item in p["items"]] for p in (first, second, third)]
    assert pages == [["n0", "n1"], ["n2", "n3"], ["n4"]]
    assert len({page["metadata"]["resourceVersion"] for page in (first, second, third)}) == 1
    assert first["metadata"]["remainingItemCount"] == 3
    assert "continue" not in third["metadata"]


def test_a_page_of_a_compacted_version_is_gone_and_offers_an_inconsistent_rest() -> None:
    world = World(nodes=3)
    token = world.send("GET", f"{NODES}?limit=2").json()["metadata"]["continue"]
    world.cluster.add_node("n9")
    world.store.compact()
    gone = world.send("GET", f"{NODES}?limit=2&continue={token}")
    assert (gone.status, gone.json()["reason"]) == (410, "Expired")
    rest = gone.json()["metadata"]["continue"]
    assert names(world.send("GET", f"{NODES}?limit=2&continue={rest}")) == ["n2", "n9"]


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("fieldSelector=spec.nodeName=n0", ["a"]),
        ("fieldSelector=spec.nodeName=,status.phase=Pending", ["c"]),
        ("fieldSelector=status.phase!=Succeeded,status.phase!=Failed", ["a", "b", "c"]),
        ("fieldSelector=metadata.name=b", ["b"]),
        ("labelSelector=app=a", ["a"]),
        ("labelSelector=app in (a,b),tier!=x", ["a"]),
        ("labelSelector=tier", ["b"]),
        ("labelSelector=!tier", ["a", "c"]),
        ("labelSelector=app notin (a)", ["b", "c"]),
    ],
)
def test_selectors(selector: str, found: list[str]) -> None:
    world = World()
    world.pod("a", nodeName="n0")
    world.pod("b", labels={"app": "b", "tier": "x"}, nodeName="n1")
    world.pod("c", nodeSelector={"no": "node"})
    assert names(world.send("GET", f"/api/v1/pods?{selector}")) == found


def test_a_field_that_cannot_be_selected_by_is_refused() -> None:
    answer = World().send("GET", f"{NODES}?fieldSelector=spec.nodeName=x")
    assert (answer.status, answer.json()["reason"]) == (400, "BadRequest")


# -- watching ---------------------------------------------------------------------------


def test_a_watch_reports_what_begins_and_ceases_to_match() -> None:
    world = World()
    version = world.send("GET", PODS).json()["metadata"]["resourceVersion"]
    stream = world.watch(f"{PODS}?fieldSelector=spec.nodeName=n0&resourceVersion={version}")
    world.pod("a", nodeName="n0")
    world.pod("b", nodeName="n1")
    seen = events(stream)
    assert {raw["metadata"]["name"] for _, raw in seen} == {"a"}
    assert [kind for kind, _ in seen] == ["ADDED", *["MODIFIED"] * (len(seen) - 1)]
    world.send("DELETE", f"{PODS}/a", {"gracePeriodSeconds": 0})
    (kind, last) = events(stream)[-1]
    assert kind == "DELETED"
    assert last["metadata"]["resourceVersion"] == str(world.store.version)


def test_bookmarks_come_each_minute_and_before_the_end_and_then_it_ends() -> None:
    world = World()
    version = world.store.version
    url = f"{PODS}?resourceVersion={version}&allowWatchBookmarks=true&timeoutSeconds=130"
    stream = world.watch(url)
    heard: list[float] = []
    stream.subscribe(lambda: heard.append(round(world.time.now - 5.0, 3)))
    world.time.run(129.0)
    assert [kind for kind, _ in events(stream)] == ["BOOKMARK"] * 3
    assert not stream.ended
    world.time.run(2.0)
    assert stream.ended
    assert not stream.broken
    assert heard == [60.0, 120.0, 128.0, 130.0]


def test_a_watch_from_a_compacted_version_is_an_error_event() -> None:
    world = World()
    world.store.compact()
    stream = world.watch(f"{PODS}?resourceVersion=1")
    ((kind, status),) = events(stream)
    assert (kind, status["code"], status["reason"]) == ("ERROR", 410, "Expired")
    assert stream.ended


def _flip(world: World, node: str, times: int) -> None:
    """So many changes of a node's label."""
    key = "nodes", "", node
    for number in range(times):
        labels = {"x": str(number)}
        world.store.change(key, partial(_label, labels))


def _label(labels: Json, raw: Json) -> None:
    raw["metadata"]["labels"] |= labels


def test_after_a_restore_a_watch_from_a_later_version_is_silent_until_it_is_reached() -> None:
    world = World()
    saved = world.store.backup()
    world.pod("a")
    _flip(world, "n0", 100)
    old = world.watch(f"{PODS}?resourceVersion={world.store.version}")
    later = world.store.version
    world.store.restore(saved)
    assert old.ended, "the API server starts again"
    assert world.store.get("pods", "default", "a") is None
    url = f"{NODES}?resourceVersion={later}&allowWatchBookmarks=true&timeoutSeconds=300"
    stream = world.watch(url)
    world.cluster.add_node("n7")
    world.time.run(250.0)
    assert world.store.version < later
    assert events(stream) == []
    _flip(world, "n7", 130)
    assert len(events(stream)) == world.store.version - later > 0


# -- writing ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "status"),
    [
        ({"op": "test", "path": "/metadata/uid", "value": "other"}, 422),
        ({"op": "test", "path": "/spec/unschedulable", "value": None}, 200),
        ({"op": "test", "path": "/spec/unschedulable", "value": True}, 422),
        ({"op": "remove", "path": "/spec/unschedulable"}, 422),
        ({"op": "replace", "path": "/spec/unschedulable", "value": True}, 422),
        ({"op": "add", "path": "/metadata/missing/x", "value": "y"}, 422),
        ({"op": "add", "path": "/spec/unschedulable", "value": True}, 200),
        ({"op": "add", "path": "/metadata/annotations/a~1b", "value": "y"}, 200),
    ],
)
def test_json_patches(operation: Json, status: int) -> None:
    world = World()
    answer = world.send("PATCH", f"{NODES}/n0", [operation], JSON_PATCH)
    assert answer.status == status
    if status == 422:
        assert answer.json()["reason"] == "Invalid"


def test_a_write_that_changes_nothing_makes_no_version() -> None:
    world = World()
    before = world.cluster.node("n0")
    patch = {"metadata": {"labels": {"kubernetes.io/hostname": "n0"}}}
    assert world.send("PATCH", f"{NODES}/n0", patch, MERGE).status == 200
    assert world.cluster.node("n0") is before


def test_a_resource_version_in_a_merge_patch_is_a_precondition() -> None:
    world = World()
    lease = {"kind": "Lease", "metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}}
    made = world.send("POST", LEASES, lease)
    assert made.status == 201
    assert world.send("POST", LEASES, lease).json()["reason"] == "AlreadyExists"
    version = made.json()["metadata"]["resourceVersion"]
    patch = {"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": "b"}}
    assert world.send("PATCH", f"{LEASES}/l", patch, MERGE).status == 200
    again = world.send("PATCH", f"{LEASES}/l", patch, MERGE)
    assert (again.status, again.json()["reason"]) == (409, "Conflict")


def test_a_dry_run_stores_nothing() -> None:
    world = World()
    patch = [{"op": "add", "path": "/spec/unschedulable", "value": True}]
    answer = world.send("PATCH", f"{NODES}/n0?dryRun=All", patch, JSON_PATCH)
    assert answer.json()["spec"]["unschedulable"] is True
    assert "unschedulable" not in world.cluster.node("n0")["spec"]


def test_the_status_subresource_alone_changes_the_status() -> None:
    world = World()
    policy = objects.healing_policy("default", "p", {"app": "a"}, {"notReadyFor": "5m"})
    made = world.send("POST", POLICIES, policy).json()
    assert made["spec"]["failureThreshold"] == 3
    both = {"spec": {"failureThreshold": 5}, "status": {"state": "Healthy"}}
    after = world.send("PATCH", f"{POLICIES}/p/status", both, MERGE).json()
    assert after["status"] == {"state": "Healthy"}
    assert (after["spec"]["failureThreshold"], after["metadata"]["generation"]) == (3, 1)
    other = {**both, "status": {"state": "Paused"}}
    after = world.send("PATCH", f"{POLICIES}/p", other, MERGE).json()
    assert after["status"] == {"state": "Healthy"}
    assert (after["spec"]["failureThreshold"], after["metadata"]["generation"]) == (5, 2)


@pytest.mark.parametrize(
    ("steps", "owner"),
    [
        ([("kubectl", True, False)], "kubectl"),
        ([("kubectl", True, False), ("kubectl", None, False)], ""),
        ([("kubectl", True, False), ("kubectl", False, False)], ""),
        ([("kubectl", True, False), ("argo", False, True)], "argo"),
    ],
)
def test_who_owns_a_cordon(steps: list[tuple[str, bool | None, bool]], owner: str) -> None:
    world = World()
    for manager, value, applied in steps:
        patch = {"spec": {"unschedulable": value}}
        kind = "application/apply-patch+yaml" if applied else MERGE
        url = f"{NODES}/n0?fieldManager={manager}"
        assert world.send("PATCH", url, patch, kind).status == 200
    entries = world.cluster.node("n0")["metadata"].get("managedFields") or []
    assert [entry["manager"] for entry in entries] == ([owner] if owner else [])


@pytest.mark.parametrize(
    ("method", "url", "status"),
    [
        ("GET", f"{NODES}/none", 404),
        ("GET", "/apis/cluster.x-k8s.io", 404),
        ("GET", "/apis/cluster.x-k8s.io/v1beta1/machines", 404),
        ("GET", "/api/v1/namespaces/none/pods", 200),
        ("POST", "/api/v1/namespaces/none/events", 404),
        ("PATCH", f"{NODES}/none", 415),
        ("DELETE", f"{PODS}/none", 404),
        ("POST", f"{NODES}/n0", 405),
        ("GET", "/readyz", 200),
    ],
)
def test_answers_to_what_is_not_there(method: str, url: str, status: int) -> None:
    body = {"kind": "Event", "metadata": {"name": "e"}} if method == "POST" else None
    assert World().send(method, url, body).status == status


def test_a_permission_that_is_missing_is_said_and_enforced() -> None:
    world = World()
    world.cluster.api.denied = {("create", "pods/eviction")}
    attributes = {"verb": "create", "resource": "pods", "subresource": "eviction", "group": ""}
    review = {
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert world.send("POST", path, review).json()["status"]["allowed"] is False
    world.pod("a")
    refused = world.evict("a")
    assert (refused.status, refused.json()["reason"]) == (403, "Forbidden")
    attributes["subresource"] = ""
    assert world.send("POST", path, review).json()["status"]["allowed"] is True


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
    ("healthy", "policy", "status"),
    [(1, None, 201), (0, None, 429), (0, "AlwaysAllow", 201), (0, "IfHealthyBudget", 429)],
)
def test_an_unready_pod_passes_a_budget_that_is_healthy_without_it(
    healthy: int, policy: str | None, status: int
) -> None:
    world = World()
    world.pod("a", ready=False)
    more = {"unhealthyPodEvictionPolicy": policy} if policy else {}
    world.budget("x", "a", 0, status={"currentHealthy": healthy}, **more)
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
