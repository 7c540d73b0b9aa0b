"""The model agrees with a real API server's recorded answers, with what the remediator reads, and
with the smaller fake of the pure tests where both answer a request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from selfheal_remediator.drain.node_pods import node_pod_from_json
from selfheal_remediator.healing.owners import owner_from
from selfheal_remediator.healing.pod_health import watched_from_json
from selfheal_remediator.healing.policy import policy_from_json
from selfheal_remediator.kube.budgets import budget_from_json
from selfheal_remediator.kube.lease import lease_from_json
from selfheal_remediator.kube.objects import node_from_json
from selfheal_remediator.kube.pods import pod_from_json
from selfheal_remediator.kube.responses import Answer, classify_eviction
from selfheal_remediator.node.uncordons import uncordoned_by_controller
from tests.pure.remediator.fake_api import FakeApi
from tests.simulation.cluster import objects
from tests.simulation.cluster.messages import Json, Response, clone, stamp
from tests.simulation.cluster.people import Person
from tests.simulation.test_cluster_controllers import new_image, the
from tests.simulation.test_cluster_model import (
    JSON_PATCH,
    LEASES,
    MERGE,
    NODES,
    PODS,
    POLICIES,
    World,
)
from tests.simulation.test_cluster_world import FaultyWorld

RECORDED: list[Json] = json.loads(
    (Path(__file__).parents[1] / "pure/remediator/eviction_answers.json").read_text("utf-8")
)

# -- recorded answers -------------------------------------------------------------------


def _prepared(name: str) -> Response:
    """The same answer of the model."""
    world = FaultyWorld()
    pod = {"replaced": "b", "namespace-terminating": "d", "policy": "e"}.get(name, "a")
    world.pod(pod)
    if name in REQUESTS:
        return REQUESTS[name](world)
    PREPARED[name](world)
    return world.put_out(pod)


def _two_budgets(world: World) -> None:
    for name in ("x", "y"):
        world.budget(name, "a", 1)


#: What is the matter when each answer comes.
PREPARED: dict[str, Callable[[FaultyWorld], object]] = {
    "accepted": lambda world: None,
    "pdb": lambda world: world.budget("a-pdb", "a", 0),
    "multi-pdb": _two_budgets,
    "pdb-processing": lambda world: world.budget("c-pdb", "a", 1, status={"observedGeneration": 0}),
    "namespace-terminating": lambda world: world.store.change(
        ("namespaces", "", "default"), _ending
    ),
    "webhook": lambda world: world.faulty.webhook_unreachable(10.0),
    "policy": lambda world: world.faulty.deny_by_policy(10.0, why="no evictions today"),
    "throttled": lambda world: world.faulty.throttle(10.0),
}
#: Where the request itself is another one.
REQUESTS: dict[str, Callable[[FaultyWorld], Response]] = {
    "replaced": lambda world: world.evict("b", uid="00000000-0000-0000-0000-000000000000"),
    "gone": lambda world: world.evict("nope"),
    "invalid": lambda world: world.send("POST", f"{PODS}/a/eviction", _eviction("other")),
}


def _ending(raw: Json) -> None:
    raw["metadata"] |= {"deletionTimestamp": stamp(0), "finalizers": ["kubernetes"]}


@pytest.mark.parametrize("recorded", RECORDED, ids=[item["name"] for item in RECORDED])
def test_evictions_are_answered_as_a_real_server_answered_them(recorded: Json) -> None:
    answer = _prepared(recorded["name"])
    wanted = recorded["retryAfter"]
    assert answer.status == recorded["status"]
    assert answer.headers.get("Retry-After") == (None if wanted is None else str(int(wanted)))
    if isinstance(recorded["body"], str):
        assert answer.body.decode() == recorded["body"]
    else:
        assert _neutral(answer.json()) == _neutral(recorded["body"])
    outcome = classify_eviction(Answer(answer.status, answer.body, wanted)).outcome
    assert outcome.value == recorded["outcome"]


def _neutral(body: Json) -> Json:
    """Without what differs by chance: the uid in record, the namespace, the webhook's address."""
    text = re.sub(r"in record \([-0-9a-f]+\)", "in record", json.dumps(body))
    text = re.sub(r"namespace (b2|default)\b", "namespace", text)
    text = re.sub(r"(no|guard)\.example\.com", "example.com", text)
    text = re.sub(r'(: failed to call webhook: Post )[^}]*?(refused|exceeded)"', r'\1"', text)
    return dict(json.loads(text))


