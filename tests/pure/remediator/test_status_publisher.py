"""What the status page shows is what the remediator knows, and only while it is asked to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from selfheal_remediator.config import Config, Drain
from selfheal_remediator.controller.loop import Remediator
from selfheal_remediator.controller.status_publisher import SNAPSHOT_EVERY
from selfheal_remediator.controller.status_rows import (
    EVENTS_FOR,
    drain_rows,
    event_rows,
    node_rows,
    policy_rows,
    workload_rows,
)
from selfheal_remediator.drain.engine import NodeDrain
from selfheal_remediator.drain.filters import Surroundings
from selfheal_remediator.drain.running import RunningDrain
from selfheal_remediator.kube.events import ObjectEvent, RecentEvent
from selfheal_remediator.kube.informer import Change
from selfheal_remediator.node.annotation import Phase, State
from selfheal_remediator.node.planner import Planner
from selfheal_remediator.run import status_page
from selfheal_remediator.status_page.snapshot import Level, Role, Snapshot
from tests.pure.remediator import builders
from tests.pure.remediator.builders import NOW, OWNER, condition
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.healing_world import World, policy_json
from tests.pure.remediator.running import NODES, PODS, advance, node, pod, running, until

ON: dict[str, Any] = {
    "rules": [{"condition": "Fault", "for": 0, "action": "drain"}],
    "limits": {"maxUnavailable": "50%"},
    "drain": {"headroom": False},
    "policies": {"enabled": False},
    "statusPage": {"enabled": True},
}


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """A bad node with a pod, and three good ones."""
    made = FakeApi(lambda verb, path: "")
    for name in ("a", "b", "c"):
        made.put(f"{NODES}/{name}", node(name, "False"))
    made.put(f"{NODES}/bad", node("bad", "True"))
    made.put(f"{PODS}/p", pod("p", "bad"))
    yield made
    made.close()


def _shown(remediator: Remediator) -> Snapshot:
    """The next snapshot that the leader makes."""
    advance(remediator, SNAPSHOT_EVERY)
    known = remediator.status.snapshot

    def fresh() -> Snapshot | None:
        found = remediator.status.snapshot
        return found if found is not known and found and found.role is Role.LEADER else None

    remediator.post(lambda: None)
    found = until("there is another snapshot of the leader", fresh)
    assert found is not None
    return found


def test_a_bad_node_is_shown_from_its_cordon_to_its_drain(api: FakeApi) -> None:
    with running(api, Config.model_validate(ON)) as remediator:

        def drained() -> Snapshot | None:
            found = _shown(remediator)
            reasons = {event.reason for event in found.events.shown}
            phases = [row.phase for row in found.nodes.shown]
            return found if phases == ["drained"] and "DrainSucceeded" in reasons else None

        found = until("the node is drained", drained)
        assert found is not None
        [row] = found.nodes.shown
        assert (row.name, row.level, row.limit) == ("bad", Level.WARNING, "")
        assert "Fault" in row.reason
        assert row.since > 0
        assert (found.counts.nodes, found.counts.cordoned, found.counts.allowed) == (4, 1, 2)
        assert dict(found.counts.states) == {"ok": 3, "drained": 1}
        assert (found.process, found.leader, found.installation) == (
            *("me_1", "me_1"),
            "d/selfheal-remediator",
        )
        about = {event.about for event in found.events.shown}
        assert "Node bad" in about
        reply = status_page(remediator)
        assert reply is not None
        assert reply.status == 200
        assert b">bad</th>" in reply.body
        assert "Content-Security-Policy" in reply.headers


def test_it_is_off_by_default_and_follows_the_configuration(api: FakeApi) -> None:
    assert not Config().status_page.enabled
    off = Config.model_validate({**ON, "statusPage": {}})
    with running(api, off) as remediator:
        until("it leads", lambda: remediator.synced)
        assert remediator.status.snapshot is None
        assert status_page(remediator) is None
        remediator.reconfigure(Config.model_validate(ON))
        until("there is a page", lambda: (status_page(remediator) or off) and _shown(remediator))
        remediator.reconfigure(off)
        until("there is none", lambda: status_page(remediator) is None)
        until("nothing is kept", lambda: remediator.status.snapshot is None)


def test_a_pause_is_shown(api: FakeApi) -> None:
    with running(api, Config.model_validate(ON)) as remediator:
        _shown(remediator)
        lease = "/apis/coordination.k8s.io/v1/namespaces/d/leases/selfheal-remediator"
        with api.changing(lease) as raw:
            raw["metadata"].setdefault("annotations", {})["selfheal.dev/paused"] = "a test"
        until("it says so", lambda: _shown(remediator).stopped == "paused: a test")


# -- rows ------------------------------------------------------------------------------------


def test_a_node_that_waits_for_a_limit_names_it() -> None:
    config = builders.config(limits={"maxUnavailable": 1})
    planner = Planner(config, OWNER, NOW - 1000)
    found = (
        builders.node("bad-1", condition("True")),
        builders.node("bad-2", condition("True")),
        builders.node("good"),
        builders.node("quiet"),
    )
    for each in found:
        planner.apply(Change(each.name, None, each), NOW)
    planner.plan(NOW)
    rows, states = node_rows(planner.entries.values(), config, leading=True)
    assert states["ok"] == 2
    [waiting] = [row for row in rows.shown if row.limit]
    assert waiting.phase == "wants-cordon"
    assert waiting.limit == "maxUnavailable: 1 of 4 nodes cordoned, allowed 1"
    assert rows.total == 2


def test_a_standby_shows_what_is_written_on_the_nodes() -> None:
    config = builders.config()
    planner = Planner(config, OWNER, NOW)
    state = State(Phase.DRAINING, by=OWNER, condition="Fault", status="True", since=int(NOW) - 60)
    nodes = (
        builders.node("ours", condition("True"), unschedulable=True, state=state),
        builders.node("theirs", unschedulable=True),
        builders.node("good"),
    )
    for each in nodes:
        planner.apply(Change(each.name, None, each), NOW)
    rows, states = node_rows(planner.entries.values(), config, leading=False)
    assert dict(states) == {"draining": 1, "cordon of others": 1, "ok": 1}
    first, second = rows.shown
    assert (first.name, first.phase, first.since) == ("ours", "draining", NOW - 60)
    assert first.reason == "Fault True"
    assert (second.name, second.level) == ("theirs", Level.NORMAL)


def _drain(*, synced: bool = True) -> RunningDrain:
    drain = NodeDrain("n", "n", NOW - 60, NOW + 600, Surroundings(Drain()), synced=synced)
    return RunningDrain(drain)


def test_a_drain_shows_its_progress_and_what_blocks_it() -> None:
    run = _drain()
    gone, left, bare = (
        builders.pod("gone", node="n"),
        builders.pod("left", node="n"),
        builders.pod("bare", node="n", owner_kind="", owner_uid=""),
    )
    for each in (gone, left, bare):
        run.drain.pod_changed(None, each)
    run.drain.pod_changed(gone, None)
    [row] = drain_rows([run], NOW, "").shown
    assert (row.gone, row.left, row.staying) == (1, 1, 1)
    assert (row.since, row.deadline) == (NOW - 60, NOW + 600)
    assert (row.state, row.level) == ("evicts pods", Level.NORMAL)
    assert row.blockers.startswith("stay: ")


def test_a_drain_says_why_it_does_not_continue() -> None:
    run = _drain()
    run.drain.pod_changed(None, builders.pod("p", node="n"))

    def state(now: float = NOW, idle: str = "") -> str:
        return drain_rows([run], now, idle).shown[0].state

    assert state(idle="stopped") == "stopped"
    assert state(NOW + 700) == "past its deadline"
    run.standing_since = NOW
    assert state() == "makes no progress"
    run.drain.not_before = NOW + 1
    assert state() == "waits (drain.delay)"
    run.paused_since = NOW
    assert state() == "paused: its node recovers"


def test_pods_that_are_not_read_yet_are_no_progress() -> None:
    [row] = drain_rows([_drain(synced=False)], NOW, "").shown
    assert row.left is None


def test_a_drained_node_is_no_drain_any_more() -> None:
    run = _drain()
    run.drain.watch_on()
    assert drain_rows([run], NOW, "").total == 0


def test_policies_and_their_workloads_are_shown() -> None:
    document = policy_json("web")
    world = World({"ns/web": document}, {"web": 2})
    world.controllers()
    world.run(60)
    states = world.healing.policy_states.values()
    [row] = policy_rows(states).shown
    assert (row.state, row.level, row.healthy, row.desired) == ("Healthy", Level.NORMAL, 2, 2)
    [workload] = workload_rows(states).shown
    assert (workload.running, workload.desired, workload.unhealthy) == (2, 2, 0)
    assert workload.policy == row.name


def test_events_of_the_last_hour_are_shown_the_newest_first() -> None:
    event = ObjectEvent("v1", "Pod", "d", "p", "u", "Old", "text", warning=False)
    recent = [
        RecentEvent(event, NOW - EVENTS_FOR - 1),
        RecentEvent(replace(event, reason="First"), NOW - 60),
        RecentEvent(replace(event, reason="Second"), NOW - 60, "refused"),
    ]
    rows = event_rows(recent, NOW)
    assert [(row.reason, row.about, row.problem) for row in rows.shown] == [
        ("Second", "Pod d/p", "refused"),
        ("First", "Pod d/p", ""),
    ]
