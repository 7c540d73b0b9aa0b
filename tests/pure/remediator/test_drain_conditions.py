"""What a node's status says of its drain: DrainInProgress and Drained, by value."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from kubernetes.client import Configuration

from selfheal_remediator.__main__ import main
from selfheal_remediator.cli.uninstall import uncordon_all
from selfheal_remediator.config import Config, SettingsError, parse_config
from selfheal_remediator.controller.authority import Authority
from selfheal_remediator.controller.drain_status import DrainStatus
from selfheal_remediator.controller.mode import Mode
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.objects import Condition
from selfheal_remediator.kube.permissions import Permission
from selfheal_remediator.kube.responses import Answer
from selfheal_remediator.kube.store import Change
from selfheal_remediator.node.actions import Action, Kind
from selfheal_remediator.node.annotation import EXCLUDE_KEY, STATE_KEY, Phase, State
from selfheal_remediator.node.drain_conditions import changes, removals, status_patch
from selfheal_remediator.node.planner import Planner
from selfheal_remediator.run import permissions
from selfheal_remediator.strict import LIFECYCLE_CONDITIONS
from selfheal_remediator.threads.runtime import REAL
from tests.pure.remediator.builders import NOW, OWNER, datetime_text
from tests.pure.remediator.builders import node as seen
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.killing import Killer
from tests.pure.remediator.running import (
    BAD,
    NODES,
    PATIENCE,
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

DRAINING = {
    "DrainInProgress": ("True", "SelfhealDraining"),
    "Drained": ("False", "SelfhealDraining"),
}
EMPTY = {"DrainInProgress": ("False", "SelfhealDrained"), "Drained": ("True", "SelfhealDrained")}
BY_HAND = {"DrainInProgress": ("True", "AdminRequested"), "Drained": ("False", "AdminRequested")}
Known = dict[str, tuple[str, str]]


def conditions(known: Known) -> list[Condition]:
    return [Condition(kind, *said, "", NOW, NOW) for kind, said in known.items()]


def after(known: Known, phase: Phase | None, **more: Any) -> Known:
    """What the node says once that is written; all else about it is given."""
    state = None if phase is None else State(phase, more.pop("by", OWNER), "Fault", "True")
    found = seen("n", *conditions(known), state=state, **more)
    written = dict(known)
    for item in changes(found, OWNER, NOW):
        if item.get("$patch") == "delete":
            del written[item["type"]]
        else:
            written[item["type"]] = (item["status"], item["reason"])
    return written


# -- what is to be said ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "before", "wanted"),
    [
        (Phase.DRAINING, {}, DRAINING),
        (Phase.DRAINING, EMPTY, DRAINING),
        (Phase.DRAINING, BY_HAND, DRAINING),
        (Phase.DRAINED, DRAINING, EMPTY),
        (Phase.DRAINED, {}, EMPTY),
        (Phase.REPAIRING, DRAINING, EMPTY),
        (Phase.VERIFYING, EMPTY, EMPTY),
        (Phase.VERIFYING, DRAINING, {}),  # it recovered in mid-drain
        (Phase.REPAIR_FAILED, EMPTY, EMPTY),
        (Phase.REPAIR_FAILED, {}, {}),
        *((phase, EMPTY, {}) for phase in Phase if not phase.cordoned),
        *((phase, BY_HAND, BY_HAND) for phase in Phase if not phase.cordoned),
        (Phase.CORDONED, DRAINING, {}),  # its pods fit nowhere else
        (Phase.CORDONED, BY_HAND, BY_HAND),
        (None, EMPTY, {}),
        (None, BY_HAND, BY_HAND),
        (None, {}, {}),
    ],
)
def test_it_is_what_the_annotation_says(phase: Phase | None, before: Known, wanted: Known) -> None:
    assert after(before, phase) == wanted
    assert after(wanted, phase) == wanted, "and then nothing is to be written"


@pytest.mark.parametrize("before", [{}, EMPTY, BY_HAND])
def test_what_is_left_alone(before: Known) -> None:
    assert after(before, Phase.DRAINING, by="there/remediator") == before
    assert after(before, Phase.DRAINING, annotations={EXCLUDE_KEY: "x"}) == before
    assert after(before, Phase.DRAINING, deleting=True) == before
    assert after(before, None, annotations={STATE_KEY: "{"}) == before


def test_it_says_by_whom_and_for_what_since_when() -> None:
    bad = seen("n", state=State(Phase.DRAINING, OWNER, "Fault", "True"), version="7")
    written = changes(bad, OWNER, NOW)
    assert written[0] == {
        "type": "DrainInProgress",
        "status": "True",
        "reason": "SelfhealDraining",
        "message": "by the remediator here/remediator, for Fault",
        "lastTransitionTime": datetime_text(NOW),
        "lastHeartbeatTime": datetime_text(NOW),
    }
    assert status_patch(bad, written)["metadata"] == {"uid": "uid-n", "resourceVersion": "7"}


def test_what_is_unchanged_is_not_written_again() -> None:
    half = {"DrainInProgress": DRAINING["DrainInProgress"]}
    found = seen("n", *conditions(half), state=State(Phase.DRAINING, OWNER, "Fault"))
    assert [item["type"] for item in changes(found, OWNER, NOW)] == ["Drained"]


def test_only_what_we_wrote_is_removed() -> None:
    ours = seen("n", *conditions({**BY_HAND, "Drained": EMPTY["Drained"]}))
    assert removals(ours) == [{"$patch": "delete", "type": "Drained"}]


# -- settings -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LIFECYCLE_CONDITIONS)
def test_no_rule_is_about_them(kind: str) -> None:
    """A drain would be the cause of the next one."""
    acts = {"condition": "Fault", "action": "drain"}
    for rules, where in (
        ([{"condition": kind, "action": "observe"}], "rules[0].condition"),
        ([{**acts, "verify": {"condition": {"type": kind}}}], "rules[0].verify.condition.type"),
    ):
        with pytest.raises(SettingsError) as caught:
            parse_config(yaml.safe_dump({"rules": rules}), "here.yaml")
        (problem,) = caught.value.problems
        assert problem.startswith(f"{where}: {kind} is what a drain reports")


@pytest.mark.parametrize("on", [True, False])
def test_the_permission_is_needed_only_with_it(on: bool) -> None:
    about = Config.model_validate({"drain": {"lifecycleConditions": on}})
    wanted = permissions(about, "here", "remediator")
    assert (Permission("patch", "", "nodes", "status") in wanted) is on


# -- the whole remediator -------------------------------------------------------------------


def config(*, on: bool = True, **more: Any) -> Config:
    rule = {"condition": "Fault", "for": 0, "action": "drain", "heartbeat": None}
    values = {
        "rules": [rule],
        "recovery": {"stabilizationWindow": "5s"},
        "limits": {"maxUnavailable": "100%"},
        "policies": {"enabled": False},
        "drain": {"headroom": False, "lifecycleConditions": on},
    }
    return Config.model_validate({**values, **more})


@pytest.fixture
def api() -> Iterator[FakeApi]:
    made = FakeApi(lambda verb, path: "")
    made.put(BAD, node("bad", "True"))
    made.put(f"{NODES}/good", node("good", "False"))
    made.put(f"{PODS}/web", pod("web", "bad"))
    yield made
    made.close()


def reporting(name: str, known: Known) -> dict[str, Any]:
    """A healthy node whose status says this of a drain."""
    raw = node(name, "False")
    raw["status"]["conditions"] += [
        {"type": kind, "status": status, "reason": reason}
        for kind, (status, reason) in known.items()
    ]
    return raw


def lifecycle_conditions(raw: dict[str, Any]) -> Known:
    return {
        item["type"]: (item["status"], item["reason"])
        for item in raw["status"]["conditions"]
        if item["type"] in LIFECYCLE_CONDITIONS
    }


def stages(api: FakeApi) -> list[Known]:
    """What the node has said, in order."""
    found: list[Known] = []
    for _, path, raw in api.did:
        if path == BAD and (not found or found[-1] != lifecycle_conditions(raw)):
            found.append(lifecycle_conditions(raw))
    return found


def test_from_the_drain_to_the_uncordon(api: FakeApi) -> None:
    with running(api, config()) as remediator:
        until("it is said", lambda: lifecycle_conditions(api.get(BAD)) == EMPTY)
        assert phase(api) == "drained"
        turns(api, "False")
        until_later(remediator, "it is over", lambda: lifecycle_conditions(api.get(BAD)) == {})
    assert phase(api) == "healed"
    assert [item["type"] for item in api.get(BAD)["status"]["conditions"]] == ["Ready", "Fault"]
    assert stages(api)[-2:] == [EMPTY, {}]


def test_while_pods_are_left_it_is_in_progress(api: FakeApi) -> None:
    api.disturb = lambda verb, path: "500" if path.endswith("/eviction") else ""
    with running(api, config()) as remediator:
        until("it is said", lambda: lifecycle_conditions(api.get(BAD)) == DRAINING)
        with api.changing(BAD) as raw:
            del raw["metadata"]["annotations"][STATE_KEY], raw["spec"]["unschedulable"]
            raw["status"]["conditions"][1]["status"] = "False"
        until_later(remediator, "it is over", lambda: lifecycle_conditions(api.get(BAD)) == {})


@pytest.mark.parametrize("more", [{"on": False}, {"mode": "dryRun"}])
def test_otherwise_nothing_is_written(api: FakeApi, more: dict[str, Any]) -> None:
    asked: list[str] = []

    def note(verb: str, path: str) -> str:
        asked.append(path)
        return ""

    api.disturb = note
    with running(api, config(**more)) as remediator:

        def standing() -> str:
            entry = remediator.planner.entry_named("bad")
            return entry.assessment.standing if entry is not None else ""

        until_later(remediator, "it is drained", lambda: standing() == "drained")
    assert f"{BAD}/status" not in asked


def test_what_is_refused_is_tried_again(api: FakeApi) -> None:
    refused: list[str] = []

    def refuse(verb: str, path: str) -> str:
        if path != f"{BAD}/status" or len(refused) > 2:
            return ""
        refused.append(path)
        return "500"

    api.disturb = refuse
    with running(api, config()) as remediator:
        until_later(remediator, "it is said", lambda: lifecycle_conditions(api.get(BAD)) == EMPTY)
    assert len(refused) == 3


def test_before_an_uninstall_they_are_removed(api: FakeApi) -> None:
    with running(api, config()):
        until("it is said", lambda: lifecycle_conditions(api.get(BAD)) == EMPTY)
    api.put(f"{NODES}/good", reporting("good", BY_HAND))
    access = Configuration()
    access.host = api.url
    found = uncordon_all(
        KubernetesApi(access, "d", Config().api), "d/selfheal-remediator", PATIENCE
    )
    assert (found.uncordoned, found.left) == (["bad"], {})
    assert lifecycle_conditions(api.get(BAD)) == {}
    assert lifecycle_conditions(api.get(f"{NODES}/good")) == BY_HAND


@pytest.mark.parametrize(("trouble", "asked"), [("403", 2), ("500", 3)])
def test_at_an_uninstall_what_may_pass_is_tried_again(
    api: FakeApi, trouble: str, asked: int, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Not what does not: it was switched off since, and with it the right to remove them."""
    refused = list[str]()
    api.put(BAD, reporting("bad", EMPTY))

    def refuse(verb: str, path: str) -> str:
        if path != f"{BAD}/status" or (trouble == "500" and len(refused) == asked):
            return ""
        refused.append(path)
        return trouble

    api.disturb = refuse
    command = ["uncordon", "--all", "--kubeconfig", kubeconfig(api, tmp_path)]
    assert main([*command, f"--timeout={PATIENCE:g}"]) == (1 if trouble == "403" else 0)
    assert len(refused) == asked
    said_of_bad = [line for line in capsys.readouterr().out.splitlines() if "bad" in line]
    if trouble == "403":
        (line,) = said_of_bad
        assert line.startswith("bad: its conditions DrainInProgress and Drained are left: ")
        assert "uncordon" not in line
    else:
        assert (said_of_bad, lifecycle_conditions(api.get(BAD))) == ([], {})