# -- what the remediator reads ----------------------------------------------------------


def test_every_object_is_read_by_its_reader() -> None:
    world = World(nodes=3)
    for make in (objects.deployment, objects.stateful_set, objects.replica_set):
        world.cluster.add(make("default", make.__name__.replace("_", "-"), 2))
    world.cluster.add(objects.daemon_set("default", "agent"))
    world.cluster.add(objects.budget("default", "b", {"app": "deployment"}, maxUnavailable=1))
    world.cluster.add(
        objects.healing_policy("default", "p", {"app": "deployment"}, {"notReadyFor": "5m"})
    )
    lease = objects.lease("selfheal", "l", "me", stamp(world.store.clock()))
    world.cluster.add(lease)
    world.time.run(30.0)
    for node in world.store.all("nodes"):
        read = node_from_json(node)
        assert (read.ready, read.unschedulable, read.zone) == (True, False, "a")
        assert read.boot_id
        assert read.allocatable.cpu == 4000
    for pod in world.store.all("pods"):
        drained, watched = pod_from_json(pod), watched_from_json(pod)
        assert node_pod_from_json(pod).uid == drained.uid == watched.uid
        assert (drained.ready, drained.grace, drained.requests.cpu) == (True, 30, 100)
        assert drained.owner_kind
    (budget,) = world.store.all("poddisruptionbudgets")
    read_budget = budget_from_json(budget)
    assert (read_budget.allowed, read_budget.healthy, read_budget.current) == (1, 2, True)
    (policy,) = world.store.all("healingpolicies")
    assert policy_from_json(policy).name == "p"
    (stored,) = world.store.all("leases")
    assert lease_from_json(stored).holder == "me"


@pytest.mark.parametrize(
    ("kind", "plural"),
    [("deployment", "deployments"), ("stateful_set", "statefulsets"), ("daemon_set", "daemonsets")],
)
def test_a_rollout_is_seen_from_its_begin_to_its_end(kind: str, plural: str) -> None:
    world = World()
    make: Callable[..., Json] = getattr(objects, kind)
    world.cluster.add(make("default", "web", *([] if kind == "daemon_set" else [2])))
    world.time.run(30.0)
    owner_kind = {"deployments": "Deployment", "statefulsets": "StatefulSet"}.get(plural, "")
    owner_kind = owner_kind or "DaemonSet"

    def rolling() -> str:
        return owner_from(the(world, plural, "web"), owner_kind).rolling

    assert rolling() == ""
    new_image(world, plural, "web")
    assert "has not observed its last change" in rolling()
    world.time.run(1.0)
    assert "a rollout is in progress" in rolling()
    world.time.run(60.0)
    assert rolling() == ""


@pytest.mark.parametrize(
    ("agent", "applied", "controller"),
    [("kubectl", False, ""), ("kubectl", True, ""), ("fleet", True, "fleet"), ("fleet", False, "")],
)
def test_who_uncordoned_is_told_where_the_api_tells_it(
    agent: str, applied: bool, controller: str
) -> None:
    world = World()
    Person(world.cluster).cordon("n0")
    Person(world.cluster, agent=agent).uncordon("n0", applied=applied)
    assert uncordoned_by_controller(node_from_json(world.cluster.node("n0"))) == controller


# -- the fake of the pure tests ---------------------------------------------------------


