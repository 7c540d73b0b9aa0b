"""What `plan` says follows a drain."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from selfheal_remediator.cli.inspection import NodePlan, plan
from selfheal_remediator.cli.ladder_view import ladder_plan
from selfheal_remediator.cli.tables import painted, plan_text
from selfheal_remediator.config import Config, Rule
from selfheal_remediator.node import lifecycle
from selfheal_remediator.node.annotation import STATE_KEY, Phase, State
from tests.pure.remediator.builders import OWNER, config, rule
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.running import NODES, PODS, node, pod
from tests.pure.remediator.steps_world import client

TEMPLATE = {"spec": {"containers": [{"name": "c"}]}}
REBOOT = {"job": {"template": TEMPLATE, "succeededBy": "bootID"}, "timeout": "15m", "settle": "7m"}
WEBHOOK = {"url": "https://u:secret@tickets.example/secret?key=secret", "secretFile": "/secret"}
OBJECT = {
    "apiVersion": "medik8s.io/v1",
    "kind": "Remediation",
    "metadata": {"name": "{node}", "namespace": "medik8s"},
}
STEPS = [
    REBOOT,
    {"wait": "90s"},
    {"webhook": WEBHOOK},
    {"resource": {"template": OBJECT, "succeeded": {"condition": "Succeeded"}}},
    {"machine": {"mode": "delete"}},
]
VERIFY = {"condition": {"type": "Checked"}, "timeout": "20m"}


def settings(*rules: Rule) -> Config:
    limits = {"maxUnavailable": "100%", "minSchedulable": 0}
    drain = {"headroom": False}
    return config(*rules, limits=limits, drain=drain, policies={"enabled": False})


@pytest.fixture
def server() -> Iterator[FakeApi]:
    """A bad node with a pod."""
    made = FakeApi(lambda verb, path: "")
    made.put(f"{PODS}/q", pod("q", "bad"))
    made.put(f"{NODES}/bad", node("bad", "True"))
    yield made
    made.close()


def planned(server: FakeApi, about: Config) -> tuple[NodePlan, dict[str, Any], str]:
    """The plan of the bad node, as JSON, and as a table."""
    found = plan(client(server), about, OWNER, "", time.time())
    [item] = found.nodes
    [shown] = json.loads(json.dumps(found.to_json()))["nodes"]
    return item, shown, painted(plan_text(found, detail=False), color=False)


def test_it_shows_the_steps_in_order_and_what_is_verified(server: FakeApi) -> None:
    item, shown, text = planned(server, settings(rule(then=STEPS, verify=VERIFY)))
    assert item.action == "drain"
    ladder = shown["ladder"]
    assert [(step["kind"], step["timeout"], step["settle"]) for step in ladder["steps"]] == [
        ("job", 900, 420),
        ("wait", 90, 300),
        ("webhook", 600, 300),
        ("resource", 600, 300),
        ("machine", 600, 300),
    ]
    assert ladder["verify"] == {
        "kind": "condition",
        "what": "condition Checked is True",
        "timeout": 1200,
        "settle": None,
    }
    assert ladder["progress"] == ""
    rows = [line.split() for line in text.split("what follows on bad:\n")[1].splitlines()]
    assert [row[:2] for row in rows] == [
        ["STEP", "KIND"],
        ["1", "job"],
        ["2", "wait"],
        ["3", "webhook"],
        ["4", "resource"],
        ["5", "machine"],
        ["verify", "condition"],
    ]
    assert [row[-2:] for row in (rows[1], rows[-1])] == [["15m0s", "7m0s"], ["20m0s", "-"]]
    assert "until the node has another boot ID" in text
    assert "create Remediation medik8s/{node}" in text


def test_nothing_of_a_url_is_shown_that_may_be_secret(server: FakeApi) -> None:
    _, shown, text = planned(server, settings(rule(then=STEPS)))
    assert shown["ladder"]["steps"][2]["what"] == "POST to https://tickets.example"
    assert "secret" not in text + json.dumps(shown)


def test_without_a_ladder_there_is_nothing_of_it(server: FakeApi) -> None:
    item, shown, text = planned(server, settings(rule()))
    assert (item.action, item.ladder) == ("drain", None)
    assert "ladder" not in shown
    assert "what follows" not in text


def test_of_two_rules_it_is_that_which_acts(server: FakeApi) -> None:
    other = rule(condition="Other", then=[{"wait": "1h"}])
    item, _, _ = planned(server, settings(other, rule(then=[REBOOT])))
    assert item.ladder is not None
    assert [step.kind for step in item.ladder.steps] == ["job"]
    item, _, _ = planned(server, settings(other, rule()))
    assert item.ladder is None


def test_it_says_how_far_the_ladder_is(server: FakeApi) -> None:
    about, now = rule(then=[REBOOT]), int(time.time())
    drained = State(Phase.DRAINED, OWNER, "Fault", "True", action="drain", rule=about.mark)
    state = lifecycle.repairing(drained, about.then[0].mark, "1", now)
    raw = node("bad", "True", unschedulable=True)
    raw["metadata"]["annotations"][STATE_KEY] = state.to_json()
    server.put(f"{NODES}/bad", raw)
    item, _, text = planned(server, settings(about))
    assert item.ladder is not None
    assert "what follows on bad (step 1 of 1 (job) is under way):" in text


def test_what_is_uncordoned_has_nothing_before_it(server: FakeApi) -> None:
    about = rule(then=[REBOOT])
    state = State(Phase.DRAINED, OWNER, "Fault", "True", action="drain", rule=about.mark)
    raw = node("bad", "False", unschedulable=True)
    raw["metadata"]["annotations"][STATE_KEY] = state.to_json()
    server.put(f"{NODES}/bad", raw)
    item, _, _ = planned(server, settings(about))
    assert (item.action, item.ladder) == ("uncordon", None)


def test_a_group_has_the_ladders_of_its_own_rules(server: FakeApi) -> None:
    raw = node("bad", "True")
    raw["metadata"]["labels"] = {"pool": "gpu"}
    server.put(f"{NODES}/bad", raw)
    own = {"condition": "Fault", "for": 0, "action": "drain", "then": [{"wait": "5m"}]}
    group = {"name": "gpu", "nodeSelector": {"matchLabels": {"pool": "gpu"}}, "rules": [own]}
    about = Config.model_validate(
        {
            "rules": [rule().model_dump(by_alias=True)],
            "groups": [group],
            "limits": {"maxUnavailable": "100%", "minSchedulable": 0},
            "policies": {"enabled": False},
        }
    )
    item, _, _ = planned(server, about)
    assert item.ladder is not None
    assert [step.what for step in item.ladder.steps] == ["wait 5m"]


def test_a_url_in_a_file_and_a_job_as_proof() -> None:
    step = {"webhook": {"urlFile": "/etc/url", "secretFile": "/s"}}
    about = rule(then=[step], verify={"job": {"template": TEMPLATE, "placement": "beside"}})
    state = State(Phase.DRAINED, OWNER, "Fault", "True", rule=about.mark)
    found = ladder_plan(config(about), state, state)
    assert found is not None
    assert found.verify is not None
    assert found.steps[0].what == "POST to the URL in /etc/url"
    assert found.verify.what == "a Job beside the node, until it is complete"