class Alone:
    """DrainStatus for one draining node; `jobs`: requests that are not sent yet."""

    def __init__(self, answer: Answer) -> None:
        self.planner, self.jobs = Planner(config(), OWNER, NOW), list[Callable[[], None]]()
        self.state = State(Phase.DRAINING, OWNER, "Fault", "True", action="drain")
        self.node = seen("n", state=self.state, unschedulable=True)
        self.planner.apply(Change("n", None, self.node), NOW)
        self.now = NOW
        self.status = DrainStatus(
            cast(Any, SimpleNamespace(fence=lambda: 1, write=lambda *_, **__: answer)),
            self.planner,
            cast(Any, SimpleNamespace(take_in=lambda node: None)),
            Authority(leading=True, first=""),
            Mode(config(observeFirst=0), NOW),
            cast(Any, SimpleNamespace(submit=lambda job, *_: self.jobs.append(job), runtime=REAL)),
            lambda job: job(),
            lambda: self.now,
        )

    def follow(self, after: float = 0.0) -> tuple[int, float | None]:
        """Requests handed out after so many seconds, and when the main loop is to wake up."""
        self.now += after
        self.status.follow([], self.now)
        return len(self.jobs), self.status.wake


def test_while_it_is_tried_again_the_main_loop_sleeps() -> None:
    """What is under way, or waits for another change of the node, wakes nobody."""
    alone = Alone(Answer(500, b""))
    assert alone.follow() == (1, None)
    alone.jobs.pop()()
    assert alone.status.wake == NOW + 0.5
    assert alone.follow(after=0.5) == (1, None)
    alone.jobs.pop()()
    assert alone.status.wake == NOW + 1.5
    note = Action(Kind.NOTE, "n", alone.node.uid, alone.state, "", "")
    assert alone.planner.request(note, NOW)
    assert alone.follow(after=1.0) == (0, None)