class Both:
    """The same objects behind the fake and the model."""

    def __init__(self) -> None:
        self.world = World()
        self.world.pod("a", nodeName="n0", annotations={"x": "y"})
        self.world.pod("b", labels={"app": "b"}, nodeName="n1")
        lease = objects.lease("selfheal", "l", "me", stamp(0))
        self.world.cluster.add(lease)
        policy = objects.healing_policy("default", "p", {"app": "a"}, {"notReadyFor": "5m"})
        self.world.cluster.add(policy)
        self.fake = FakeApi(lambda *_: "")
        for plural, path in (
            ("nodes", NODES),
            ("pods", PODS),
            ("leases", LEASES),
            ("healingpolicies", POLICIES),
        ):
            for raw in self.world.store.all(plural):
                self.fake.put(f"{path}/{raw['metadata']['name']}", clone(raw))
        self._pool = urllib3.PoolManager()

    def ask(self, method: str, url: str, body: Any, kind: str) -> tuple[Response, Response]:
        """The model's answer and the fake's; VERSION and UID stand for the object's own."""
        path = url.partition("?")[0].removesuffix("/eviction").removesuffix("/status")
        answers = []
        for there in (self._model(path), self.fake.objects.get(path)):
            meta = there["metadata"] if there is not None else {}
            text = json.dumps(body)
            text = text.replace("VERSION", str(meta.get("resourceVersion")))
            answers.append(json.loads(text.replace("UID", str(meta.get("uid")))))
        model = self.world.send(method, url, answers[0], kind)
        sent = None if body is None else json.dumps(answers[1]).encode()
        headers = {"Content-Type": kind or "application/json"}
        got = self._pool.request(method, self.fake.url + url, body=sent, headers=headers)
        return model, Response(got.status, got.headers, got.data)

    def _model(self, path: str) -> Json | None:
        answer = self.world.send("GET", path)
        return answer.json() if answer.status == 200 else None


@pytest.fixture
def both() -> Iterator[Both]:
    """Both."""
    made = Both()
    yield made
    made.fake.close()


def _op(op: str, path: str, value: Any = None) -> Json:
    return {"op": op, "path": path, "value": value}


def _eviction(name: str, uid: str = "UID") -> Json:
    options = {"preconditions": {"uid": uid}}
    return {"kind": "Eviction", "metadata": {"name": name}, "deleteOptions": options}


_CORDON = [
    _op("test", "/metadata/resourceVersion", "VERSION"),
    _op("add", "/spec/unschedulable", True),
]
_LEASE = {"kind": "Lease", "metadata": {"name": "new"}, "spec": {"holderIdentity": "me"}}
_HOLDER = _op("test", "/spec/holderIdentity", "me")
_EVENT = {
    "kind": "Event",
    "metadata": {"name": "e", "namespace": "default"},
    "involvedObject": {"kind": "Node", "name": "n0"},
}
AGREED: list[tuple[str, str, Any, str]] = [
    ("GET", f"{NODES}/n0", None, ""),
    ("GET", f"{NODES}/none", None, ""),
    ("GET", NODES, None, ""),
    ("GET", "/api/v1/pods", None, ""),
    ("GET", PODS, None, ""),
    ("GET", f"{PODS}/a", None, ""),
    ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn0", None, ""),
    ("GET", f"{PODS}?fieldSelector=metadata.name%3Db", None, ""),
    ("GET", f"{PODS}?fieldSelector=metadata.name%3Dnone", None, ""),
    ("GET", f"{PODS}?labelSelector=app%3Db", None, ""),
    ("GET", "/apis/coordination.k8s.io/v1/leases", None, ""),
    ("GET", f"{LEASES}/l", None, ""),
    ("GET", f"{LEASES}/none", None, ""),
    ("GET", POLICIES, None, ""),
    ("GET", "/apis/policy/v1/poddisruptionbudgets", None, ""),
    ("GET", "/apis/apps/v1/daemonsets", None, ""),
    ("GET", "/apis/cluster.x-k8s.io", None, ""),
    ("PATCH", f"{NODES}/n0", _CORDON, JSON_PATCH),
    ("PATCH", f"{NODES}/n0?dryRun=All", _CORDON, JSON_PATCH),
    ("PATCH", f"{NODES}/none", _CORDON, JSON_PATCH),
    ("PATCH", f"{NODES}/n0", [_op("test", "/metadata/uid", "x"), _CORDON[1]], JSON_PATCH),
    ("PATCH", f"{NODES}/n0", [_op("remove", "/spec/unschedulable")], JSON_PATCH),
    ("PATCH", f"{NODES}/n0", [_op("add", "/metadata/no/x", "y")], JSON_PATCH),
    ("PATCH", f"{LEASES}/l", [_HOLDER, _op("replace", "/spec/renewTime", "z")], JSON_PATCH),
    ("PATCH", f"{LEASES}/l", [_op("test", "/spec/holderIdentity", "x")], JSON_PATCH),
    ("PATCH", f"{LEASES}/l", {"metadata": {"resourceVersion": "VERSION"}}, MERGE),
    ("PATCH", f"{LEASES}/l", {"metadata": {"resourceVersion": "1"}}, MERGE),
    ("PATCH", f"{POLICIES}/p/status", {"metadata": {}, "status": {"state": "Idle"}}, MERGE),
    ("POST", LEASES, _LEASE, ""),
    ("POST", "/api/v1/namespaces/default/events", _EVENT, ""),
    ("POST", f"{PODS}/a/eviction", _eviction("a"), ""),
    ("POST", f"{PODS}/a/eviction?dryRun=All", _eviction("a"), ""),
    ("POST", f"{PODS}/a/eviction", _eviction("a", "other"), ""),
    ("POST", f"{PODS}/none/eviction", _eviction("none"), ""),
]


