"""What the status page shows is what the remediator knows, and only while it is asked to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from selfheal_remediator.config import Config, Drain
from selfheal_remediator.controller.loop import Remediator
from selfheal_remediator.controller.status_publisher import AFTER_FAILURE, SNAPSHOT_EVERY
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
from selfheal_remediator.kube.lease import LABEL
from selfheal_remediator.node.annotation import STATE_KEY, Phase, State
from selfheal_remediator.node.planner import Planner
from selfheal_remediator.run import status_page
from selfheal_remediator.status_page.pages import Pages
from selfheal_remediator.status_page.snapshot import Level, Role, Snapshot
from selfheal_remediator.threads import supervision
from tests.pure.remediator import builders
from tests.pure.remediator.builders import NOW, OWNER, condition
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.healing_world import World, policy_json
from tests.pure.remediator.running import (
    LEASE,
    NODES,
    PODS,
    advance,
    node,
    pause,
    phase,
    pod,
    running,
    stamp,
    until,
)

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


def _shown(remediator: Remediator, role: Role = Role.LEADER) -> Snapshot:
    """The next snapshot that is made in this role."""
    known = remediator.status.snapshot

    def fresh() -> Snapshot | None:
        found = remediator.status.snapshot
        if found is not known and found and found.role is role:
            return found
        advance(remediator, SNAPSHOT_EVERY)
        remediator.post(lambda: None)
        return None

    found = until("there is another snapshot", fresh)
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
        reply = status_page(remediator, Pages())
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
        assert status_page(remediator, Pages()) is None
        remediator.reconfigure(Config.model_validate(ON))
        until(
            "there is a page",
            lambda: (status_page(remediator, Pages()) or off) and _shown(remediator),
        )
        remediator.reconfigure(off)
        until("there is none", lambda: status_page(remediator, Pages()) is None)
        until("nothing is kept", lambda: remediator.status.snapshot is None)


def test_a_pause_is_shown(api: FakeApi) -> None:
    with running(api, Config.model_validate(ON)) as remediator:
        _shown(remediator)
        pause(api, "a test")
        until("it says so", lambda: _shown(remediator).stopped == "paused: a test")


def test_before_the_nodes_are_known_nothing_is_said_of_them(api: FakeApi) -> None:
    """That there is nothing to report would be wrong."""
    api.disturb = lambda verb, path: "500" if path.startswith(NODES) else ""
    with running(api, Config.model_validate(ON)) as remediator:
        until("it leads", lambda: remediator.leader.record.view)
        reply = status_page(remediator, Pages())
        assert reply is not None
        assert reply.status == 503
        api.disturb = lambda verb, path: ""
        assert _shown(remediator).counts.nodes == 4


def test_one_that_is_read_only_shows_what_is_written_on_the_nodes(api: FakeApi) -> None:
    """It assesses none: that it has cordoned no node would be wrong."""
    for name, holder, age in ((LEASE, "", 60), (f"{LEASE}-2", "theirs", 86400)):
        meta = {"namespace": "d", "labels": {LABEL: "true"}, "creationTimestamp": stamp(age)}
        spec = {"holderIdentity": holder, "leaseDurationSeconds": 3600, "renewTime": stamp(0)}
        api.put(name, {"metadata": {"name": name.rpartition("/")[2], **meta}, "spec": spec})
    bad = node("bad", "True", unschedulable=True)
    state = State(Phase.CORDONED, by="d/selfheal-remediator", condition="Fault", status="True")
    bad["metadata"]["annotations"][STATE_KEY] = state.to_json()
    api.put(f"{NODES}/bad", bad)
    with running(api, Config.model_validate(ON)) as remediator:
        found = _shown(remediator, Role.READ_ONLY)
        assert found.stopped == "the remediator d/selfheal-remediator-2 comes first"
        assert dict(found.counts.states) == {"ok": 3, "cordoned": 1}
        assert (found.counts.cordoned, found.counts.allowed) == (None, None)
        assert [row.reason for row in found.nodes.shown] == ["Fault True"]
        assert not found.policies_known


def test_a_dry_run_is_called_one(api: FakeApi) -> None:
    with running(api, Config.model_validate({**ON, "mode": "dryRun"})) as remediator:
        assert _shown(remediator).dry_run == "remediator.config.mode is dryRun"


def test_a_page_that_cannot_be_made_stops_nothing(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ValueError("a bug of the page")

    monkeypatch.setattr("selfheal_remediator.controller.status_publisher.node_rows", fails)
    before = supervision.failures().get("main", 0)
    with running(api, Config.model_validate(ON)) as remediator:
        until("the node is drained", lambda: phase(api) == "drained")
        until("it is reported", lambda: supervision.failures().get("main", 0) > before)
        reply = status_page(remediator, Pages())
        assert reply is not None
        assert reply.status == 503
        monkeypatch.undo()
        advance(remediator, AFTER_FAILURE)
        assert _shown(remediator).counts.nodes == 4
        assert supervision.failures()["main"] == before + 1


def test_only_the_last_events_are_known_and_it_says_since_when(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(api, Config.model_validate(ON)) as remediator:
        first = _shown(remediator).events_since

        def many() -> bool:
            return len(remediator.parts.events.recent) >= 2

        until("there are Events", many)
        monkeypatch.setattr("selfheal_remediator.controller.status_publisher.MOST_RECENT", 2)
        assert _shown(remediator).events_since > first


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
    rows, states = node_rows(planner.entries.values(), config, acts=True)
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
    rows, states = node_rows(planner.entries.values(), config, acts=False)
    assert dict(states) == {"draining": 1, "foreign-cordon": 1, "ok": 1}
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