def test_status_requests_that_hang_delay_no_cordon(api: FakeApi) -> None:
    """A webhook for the status of nodes does not answer: what protects does not wait for it."""
    hanging, answer = list[str](), threading.Event()
    for name in "wxyz":
        api.put(f"{NODES}/{name}", reporting(name, EMPTY))

    def hang(verb: str, path: str) -> str:
        if path.endswith("/status"):
            hanging.append(path)
            answer.wait(PATIENCE)
        return ""

    api.disturb = hang
    turns(api, "False")
    with running(api, config(api={"maxInFlight": 4})):
        until("some hang", lambda: len(hanging) > 2)
        turns(api, "True")
        until("it is cordoned", lambda: phase(api) != "")
        assert len(hanging) == len(set(hanging))  # none has ended meanwhile, to be tried again
        answer.set()


def test_what_the_server_changes_again_is_written_ever_less_often() -> None:
    """A webhook that rewrites what we write, or another controller that does."""
    theirs = {"metadata": {"name": "n", "uid": "uid-n"}}
    alone = Alone(Answer(200, json.dumps(theirs).encode()))
    alone.follow()  # the planner's node stays as it is, as if it had been changed back
    for wait in (0.5, 1.0, 2.0):
        alone.jobs.pop()()
        assert (len(alone.jobs), alone.status.wake) == (0, alone.now + wait)
        alone.follow(after=wait)


