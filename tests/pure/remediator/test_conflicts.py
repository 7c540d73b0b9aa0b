"""Somebody changes a node between our decision and our write: it is decided again, on what is."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from selfheal_remediator.config import Config
from selfheal_remediator.controller.loop import Remediator
from selfheal_remediator.kube.events import NodeEvent
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.node.actions import Action
from selfheal_remediator.node.annotation import EXCLUDE_KEY, STATE_KEY, Phase, State
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.running import BAD, NODES, PODS, node, pod, running
from tests.support.samples import sample

VALUES = {
    "rules": [{"condition": "Fault", "for": 0, "action": "cordon"}],
    "limits": {"maxUnavailable": "100%"},
    "signal": {"enabled": False},
    "policies": {"enabled": False},
}
CONFIG = Config.model_validate(VALUES)
#: Only a hang is longer.
PATIENCE = 60.0


class Meanwhile:
    """Does `what` when the first change of the node has arrived and is not made yet."""

    def __init__(self) -> None:
        self.what: Callable[[], str] = lambda: ""
        self.writes = self.reads = 0
        self.api = FakeApi(self.asked)

    def asked(self, verb: str, path: str) -> str:
        if path != BAD:
            return ""
        self.reads += verb == "GET"
        self.writes += verb == "PATCH"
        return self.what() if (verb, self.writes) == ("PATCH", 1) else ""

    def change(self, edit: Callable[[dict[str, Any]], None]) -> None:
        with self.api.changing(BAD) as raw:
            edit(raw)

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        ends = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < ends, f"{what}: never"
            with self.api.news:
                self.api.news.wait(0.05)

    @property
    def cordons(self) -> int:
        """How often the node was changed into one that is cordoned."""
        return sum(path == BAD and after["spec"].get("unschedulable", False)
                   for _, path, after in self.api.did)  # fmt: skip


@pytest.fixture
def meanwhile() -> Any:
    made = Meanwhile()
    made.api.put(f"{NODES}/good", node("good", "False"))
    made.api.put(BAD, node("bad", "True"))
    yield made
    made.api.close()


def _actions(remediator: Remediator, result: str, action: str = "cordon") -> float:
    registry, name = remediator.metrics.registry, "selfheal_remediator_actions_total"
    return sample(registry, name, action=action, result=result)


def test_what_does_not_matter_is_read_and_the_change_made(meanwhile: Meanwhile) -> None:
    def label() -> str:
        meanwhile.change(lambda raw: raw["metadata"].setdefault("labels", {}).update(a="b"))
        return ""

    meanwhile.what = label
    with running(meanwhile.api, CONFIG):
        meanwhile.until("it is cordoned", lambda: meanwhile.cordons == 1)
    assert (meanwhile.writes, meanwhile.reads) == (2, 1)
    raw = meanwhile.api.get(BAD)
    assert raw["metadata"]["labels"] == {"a": "b"}  # theirs is kept


@pytest.mark.parametrize(
    "edit",
    [
        lambda raw: raw["metadata"]["annotations"].update({EXCLUDE_KEY: "mine"}),
        lambda raw: raw["spec"].update(unschedulable=True),
        lambda raw: raw["metadata"].update(labels={"selfheal.dev/exclude": "true"}),
        lambda raw: raw["status"]["conditions"][1].update(status="False"),
        lambda raw: raw["status"]["conditions"][1].update(status="Unknown"),
        lambda raw: raw["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z"),
    ],
    ids=["on hold", "cordoned", "opted out", "well", "unknown", "being deleted"],
)
def test_what_speaks_against_it_is_heard(
    meanwhile: Meanwhile, edit: Callable[[dict[str, Any]], None]
) -> None:
    def change() -> str:
        meanwhile.change(edit)
        return ""

    meanwhile.what = change
    with running(meanwhile.api, CONFIG) as remediator:
        meanwhile.until("it is given up", lambda: _actions(remediator, "overtaken") == 1)
    assert STATE_KEY not in meanwhile.api.get(BAD)["metadata"]["annotations"]
    assert [path for _, path, _ in meanwhile.api.did if path == BAD] == []


def test_another_node_of_the_same_name_is_judged_by_itself(meanwhile: Meanwhile) -> None:
    def recreate() -> str:
        meanwhile.api.put(BAD, None)
        recreated = node("bad", "False")
        recreated["metadata"]["uid"] = "another"
        meanwhile.api.put(BAD, recreated)
        return ""

    meanwhile.what = recreate
    with running(meanwhile.api, CONFIG) as remediator:
        meanwhile.until("it is given up", lambda: _actions(remediator, "overtaken") == 1)
    assert meanwhile.cordons == 0


def test_a_lost_answer_is_read_again_before_anything_is_sent_again(
    meanwhile: Meanwhile,
) -> None:
    meanwhile.what = lambda: "lost"
    with running(meanwhile.api, CONFIG) as remediator:
        meanwhile.until("it is known", lambda: _actions(remediator, "failed") == 1)
        # A second node is served after it: the first one was evaluated again by then.
        meanwhile.api.put(f"{NODES}/good", node("good", "True"))
        meanwhile.until(
            "the other one is cordoned",
            lambda: bool(meanwhile.api.get(f"{NODES}/good")["spec"].get("unschedulable")),
        )
    assert (meanwhile.cordons, meanwhile.writes) == (1, 1)
    state = json.loads(meanwhile.api.get(BAD)["metadata"]["annotations"][STATE_KEY])
    assert state["phase"] == "cordoned"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (422, "ValidatingAdmissionPolicy 'vap' with binding 'vap' denied request: no taints"),
        (403, 'admission webhook "guard.example.com" denied the request: no taints'),
    ],
)
def test_what_a_policy_refuses_is_reported_in_its_words_and_no_conflict(
    meanwhile: Meanwhile, code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    causes = {"causes": [{"message": message}]}
    status = json.dumps({"kind": "Status", "code": code, "message": message, "details": causes})
    meanwhile.api.disturb = lambda verb, path: (
        meanwhile.asked(verb, path) or (status if (verb, path) == ("PATCH", BAD) else "")
    )

    said: list[NodeEvent] = []
    with running(meanwhile.api, CONFIG) as remediator:
        monkeypatch.setattr(remediator.parts.events, "record", said.append)
        meanwhile.until("it is tried again", lambda: _actions(remediator, "failed") >= 3)
        meanwhile.api.disturb = meanwhile.asked
        meanwhile.until("it is cordoned", lambda: meanwhile.cordons == 1)
    assert _actions(remediator, "conflict") == 0
    assert meanwhile.reads == 0  # it is not read again each time, as after a conflict
    [text] = {event.message for event in said if event.reason == "ChangeRefused"}
    assert message in text
    assert "selfheal-remediator exclude bad --why REASON" in text


def test_a_rule_about_a_condition_that_no_node_has_is_reported_with_those_there_are(
    meanwhile: Meanwhile, caplog: pytest.LogCaptureFixture
) -> None:
    rules = [{"condition": "Fautl", "for": 0, "action": "cordon"}]
    mistyped = Config.model_validate({**VALUES, "rules": rules})
    with running(meanwhile.api, mistyped) as remediator:
        meanwhile.until("the nodes are known", lambda: remediator.ready() == "")
        said = "no node has the conditions Fautl (of the rules); those that exist: Fault, Ready"
        meanwhile.until("it is said", lambda: said in caplog.text)


def test_what_is_read_before_a_wave_is_known_before_the_watch_tells_it(
    meanwhile: Meanwhile,
) -> None:
    """A human uncordoned the node, unobserved: it is neither drained nor read again and again."""
    state = State(
        *(Phase.DRAINING, "d/selfheal-remediator", "Fault", "True"), action="drain", drain_used=1
    )
    raw = node("bad", "True", unschedulable=True)
    raw["metadata"]["annotations"][STATE_KEY] = state.to_json()
    meanwhile.api.put(BAD, raw)
    meanwhile.api.put(f"{PODS}/p", pod("p", "bad"))

    def uncordoned(verb: str, path: str) -> str:
        if (verb, path) == ("GET", BAD) and meanwhile.reads == 0:
            with meanwhile.api.changing(BAD, watched=False) as uncordoned:
                uncordoned["spec"] = {}
        return meanwhile.asked(verb, path)

    meanwhile.api.disturb = uncordoned
    with running(meanwhile.api, CONFIG):
        meanwhile.until("it is known", lambda: "cancelled" in str(meanwhile.api.get(BAD)))
    assert meanwhile.reads == 1
    assert [path for verb, path, _ in meanwhile.api.did if verb == "EVICT"] == []


def test_another_condition_with_another_action_is_decided_again(meanwhile: Meanwhile) -> None:
    """What called for a drain is over, and what is there now calls for a cordon only."""
    rules = [
        {"condition": "Fault", "for": 0, "action": "drain"},
        {"condition": "Other", "status": "False", "for": 0, "action": "cordon"},
    ]
    raw = node("bad", "True")
    raw["status"]["conditions"].append({**raw["status"]["conditions"][1], "type": "Other"})
    meanwhile.api.put(BAD, raw)

    def changed() -> str:
        def edit(raw: dict[str, Any]) -> None:
            raw["status"]["conditions"][1]["status"] = "False"
            raw["status"]["conditions"][2]["status"] = "False"

        meanwhile.change(edit)
        return ""

    meanwhile.what = changed
    with running(meanwhile.api, Config.model_validate({**VALUES, "rules": rules})):
        meanwhile.until("it is cordoned", lambda: meanwhile.cordons > 0)
    written = [
        json.loads(after["metadata"]["annotations"][STATE_KEY])
        for _, path, after in meanwhile.api.did
        if path == BAD and STATE_KEY in after["metadata"]["annotations"]
    ]
    assert {(state["condition"], state["phase"]) for state in written} == {("Other", "cordoned")}


def test_a_cordon_that_is_not_ours_any_more_is_not_taken_for_ours(meanwhile: Meanwhile) -> None:
    """Uncordoned and cordoned by a human, while it is written down that the node is empty."""
    rules = [{"condition": "Fault", "for": 0, "action": "drain"}]
    values = {**VALUES, "rules": rules, "drain": {"headroom": False}}

    def released(verb: str, path: str) -> str:
        told = meanwhile.asked(verb, path)
        if (verb, path, meanwhile.writes) == ("PATCH", BAD, 2):
            meanwhile.change(lambda raw: raw["metadata"]["annotations"].pop(STATE_KEY))
        return told

    meanwhile.api.disturb = released
    with running(meanwhile.api, Config.model_validate(values)) as remediator:
        meanwhile.until(
            "it is given up",
            lambda: meanwhile.writes > 2 or _actions(remediator, "overtaken", "annotate") == 1,
        )
    raw = meanwhile.api.get(BAD)
    assert STATE_KEY not in raw["metadata"]["annotations"]
    assert raw["spec"]["unschedulable"] is True


def test_an_answer_from_an_earlier_term_begins_no_drain(meanwhile: Meanwhile) -> None:
    rules = [{"condition": "Fault", "for": 0, "action": "drain"}]
    meanwhile.api.put(BAD, node("bad", "False"))  # until we listen
    with running(meanwhile.api, Config.model_validate({**VALUES, "rules": rules})) as remediator:
        change = remediator.parts.api.patch_node
        told = threading.Event()

        def lost_meanwhile(name: str, ops: Any, **more: Any) -> Any:
            answer = change(name, ops, **more)
            remediator.post(lambda: remediator.leadership.lead(False))
            return answer

        settled = remediator.parts.writer.settled

        def tells(action: Action, answer: Node) -> None:
            settled(action, answer)
            told.set()

        remediator.parts.writer.settled = tells  # type: ignore[method-assign, assignment]
        remediator.parts.api.patch_node = lost_meanwhile  # type: ignore[method-assign, assignment]
        meanwhile.api.put(BAD, node("bad", "True"))
        assert told.wait(PATIENCE)
        assert remediator.draining.running == {}