def _gist(answer: Response) -> Any:
    """What both must say: the objects' names and spec, not how an error is worded."""
    if answer.status >= 400:
        return answer.status
    body = answer.json()
    if "items" in body:
        return answer.status, sorted(item["metadata"]["name"] for item in body["items"])
    if body["kind"] in ("Event", "Status"):
        return answer.status
    return answer.status, body["metadata"].get("name"), body.get("spec")


@pytest.mark.parametrize(
    ("method", "url", "body", "kind"),
    AGREED,
    ids=[f"{m} {u} {n}" for n, (m, u, *_) in enumerate(AGREED)],
)
def test_the_fake_of_the_pure_tests_agrees(
    both: Both, method: str, url: str, body: Any, kind: str
) -> None:
    model, fake = both.ask(method, url, body, kind)
    assert _gist(model) == _gist(fake)


#: Where the fake is not like a real server, and what it says: (request, model, fake).
DIFFERENT: dict[str, tuple[tuple[str, str, Any, str], Any, Any]] = {
    "several terms of a field selector": (
        ("GET", f"{PODS}?fieldSelector=spec.nodeName%3Dn0,status.phase%3DRunning", None, ""),
        (200, ["a"]),
        (200, []),
    ),
    "pages": (("GET", f"{PODS}?limit=1", None, ""), (200, ["a"]), (200, ["a", "b"])),
    "a dry run in the body of an eviction": (
        (
            *("POST", f"{PODS}/a/eviction"),
            {
                **_eviction("a"),
                "deleteOptions": {"preconditions": {"uid": "UID"}, "dryRun": ["All"]},
            },
            "",
        ),
        201,
        201,
    ),
    "a field that is not selected by": (
        ("GET", f"{NODES}?fieldSelector=spec.nodeName%3Dx", None, ""),
        400,
        (200, []),
    ),
    "the status of an object, by its main path": (
        ("PATCH", f"{POLICIES}/p", {"metadata": {}, "status": {"state": "Idle"}}, MERGE),
        None,
        {"state": "Idle"},
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_where_the_fake_of_the_pure_tests_is_no_real_server(both: Both, name: str) -> None:
    request, wanted, fake_says = DIFFERENT[name]
    model, fake = both.ask(*request)
    if request[0] == "PATCH":
        assert (model.json().get("status"), fake.json().get("status")) == (wanted, fake_says)
        return
    assert (_gist(model), _gist(fake)) == (wanted, fake_says)
    if "dry run" in name:
        assert "deletionTimestamp" not in both.world.there("a")["metadata"]
        assert f"{PODS}/a" not in both.fake.objects, "it evicts"
