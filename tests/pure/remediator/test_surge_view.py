"""What `plan` and `status` show of the Deployments that would be rolled out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes.client import Configuration

from selfheal_remediator.cli.inspection import plan, status
from selfheal_remediator.config import Config
from selfheal_remediator.drain.surge import cordon_mark, start_patch
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.deployments import deployment_from_json
from selfheal_remediator.node.annotation import STATE_KEY, Phase, State
from tests.pure.remediator import json_patch
from tests.pure.remediator.builders import OWNER
from tests.pure.remediator.deployments import deployment, replica_set
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.running import NODES, PODS, node, pod

APPS = "/apis/apps/v1/namespaces/d"
KEPT = "PDB d/web needs 1, has 1"
READY = {"type": "Ready", "status": "True"}


def config(*, surge: bool = True) -> Config:
    """Drains with surge."""
    rule = {"condition": "Fault", "for": 0, "action": "drain"}
    drain = {"surge": surge, "headroom": False}
    return Config.model_validate(
        {"rules": [rule], "drain": drain, "policies": {"enabled": False}}
        | {"limits": {"maxUnavailable": "100%"}}
    )


@pytest.fixture
def server() -> Iterator[FakeApi]:
    """A bad node, and the only pod of a Deployment there."""
    made = FakeApi(lambda verb, path: "")
    raw = pod("web-1", "bad")
    raw["metadata"]["labels"] = {"app": "web"}
    raw["status"]["conditions"] = [READY]
    made.put(f"{PODS}/web-1", raw)
    later = pod("dns", "bad")
    later["spec"]["priority"] = 2_000_000_000
    made.put(f"{PODS}/dns", later)
    made.put(f"{NODES}/bad", node("bad", "True"))
    budget: dict[str, Any] = {
        "metadata": {"namespace": "d", "name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}},
        "status": {"currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1},
    }
    made.put("/apis/policy/v1/namespaces/d/poddisruptionbudgets/web", budget)
    made.put(f"{APPS}/replicasets/r", replica_set(namespace="d", name="r", uid="r"))
    made.put(f"{APPS}/deployments/web", deployment(meta={"namespace": "d"}))
    yield made
    made.close()


def planned(server: FakeApi, settings: Config) -> tuple[dict[str, str], tuple[str, ...]]:
    """What each pod waits for, and the notes."""
    [item] = plan(_api(server, settings), settings, OWNER, "", time.time()).nodes
    return {one.pod: one.waits for one in item.pods}, item.notes


def _api(server: FakeApi, settings: Config) -> KubernetesApi:
    access = Configuration()
    access.host = server.url
    return KubernetesApi(access, "d", settings.api)


def test_the_plan_shows_what_would_be_rolled_out_and_later_waves_continue(server: FakeApi) -> None:
    waits, _ = planned(server, config())
    assert waits == {
        "d/web-1": f"{KEPT}; Deployment d/web would be rolled out (surge)",
        "d/dns": "",
    }


def test_without_the_setting_the_pod_blocks_and_nothing_is_read(server: FakeApi) -> None:
    asked: list[str] = []
    server.disturb = lambda _, path: asked.append(path) or ""  # type: ignore[func-returns-value]
    waits, _ = planned(server, config(surge=False))
    assert waits == {"d/web-1": KEPT, "d/dns": "wave 0, which is blocked"}
    assert not [path for path in asked if path.startswith(f"{APPS}/")]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"replicas": 2}, "; no surge of Deployment d/web: it has 2 replicas, a surge is for the "),
        ({"status": {"replicas": 2}}, "; no surge of Deployment d/web now: a rollout is in prog"),
        ({"annotations": {}}, ""),
    ],
)
def test_the_plan_says_why_not(server: FakeApi, change: dict[str, Any], why: str) -> None:
    server.put(f"{APPS}/deployments/web", deployment(meta={"namespace": "d"}, **change))
    waits, _ = planned(server, config())
    assert waits["d/web-1"].startswith(KEPT + why)
    assert bool(why) or waits["d/web-1"] == KEPT
    assert waits["d/dns"] == "wave 0, which is blocked"


def test_what_may_not_be_read_is_a_note(server: FakeApi) -> None:
    server.disturb = lambda _, path: "403" if path.startswith(APPS) else ""
    waits, notes = planned(server, config())
    assert waits["d/web-1"] == KEPT
    assert any(
        "Deployments or their pods are not read, so no surge is shown" in note for note in notes
    )


def test_the_status_shows_the_rollout_of_this_cordon(server: FakeApi) -> None:
    now = int(time.time())
    raw = node("bad", "True", unschedulable=True)
    state = State(Phase.DRAINING, OWNER, "Fault", "True", since=now, drain_started=now)
    raw["metadata"]["annotations"][STATE_KEY] = state.to_json()
    uid = server.put(f"{NODES}/bad", raw)["metadata"]["uid"]
    before = server.get(f"{APPS}/deployments/web")
    patch = start_patch(deployment_from_json(before), cordon_mark(uid, now), now)
    after = json_patch.apply(before, patch)
    after["metadata"]["generation"] += 1
    server.put(f"{APPS}/deployments/web", after)
    [item] = status(_api(server, config()), config(), None, time.time()).cordoned
    assert item.blockers == (
        f"{KEPT}; Deployment d/web is rolled out (surge): the new pod is to be ready before this "
        "one stops (1 pods)",
    )
