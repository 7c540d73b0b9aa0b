"""The modelled API server reads, watches and writes as a real one does."""

from __future__ import annotations

from functools import partial

import pytest

from tests.simulation.cluster import objects
from tests.simulation.cluster.client import (
    JSON_PATCH,
    LEASES,
    MERGE,
    NODES,
    PODS,
    POLICIES,
    Json,
    World,
    events,
    names,
)
from tests.simulation.cluster.store import Change

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


def test_a_subscriber_that_writes_does_not_reorder_what_others_see() -> None:
    world = World()
    seen: list[int] = []

    def annotate(raw: Json) -> None:
        raw["metadata"]["annotations"] = {"seen": "true"}

    def write(change: Change) -> None:
        if change.key[0] == "nodes":
            world.store.change(change.key, annotate)

    world.store.subscribe(write)
    world.store.subscribe(lambda change: seen.append(change.version))
    _flip(world, "n0", 5)
    assert len(seen) > 5
    assert seen == sorted(seen)


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


def test_a_strategic_merge_patch_merges_conditions_by_their_type() -> None:
    world, path = World(), f"{NODES}/n0/status"
    before = {
        one["type"] for one in world.send("GET", f"{NODES}/n0").json()["status"]["conditions"]
    }
    kind = "application/strategic-merge-patch+json"
    added = {"type": "Drained", "status": "True", "reason": "Test"}
    for change, found in ((added, {"Drained"}), ({"type": "Drained", "$patch": "delete"}, set())):
        body = {"status": {"conditions": [change]}}
        after = world.send("PATCH", path, body, kind).json()["status"]["conditions"]
        assert {one["type"] for one in after} == before | found


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


# -- custom resources -------------------------------------------------------------------


def test_a_policy_is_stored_with_its_defaults_and_without_what_is_unknown() -> None:
    world = World()
    policy = objects.healing_policy("default", "p", {"app": "a"}, {"notReadyFor": "5m"}, extra=1)
    stored = world.send("POST", POLICIES, policy).json()["spec"]
    assert "extra" not in stored
    assert (stored["healthThreshold"], stored["failureThreshold"], stored["paused"]) == (
        1,
        3,
        False,
    )
    assert stored["restart"]["maxPerHour"] == 6
    patch = {"status": {"state": "Idle", "unknown": 1}}
    after = world.send("PATCH", f"{POLICIES}/p/status", patch, MERGE).json()
    assert after["status"] == {"state": "Idle"}


@pytest.mark.parametrize(
    ("status", "field"),
    [
        ({"state": "Lost"}, "status.state"),
        ({"message": "x" * 1025}, "status.message"),
        ({"restarts": "3"}, "status.restarts"),
        ({"replicas": 2**31}, "status.replicas"),
        ({"lastHealTime": "yesterday"}, "status.lastHealTime"),
        ({"owners": [{"kind": "Deployment"}]}, "status.owners[0].uid"),
        ({"owners": [{"uid": "a"}, {"uid": "a"}]}, "status.owners"),
        ({"pods": [{"name": str(n), "cause": "x"} for n in range(11)]}, "status.pods"),
        ({"conditions": [{"type": "A"}]}, "status.conditions[0].status"),
    ],
)
def test_a_status_that_breaks_its_schema_is_refused(status: Json, field: str) -> None:
    world = World()
    policy = objects.healing_policy("default", "p", {"app": "a"}, {"notReadyFor": "5m"})
    world.send("POST", POLICIES, policy)
    answer = world.send("PATCH", f"{POLICIES}/p/status", {"status": status}, MERGE)
    assert answer.status == 422
    assert answer.json()["details"]["causes"][0]["field"] == field


@pytest.mark.parametrize(
    "change",
    [
        {"unhealthyWhen": None},
        {"failureThreshold": 0},
        {"failureThreshold": True},
        {"healthThreshold": 0.5},
        {"unhealthyWhen": {"waitingReasons": ["A", "A"]}},
        {"progress": {}},
    ],
)
def test_a_policy_that_breaks_its_schema_is_refused(change: Json) -> None:
    world = World()
    policy = objects.healing_policy("default", "p", {"app": "a"}, {"notReadyFor": "5m"})
    policy["spec"] |= change
    answer = world.send("POST", POLICIES, policy)
    assert (answer.status, answer.json()["reason"]) == (422, "Invalid")
    assert world.store.all("healingpolicies") == []
