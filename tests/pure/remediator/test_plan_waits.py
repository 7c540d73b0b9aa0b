"""What `plan` says of things that wait: for limits, windows, room, budgets, and other systems."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from selfheal_remediator.cli.inspection import ClusterPlan, NodePlan, plan
from selfheal_remediator.cli.tables import painted, plan_text
from selfheal_remediator.config import Config
from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.node.annotation import STATE_KEY, Phase, State
from tests.pure.remediator.builders import OWNER
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.running import NODES, PODS, node, pod, stamp
from tests.pure.remediator.steps_world import client

LEASES = "/apis/coordination.k8s.io/v1/namespaces"
VOLUMES = "/apis/storage.k8s.io/v1/volumeattachments"
#: Midnight and noon of 2027-01-04, a Monday.
NOON = 1_799_064_000.0


def settings(**more: Any) -> Config:
    drain = {"headroom": False, **more.pop("drain", {})}
    rule = {"condition": "Fault", "for": 0, "action": "drain", "heartbeat": None}
    limits = {"maxUnavailable": "100%", "maxDraining": 9, **more.pop("limits", {})}
    return Config.model_validate(
        {
            "rules": [{**rule, **more.pop("rule", {})}],
            "limits": limits,
            "drain": drain,
            "signal": {"enabled": False},
            "policies": {"enabled": False},
            **more,
        }
    )


@pytest.fixture
def server() -> Iterator[FakeApi]:
    made = FakeApi(lambda verb, path: "")
    yield made
    made.close()


def bad(server: FakeApi, name: str, *, state: State | None = None, **more: Any) -> None:
    """A bad node of the pool `a`, with a pod."""
    raw = node(name, "True", **({"unschedulable": True} if state is not None else {}))
    raw["metadata"]["labels"] = {"pool": "a"}
    raw["metadata"]["annotations"] |= more.pop("annotations", {})
    if state is not None:
        raw["metadata"]["annotations"][STATE_KEY] = state.to_json()
    raw["status"]["allocatable"] = more.pop("allocatable", {"cpu": "1", "pods": "10"})
    server.put(f"{NODES}/{name}", raw)
    raw = pod(f"of-{name}", name)
    raw["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    server.put(f"{PODS}/of-{name}", raw)


def planned(server: FakeApi, about: Config, now: float | None = None, **more: Any) -> ClusterPlan:
    return plan(client(server), about, OWNER, "", time.time() if now is None else now, **more)


def of(found: ClusterPlan, name: str) -> NodePlan:
    [item] = [item for item in found.nodes if item.node == name]
    return item


def test_a_node_is_cordoned_now_and_its_drain_waits_for_another(server: FakeApi) -> None:
    for name in ("one", "two"):
        bad(server, name)
    found = planned(server, settings(limits={"maxDraining": 1}))
    assert [(item.limit, item.drain_waits) for item in found.nodes] == [
        ("", ""),
        ("", "maxDraining: 1 drains, allowed 1"),
    ]
    text = painted(plan_text(found, detail=False), color=False)
    [row] = [line for line in text.splitlines() if line.startswith("two ")]
    assert "cordon, drain (waits)  maxDraining: 1 drains, allowed 1" in row
    first, second = found.to_json()["nodes"]
    assert "drain_waits" not in first
    assert second["drain_waits"]


def test_a_drain_that_waits_for_its_window_counts_from_there(server: FakeApi) -> None:
    """Until when a pod may complete, and which delay is left."""
    bad(server, "one")
    raw = pod("job", "one")
    raw["metadata"]["ownerReferences"][0] |= {"apiVersion": "batch/v1", "kind": "Job"}
    server.put(f"{PODS}/job", raw)
    nights = [{"start": "22:00", "end": "04:00"}]
    group = {"name": "a", "nodeSelector": {"pool": "a"}, "maintenanceWindows": nights}
    group["nodeSelector"] = {"matchLabels": {"pool": "a"}}
    about = settings(groups=[group], drain={"waitForCompletion": {"max": "1h"}, "delay": "5m"})
    item = of(planned(server, about, NOON), "one")
    opens = time_text(NOON + 10 * 3600)
    waits = f"paused: no maintenance window of group a is open before {opens}"
    assert (item.action, item.limit, item.drain_waits) == ("drain", "", waits)
    [job] = [one for one in item.pods if one.pod == "d/job"]
    assert job.reason.startswith(f"may complete until {time_text(NOON + 11 * 3600)}")
    assert not [note for note in item.notes if "drain.delay" in note]


def test_of_a_drain_of_which_nobody_knows_when_it_begins_no_time_is_told(server: FakeApi) -> None:
    for name in ("one", "two"):
        bad(server, name)
        raw = pod(f"job-{name}", name)
        raw["metadata"]["ownerReferences"][0] |= {"apiVersion": "batch/v1", "kind": "Job"}
        server.put(f"{PODS}/job-{name}", raw)
    about = settings(limits={"maxDraining": 1}, drain={"waitForCompletion": {"max": "1h"}})
    found = planned(server, about, NOON)
    told = {one.pod: one.reason for item in found.nodes for one in item.pods if one.reason}
    assert told == {
        "d/job-one": f"may complete until {time_text(NOON + 3600)}: batch/Job r",
        "d/job-two": "may complete for 60m from its drain on: batch/Job r",
    }


def test_a_pace_says_until_when(server: FakeApi) -> None:
    for name in ("one", "two"):
        bad(server, name)
    found = planned(server, settings(limits={"minInterval": "10m"}), NOON)
    until = time_text(NOON + 600)
    assert of(found, "two").limit == f"minInterval: 600s between two cordons, not before {until}"


def _large(server: FakeApi, name: str, where: str) -> None:
    raw = pod(name, where)
    raw["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "800m"}}
    server.put(f"{PODS}/{name}", raw)


def test_drains_that_begin_at_once_need_their_room_together(server: FakeApi) -> None:
    for name in ("one", "two"):
        bad(server, name)
        _large(server, f"large-{name}", name)
    raw = node("free", "False")
    raw["status"]["allocatable"] = {"cpu": "1", "pods": "10"}
    server.put(f"{NODES}/free", raw)
    found = planned(server, settings(drain={"headroom": True}))
    assert [bool(of(found, name).headroom) for name in ("one", "two")] == [False, True]
    one_by_one = settings(drain={"headroom": True}, limits={"maxDraining": 1})
    found = planned(server, one_by_one)
    assert [bool(of(found, name).headroom) for name in ("one", "two")] == [False, True]


def test_a_drain_under_way_keeps_the_room_that_it_is_still_to_use(server: FakeApi) -> None:
    about = settings(drain={"headroom": True})
    begun = replace(_drained(about), phase=Phase.DRAINING)
    bad(server, "one", state=begun)
    bad(server, "two")
    for name in ("one", "two"):
        _large(server, f"large-{name}", name)
    raw = node("free", "False")
    raw["status"]["allocatable"] = {"cpu": "1", "pods": "10"}
    server.put(f"{NODES}/free", raw)
    assert of(planned(server, about), "two").headroom
    bad(server, "one", state=replace(begun, by="another"))
    assert not of(planned(server, about), "two").headroom


def _budget(server: FakeApi, allowed: int) -> None:
    meta = {"namespace": "d", "name": "b", "uid": "b", "generation": 1}
    status = {"disruptionsAllowed": allowed, "currentHealthy": 2, "desiredHealthy": 2 - allowed}
    spec = {"selector": {}, "minAvailable": 2 - allowed}
    raw = {"metadata": meta, "spec": spec, "status": {**status, "observedGeneration": 1}}
    server.put("/apis/policy/v1/namespaces/d/poddisruptionbudgets/b", raw)


@pytest.mark.parametrize(
    ("drain", "limits", "waits"),
    [({}, {}, [False, True]), ({}, {"maxDraining": 1}, [False, False])],
)
def test_what_a_drain_would_use_up_of_a_budget_later_is_there_now(
    server: FakeApi, drain: dict[str, Any], limits: dict[str, Any], waits: list[bool]
) -> None:
    _budget(server, 1)
    for name in ("one", "two"):
        bad(server, name)
    found = planned(server, settings(drain=drain, limits=limits))
    assert [bool(item.pods[0].waits) for item in found.nodes] == waits


def test_a_node_without_room_elsewhere_uses_up_no_budget(server: FakeApi) -> None:
    _budget(server, 1)
    bad(server, "one")
    _large(server, "of-one", "one")
    bad(server, "two")
    raw = node("full", "False")
    raw["status"]["allocatable"] = {"cpu": "500m", "pods": "10"}
    server.put(f"{NODES}/full", raw)
    found = planned(server, settings(drain={"headroom": True}))
    assert of(found, "one").headroom
    assert not of(found, "two").headroom
    assert not of(found, "two").pods[0].waits


def _lease(server: FakeApi, namespace: str, name: str, holder: str, **labels: str) -> None:
    meta = {"namespace": namespace, "name": name, "labels": labels, "creationTimestamp": stamp(900)}
    spec = {"holderIdentity": holder, "renewTime": stamp(1), "leaseDurationSeconds": 600}
    server.put(f"{LEASES}/{namespace}/leases/{name}", {"metadata": meta, "spec": spec})


def test_a_node_that_medik8s_has_a_lease_for_is_left_alone(server: FakeApi) -> None:
    bad(server, "one")
    _lease(server, "medik8s-leases", "node-one", "self-node-remediation")
    item = of(planned(server, settings()), "one")
    assert (item.action, item.state) == ("none", "foreign-mark")
    assert "self-node-remediation holds its maintenance lease" in item.why


def test_another_remediator_that_comes_first_is_a_note(server: FakeApi) -> None:
    bad(server, "one")
    _lease(server, "other", "remediator", "other-1", **{"selfheal.dev/remediator": "true"})
    [note] = planned(server, settings()).notes
    assert note.startswith("the remediator other/remediator is older")


def test_where_leases_cannot_be_read_the_rest_is_shown(server: FakeApi) -> None:
    bad(server, "one")
    server.disturb = lambda _, path: "403" if path.endswith("/leases") else ""
    found = planned(server, settings())
    assert of(found, "one").action == "drain"
    assert any("Leases cannot be read" in note for note in found.notes)


def _drained(about: Config) -> State:
    mark, now = about.rules[0].mark, int(time.time())
    return State(Phase.DRAINED, OWNER, "Fault", "True", action="drain", rule=mark, since=now)


def test_the_first_step_begins_once_no_volume_is_attached(server: FakeApi) -> None:
    about = settings(rule={"then": [{"wait": "1m"}]})
    bad(server, "one", state=_drained(about))
    item = of(planned(server, about), "one")
    assert (item.action, item.why) == ("repair", "step 1 of 1 (wait) is to begin")
    attached = {"metadata": {"name": "csi-1"}, "spec": {"nodeName": "one"}}
    server.put(f"{VOLUMES}/csi-1", attached)
    item = of(planned(server, about), "one")
    assert (item.action, item.why) == ("none", "waiting until detached: csi-1")


def test_a_step_that_waits_for_others_says_so(server: FakeApi) -> None:
    about = settings(rule={"then": [{"wait": "1m"}]}, limits={"maxRepairing": 1})
    for name in ("one", "two"):
        bad(server, name, state=_drained(about))
    found = planned(server, about)
    assert [(item.action, item.limit) for item in found.nodes] == [
        ("repair", ""),
        ("repair", "maxRepairing: 1 nodes are being repaired, allowed 1"),
    ]


def test_nodes_that_cannot_be_read_count_as_out_of_service(server: FakeApi) -> None:
    bad(server, "one")
    server.put(f"{NODES}/odd", {"metadata": {"name": "odd"}, "spec": 5})
    item = of(planned(server, settings(limits={"maxUnavailable": 1})), "one")
    assert item.limit.startswith("unavailable: 0 nodes cordoned, 1 unavailable")


def test_the_leaders_own_pod_goes_last(server: FakeApi) -> None:
    bad(server, "one")
    own = server.put(f"{PODS}/own", pod("own", "one"))["metadata"]["uid"]
    item = of(planned(server, settings(), own_uid=own), "one")
    assert {one.pod: one.wave for one in item.pods} == {"d/of-one": 0, "d/own": 2}
