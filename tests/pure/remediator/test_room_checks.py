"""A cordoned node whose pods fit nowhere else: checked again and again, and nothing written.

First what is decided, then the whole remediator before a server that answers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from selfheal_remediator.config import Config
from selfheal_remediator.controller.loop import Remediator
from selfheal_remediator.kube.informer import Change
from selfheal_remediator.node.actions import Kind
from selfheal_remediator.node.annotation import Phase, State
from selfheal_remediator.node.planner import Planner
from selfheal_remediator.node.room_checks import ROOM_AGAIN_AFTER, RoomCheck, RoomChecks
from tests.pure.remediator import builders
from tests.pure.remediator.builders import NOW, OWNER, condition
from tests.pure.remediator.crowded_cluster import CrowdedCluster
from tests.pure.remediator.running import (
    NODES,
    PATIENCE,
    PODS,
    advance,
    node,
    pod,
    running,
    stamp,
    until,
)

NO_ROOM_CHECKS = "selfheal_remediator_drain_duration_seconds_count"
CONFIG = Config.model_validate(
    {
        "rules": [{"condition": "Fault", "for": 0, "action": "drain"}],
        "limits": {"maxUnavailable": "100%", "minAllowed": 3},
        "policies": {"enabled": False},
        "recovery": {"stabilizationWindow": "1h"},
        "drain": {"autoscaler": "absent"},
    }
)

NO_ROOM = State(
    Phase.CORDONED,
    OWNER,
    "Fault",
    "True",
    action="drain",
    first_seen=int(NOW) - 600,
    since=int(NOW) - 600,
    no_room=int(NOW) - 60,
)
UID = "uid-n"


def _planner(state: State = NO_ROOM, *, headroom: bool = True, checks: bool = True) -> Planner:
    planner = Planner(builders.config(drain={"headroom": headroom}), OWNER, NOW - 9999)
    if checks:
        planner.rooms.found = {}
    raw = builders.node("n", condition("True"), unschedulable=True, state=state)
    planner.apply(Change("n", None, raw), NOW)
    return planner


def _drains(planner: Planner, now: float) -> bool:
    return [action.kind for action in planner.plan(now).actions] == [Kind.DRAIN]


def _found(planner: Planner, at: float, *, fits: bool) -> None:
    planner.rooms.checked(UID, RoomCheck(at, fits=fits))
    planner.schedule.put(planner.entries[UID], at)


def test_it_is_checked_before_anything_is_written() -> None:
    planner = _planner()
    assert planner.plan(NOW).actions == ()
    assert planner.rooms.take() == UID
    _found(planner, NOW + 1, fits=True)
    assert _drains(planner, NOW + 1)
    assert planner.rooms.take() is None


def test_a_minute_after_a_check_in_vain_it_is_checked_again() -> None:
    planner = _planner()
    planner.plan(NOW)
    planner.rooms.take()
    _found(planner, NOW + 1, fits=False)
    plan = planner.plan(NOW + 1)
    assert (plan.actions, plan.wake, planner.rooms.take()) == ((), NOW + 61, None)
    assert planner.plan(NOW + 61).actions == ()
    assert planner.rooms.take() == UID


def test_a_node_that_waits_for_a_slot_is_checked_again_after_a_minute() -> None:
    planner = _planner()
    planner.plan(NOW)
    planner.rooms.take()
    _found(planner, NOW, fits=True)
    assert planner.plan(NOW, paused="by a person").limited_by == {"paused": 1}
    assert planner.plan(NOW + 60).actions == ()
    assert planner.rooms.take() == UID


def test_a_check_takes_no_slot_and_waits_for_none() -> None:
    planner = _planner()
    assert planner.plan(NOW).limited_by == {}
    assert planner.tally(NOW).draining == 0
    assert planner.rooms.take() == UID


def test_what_was_found_before_the_clock_was_set_back_does_not_count() -> None:
    planner = _planner()
    _found(planner, NOW + 1000, fits=True)
    assert not _drains(planner, NOW)
    assert planner.rooms.take() == UID


@pytest.mark.parametrize(
    ("state", "headroom", "checks"),
    [
        (replace(NO_ROOM, no_room=0), True, True),
        (replace(NO_ROOM, no_room=int(NOW) + 10), True, True),
        (NO_ROOM, False, True),
        (NO_ROOM, True, False),
    ],
    ids=["room is not known to lack", "by a clock ahead", "without headroom", "nobody checks"],
)
def test_else_the_drain_begins_at_once(state: State, headroom: bool, checks: bool) -> None:
    planner = _planner(state, headroom=headroom, checks=checks)
    assert _drains(planner, NOW)
    assert planner.rooms.take() is None


def test_a_node_that_recovers_is_not_checked() -> None:
    planner = _planner()
    planner.plan(NOW)
    raw = builders.node("n", condition("False"), unschedulable=True, state=NO_ROOM, version="2")
    planner.apply(Change("n", None, raw), NOW + 1)
    planner.plan(NOW + 1)
    assert planner.rooms.take() is None


def test_what_was_found_long_ago_is_forgotten() -> None:
    checks = RoomChecks()
    checks.checked("old", RoomCheck(NOW, fits=True))
    checks.checked("new", RoomCheck(NOW + 61, fits=False))
    assert checks.found == {"new": RoomCheck(NOW + 61, fits=False)}


# -- the whole remediator --------------------------------------------------------------------


class Cluster(CrowdedCluster):
    """A bad node with a pod that fits nowhere else: the other node takes none."""

    def __init__(self) -> None:
        #: Requests that fail.
        self.broken = ""
        self.events = 0
        super().__init__(self._trouble)

    def _trouble(self, _: str, path: str) -> str:
        self.events += path.endswith("/events")
        return "500" if self.broken and self.broken in path else ""

    def turns_bad(self, name: str = "bad", ahead: float = 0.0) -> None:
        """What the detector writes; ahead: so many seconds from now."""
        with self.changing(f"{NODES}/{name}") as raw:
            known = {"status": "True", "lastHeartbeatTime": stamp(-ahead)}
            raw["status"]["conditions"][1] |= known

    def writes(self, name: str = "bad") -> int:
        """How often the node was written."""
        path = f"{NODES}/{name}"
        return sum(verb != "EVICT" and found == path for verb, found, _ in self.did)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.close()


def _checks(remediator: Remediator) -> float:
    registry = remediator.metrics.registry
    return registry.get_sample_value(NO_ROOM_CHECKS, {"result": "no-room"}) or 0.0


def _turn(remediator: Remediator) -> None:
    """The main loop decides once more."""
    turn = threading.Event()
    remediator.post(turn.set)
    assert turn.wait(PATIENCE)


def _not_draining(remediator: Remediator) -> bool:
    """Whether the answers to the ends of all drains were heard, too."""
    found = [remediator.planner.entry_named(name) for name in ("bad", "worse")]
    entries = [entry for entry in found if entry is not None and entry.state is not None]
    return all(
        entry.pending is None and entry.state and entry.state.phase is Phase.CORDONED
        for entry in entries
    )


def _cordoned_only(cluster: Cluster, remediator: Remediator) -> None:
    until("it knows the nodes", lambda: remediator.known_once)
    cluster.turns_bad()
    until("there is no room", lambda: cluster.state().no_room)
    until("that is known", lambda: _not_draining(remediator))


def _check_again(remediator: Remediator, checks: int = 1) -> None:
    before = _checks(remediator)
    advance(remediator, ROOM_AGAIN_AFTER + 1)

    def checked() -> bool:
        _turn(remediator)
        return _checks(remediator) >= before + checks

    until("it is checked", checked)
    _turn(remediator)


def test_nothing_is_written_or_reported_while_there_is_no_room(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    with running(cluster, CONFIG) as remediator:
        _cordoned_only(cluster, remediator)
        until("it is reported", lambda: cluster.events >= len(("Cordoned", "Drain", "NoHeadroom")))
        begun, state, events = cluster.writes(), cluster.state(), cluster.events
        caplog.set_level(logging.INFO)
        caplog.clear()
        for minute in range(120):
            cluster.turns_bad(ahead=61.0 * minute)
            _check_again(remediator)
        assert cluster.writes() == begun
        assert cluster.state() == state
        assert remediator.planner.tally(remediator.clock()).draining == 0
        assert cluster.events == events
        assert not [record.message for record in caplog.records if "bad" in record.message]


def test_several_nodes_are_checked_and_one_slot_drains_them_in_turn(cluster: Cluster) -> None:
    names = ["bad", "worse"]
    cluster.put(f"{NODES}/worse", node("worse", "False"))
    cluster.put(f"{PODS}/other", pod("other", "worse"))
    with running(cluster, CONFIG) as remediator:
        _cordoned_only(cluster, remediator)
        cluster.turns_bad("worse")
        until("there is no room for any", lambda: cluster.state("worse").no_room)
        until("that is known", lambda: _not_draining(remediator))
        before = [cluster.writes(name) for name in names]
        for _ in range(3):
            _check_again(remediator, 2)
        assert [cluster.writes(name) for name in names] == before
        cluster.add_room()
        until("it is seen", lambda: remediator.planner.entry_named("roomy"))
        advance(remediator, ROOM_AGAIN_AFTER + 1)
        until("both", lambda: all(cluster.state(name).phase is Phase.DRAINED for name in names))
        assert [cluster.writes(name) for name in names] == [count + 3 for count in before]


def test_it_is_drained_soon_after_there_is_room(cluster: Cluster) -> None:
    with running(cluster, CONFIG) as remediator:
        _cordoned_only(cluster, remediator)
        _check_again(remediator)
        before = cluster.writes()
        cluster.add_room()
        until("it is seen", lambda: remediator.planner.entry_named("roomy"))
        advance(remediator, ROOM_AGAIN_AFTER + 1)
        until("it is drained", lambda: cluster.state().phase is Phase.DRAINED)
        assert cluster.writes() == before + 3  # draining, its pods may go, drained


def test_a_check_that_cannot_be_made_is_made_again(cluster: Cluster) -> None:
    with running(cluster, CONFIG) as remediator:
        _cordoned_only(cluster, remediator)
        before = cluster.writes()
        cluster.add_room()
        until("it is seen", lambda: remediator.planner.entry_named("roomy"))
        cluster.broken = "/api/v1/pods"
        tried = _latest(remediator)
        advance(remediator, ROOM_AGAIN_AFTER + 1)
        until("it fails", lambda: _latest(remediator) > tried)
        _turn(remediator)
        assert cluster.writes() == before
        cluster.broken = ""
        advance(remediator, ROOM_AGAIN_AFTER + 1)
        until("it is drained", lambda: cluster.state().phase is Phase.DRAINED)


def _latest(remediator: Remediator) -> float:
    """When it was checked last."""
    return max((found.at for found in (remediator.planner.rooms.found or {}).values()), default=0)


def test_the_next_leader_checks_before_it_writes(cluster: Cluster) -> None:
    with running(cluster, CONFIG) as remediator:
        _cordoned_only(cluster, remediator)
        before, state = cluster.writes(), cluster.state()
    later = time.time() + ROOM_AGAIN_AFTER + 1
    with running(cluster, CONFIG, lambda: later) as remediator:
        until("it checks", lambda: _checks(remediator) > 0)
        _turn(remediator)
        assert (cluster.writes(), cluster.state()) == (before, state)
