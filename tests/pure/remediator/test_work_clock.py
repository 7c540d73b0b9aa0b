"""A drain's deadline is by our own clock, whatever was written by the clock of another process."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from selfheal_remediator.config import Config
from selfheal_remediator.controller.loop import Remediator
from selfheal_remediator.kube.informer import Change
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.node.actions import Kind
from selfheal_remediator.node.annotation import STATE_KEY, Phase, State, parse_state
from selfheal_remediator.node.planner import Planner
from selfheal_remediator.node.work_clock import LEAST_LEFT, WorkClock, time_left
from tests.pure.remediator import builders
from tests.pure.remediator.builders import NOW, OWNER, condition
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.running import (
    BAD,
    NODES,
    PODS,
    advance,
    node,
    pause,
    pod,
    running,
    until,
)
from tests.pure.remediator.test_drain_runner import Evaluations, evaluations
from tests.pure.remediator.test_planner import CONFIG

__all__ = ["evaluations"]

DRAINING = State(Phase.DRAINING, OWNER, "Fault", "True", action="drain", drain_started=int(NOW))


@pytest.mark.parametrize(
    ("limit", "used", "seconds"),
    [(1800, 0, 1800), (1800, 600, 1200), (1800, 1799, LEAST_LEFT), (1800, 10**12, LEAST_LEFT),
     (1800, -5, 1800), (30, 0, 30), (30, 10**9, 30), (0, 0, 0)],
)  # fmt: skip
def test_what_is_left_is_never_nothing(limit: float, used: float, seconds: float) -> None:
    assert time_left(limit, used) == seconds


def test_only_time_that_is_not_idle_is_used() -> None:
    clock = WorkClock(1800.0)
    deadline = NOW + 1800
    assert clock.credit(NOW, idle=False) == 0
    assert clock.to_note(deadline, NOW + 299) is None
    assert clock.to_note(deadline, NOW + 300) == 300
    assert clock.credit(NOW + 400, idle=True) == 0
    assert clock.used(deadline, NOW + 500) == 400
    assert clock.credit(NOW + 500, idle=True) == 100
    deadline += 100 + clock.credit(NOW + 600, idle=False)
    assert clock.used(deadline, NOW + 600) == 400
    clock.noted = 300
    assert clock.to_note(deadline, NOW + 600) is None
    assert clock.credit(NOW + 700, idle=False) == 0


def test_a_pause_moves_the_deadline(evaluations: Evaluations) -> None:
    run, deadline = evaluations.made.running["n7"], NOW + 600
    evaluations.advance(100)
    evaluations.advance(stopped=True)
    evaluations.advance(1000, stopped=True)
    evaluations.advance(1000, stopped=True)
    evaluations.advance(500)
    assert run.drain.deadline == deadline + 2500
    evaluations.advance(10)
    assert run.drain.deadline == deadline + 2500
    assert not any(reason == "DrainDeadlinePassed" for _, reason, _ in evaluations.said)


@pytest.mark.parametrize("order", ["rest first", "pause first"])
def test_a_recovery_pause_within_a_pause_counts_once(evaluations: Evaluations, order: str) -> None:
    run = evaluations.made.running["n7"]
    evaluations.advance()
    if order == "rest first":
        evaluations.made.pause("n7", "good")
        evaluations.advance(100, stopped=True)
        evaluations.now += 100
        evaluations.made.resume("n7")
        evaluations.advance(100, stopped=True)
        evaluations.advance()
    else:
        evaluations.advance(stopped=True)
        evaluations.now += 100
        evaluations.made.pause("n7", "good")
        evaluations.advance(100)
        evaluations.now += 100
        evaluations.made.resume("n7")
        evaluations.advance()
    assert run.drain.deadline == NOW + 600 + 300


# -- the limits of drains at a time ----------------------------------------------------------


def _put(planner: Planner, seen: Node, now: float) -> None:
    planner.apply(Change(seen.name, None, seen), now)


@pytest.mark.parametrize("skew", [-(10**6), -7200, 0, 7200, 10**6])
def test_a_predecessors_drain_counts_for_its_deadline_by_our_clock(skew: int) -> None:
    planner = Planner(CONFIG, OWNER, NOW)
    state = replace(DRAINING, drain_started=int(NOW) + skew)
    _put(planner, builders.node("n0", condition("True"), unschedulable=True, state=state), NOW)
    for seconds, draining in ((0, 1), (1799, 1), (1801, 0)):
        planner.plan(NOW + seconds)
        assert planner.tally(NOW + seconds).draining == draining, seconds


def test_what_a_predecessor_used_counts() -> None:
    planner = Planner(CONFIG, OWNER, NOW)
    state = replace(DRAINING, drain_used=1500)
    _put(planner, builders.node("n0", condition("True"), unschedulable=True, state=state), NOW)
    planner.plan(NOW)
    assert planner.tally(NOW).draining == 1
    planner.plan(NOW + 301)
    assert planner.tally(NOW + 301).draining == 0


def test_a_drain_keeps_its_place_for_the_time_by_which_its_deadline_was_moved() -> None:
    planner = Planner(CONFIG, OWNER, NOW)
    _put(planner, builders.node("n0", condition("True"), unschedulable=True, state=DRAINING), NOW)
    planner.plan(NOW)
    planner.slots.deadlines = {"uid-n0": NOW + 5000}  # it was paused
    planner.plan(NOW + 1801)
    assert planner.tally(NOW + 1801).draining == 1
    plan = planner.plan(NOW + 1802)
    assert plan.wake == NOW + 5000
    planner.plan(NOW + 5000)
    assert planner.tally(NOW + 5000).draining == 0


@pytest.mark.parametrize("ahead", [1, 3600, 10**9])
def test_no_room_written_by_a_clock_that_is_ahead_keeps_no_node_from_its_drain(ahead: int) -> None:
    planner = Planner(CONFIG, OWNER, NOW)
    state = State(Phase.CORDONED, OWNER, "Fault", "True", action="drain", no_room=int(NOW) + ahead)
    _put(planner, builders.node("n0", condition("True"), unschedulable=True, state=state), NOW)
    assert [action.kind for action in planner.plan(NOW).actions] == [Kind.DRAIN]


# -- the whole remediator --------------------------------------------------------------------


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """A node that a predecessor drains, with a pod that never goes."""
    made = FakeApi(lambda _, path: "500" if "/eviction" in path else "")
    made.put(f"{NODES}/good", node("good", "False"))
    made.put(f"{PODS}/web", pod("web", "bad"))
    yield made
    made.close()


def _drained_by_another(api: FakeApi, **state: object) -> None:
    raw = node("bad", "True", unschedulable=True)
    text = {"v": 1, "phase": "draining", "by": "d/selfheal-remediator", "condition": "Fault"}
    text |= {"status": "True", "action": "drain", **state}
    raw["metadata"]["annotations"][STATE_KEY] = json.dumps(text)
    api.put(BAD, raw)


def _config(deadline: str = "30m") -> Config:
    return Config.model_validate(
        {
            "rules": [{"condition": "Fault", "for": 0, "action": "drain", "heartbeat": None}],
            "limits": {"maxUnavailable": "100%"},
            "policies": {"enabled": False},
            "drain": {"headroom": False, "deadline": deadline, "onDeadline": "delete"},
        }
    )


@pytest.mark.parametrize(
    "state",
    [{}, {"drainStarted": 1}, {"drainStarted": int(time.time()) - 86400},
     {"drainStarted": int(time.time()) + 86400}, {"drainUsed": 10**9}],
    ids=["none", "far past", "a day behind", "a day ahead", "more than all"],
)  # fmt: skip
def test_no_pod_is_deleted_for_what_another_clock_says(api: FakeApi, state: dict[str, int]) -> None:
    _drained_by_another(api, **state)
    now = float(int(time.time()))
    with running(api, _config(), lambda: now) as remediator:
        until("it drains", lambda: bool(remediator.draining.running))
        [run] = remediator.draining.running.values()
        until("the pod is asked to go", lambda: run.drain.posts > 0)
        assert run.drain.deadline == now + (LEAST_LEFT if "drainUsed" in state else 1800)
        until("it counts", lambda: remediator.planner.tally(remediator.clock()).draining == 1)


def test_what_is_used_is_written_down_for_who_leads_next(api: FakeApi) -> None:
    _drained_by_another(api, drainStarted=5, drainUsed=600)

    with running(api, _config()) as remediator:
        until("it drains", lambda: bool(remediator.draining.running))
        [run] = remediator.draining.running.values()
        until("the pod is asked to go", lambda: run.drain.posts > 0)
        assert run.drain.deadline - remediator.clock() <= 1200
        _later(remediator, 300)
        until("it is written", lambda: 900 <= _used(api) < 1200)


def test_a_pause_is_no_time_of_the_deadline_over_a_takeover(api: FakeApi) -> None:
    _drained_by_another(api, drainStarted=5, drainUsed=600)
    with running(api, _config()) as remediator:
        until("it drains", lambda: bool(remediator.draining.running))
        [run] = remediator.draining.running.values()
        pause(api, "x")
        until("it rests", lambda: run.clock.idle_at is not None)
        before = run.drain.deadline
        _later(remediator, 7200)
        pause(api, None)
        until("it continues", lambda: run.clock.idle_at is None)
        until("it may take as much longer", lambda: run.drain.deadline >= before + 7200)
        assert remediator.draining.used(run.drain.uid) < 900
        _later(remediator, 300)
        until("it is written", lambda: 900 <= _used(api) < 1200)


def _used(api: FakeApi) -> int:
    return parse_state(api.get(BAD)["metadata"]["annotations"][STATE_KEY]).drain_used


def _later(remediator: Remediator, seconds: float) -> None:
    advance(remediator, seconds)
