"""Every series ends with what it is about: a policy, a rule, a node, also with work in flight."""

from __future__ import annotations

import threading
from itertools import permutations

import pytest

from selfheal_remediator.config import Config
from selfheal_remediator.metrics import Metrics
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.running import (
    NODES,
    PATIENCE,
    PODS,
    POLICIES,
    node,
    pod,
    running,
    until,
    until_later,
    web_pod,
    web_policy,
)


def _series(metrics: Metrics) -> set[str]:
    """All series but those that tell of requests: of these there is one per verb and code."""
    lines = metrics.render().decode().splitlines()
    names = {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}
    return {name for name in names if "api_request" not in name}


class Stage:
    """Two nodes; the request whose turn it is to be held up waits until it may continue."""

    def __init__(self, verb: str, ending: str, turn: int) -> None:
        self._verb, self._ending, self._turn = verb, ending, turn
        self.asked, self.released, self.over = (threading.Event() for _ in range(3))
        self.api = FakeApi(self._disturb)
        for name in ("bad", "good"):
            self.api.put(f"{NODES}/{name}", node(name, "False"))

    def _disturb(self, verb: str, path: str) -> str:
        if verb == self._verb and path.endswith(self._ending) and not self.over.is_set():
            self._turn -= 1
            if self._turn == 0:
                self.asked.set()
                assert self.released.wait(PATIENCE)
                self.over.set()
        return ""


def _config(*conditions: str) -> Config:
    rules = [{"condition": name, "for": 0, "action": "drain"} for name in conditions]
    return Config.model_validate(
        {"rules": rules, "policies": {"evaluationInterval": "1s"}, "drain": {"headroom": False}}
    )


@pytest.mark.parametrize("order", list(permutations(("policy", "pods", "node"))))
@pytest.mark.parametrize("turn", [1, 2])  # before it may be called back no more, and after
def test_of_a_policy_that_is_deleted_while_a_restart_is_in_flight(
    order: tuple[str, ...], turn: int
) -> None:
    stage = Stage("POST", "/eviction", turn)
    with running(stage.api, _config()) as made:
        until("it leads", lambda: made.healer.listed and made.synced)
        until_later(
            made, "it has published", lambda: 'nodes{state="ok"}' in str(_series(made.metrics))
        )
        before = _series(made.metrics)
        stage.api.put(f"{POLICIES}/web", web_policy("web"))
        for where, ready in (("bad", "False"), ("good", "True")):
            stage.api.put(f"{PODS}/web-{where}", web_pod("web", where, ready))
        until_later(made, "a restart is on its way", stage.asked.is_set)
        until_later(made, "it is reported", lambda: "d/web" in str(_series(made.metrics)))
        for what in order:
            if what == "policy":
                stage.api.put(f"{POLICIES}/web", None)
                until("it is known", lambda: "d/web" not in made.healer.healing.policy_states)
            elif what == "node":
                stage.api.put(f"{NODES}/bad", None)
                until("it is known", lambda: made.planner.entry_named("bad") is None)
            else:
                for where in ("bad", "good"):
                    stage.api.put(f"{PODS}/web-{where}", None)
        stage.released.set()
        until("the job has ended", lambda: made.healer.restarts_in_flight == 0)
        until_later(made, "all series have ended", lambda: _series(made.metrics) == before)
    stage.api.close()


@pytest.mark.parametrize("order", list(permutations(("rule", "node"))))
@pytest.mark.parametrize(("verb", "ending"), [("PATCH", "/bad"), ("POST", "/eviction")])
def test_of_a_rule_and_a_node_that_go_while_the_node_is_cordoned_or_drained(
    order: tuple[str, ...], verb: str, ending: str
) -> None:
    stage = Stage(verb, ending, 1)
    with running(stage.api, _config()) as made:
        until("it leads", lambda: made.healer.listed and made.synced)
        until_later(
            made, "it has published", lambda: 'nodes{state="ok"}' in str(_series(made.metrics))
        )
        before = _series(made.metrics)
        stage.api.put(f"{PODS}/p", pod("p", "bad"))
        stage.api.put(f"{NODES}/bad", node("bad", "True"))
        made.reconfigure(_config("Fault"))
        until_later(made, "it is on its way", stage.asked.is_set)
        for what in order:
            if what == "rule":
                made.reconfigure(_config())
                until("it is known", lambda: not made.config.rules)
                if order[0] == "rule":
                    stage.released.set()
                    until("it is answered", stage.over.is_set)
            else:
                stage.api.put(f"{NODES}/bad", None)
                until("it is known", lambda: made.planner.entry_named("bad") is None)
        stage.released.set()
        until("it is answered", stage.over.is_set)
        until_later(made, "all series have ended", lambda: _series(made.metrics) == before)
    stage.api.close()


def test_of_a_policy_that_is_recreated_nothing_of_the_former_is_counted() -> None:
    stage = Stage("POST", "/eviction", 2)
    with running(stage.api, _config()) as made:
        stage.api.put(f"{POLICIES}/web", web_policy("web"))
        for where, ready in (("bad", "False"), ("good", "True")):
            stage.api.put(f"{PODS}/web-{where}", web_pod("web", where, ready))
        until_later(made, "a restart is on its way", stage.asked.is_set)
        old = made.healer.healing.policy_states["d/web"].policy.uid
        recreated = web_policy("web")
        recreated["metadata"]["uid"] = "another"
        recreated["spec"]["paused"] = True
        stage.api.put(f"{POLICIES}/web", None)
        stage.api.put(f"{POLICIES}/web", recreated)

        def known() -> bool:
            policy_state = made.healer.healing.policy_states.get("d/web")
            return policy_state is not None and policy_state.policy.uid not in ("", old)

        until("it is known", known)
        policy_state = made.healer.healing.policy_states["d/web"]
        stage.released.set()
        until("the job has ended", lambda: made.healer.restarts_in_flight == 0)
        handled = threading.Event()
        made.post(handled.set)
        assert handled.wait(PATIENCE)
        assert policy_state.last_heal is None
        counted = [line for line in made.metrics.render().decode().splitlines() if "d/web" in line]
        assert not [line for line in counted if "restarts_total" in line and line[-3:] != "0.0"]
        until_later(
            made,
            "its status is written",
            lambda: "status" in stage.api.get(f"{POLICIES}/web"),
        )
    stage.api.close()


def test_of_policies_that_were_deleted_while_another_process_led() -> None:
    metrics = Metrics()
    before = _series(metrics)
    metrics.healing.set_policies(["d/a", "d/b"], complete=True)
    both = _series(metrics)
    metrics.healing.set_policies([], complete=False)  # they are being listed again
    assert _series(metrics) == both
    metrics.healing.set_policies(["d/a"], complete=True)
    assert {line for line in both if "d/b" in line} == both - _series(metrics)
    metrics.healing.set_policies([], complete=True)
    assert _series(metrics) == before
