"""Faults of the API server, detectors, people and other systems of the modelled cluster."""

from __future__ import annotations

import json
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from tests.simulation.cluster import conditions, objects
from tests.simulation.cluster.autoscaler import Autoscaler, ClusterAutoscaler, Karpenter
from tests.simulation.cluster.detectors import Detectors
from tests.simulation.cluster.external_systems import ClusterApi, Kured, Medik8s
from tests.simulation.cluster.faulty_server import FaultyServer, evictions, of, writes
from tests.simulation.cluster.kubelets import Behaviour
from tests.simulation.cluster.messages import Json, Request, Response, unix
from tests.simulation.cluster.people import Person
from tests.simulation.cluster.watches import WatchStream
from tests.simulation.test_cluster_controllers import image_of, names, nodes_of, pods
from tests.simulation.test_cluster_model import NODES, PODS, World, events

KIND = "KernelDeadlock"


class FaultyWorld(World):
    """Requests go through the faulty server."""

    def __init__(self, nodes: int = 2) -> None:
        super().__init__(nodes)
        self.faulty = FaultyServer(self.cluster.api)

    def ask(self, method: str, url: str, body: Any = None) -> Response:
        """One request, which is no watch."""
        headers = {"Content-Type": "application/json-patch+json"}
        text = None if body is None else json.dumps(body).encode()
        answer = self.faulty.handle(Request.to(method, url, headers=headers, body=text))
        assert isinstance(answer, Response)
        return answer

    def follow(self, url: str) -> WatchStream:
        """A watch from now on."""
        url = f"{url}?watch=true&resourceVersion={self.store.version}&allowWatchBookmarks=true"
        answer = self.faulty.handle(Request.to("GET", url))
        assert isinstance(answer, WatchStream)
        return answer

    def cordon(self) -> Response:
        """A change of the node as it is, with its version as a test."""
        version = self.cluster.node("n0")["metadata"]["resourceVersion"]
        patch = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": version},
            {"op": "add", "path": "/spec/unschedulable", "value": True},
        ]
        return self.ask("PATCH", f"{NODES}/n0", patch)

    def put_out(self, pod: str) -> Response:
        """An eviction."""
        body = {"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": pod}}
        return self.ask("POST", f"{PODS}/{pod}/eviction", body)


# -- faults -----------------------------------------------------------------------------

