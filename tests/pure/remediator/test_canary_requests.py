"""What is asked of an API server when all pods of an owner are unhealthy."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from selfheal_remediator.config import Config
from selfheal_remediator.controller.loop import Remediator
from selfheal_remediator.healing.engine import Healing
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.running import (
    NODES,
    PODS,
    POLICIES,
    node,
    pause,
    running,
    stamp,
    until,
    until_later,
    web_pod,
    web_policy,
)

POLICY = f"{POLICIES}/web"
PLACES = ("a", "b", "c")


class Site(FakeApi):
    """An owner whose pods are all unready, one on each node. keeps: what is written is kept."""

    def __init__(self, *, keeps: bool = True) -> None:
        super().__init__(lambda *_: "")
        self.keeps = keeps
        for name in PLACES:
            self.put(f"{NODES}/{name}", node(name, "False"))
            self.put(f"{PODS}/web-{name}", web_pod("web", name, "False"))
        self.put(POLICY, web_policy("web"))

    def _patch(self, path: str, body: Any, *, dry_run: bool) -> tuple[int, dict[str, Any]]:
        if isinstance(body, dict) and not self.keeps:
            for owner in (body.get("status") or {}).get("owners") or ():
                owner.pop("canary", None)  # as the API server drops fields that it does not know
        return super()._patch(path, body, dry_run=dry_run)

    @property
    def evicted(self) -> list[str]:
        return [path for verb, path, _ in self.did if verb == "EVICT"]

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get(POLICY).get("status") or {}
        return found

    @property
    def canary(self) -> dict[str, Any]:
        [owner] = self.status.get("owners") or [{}]
        found: dict[str, Any] = owner.get("canary") or {}
        return found


def _config(**more: Any) -> Config:
    return Config.model_validate({"policies": {"evaluationInterval": "1s"}, **more})


def _waits(made: Remediator, before: Healing) -> bool:
    """Whether another Healing has found that the canary is not decided."""
    healing = made.healer.healing
    groups = [
        group
        for policy_state in healing.policy_states.values()
        for group in policy_state.groups.values()
    ]
    blocks = [group.skip_reason.cause for group in groups if group.skip_reason is not None]
    return healing is not before and blocks == ["canary"]


def test_the_canary_is_written_down_before_its_eviction() -> None:
    site = Site()
    with running(site, _config()) as made:
        until_later(made, "one is restarted", lambda: bool(site.evicted))
    [change] = [at for at, (verb, *_) in enumerate(site.did) if verb == "EVICT"]
    written = [raw for verb, path, raw in site.did[:change] if (verb, path) == ("PATCH", POLICY)]
    [owner] = written[-1]["status"]["owners"]
    assert owner["canary"]["state"] == "under-way"
    assert f"{PODS}/web-" in site.evicted[0]
    assert owner["canary"]["pod"] == f"uid-{site.evicted[0]}"
    site.close()


@pytest.mark.parametrize("leaders", [1, 3])
def test_a_type_without_the_field_makes_no_canary(leaders: int) -> None:
    site = Site(keeps=False)

    def reported() -> bool:
        return "CustomResource" in site.status.get("message", "")

    for _ in range(leaders):
        with running(site, _config()) as made:
            until_later(made, "it is reported", reported)
            assert site.status["state"] == "GaveUp"
        with site.changing(POLICY) as policy:
            policy["status"] = {}
    assert site.evicted == []
    site.close()


def test_a_dry_run_in_the_middle_is_no_canary() -> None:
    site = Site()
    dry_runs: list[str] = []

    def note(verb: str, path: str) -> str:
        if verb == "POST" and path.endswith("/eviction"):
            dry_runs.append(path)
        return ""

    site.disturb = note
    with running(site, _config(mode="dryRun")) as made:
        until_later(made, "one is sent as a dry run", lambda: bool(dry_runs))
        made.reconfigure(_config(mode="enforce"))
        until_later(made, "one is restarted", lambda: bool(site.evicted))
        until("it is known", lambda: bool(made.healer.healing.policy_states["d/web"].records))
        for mode in ("dryRun", "enforce"):
            before = made.healer.healing
            made.reconfigure(_config(mode=mode))
            until_later(made, "the others wait", partial(_waits, made, before))
        assert site.canary["state"] == "under-way"
    assert len(site.evicted) == 1
    site.close()


def test_a_resume_lifts_a_failed_canary() -> None:
    site = Site()
    canary = {
        "pod": "gone",
        "restarted": stamp(900),
        "cause": "not-ready",
        "state": "failed",
    }
    with site.changing(POLICY) as policy:
        policy["status"] = {"owners": [{"uid": "web", "canary": canary}]}

    with running(site, _config()) as made:
        until_later(made, "it has given up", lambda: site.status.get("state") == "GaveUp")
        pause(site, "a human checks it")
        until("it is paused", lambda: bool(made.parts.authority.paused))
        pause(site, None)
        until_later(made, "one is restarted", lambda: bool(site.evicted))
    assert len(site.evicted) == 1
    site.close()
