"""Restarts that the API server accepts, and whose pods are not deleted all the same."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import Any

import pytest

from selfheal_remediator.config import Config
from selfheal_remediator.healing.policy import State
from selfheal_remediator.healing.restart_check import CAUSE, REASON, RestartChecks
from selfheal_remediator.kube.deletion_check import CHECK_AGAIN, FIRST_RETRY
from tests.pure.remediator.fake_api import FakeApi, Json
from tests.pure.remediator.healing_world import NOW, World, policy_json
from tests.pure.remediator.running import (
    NODES,
    PODS,
    POLICIES,
    node,
    running,
    until,
    until_later,
    web_pod,
    web_policy,
)


def _world(**spec: Any) -> World:
    """A policy whose evictions all are accepted and none of them carried out."""
    made = World({"ns/web": policy_json(**spec)}, {"web": 3}, fate=lambda _: "ignored")
    made.run(120)
    return made


def _notices(world: World, seconds: int) -> list[tuple[float, str, str]]:
    found = []
    for _ in range(seconds):
        plan = world.tick()
        found += [(world.now, notice.reason, notice.message) for notice in plan.notices]
    return found


def test_a_restart_whose_pod_stays_frees_its_owner_and_says_so() -> None:
    world = _world()
    world.break_one("web")
    said = _notices(world, 200)
    [first] = [item for item in said if item[1] == REASON][:1]
    assert first[0] - world.evicted[0][0] == pytest.approx(60, abs=2)
    assert "not deleted" in first[2]
    # Not said twice in other words.
    assert [reason for _, reason, _ in said if reason == "HealingThrottled"] == []
    policy_state = world.healing.policy_states["ns/web"]
    assert policy_state.status is not None
    assert policy_state.status.state in (State.THROTTLED, State.HEALING)


def test_it_is_not_restarted_for_ever() -> None:
    world = _world(restart={"maxPerHour": 4})
    world.break_one("web")
    said = _notices(world, 5000)
    assert len(world.evicted) == 4
    assert len([reason for _, reason, _ in said if reason == REASON]) == 4
    assert "HealingGaveUp" in [reason for _, reason, _ in said]
    begun = [moment for moment, *_ in world.evicted]
    assert all(later - before > 60 for before, later in pairwise(begun))


def test_a_pod_that_is_read_and_found_undeleted_frees_its_owner_sooner() -> None:
    world = _world()
    world.break_one("web")
    while not world.evicted:
        world.tick()
    uid = world.evicted[0][2]
    world.tick()
    again = world.now + 600
    world.healing.not_deleted("ns/web", uid, again, world.now)
    assert [item[1] for item in _notices(world, 2)] == [REASON]
    _notices(world, 590)
    assert len(world.evicted) == 1
    _notices(world, 60)
    assert len(world.evicted) == 2


def test_of_a_pod_that_went_meanwhile_or_another_nothing_is_reported() -> None:
    world = _world()
    world.fate = lambda _: ""
    world.break_one("web")
    while not world.evicted:
        world.tick()
    for uid in (world.evicted[0][2], "another"):
        world.healing.not_deleted("ns/web", uid, world.now + 9, world.now)
    world.healing.not_deleted("ns/other", world.evicted[0][2], world.now + 9, world.now)
    assert REASON not in [item[1] for item in _notices(world, 300)]


# -- when pods are read ----------------------------------------------------------------------


def _restarted() -> tuple[World, RestartChecks, str]:
    world = _world()
    world.break_one("web")
    while not world.evicted:
        world.tick()
    return world, RestartChecks(), world.evicted[0][2]


def _due(world: World, checks: RestartChecks) -> tuple[list[str], float | None]:
    found, wake = checks.due(world.healing.policy_states.values(), world.now)
    return [pod.uid for _, pod in found], wake


def test_a_pod_is_read_once_some_seconds_after_its_eviction_was_accepted() -> None:
    world, checks, uid = _restarted()
    checks.accepted("uid-web", uid, world.now)
    assert _due(world, checks) == ([], world.now + 5)
    world.run(5)
    assert _due(world, checks) == ([uid], None)
    assert _due(world, checks) == ([], None)  # it is being read
    assert checks.answered("uid-web", uid, world.now, deleted=True) is None
    assert _due(world, checks) == ([], world.now + CHECK_AGAIN)


def test_evictions_without_effect_are_repeated_ever_later() -> None:
    world, checks, uid = _restarted()
    waits = []
    for _ in range(3):
        checks.accepted("uid-web", uid, world.now)
        again = checks.answered("uid-web", uid, world.now, deleted=False)
        assert again is not None
        waits.append(again - world.now)
    assert waits == [FIRST_RETRY, 2 * FIRST_RETRY, 4 * FIRST_RETRY]


def test_a_new_leader_reads_what_its_predecessor_restarted() -> None:
    world, checks, uid = _restarted()
    world.new_leader()
    world.run(6)
    assert _due(world, checks)[0] == [uid]


def test_a_pod_that_is_gone_is_forgotten() -> None:
    world, checks, uid = _restarted()
    checks.accepted("uid-web", uid, world.now)
    world.gone(world.pods[uid])
    world.run(9)
    assert _due(world, checks) == ([], None)
    assert checks.answered("uid-web", uid, NOW, deleted=False) is None


# -- with everything around it ---------------------------------------------------------------


class Ignoring(FakeApi):
    """Answers every eviction with success and deletes nothing."""

    def __init__(self) -> None:
        super().__init__(lambda *_: "")
        for name, ready in (("bad", "False"), ("good", "True")):
            self.put(f"{NODES}/{name}", node(name, "False"))
            self.put(f"{PODS}/web-{name}", web_pod("web", name, ready))
        self.put(f"{POLICIES}/web", web_policy("web"))

    def _evict(self, path: str, body: Json, *, dry_run: bool) -> tuple[int, Json]:
        if not dry_run:
            self.did.append(("EVICT", path, body))
        return 201, {"kind": "Status", "status": "Success"}


class Spoiling(Ignoring):
    """The same; what is evicted cannot be read any more."""

    def _evict(self, path: str, body: Json, *, dry_run: bool) -> tuple[int, Json]:
        if not dry_run:
            pod = path.removesuffix("/eviction")
            self.put(pod, {**self.get(pod), "status": {"conditions": "none"}})
        return super()._evict(path, body, dry_run=dry_run)


def _reported(server: FakeApi) -> set[str]:
    """What Events say of restarts whose pods were not deleted."""
    return {event["message"] for event in server.reported if event["reason"] == REASON}


def test_it_is_reported_counted_and_tried_again_within_limits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("selfheal_remediator.kube.deletion_check.CHECK_AFTER", 0.1)
    server = Ignoring()
    config = Config.model_validate({"rules": [], "policies": {"evaluationInterval": "1s"}})
    with running(server, config) as made:
        [text] = until_later(made, "it is reported", lambda: _reported(server))
        assert "web-bad" in text
        count = f'healing_refused_total{{cause="{CAUSE}"}} 1.0'
        until("it is counted", lambda: count in made.metrics.render().decode())
        evicted = [verb for verb, *_ in server.did if verb == "EVICT"]
        assert len(evicted) == 1
        status = lambda: stage_status(server)  # noqa: E731
        until("it is in the status", lambda: "not deleted" in status().get("message", ""))
        assert status()["restarts"] == 1  # it stays counted
    server.close()


def test_it_is_reported_also_of_a_pod_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("selfheal_remediator.kube.deletion_check.CHECK_AFTER", 0.1)
    server = Spoiling()
    config = Config.model_validate({"rules": [], "policies": {"evaluationInterval": "1s"}})
    with running(server, config) as made:
        until_later(made, "it is reported", lambda: _reported(server))
    server.close()
    assert [record.msg for record in caplog.records if "deletion_reads" in record.name] == []


@pytest.mark.parametrize("error", [OSError("token file"), ValueError("x"), SystemExit(1)])
def test_an_eviction_that_ends_in_an_exception_counts_as_made(error: BaseException) -> None:
    """Or one that was made would be repeated at once, and would use up no budget."""
    server = Ignoring()
    config = Config.model_validate({"rules": [], "policies": {"evaluationInterval": "1s"}})
    with running(server, config) as made:
        evict = made.parts.api.evict

        def broken(*args: Any, dry_run: bool = False) -> Any:
            if dry_run:
                return evict(*args, dry_run=True)
            evict(*args)
            raise error

        made.parts.api.evict = broken  # type: ignore[method-assign, assignment]
        until_later(made, "it is evicted", lambda: any(verb == "EVICT" for verb, *_ in server.did))
        until("it is settled", lambda: made.healer.restarts_in_flight == 0)
        handled = threading.Event()
        made.post(handled.set)
        assert handled.wait(60)
        assert made.healer.healing.policy_states["d/web"].restarts == 1
    server.close()


def stage_status(server: FakeApi) -> Json:
    found = server.get(f"{POLICIES}/web").get("status")
    return dict(found or {})
