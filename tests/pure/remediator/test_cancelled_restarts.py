"""Restarts that are on their way when their reason is gone, against an API server of our own."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from selfheal_remediator.config import PODS_HUNG, Config
from selfheal_remediator.healing.permits import Permit
from selfheal_remediator.node.skip_reason import SkipReason
from selfheal_remediator.threads import supervision
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.running import (
    NODES,
    PATIENCE,
    PODS,
    POLICIES,
    node,
    running,
    until,
    until_later,
    web_pod,
    web_policy,
)
from tests.support.samples import sample


class Stage:
    """Two owners with a pod each on two nodes; the first request about an eviction is held up."""

    def __init__(self) -> None:
        self.asked, self.released = threading.Event(), threading.Event()
        self.api = FakeApi(self._disturb)
        for name in ("bad", "good"):
            self.api.put(f"{NODES}/{name}", node(name, "False"))
            for app in ("web", "api"):
                self.ready(app, name, "True")
        for app in ("web", "api"):
            self.api.put(f"{POLICIES}/{app}", web_policy(app))
        self.ready("web", "bad", "False")

    def ready(self, app: str, where: str, status: str) -> None:
        self.api.put(f"{PODS}/{app}-{where}", web_pod(app, where, status))

    def _disturb(self, verb: str, path: str) -> str:
        if verb == "POST" and path.endswith("/eviction"):
            self.asked.set()
            assert self.released.wait(PATIENCE)
        return ""

    @property
    def evicted(self) -> list[str]:
        return [path for verb, path, _ in self.api.did if verb == "EVICT"]


def _config(**more: Any) -> Config:
    rules = [{"condition": PODS_HUNG, "for": 0, "action": "drain"}]
    return Config.model_validate(
        {
            "rules": rules,
            "policies": {"evaluationInterval": "1s"},
            "drain": {"headroom": False},
            **more,
        }
    )


def test_a_restart_on_its_way_is_cancelled_by_a_finding_and_the_node_is_cordoned() -> None:
    stage = Stage()
    with running(stage.api, _config()) as made:
        until_later(made, "a restart is on its way", stage.asked.is_set)
        # Had they been drained already, the restart would be found out by the pod's absence.
        made.planner.signal = lambda *_: None  # type: ignore[method-assign]
        stage.ready("api", "bad", "False")
        until_later(made, "the node is at fault", lambda: "bad" in made.healer.findings)
        stage.released.set()
        until("it is called back", lambda: made.healer.restarts_in_flight == 0)
        del made.planner.signal
        assert stage.evicted == []
        until_later(
            made,
            "the node is cordoned",
            lambda: bool(stage.api.get(f"{NODES}/bad")["spec"].get("unschedulable")),
        )
        for app in ("web", "api"):
            status = stage.api.get(f"{POLICIES}/{app}").get("status") or {}
            assert status.get("restarts", 0) == 0
    stage.api.close()


@pytest.mark.parametrize("what", ["paused", "deleted", "reconfigured", "pod is healthy"])
def test_a_restart_on_its_way_is_cancelled_when_its_reason_is_gone(what: str) -> None:
    stage = Stage()
    with running(stage.api, _config()) as made:
        until_later(made, "a restart is on its way", stage.asked.is_set)
        healing = made.healer.healing
        if what == "paused":
            with stage.api.changing(f"{POLICIES}/web") as raw:
                raw["spec"]["paused"] = True
                raw["metadata"]["generation"] = 2
            until("it is known", lambda: healing.policy_states["d/web"].policy.paused)
        elif what == "deleted":
            stage.api.put(f"{POLICIES}/web", None)
            until("it is known", lambda: "d/web" not in healing.policy_states)
        elif what == "reconfigured":
            made.reconfigure(_config(policies={"evaluationInterval": "2s"}))
            until("it is known", lambda: made.healer.healing is not healing)
        else:
            stage.ready("web", "bad", "True")
            until("it is known", lambda: healing.policy_states["d/web"].healthy == 2)
        # The job is held up by the server: what the main loop decides now is decided before it.
        handled = threading.Event()
        made.post(lambda: made.post(handled.set))
        assert handled.wait(PATIENCE)
        stage.ready("web", "bad", "True")
        stage.released.set()
        until("the job has ended", lambda: made.healer.restarts_in_flight == 0)
        assert stage.evicted == []
    stage.api.close()


def test_a_permit_is_taken_or_recalled_never_both() -> None:
    taken, recalled = Permit(), Permit()
    assert taken.take() is None
    assert not taken.recall(SkipReason("recalled", "too late"))
    assert taken.recalled is None
    assert recalled.recall(SkipReason("recalled", "first"))
    assert recalled.recall(SkipReason("recalled", "second"))
    assert recalled.take() == recalled.recalled == SkipReason("recalled", "first")


def test_a_pod_that_does_not_answer_its_probe_is_no_failure_of_ours() -> None:
    """It is what the probe is there to find; an alert counts what threads fail at."""
    api = FakeApi(lambda *_: "")
    api.put(f"{NODES}/n1", node("n1", "False"))
    policy = web_policy("web")
    policy["spec"]["unhealthyWhen"] = {"noProgressFor": "1h"}
    policy["spec"]["progress"] = {"port": 1}
    api.put(f"{POLICIES}/web", policy)
    raw = web_pod("web", "n1", "True")
    raw["status"]["podIP"] = "127.0.0.1"
    api.put(f"{PODS}/web-n1", raw)
    before = supervision.failures()
    with running(api, _config()) as made:
        name, registry = "selfheal_remediator_progress_probes_total", made.metrics.registry
        until_later(
            made, "it was asked in vain", lambda: sample(registry, name, result="silent") > 0
        )
    assert supervision.failures() == before
    api.close()
