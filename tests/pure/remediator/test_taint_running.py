"""The whole remediator with a taint beside or instead of the cordon; and killed at each call."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import Configuration

from selfheal_remediator.__main__ import main
from selfheal_remediator.cli.inspection import plan, status
from selfheal_remediator.cli.tables import plan_text
from selfheal_remediator.cli.uninstall import uncordon_all
from selfheal_remediator.config import Config
from selfheal_remediator.controller.loop import Remediator
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.node.annotation import STATE_KEY
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.killing import Killer
from tests.pure.remediator.running import (
    BAD,
    NODES,
    PODS,
    kubeconfig,
    leave,
    node,
    phase,
    pod,
    running,
    turns,
    until,
    until_later,
)

KEY = "example.com/bad"
OURS = {"key": KEY, "effect": "NoSchedule"}
THEIRS = {"key": "gpu", "effect": "NoSchedule", "value": "a100"}
TOLERATION = {"key": KEY, "operator": "Exists"}


def config(*, cordon: bool = False, **more: Any) -> Config:
    rule = {"condition": "Fault", "for": 0, "action": "drain", "heartbeat": None}
    values = {
        "rules": [rule],
        "taint": {"key": KEY, "cordon": cordon},
        "recovery": {"stabilizationWindow": "5s"},
        "limits": {"maxUnavailable": "100%"},
        "policies": {"enabled": False},
        "drain": {"headroom": False, "scaleDownDisabled": False},
    }
    return Config.model_validate({**values, **more})


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """A bad node with somebody's taint, and a pod there; another one tolerates our taint."""
    made = FakeApi(lambda verb, path: "")
    made.put(BAD, node("bad", "True", taints=[THEIRS]))
    made.put(f"{NODES}/good", node("good", "False"))
    made.put(f"{PODS}/web", pod("web", "bad"))
    guest = pod("guest", "bad")
    guest["spec"]["tolerations"] = [TOLERATION]
    made.put(f"{PODS}/guest", guest)
    yield made
    made.close()


def spec(api: FakeApi) -> dict[str, Any]:
    found: dict[str, Any] = api.get(BAD)["spec"]
    return found


def evicted(api: FakeApi) -> list[str]:
    return [path for verb, path, _ in api.did if verb == "EVICT"]


def standing(remediator: Remediator) -> str:
    entry = remediator.planner.entry_named("bad")
    return entry.assessment.standing if entry is not None else ""


def test_instead_of_a_cordon_guests_stay_and_the_rest_goes(api: FakeApi) -> None:
    with running(api, config()) as remediator:
        until("it is drained", lambda: phase(api) == "drained")
        assert spec(api) == {"taints": [THEIRS, OURS]}
        assert evicted(api) == [f"{PODS}/web"]
        until("it counts as drained", lambda: standing(remediator) == "drained")
        assert remediator.planner.tally(remediator.clock()).cordoned == 1
        turns(api, "False")
        until_later(remediator, "it is uncordoned", lambda: phase(api) == "healed")
    assert spec(api) == {"taints": [THEIRS]}


def test_beside_the_cordon_all_go(api: FakeApi) -> None:
    with running(api, config(cordon=True)) as remediator:
        until("it is drained", lambda: phase(api) == "drained")
        assert spec(api) == {"taints": [THEIRS, OURS], "unschedulable": True}
        assert sorted(evicted(api)) == [f"{PODS}/guest", f"{PODS}/web"]
        turns(api, "False")
        until_later(remediator, "it is uncordoned", lambda: phase(api) == "healed")
    assert spec(api) == {"taints": [THEIRS]}


def test_a_person_who_takes_the_taint_away_has_uncordoned_the_node(api: FakeApi) -> None:
    with running(api, config()) as remediator:
        until("it is drained", lambda: phase(api) == "drained")
        with api.changing(BAD) as raw:
            raw["spec"] = {"taints": [THEIRS]}
        until("that counts", lambda: phase(api) == "cancelled")
        until("it is left alone", lambda: standing(remediator) == "cancelled")
    assert spec(api) == {"taints": [THEIRS]}


def test_a_person_who_uncordons_leaves_no_taint_of_ours(api: FakeApi) -> None:
    with running(api, config(cordon=True)):
        until("it is drained", lambda: phase(api) == "drained")
        with api.changing(BAD) as raw:
            del raw["spec"]["unschedulable"]
        until("that counts", lambda: phase(api) == "cancelled")
    assert spec(api) == {"taints": [THEIRS]}


def test_in_dry_run_it_is_decided_once(api: FakeApi) -> None:
    patches: list[str] = []

    def note(verb: str, path: str) -> str:
        patches.extend([path] if verb == "PATCH" and path == BAD else [])
        return ""

    api.disturb = note
    with running(api, config(mode="dryRun")) as remediator:
        until_later(remediator, "it would be drained", lambda: standing(remediator) == "drained")
        assert len(patches) == 2  # cordoned and drained
        turns(api, "False")
        until_later(remediator, "it would be uncordoned", lambda: standing(remediator) == "healed")
    assert spec(api) == {"taints": [THEIRS]}
    assert not api.did or all(path != BAD for _, path, _ in api.did)


#: What a release may have been upgraded from, or to.
SETTINGS = {
    "off": None,
    "beside": {"key": KEY},
    "instead": {"key": KEY, "cordon": False},
    "another value": {"key": KEY, "value": "yes", "cordon": False},
    "another key": {"key": "example.com/other", "cordon": False},
    "weaker": {"key": KEY, "effect": "PreferNoSchedule"},
}