# -- killed at each call --------------------------------------------------------------------


def _played(api: FakeApi, killed: Callable[[], bool]) -> bool:
    if phase(api) == "drained" and lifecycle_conditions(api.get(BAD)) == EMPTY:
        turns(api, "False")
    return killed() or (phase(api) == "healed" and not lifecycle_conditions(api.get(BAD)))


@pytest.mark.parametrize("way", ["refused", "lost"])
@pytest.mark.parametrize("at", range(1, 7))
def test_killed_at_any_call_the_next_one_makes_up_for_it(api: FakeApi, at: int, way: str) -> None:
    killer = Killer(at, way, (BAD,))
    api.disturb = killer
    with running(api, config()) as remediator:
        until_later(remediator, "killed", lambda: _played(api, lambda: killer.dead))
    assert killer.dead
    api.disturb = lambda verb, path: ""
    leave(api)
    with running(api, config()) as remediator:
        until_later(remediator, "all is over", lambda: _played(api, lambda: False))
    assert EMPTY in stages(api)
    assert f"{PODS}/web" in [path for verb, path, _ in api.did if verb == "EVICT"]


def test_what_a_predecessor_left_behind_is_removed(api: FakeApi) -> None:
    """It was killed after the uncordon."""
    api.put(f"{NODES}/good", reporting("good", EMPTY))
    with running(api, config()):
        until("they are gone", lambda: lifecycle_conditions(api.get(f"{NODES}/good")) == {})
