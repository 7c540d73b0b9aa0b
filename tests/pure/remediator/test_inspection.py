"""What `plan` and `status` say where something cannot be read, or is not known to them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes.client import Configuration

from selfheal_remediator.cli.inspection import plan, status
from selfheal_remediator.cli.tables import table
from selfheal_remediator.config import Config
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.node.annotation import STATE_KEY, Phase, State
from tests.pure.remediator.builders import OWNER
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.running import NODES, PODS, node, pod

LIMITS = {"maxUnavailable": "100%"}


def _config(**limits: Any) -> Config:
    rule = {"condition": "Fault", "for": 0, "action": "drain"}
    return Config.model_validate(
        {"rules": [rule], "limits": {**LIMITS, **limits}, "policies": {"enabled": False}}
    )


@pytest.fixture
def server() -> Iterator[FakeApi]:
    """A bad node, with a pod whose claim is not there."""
    made = FakeApi(lambda verb, path: "")
    with_claim = pod("db", "bad")
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    with_claim["spec"]["volumes"] = [volume]
    made.put(f"{PODS}/db", with_claim)
    made.put(f"{NODES}/bad", node("bad", "True"))
    yield made
    made.close()


def _api(server: FakeApi, config: Config) -> KubernetesApi:
    access = Configuration()
    access.host = server.url
    return KubernetesApi(access, "d", config.api)


def test_a_claim_that_cannot_be_read_is_a_note_of_the_plan(server: FakeApi) -> None:
    [item] = plan(_api(server, _config()), _config(), OWNER, "", time.time()).nodes
    assert (item.action, [one.fate for one in item.pods]) == ("drain", ["stay"])
    assert "its claim data cannot be read" in item.pods[0].reason
    assert any("claim d/data cannot be read" in note for note in item.notes)


def test_and_of_the_status(server: FakeApi) -> None:
    now = int(time.time())
    state = State(Phase.DRAINING, OWNER, "Fault", "True", since=now, drain_started=now)
    raw = node("bad", "True", unschedulable=True)
    raw["metadata"]["annotations"][STATE_KEY] = state.to_json()
    server.put(f"{NODES}/bad", raw)
    [item] = status(_api(server, _config()), _config(), None, time.time()).cordoned
    assert item.pods_left == 0
    assert "claim d/data cannot be read" in item.note


@pytest.mark.parametrize(("fault", "said"), [("True", ""), ("False", "Fault is False now")])
def test_the_status_says_when_the_condition_has_changed_meanwhile(
    server: FakeApi, fault: str, said: str
) -> None:
    state = State(Phase.CORDONED, OWNER, "Fault", "True", since=int(time.time()))
    raw = node("bad", fault, unschedulable=True)
    raw["metadata"]["annotations"][STATE_KEY] = state.to_json()
    server.put(f"{NODES}/bad", raw)
    [item] = status(_api(server, _config()), _config(), None, time.time()).cordoned
    assert item.note == said


@pytest.mark.parametrize(
    "pace",
    [{"rate": {"count": 1, "window": "1h"}}, {"minInterval": "1h"}],
    ids=["rate", "interval"],
)
def test_a_plan_takes_nothing_of_the_pace_as_used_up(server: FakeApi, pace: dict[str, Any]) -> None:
    server.put(f"{NODES}/bad-too", node("bad-too", "True"))
    config = _config(**pace)
    found = plan(_api(server, config), config, OWNER, "", time.time())
    assert len([item for item in found.nodes if not item.limit]) == 1


def _unreadable(server: FakeApi, what: str) -> None:
    server.disturb = lambda _, path: "403" if path.rsplit("/", 1)[1] == what else ""


@pytest.mark.parametrize("phase", [Phase.CORDONED, Phase.DRAINING])
def test_where_daemon_sets_cannot_be_read_their_pods_are_not_recognised(
    server: FakeApi, phase: Phase
) -> None:
    """They may be orphans, which a drain would evict."""
    raw = pod("agent", "bad")
    owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent", "uid": "agent"}
    raw["metadata"]["ownerReferences"] = [{**owner, "controller": True}]
    server.put(f"{PODS}/agent", raw)
    _unreadable(server, "daemonsets")
    [item] = plan(_api(server, _config()), _config(), OWNER, "", time.time()).nodes
    [agent] = [one for one in item.pods if one.pod == "d/agent"]
    assert (agent.fate, "its DaemonSet agent cannot be read" in agent.reason) == ("stay", True)
    assert any("DaemonSets cannot be read" in note for note in item.notes)
    now = int(time.time())
    state = State(phase, OWNER, "Fault", "True", since=now, drain_started=now)
    cordoned = node("bad", "True", unschedulable=True)
    cordoned["metadata"]["annotations"][STATE_KEY] = state.to_json()
    server.put(f"{NODES}/bad", cordoned)
    [shown] = status(_api(server, _config()), _config(), None, time.time()).cordoned
    assert ("DaemonSets cannot be read" in shown.note) is (phase is Phase.DRAINING)


def _daemon_pod(name: str, where: str) -> dict[str, Any]:
    raw = pod(name, where)
    owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": name, "uid": f"uid-{name}"}
    raw["metadata"]["ownerReferences"] = [{**owner, "controller": True}]
    return raw


def _daemon_set(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "d", "uid": f"uid-{name}"}}


DAEMON_SETS = "/apis/apps/v1/daemonsets"


def _draining(server: FakeApi, name: str) -> None:
    now = int(time.time())
    state = State(Phase.DRAINING, OWNER, "Fault", "True", since=now, drain_started=now)
    cordoned = node(name, "True", unschedulable=True)
    cordoned["metadata"]["annotations"][STATE_KEY] = state.to_json()
    server.put(f"{NODES}/{name}", cordoned)


def test_daemon_sets_are_listed_once_for_all_nodes(server: FakeApi) -> None:
    asked: list[str] = []
    server.disturb = lambda _, path: asked.append(path) or ""  # type: ignore[func-returns-value]
    for name in ("a", "b", "c"):
        server.put(f"{NODES}/{name}", node(name, "True"))
        server.put(f"{PODS}/agent-{name}", _daemon_pod(f"agent-{name}", name))
    shown = plan(_api(server, _config()), _config(), OWNER, "", time.time(), only="abc").nodes
    assert [len(item.pods) for item in shown] == [1, 1, 1]
    assert asked.count(DAEMON_SETS) == 1
    asked.clear()
    for name in ("a", "b", "c"):
        _draining(server, name)
    assert len(status(_api(server, _config()), _config(), None, time.time()).cordoned) == 3
    assert asked.count(DAEMON_SETS) == 1


def test_what_cannot_be_read_hides_nothing_else(server: FakeApi) -> None:
    server.put(f"{NODES}/odd", {"metadata": {"name": "odd"}, "spec": 5})
    server.put("/apis/policy/v1/poddisruptionbudgets/odd", {"metadata": {"name": "odd"}})
    server.put(f"{DAEMON_SETS}/odd", {"metadata": {"name": "odd"}})
    server.put(f"{DAEMON_SETS}/agent", _daemon_set("agent"))
    server.put(f"{PODS}/agent", _daemon_pod("agent", "bad"))
    server.put(f"{PODS}/orphan", _daemon_pod("orphan", "bad"))
    odd = pod("odd", "bad")
    odd["spec"]["containers"] = 5
    server.put(f"{PODS}/odd", odd)
    shown = plan(_api(server, _config()), _config(), OWNER, "", time.time())
    [item] = shown.nodes
    fates = {one.pod: one.fate for one in item.pods}
    assert fates == {"d/agent": "ignore", "d/orphan": "stay", "d/db": "stay", "d/odd": "stay"}
    assert [note.split(":")[0] for note in shown.notes] == [
        "node odd",
        "PodDisruptionBudget odd",
        "DaemonSet odd",
    ]
    _draining(server, "bad")
    found = status(_api(server, _config()), _config(), None, time.time())
    assert [one.node for one in found.cordoned] == ["bad"]
    assert len(found.notes) == 3


def test_where_budgets_cannot_be_read_the_status_says_so(server: FakeApi) -> None:
    _unreadable(server, "poddisruptionbudgets")
    notes = status(_api(server, _config()), _config(), None, time.time()).notes
    assert any("PodDisruptionBudgets cannot be read" in note for note in notes)


def test_a_plan_says_that_limits_of_volumes_are_not_evaluated(server: FakeApi) -> None:
    config = _config()
    [item] = plan(_api(server, config), config, OWNER, "", time.time()).nodes
    assert not any("CSINode" in note for note in item.notes)  # the pod stays
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "d"}}
    server.put("/api/v1/namespaces/d/persistentvolumeclaims/data", {**claim, "spec": {}})
    [item] = plan(_api(server, config), config, OWNER, "", time.time()).nodes
    assert [one.fate for one in item.pods] == ["evict"]
    assert any("CSINode" in note for note in item.notes)


def test_what_others_wrote_moves_no_terminal() -> None:
    text = table(("A", "B"), [("x\x1b[31mred", "two\nlines\r\u202eback")])
    assert text.split("\n") == ["<bold>A          B</bold>", "x [31mred  two lines  back"]


def test_the_plan_numbers_the_waves_of_priorities(server: FakeApi) -> None:
    for name, priority in (("low", -5), ("web", 0), ("high", 900), ("api", 0)):
        raw = pod(name, "bad")
        raw["spec"]["priority"] = priority
        server.put(f"{PODS}/{name}", raw)
    config = Config.model_validate(
        {
            **_config().model_dump(by_alias=True, include={"rules"}),
            "drain": {"order": "priority"},
            "limits": LIMITS,
        }
    )
    [item] = plan(_api(server, config), config, OWNER, "", time.time()).nodes
    waves = {one.pod: (one.wave, one.reason) for one in item.pods if one.fate == "evict"}
    assert waves == {
        "d/low": (0, "priority -5"),
        "d/web": (1, "priority 0"),
        "d/api": (1, "priority 0"),
        "d/high": (2, "priority 900"),
    }