@pytest.mark.parametrize("after", SETTINGS)
@pytest.mark.parametrize("before", SETTINGS)
def test_what_is_cordoned_by_another_setting_counts_and_is_uncordoned(
    api: FakeApi, before: str, after: str
) -> None:
    held = [True]
    api.disturb = lambda verb, path: "500" if held and path.endswith("/eviction") else ""
    with running(api, config(taint=SETTINGS[before])):
        until("it is being drained", lambda: phase(api) == "draining")
    cordoned = spec(api)
    leave(api)
    with running(api, config(taint=SETTINGS[after], limits={"maxUnavailable": 1})) as remediator:
        until("it counts", lambda: standing(remediator) == "draining")
        assert remediator.planner.tally(remediator.clock()).cordoned == 1
        held.clear()
        until_later(remediator, "it is drained", lambda: phase(api) == "drained")
        assert spec(api) == cordoned
        stays = not cordoned.get("unschedulable") and before != "another key"
        assert (f"{PODS}/guest" not in evicted(api)) is stays
        turns(api, "False")
        until_later(remediator, "it is uncordoned", lambda: phase(api) == "healed")
    assert spec(api) == {"taints": [THEIRS]}


# -- the commands ---------------------------------------------------------------------------


def client(api: FakeApi) -> KubernetesApi:
    access = Configuration()
    access.host = api.url
    return KubernetesApi(access, "d", Config().api)


def test_the_plan_shows_the_taint_and_who_stays(api: FakeApi) -> None:
    found = plan(client(api), config(), "d/selfheal-remediator", "", time.time())
    [bad] = [item for item in found.nodes if item.node == "bad"]
    assert bad.taint == f"{KEY}:NoSchedule instead of a cordon"
    fates = {item.pod: (item.fate, item.reason) for item in bad.pods}
    assert fates["d/guest"] == ("ignore", f"tolerates the taint {KEY}")
    assert fates["d/web"][0] == "evict"
    assert "what is cordoned gets the taint example.com/bad:NoSchedule instead" in plan_text(
        found, detail=False
    )


@pytest.mark.parametrize("cordon", [True, False])
def test_the_status_says_by_what_a_node_is_cordoned(api: FakeApi, cordon: bool) -> None:
    with running(api, config(cordon=cordon)):
        until("it is drained", lambda: phase(api) == "drained")
    [bad] = status(client(api), config(), None, time.time()).cordoned
    assert bad.note == f"tainted {KEY}:NoSchedule" + ("" if cordon else " instead of a cordon")
    with api.changing(BAD) as raw:
        raw["spec"] = {"unschedulable": True, "taints": [THEIRS]}
    [bad] = status(client(api), config(), None, time.time()).cordoned
    assert bad.note == "its taint was removed" + (", it is cordoned" if cordon else "")


@pytest.mark.parametrize("cordon", [True, False])
def test_before_an_uninstall_no_taint_is_left(api: FakeApi, cordon: bool) -> None:
    with running(api, config(cordon=cordon)):
        until("it is drained", lambda: phase(api) == "drained")
    found = uncordon_all(client(api), "d/selfheal-remediator", 0.5)
    assert found.uncordoned == ["bad"]
    assert spec(api) == {"taints": [THEIRS]}
    assert phase(api) == ""


@pytest.mark.parametrize("cordon", [True, False])
def test_the_command_uncordon_removes_the_taint(
    api: FakeApi, cordon: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CONFIG_FILE", raising=False)
    with running(api, config(cordon=cordon)):
        until("it is drained", lambda: phase(api) == "drained")
    assert main(["uncordon", "bad", "--kubeconfig", kubeconfig(api, tmp_path)]) == 0
    assert spec(api) == {"taints": [THEIRS]}


def test_the_command_says_that_a_cordon_of_somebody_else_stays(
    api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(api, config()):
        until("it is drained", lambda: phase(api) == "drained")
    with api.changing(BAD) as raw:
        raw["spec"] = {"taints": [OURS], "unschedulable": True}
    assert main(["uncordon", "bad", "--kubeconfig", kubeconfig(api, tmp_path)]) == 0
    assert spec(api) == {"taints": [], "unschedulable": True}
    said = capsys.readouterr().out
    assert said == "bad: uncordoned by us; `kubectl uncordon bad` ends somebody else's cordon\n"


# -- killed at each call --------------------------------------------------------------------


def _played(api: FakeApi, killed: Callable[[], bool]) -> bool:
    """The node recovers when it is drained; whether all is done, or the process was killed."""
    if phase(api) == "drained":
        turns(api, "False")
    return killed() or phase(api) == "healed"


@pytest.mark.parametrize("way", ["refused", "lost"])
@pytest.mark.parametrize(
    ("cordon", "at"), [*((True, at) for at in range(1, 6)), *((False, at) for at in range(1, 5))]
)
def test_killed_at_any_call_the_next_one_ends_it(
    api: FakeApi, cordon: bool, at: int, way: str
) -> None:
    killer = Killer(at, way, (BAD,))
    api.disturb = killer
    about = config(cordon=cordon)
    with running(api, about) as remediator:
        until_later(remediator, "killed", lambda: _played(api, lambda: killer.dead))
    assert killer.dead
    api.disturb = lambda verb, path: ""
    leave(api)
    with running(api, about) as remediator:
        until_later(remediator, "it is uncordoned", lambda: _played(api, lambda: False))
    assert spec(api) == {"taints": [THEIRS]}
    assert f"{PODS}/web" in evicted(api)
    for _, path, raw in api.did:
        if path == BAD and raw["spec"].get("taints"):
            known = json.loads(raw["metadata"]["annotations"].get(STATE_KEY, "{}"))
            assert (OURS in raw["spec"]["taints"]) is bool(known.get("taint")), "in one write"