FAULTS: dict[str, tuple[Callable[[FaultyServer], None], int, str]] = {
    "throttled": (lambda f: f.throttle(10.0), 429, "Too many requests"),
    "500": (lambda f: f.fail(10.0), 500, "etcdserver: request timed out"),
    "502": (lambda f: f.fail(10.0, 502), 502, "Bad Gateway"),
    "503": (lambda f: f.fail(10.0, 503), 503, "apiserver not ready"),
    "504": (lambda f: f.fail(10.0, 504), 504, "did not complete"),
    "token": (lambda f: f.refuse_token(10.0), 401, "Unauthorized"),
    "expired": (lambda f: f.expire_lists(10.0), 410, "too old"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_lasts_its_time(name: str) -> None:
    world = FaultyWorld()
    begin, status, text = FAULTS[name]
    begin(world.faulty)
    answer = world.ask("GET", NODES)
    assert answer.status == status
    assert text in answer.body.decode()
    world.time.run(11.0)
    assert world.ask("GET", NODES).status == 200
    assert [what[2:] for what in world.faulty.happened] == [("GET", NODES)]


def test_flow_control_says_when_to_come_again() -> None:
    world = FaultyWorld()
    world.faulty.throttle(10.0, retry_after=7, times=1)
    first = world.ask("GET", NODES)
    assert (first.status, first.headers["Retry-After"]) == (429, "7")
    assert world.ask("GET", NODES).status == 200
    world.faulty.throttle(10.0, retry_after=7, as_date=True)
    dated = world.ask("GET", NODES).headers
    at, now = (parsedate_to_datetime(dated[key]).timestamp() for key in ("Retry-After", "Date"))
    assert at - now == 7


@pytest.mark.parametrize("after", [False, True])
def test_a_failed_write_may_have_taken_effect(after: bool) -> None:
    world = FaultyWorld()
    world.faulty.fail(10.0, matches=writes, after_it_took_effect=after)
    assert world.cordon().status == 500
    assert bool(world.cluster.node("n0")["spec"].get("unschedulable")) is after


def test_somebody_else_is_always_faster() -> None:
    world = FaultyWorld()
    world.faulty.interfere(10.0, of("nodes"), times=2)
    # The fault itself answers nothing: it is the changed version that the test operation finds.
    assert [world.cordon().status for _ in range(3)] == [422, 422, 200]


@pytest.mark.parametrize(
    ("begin", "status", "text"),
    [
        (lambda f: f.deny(10.0), 403, "admission webhook"),
        (lambda f: f.deny(10.0, code=429), 429, "admission webhook"),
        (lambda f: f.webhook_unreachable(10.0), 500, "failed calling webhook"),
        (lambda f: f.evictions_delete_nothing(10.0), 201, "Success"),
    ],
)
def test_webhooks_about_evictions(
    begin: Callable[[FaultyServer], None], status: int, text: str
) -> None:
    world = FaultyWorld()
    world.pod("a")
    begin(world.faulty)
    answer = world.put_out("a")
    assert answer.status == status
    assert text in answer.body.decode()
    assert "Retry-After" not in answer.headers
    assert "deletionTimestamp" not in world.there("a")["metadata"]
    assert world.cordon().status == 200, "it is asked about evictions only"
    world.faulty.clear()
    assert world.put_out("a").status == 201
    assert "deletionTimestamp" in world.there("a")["metadata"]


def test_a_cache_that_is_behind_is_old_for_watches_and_cached_lists_alone() -> None:
    world = FaultyWorld()
    before = world.follow(NODES)
    world.faulty.fall_behind(20.0)
    after = world.follow(NODES)
    world.cordon()
    assert events(before) == events(after) == []
    cached = world.ask("GET", f"{NODES}?resourceVersion=0&limit=1").json()["items"]
    assert ["unschedulable" in item["spec"] for item in cached] == [False, False]
    fresh = world.ask("GET", NODES).json()["items"]
    assert [item["spec"].get("unschedulable", False) for item in fresh] == [True, False]
    world.time.run(21.0)
    assert events(before)[0][1]["spec"]["unschedulable"] is True
    assert events(after)[0][1]["spec"]["unschedulable"] is True
    assert not before.ended


def test_states_between_are_never_seen() -> None:
    world = FaultyWorld()
    stream = world.follow(NODES)
    version = world.store.version
    world.faulty.skip_states(20.0)
    world.cordon()
    person = Person(world.cluster)
    person.uncordon("n0")
    world.time.run(21.0)
    assert stream.broken
    assert events(stream) == []
    url = f"{NODES}?watch=true&resourceVersion={version}"
    again = world.faulty.handle(Request.to("GET", url))
    assert isinstance(again, WatchStream)
    assert [kind for kind, _ in events(again)] == ["ERROR"]


def test_watches_can_be_cut() -> None:
    world = FaultyWorld()
    streams = [world.follow(NODES), world.follow(PODS)]
    assert world.faulty.cut_watches() == 2
    assert all(stream.broken and stream.ended for stream in streams)
    assert world.cluster.api.watches == []


def test_a_restore_brings_back_what_was() -> None:
    world = FaultyWorld()
    saved = world.store.backup()
    world.cordon()
    uid = world.cluster.add(objects.pod("default", "new"))["metadata"]["uid"]
    world.faulty.restore(saved)
    assert "unschedulable" not in world.cluster.node("n0")["spec"]
    assert world.store.get("pods", "default", "new") is None
    again = world.cluster.add(objects.pod("default", "new"))
    assert again["metadata"]["uid"] != uid, "uids are never used twice"


# -- detectors --------------------------------------------------------------------------


def _condition(world: World, node: str = "n0", kind: str = KIND) -> Json:
    found = conditions.find(world.cluster.node(node), kind)
    assert found is not None
    return found


def _detected(nodes: int = 2) -> tuple[World, Detectors]:
    world = World(nodes)
    detectors = Detectors(world.cluster, [KIND, "ReadonlyFilesystem"])
    for number in range(nodes):
        detectors.start(f"n{number}")
    world.time.run(30.0)
    return world, detectors


def test_a_heartbeat_moves_no_transition() -> None:
    world, detectors = _detected()
    detectors.report("n0", KIND, "True")
    world.time.run(2.0)
    first = _condition(world)
    world.time.run(700.0)
    later = _condition(world)
    assert later["lastTransitionTime"] == first["lastTransitionTime"]
    assert unix(later["lastHeartbeatTime"]) > unix(first["lastHeartbeatTime"])
    age = world.store.clock() - unix(later["lastHeartbeatTime"])
    assert age <= detectors.heartbeat


@pytest.mark.parametrize(
    ("findings", "option", "moves"),
    [
        ([("True", "A", ""), ("True", "B", "")], False, True),
        ([("True", "A", "x"), ("True", "A", "y")], False, False),
        ([("True", "A", "x"), ("True", "A", "y")], True, True),
        ([("True", "A", "x"), ("True", "A", "x")], True, False),
    ],
)
def test_what_moves_the_transition_of_a_bad_condition(
    findings: list[tuple[str, str, str]], option: bool, moves: bool
) -> None:
    world, detectors = _detected()
    detectors.of["n0"].transitions_by_message = option
    detectors.alternate("n0", KIND, findings, every=10.0, times=2)
    world.time.run(5.0)
    first = _condition(world)["lastTransitionTime"]
    world.time.run(30.0)
    assert _condition(world)["message" if findings[1][2] else "reason"] in findings[1]
    assert (_condition(world)["lastTransitionTime"] != first) is moves


def test_a_detectors_restart_resets_every_condition() -> None:
    world, detectors = _detected()
    detectors.report("n0", KIND, "True")
    world.time.run(30.0)
    other = _condition(world, kind="ReadonlyFilesystem")["lastTransitionTime"]
    detectors.restart("n0")
    world.time.run(5.0)
    assert _condition(world)["status"] == "False"
    assert _condition(world, kind="ReadonlyFilesystem")["lastTransitionTime"] != other


def test_a_dead_detector_leaves_its_conditions_and_writes_nothing() -> None:
    world, detectors = _detected()
    detectors.report("n0", KIND, "True")
    world.time.run(5.0)
    detectors.stop("n0")
    before = _condition(world)
    detectors.report("n0", KIND, "False")
    world.time.run(2000.0)
    assert _condition(world) == before


def test_a_detector_whose_machine_is_down_writes_nothing() -> None:
    world, detectors = _detected()
    world.cluster.kubelets.of["n0"].die()
    detectors.report("n0", KIND, "True")
    world.time.run(10.0)
    assert _condition(world)["status"] == "False"


def test_a_wave_is_over_by_itself() -> None:
    world, detectors = _detected(nodes=5)
    nodes = [f"n{number}" for number in range(4)]
    detectors.wave(nodes, KIND, within=5.0, lasts=100.0)
    world.time.run(20.0)
    states = [_condition(world, f"n{number}")["status"] for number in range(5)]
    assert states == ["True"] * 4 + ["False"]
    world.time.run(100.0)
    assert {_condition(world, node)["status"] for node in nodes} == {"False"}


def test_conditions_have_the_nodes_own_time() -> None:
    world, detectors = _detected()
    world.cluster.kubelets.of["n0"].skew = 900.0
    detectors.report("n0", KIND, "True")
    world.time.run(5.0)
    assert unix(_condition(world)["lastTransitionTime"]) - world.store.clock() > 800.0


# -- people -----------------------------------------------------------------------------


def test_a_drain_by_hand_empties_the_node_and_keeps_budgets() -> None:
    world = World()
    world.cluster.add(objects.deployment("default", "web", 4))
    world.cluster.add(objects.daemon_set("default", "agent"))
    world.cluster.add(objects.budget("default", "b", {"app": "web"}, maxUnavailable=1))
    world.time.run(10.0)
    least = [4]

    def count() -> None:
        ready = [p for p in pods(world, "web") if conditions.status_of(p, "Ready") == "True"]
        least.append(sum("deletionTimestamp" not in p["metadata"] for p in ready))
        world.time.after(0.1, count)

    count()
    Person(world.cluster).drain("n0")
    world.time.run(60.0)
    assert nodes_of(world, "web") == ["n1"] * 4
    assert nodes_of(world, "agent") == ["n0", "n1"]
    assert min(least) == 3


def test_what_people_change_bears_their_name() -> None:
    world = World()
    by: list[str] = []
    world.store.subscribe(lambda change: by.append(change.by))
    person = Person(world.cluster, agent="k9s", name="eve")
    assert person.cordon("n0").status == 200
    assert by == ["eve"]
    (entry,) = world.cluster.node("n0")["metadata"]["managedFields"]
    assert entry["manager"] == "k9s"
    person.uncordon("n0", applied=True)
    node = world.cluster.node("n0")
    assert "unschedulable" not in node["spec"]
    assert node["metadata"]["managedFields"][0]["operation"] == "Apply"


def test_a_rollout_by_hand_replaces_each_pod() -> None:
    world = World()
    world.cluster.add(objects.deployment("default", "web", 2))
    world.time.run(10.0)
    before = set(names(world, "web"))
    Person(world.cluster).restart("deployments", "default", "web")
    world.time.run(30.0)
    assert not before & set(names(world, "web"))
    assert {image_of(pod) for pod in pods(world, "web")} == {"app:1"}


# -- other systems ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ClusterAutoscaler, Karpenter])
def test_an_autoscaler_adds_a_node_for_a_pod_that_fits_nowhere_and_removes_it_when_empty(
    kind: type[Autoscaler],
) -> None:
    world = World(nodes=1)
    autoscaler = kind(world.cluster, provision=30.0, unneeded=120.0)
    world.pod("big", cpu="3")
    world.pod("bigger", cpu="3", terminationGracePeriodSeconds=1)
    assert "nodeName" not in world.there("bigger")["spec"]
    world.time.run(80.0)
    assert world.there("bigger")["spec"]["nodeName"] == "scaled-1"
    lease = world.store.get("leases", "kube-system", kind.lease)
    assert lease is not None
    assert world.store.clock() - unix(lease["spec"]["renewTime"]) <= 10.0
    world.send("DELETE", f"{PODS}/bigger")
    world.time.run(140.0)
    (taint,) = world.cluster.node("scaled-1")["spec"]["taints"]
    assert taint["key"] == autoscaler.taint()["key"]
    world.time.run(40.0)
    assert world.store.get("nodes", "", "scaled-1") is None


def test_a_node_that_must_not_be_scaled_down_stays() -> None:
    world = World(nodes=2)
    ClusterAutoscaler(world.cluster, unneeded=60.0)
    mark = {"cluster-autoscaler.kubernetes.io/scale-down-disabled": "true"}
    Person(world.cluster).annotate("nodes", "", "n0", **mark)
    world.time.run(300.0)
    left = [node["metadata"]["name"] for node in world.store.all("nodes")]
    assert left == ["n0"]


def test_the_status_of_the_autoscaler_is_read_by_its_reader() -> None:
    world = World()
    ClusterAutoscaler(world.cluster)
    world.time.run(20.0)
    answer = world.send(
        "GET", "/api/v1/namespaces/kube-system/configmaps/cluster-autoscaler-status"
    )
    from selfheal_remediator.drain.autoscaler import status_time

    written = status_time(answer.json())
    assert written is not None
    assert 0.0 <= world.store.clock() - written <= 11.0


def test_machines_and_leases_claim_their_nodes() -> None:
    from selfheal_remediator.kube.lease import lease_from_json
    from selfheal_remediator.node.external_claims import leased, machines

    world = World(nodes=3)
    capi, medik8s = ClusterApi(world.cluster), Medik8s(world.cluster)
    for name in ("n0", "n1", "n2"):
        capi.adopt(name)
    group = world.send("GET", "/apis/cluster.x-k8s.io").json()["preferredVersion"]["version"]
    url = f"/apis/cluster.x-k8s.io/{group}/machines"
    assert machines(world.send("GET", url).json()["items"]) == {}
    capi.delete("n0", 60.0)
    capi.remediate("n1", 60.0)
    assert sorted(machines(world.send("GET", url).json()["items"])) == ["n0", "n1"]
    medik8s.maintain("n2", 100.0)
    path = "/apis/coordination.k8s.io/v1/namespaces/medik8s-leases/leases"
    leases = [lease_from_json(item) for item in world.send("GET", path).json()["items"]]
    assert list(leased(leases, world.store.clock())) == ["n2"]
    world.time.run(120.0)
    assert machines(world.send("GET", url).json()["items"]) == {}
    assert world.send("GET", path).json()["items"] == []
    assert world.store.get("nodes", "", "n0") is None


@pytest.mark.parametrize("cordoned", [False, True])
def test_kured_leaves_a_node_as_it_found_it(cordoned: bool) -> None:
    world = World()
    if cordoned:
        Person(world.cluster).cordon("n0")
    Kured(world.cluster).reboot("n0")
    world.time.run(20.0)
    assert world.cluster.node("n0")["spec"]["unschedulable"] is True
    world.time.run(200.0)
    assert bool(world.cluster.node("n0")["spec"].get("unschedulable")) is cordoned
    assert world.cluster.node("n0")["status"]["nodeInfo"]["bootID"] == "boot-n0-2"


def test_pods_that_hang_are_let_go_of_by_people() -> None:
    world = World()
    world.pod("a")
    world.cluster.kubelets.behaviour = lambda _: Behaviour(stop=None)
    person = Person(world.cluster)
    assert person.delete("pods", "default", "a").status == 200
    world.time.run(100.0)
    world.there("a")
    person.delete("pods", "default", "a", gracePeriodSeconds=0)
    assert world.store.get("pods", "default", "a") is None


def test_evictions_are_what_they_are() -> None:
    assert evictions(Request.to("POST", f"{PODS}/a/eviction"))
    assert not evictions(Request.to("POST", "/api/v1/namespaces/default/events"))
