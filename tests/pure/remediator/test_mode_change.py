"""From dryRun to enforce while it runs: what was only a dry run is done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from selfheal_remediator.config import Config
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.running import (
    NODES,
    PODS,
    POLICIES,
    node,
    pod,
    running,
    stamp,
    until,
    until_later,
    web_policy,
)
from tests.support.samples import sample

OWNER = "/apis/apps/v1/namespaces/d/replicasets/r"


def _config(mode: str) -> Config:
    return Config.model_validate({"mode": mode, "policies": {"evaluationInterval": "1s"}})


def _pod(name: str, ready: str) -> dict[str, Any]:
    raw = pod(name, "n")
    raw["status"]["conditions"] = [
        {"type": "Ready", "status": ready, "lastTransitionTime": stamp(600)}
    ]
    return raw


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """A pod that is healthy and one that is unhealthy, under a policy."""
    made = FakeApi(lambda verb, path: "")
    made.put(f"{NODES}/n", node("n", "False"))
    owner = {"metadata": {"name": "r", "namespace": "d", "uid": "r"}, "spec": {"replicas": 2}}
    made.put(OWNER, {"kind": "ReplicaSet", **owner})
    made.put(f"{PODS}/well", _pod("well", "True"))
    made.put(f"{PODS}/ill", _pod("ill", "False"))
    made.put(f"{POLICIES}/web", web_policy("web"))
    yield made
    made.close()


def test_a_restart_that_was_a_dry_run_is_made(api: FakeApi) -> None:
    def evicted() -> list[str]:
        return [path for verb, path, _ in api.did if verb == "EVICT"]

    with running(api, _config("dryRun")) as remediator:
        name, registry = "selfheal_remediator_healing_refused_total", remediator.metrics.registry
        until_later(
            remediator,
            "it is sent as a dry run",
            lambda: sample(registry, name, cause="dry-run") > 0,
        )
        assert evicted() == []
        remediator.reconfigure(_config("enforce"))
        until_later(remediator, "it is made", lambda: evicted() == [f"{PODS}/ill"])


def test_a_cordon_that_was_a_dry_run_is_made(api: FakeApi) -> None:
    """Nothing is heard of the node meanwhile."""
    rules = [{"condition": "Fault", "for": 0, "action": "drain"}]
    base: dict[str, Any] = {
        "rules": rules,
        "limits": {"maxUnavailable": "100%"},
        "drain": {"headroom": False},
        "policies": {"enabled": False},
    }
    api.put(f"{NODES}/n", node("n", "True"))
    api.put(f"{NODES}/other", node("other", "False"))
    with running(api, Config.model_validate({**base, "mode": "dryRun"})) as remediator:

        def dry_runs() -> bool:
            entry = remediator.planner.entry_named("n")
            return entry is not None and entry.assessment.standing == "drained"

        until("it is sent as a dry run", dry_runs)
        assert [path for _, path, _ in api.did if path.startswith(NODES)] == []
        remediator.reconfigure(Config.model_validate({**base, "mode": "enforce"}))
        until("it is cordoned", lambda: "unschedulable" in api.get(f"{NODES}/n")["spec"])
        pods = [f"{PODS}/well", f"{PODS}/ill"]
        until("it is emptied", lambda: all(path not in api.objects for path in pods))
