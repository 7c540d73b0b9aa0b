"""A drain without progress yields its slot to one that can proceed, and continues later."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from selfheal_remediator.config import Drain
from selfheal_remediator.drain.engine import NodeDrain
from selfheal_remediator.drain.eviction import STUCK_AFTER
from selfheal_remediator.drain.filters import SYSTEM_PRIORITY, Surroundings
from selfheal_remediator.drain.standstill import CHANGED, STANDSTILL_AFTER, UNCHANGED
from selfheal_remediator.kube.informer import Change
from selfheal_remediator.kube.pods import Pod
from selfheal_remediator.kube.responses import EvictionResult, Outcome
from selfheal_remediator.node.actions import Kind
from selfheal_remediator.node.annotation import Phase, State
from selfheal_remediator.node.drain_slots import MOST_WITHOUT_SLOT
from selfheal_remediator.node.planner import Planner
from tests.pure.remediator import builders
from tests.pure.remediator.builders import NOW, OWNER, pod
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.running import NODES, PODS, node, running, until
from tests.pure.remediator.running import pod as raw_pod
from tests.pure.remediator.test_drain_engine import budget

LATER = NOW + 60 + STUCK_AFTER + STANDSTILL_AFTER


def drain(*pods: Pod, wave: int = 2) -> NodeDrain:
    """A drain of these pods, each asked for at NOW if its wave has begun."""
    made = NodeDrain("n", "uid-n", NOW, NOW + 1800, Surroundings(Drain()), synced=True)
    for item in pods:
        made.pod_changed(None, item)
    made.begin_wave(wave)
    made.step(NOW)
    return made


def refuse(made: NodeDrain, name: str, outcome: Outcome = Outcome.BUDGET) -> None:
    made.answered(f"uid-{name}", EvictionResult(outcome, "no"), NOW)


def terminating(name: str) -> Pod:
    return pod(name, deletion=NOW + 30, grace=30)


def _look(made: NodeDrain, now: float) -> float | None:
    made.step(now)
    return made.standing_since(now)


# -- what a standstill is --------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [o for o in Outcome if not o.over])
def test_a_drain_whose_pods_are_all_refused_or_overdue_stands_still(outcome: Outcome) -> None:
    made = drain(pod("a"), terminating("b"))
    refuse(made, "a", outcome)
    assert _look(made, NOW + STUCK_AFTER + 29) is None
    assert _look(made, LATER) == NOW


@pytest.mark.parametrize(
    "moving",
    [
        pod("c", deletion=LATER - 10, grace=30),  # on its way, and within its grace
        pod("c", owner_kind="DaemonSet", owner_uid="x", owner_name="x"),  # not clear yet
    ],
)
def test_a_pod_that_may_still_go_is_no_standstill(moving: Pod) -> None:
    made = drain(terminating("b"))
    made.surroundings_changed(Surroundings(Drain(), daemon_sets=frozenset()))
    made.pod_changed(None, moving)
    assert _look(made, NOW + 85) is None


def test_an_eviction_under_way_is_no_standstill() -> None:
    made = drain(pod("a"), terminating("b"))
    assert _look(made, LATER) is None  # no answer yet


@pytest.mark.parametrize("blocked", [Outcome.BUDGET, Outcome.WEBHOOK, Outcome.SEVERAL_BUDGETS])
def test_pods_of_later_waves_only_wait_for_what_stands_still(blocked: Outcome) -> None:
    system = pod("s", priority=SYSTEM_PRIORITY)
    made = drain(pod("a"), system, wave=0)
    refuse(made, "a", blocked)
    made.step(NOW + 30)
    refuse(made, "a", blocked)
    assert _look(made, LATER) == NOW
    made.standstill.yield_slot(LATER)
    assert made.requests_slot_at(LATER) == LATER + UNCHANGED[0]  # the system's pod changes nothing


def test_a_wave_that_is_about_to_begin_is_no_standstill() -> None:
    made = drain(terminating("a"), pod("s", priority=SYSTEM_PRIORITY), wave=0)
    assert made.step(LATER).new_wave == 1
    assert made.standing_since(LATER) is None
    made.standstill.yield_slot(LATER)
    assert made.requests_slot_at(LATER) == LATER + CHANGED[0]


def test_each_pod_that_goes_is_progress() -> None:
    made = drain(terminating("a"), terminating("b"))
    made.pod_changed(terminating("a"), None)
    made.step(LATER - 1)
    assert _look(made, LATER) is None
    assert _look(made, LATER - 1 + STANDSTILL_AFTER) == LATER - 1


def test_neither_past_its_deadline_nor_when_drained_does_it_stand_still() -> None:
    made = drain(terminating("a"))
    assert _look(made, made.deadline) is None
    made = drain(terminating("a"))
    made.watch_on()
    assert _look(made, LATER) is None


# -- without a slot -------------------------------------------------------------------------


def test_without_a_slot_it_evicts_nothing_until_its_deadline() -> None:
    made = drain(pod("a"))
    refuse(made, "a")
    made.standstill.yield_slot(LATER)
    made.budget_changed(budget(1), LATER)
    assert made.step(LATER).evict == ()
    assert made.step(made.deadline).evict == (pod("a"),)
    made.pod_changed(pod("a"), None)
    assert made.step(LATER).done  # the end needs no slot


def test_it_requests_a_slot_soon_when_a_budget_opens_and_else_ever_later() -> None:
    made = drain(pod("a"))
    refuse(made, "a")
    now = LATER
    for times in range(3):
        made.standstill.yield_slot(now)
        assert made.requests_slot_at(now) == min(now + UNCHANGED[0] * 2**times, now + UNCHANGED[1])
        made.budget_changed(budget(1), now)
        assert made.requests_slot_at(now) == now + CHANGED[0] * 2**times
        made.budget_changed(budget(0), now)
        made.standstill.regain_slot(now)
    assert made.requests_slot_at(now) is None


def test_where_all_pods_only_have_to_end_it_needs_no_slot() -> None:
    made = drain(terminating("a"))
    made.standstill.yield_slot(LATER)
    assert made.requests_slot_at(LATER) is None


# -- who gets a slot ------------------------------------------------------------------------


class Cluster:
    """Nodes `n0`, ... that all call for a drain, with one drain at a time."""

    def __init__(self, count: int, **limits: Any) -> None:
        limits = {"maxUnavailable": "100%", "maxDraining": 1, "minSchedulable": 0, **limits}
        config = builders.config(limits=limits, signal={"enabled": False})
        self.planner = Planner(config, OWNER, NOW - 1e6)
        self.now = NOW
        for number in range(count):
            self.set(number, "True", None)

    def set(self, number: int, status: str, state: State | None) -> None:
        """The node as it is from now on."""
        cordoned = state is not None and state.phase.cordoned
        made = builders.node(
            f"n{number}",
            builders.condition(status, heartbeat=self.now),
            state=state,
            unschedulable=cordoned,
            version=str(int(self.now)),
        )
        self.planner.apply(Change(made.name, None, made), self.now)

    def plan(self, standing: tuple[int, ...] = (), ready: tuple[int, ...] = ()) -> list[int]:
        """One look, a second later; returns which nodes it begins to drain."""
        self.now += 1
        slots = self.planner.slots
        slots.standing = {f"uid-n{n}": NOW + n for n in standing}
        slots.ready = frozenset(f"uid-n{n}" for n in ready)
        begun = []
        for action in self.planner.plan(self.now).actions:
            state = action.state
            number = int(action.node.removeprefix("n"))
            if state is not None and state.phase is Phase.DRAINING:
                assert action.kind in (Kind.CORDON, Kind.DRAIN)
                begun.append(number)
            self.set(number, "True", state)
            self.planner.settled(action, self.planner.entries[action.uid].node, self.now)
        return begun

    @property
    def without_slot(self) -> list[int]:
        return [int(uid.removeprefix("uid-n")) for uid in self.planner.slots.yielded]


def test_a_stalled_drain_yields_its_slot_only_when_it_is_wanted() -> None:
    cluster = Cluster(1)
    assert cluster.plan() == [0]
    assert cluster.plan(standing=(0,)) == []
    assert cluster.without_slot == []
    cluster = Cluster(3)
    assert cluster.plan() == [0]
    assert cluster.plan() == []
    assert cluster.plan(standing=(0,)) == [1]
    assert cluster.without_slot == [0]
    assert cluster.plan(standing=()) == []  # one at a time, as before
    tally = cluster.planner.tally(cluster.now)
    assert (tally.draining, tally.cordoned) == (1, 3)


def test_it_continues_when_a_slot_is_free_and_it_requests_one_before_others() -> None:
    cluster = Cluster(3)
    cluster.plan()
    assert cluster.plan(standing=(0,)) == [1]
    assert cluster.plan(ready=(0,)) == []
    assert cluster.without_slot == [0]  # the slot is taken
    done = State(Phase.DRAINED, OWNER, "Fault", "True", action="drain", since=int(cluster.now))
    cluster.set(1, "True", done)
    assert cluster.plan(ready=(0,)) == []
    assert cluster.without_slot == []
    assert cluster.planner.tally(cluster.now).draining == 1
    assert cluster.plan(standing=(0,)) == [2]


def test_of_several_stalled_drains_one_yields_to_each_new_one() -> None:
    cluster = Cluster(4, maxDraining=2)
    assert cluster.plan() == [0, 1]
    assert cluster.plan(standing=(1, 0)) == [2, 3]
    assert cluster.without_slot == [0, 1]
    assert cluster.planner.tally(cluster.now).draining == 2


def test_so_many_standstills_are_not_their_nodes_fault() -> None:
    count = MOST_WITHOUT_SLOT + 3
    cluster = Cluster(count)
    begun = cluster.plan()
    for _ in range(count):
        begun += cluster.plan(standing=tuple(begun))
    assert len(begun) == MOST_WITHOUT_SLOT + 1


def test_what_ended_or_outlived_its_deadline_waits_for_no_slot() -> None:
    cluster = Cluster(2)
    cluster.plan()
    cluster.plan(standing=(0,))
    assert cluster.without_slot == [0]
    cluster.now += cluster.planner.config.drain.deadline
    cluster.plan()
    assert cluster.without_slot == []


def test_while_it_is_paused_no_slot_changes_hands() -> None:
    cluster = Cluster(2)
    cluster.plan()
    cluster.planner.slots.standing = {"uid-n0": NOW}
    assert cluster.planner.plan(cluster.now + 1, paused="x").actions == ()
    assert cluster.without_slot == []


def test_a_new_leader_knows_of_no_standstill() -> None:
    cluster = Cluster(2)
    cluster.plan()
    cluster.plan(standing=(0,))
    cluster.planner.begin_term(cluster.now)
    assert cluster.without_slot == []


@pytest.mark.parametrize("most", [1, 2])
def test_a_new_leader_runs_no_more_of_its_predecessors_drains_than_may_be(most: int) -> None:
    cluster = Cluster(4, maxDraining=most)
    begun = cluster.plan()
    for _ in range(4):
        begun += cluster.plan(standing=tuple(begun))
    assert len(begun) == 4
    planner = cluster.planner
    for number in range(4):
        state = planner.entries[f"uid-n{number}"].state
        assert state is not None
        started = int(NOW) + begun.index(number)
        cluster.set(number, "True", replace(state, drain_started=started))
    planner.forget_pending()
    planner.begin_term(cluster.now)
    assert cluster.plan() == []
    assert planner.tally(cluster.now).draining == most
    assert sorted(cluster.without_slot) == sorted(begun[: 4 - most])
    done = State(Phase.DRAINED, OWNER, "Fault", "True", action="drain", since=int(cluster.now))
    for number in begun[4 - most :]:
        cluster.set(number, "True", done)
    cluster.plan(ready=tuple(begun))
    assert planner.tally(cluster.now).draining == min(most, 4 - most)


def test_a_new_leader_detects_a_stalled_drain_again() -> None:
    """It begins to watch the drain again: for a minute that counts as progress."""
    cluster, takeover = Cluster(4), NOW + 600
    begun = cluster.plan()
    begun += cluster.plan(standing=tuple(begun))
    planner = cluster.planner
    planner.forget_pending()
    planner.begin_term(cluster.now)
    made = NodeDrain("n", "uid-n", NOW, NOW + 1800, Surroundings(Drain()), synced=True)
    made.pod_changed(None, pod("a"))
    made.begin_wave(0)
    for moment in range(0, int(STANDSTILL_AFTER + STUCK_AFTER), 10):
        made.step(takeover + moment)
        made.answered("uid-a", EvictionResult(Outcome.BUDGET, "no"), takeover + moment)
        assert made.standing_since(takeover + moment) is None or moment >= STANDSTILL_AFTER
    assert _look(made, takeover + STANDSTILL_AFTER + STUCK_AFTER) is not None
    assert cluster.plan() == []  # nothing stands still that it knows of
    holder = next(number for number in begun if number not in cluster.without_slot)
    assert len(cluster.plan(standing=(holder,))) == 1
    assert planner.tally(cluster.now).draining == 1
    assert sorted(cluster.without_slot) == sorted(begun)


def test_a_drain_paused_past_its_deadline_takes_no_slot_when_it_continues() -> None:
    cluster = Cluster(2)
    cluster.plan()
    cluster.plan(standing=(0,))
    assert cluster.without_slot == [0]
    state = cluster.planner.entries["uid-n0"].state
    assert state is not None
    cluster.set(0, "False", state)  # it recovers
    cluster.plan()
    deadline = cluster.planner.config.drain.deadline
    config = cluster.planner.config
    recovery = config.recovery.model_copy(update={"stabilization_window": 2 * deadline})
    cluster.planner.reconfigure(config.model_copy(update={"recovery": recovery}), cluster.now)
    cluster.now += deadline
    cluster.set(0, "False", state)
    cluster.plan()
    cluster.set(0, "True", replace(state, drain_started=int(cluster.now)))
    cluster.plan()
    assert cluster.without_slot == [0]


# -- the whole remediator --------------------------------------------------------------------


def test_a_node_whose_pods_never_go_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfheal_remediator.drain.standstill.STANDSTILL_AFTER", 0.2)
    monkeypatch.setattr("selfheal_remediator.drain.standstill.CHANGED", (0.1, 0.1))
    monkeypatch.setattr("selfheal_remediator.drain.standstill.UNCHANGED", (0.1, 0.1))
    server = FakeApi(lambda _, path: "403" if path.endswith("/a/eviction") else "")
    for name in ("n1", "n2", "n3"):
        server.put(f"{NODES}/{name}", node(name, "False"))
    server.put(f"{PODS}/a", raw_pod("a", "n1"))
    server.put(f"{PODS}/b", raw_pod("b", "n2"))
    said: list[tuple[str, str]] = []
    config = builders.config(
        signal={"enabled": False},
        drain={"headroom": False},
        limits={"maxUnavailable": "100%", "maxDraining": 1},
    )
    with running(server, config) as made:
        monkeypatch.setattr(
            made.parts.events, "record", lambda event: said.append((event.node, event.reason))
        )
        server.put(f"{NODES}/n1", node("n1", "True"))
        until("a is refused", lambda: any(r.drain.posts for r in made.draining.running.values()))
        server.put(f"{NODES}/n2", node("n2", "True"))
        until("b goes", lambda: f"{PODS}/b" not in server.objects)
        assert ("n1", "DrainStalled") in said
        until("it continues", lambda: ("n1", "DrainResumed") in said)
    assert f"{PODS}/a" in server.objects
    server.close()


@pytest.mark.parametrize("now_allowed", [0, 1, 2])
def test_where_fewer_drains_may_run_than_do_those_continue_and_none_begins(
    now_allowed: int,
) -> None:
    cluster = Cluster(5, maxDraining=3)
    begun = cluster.plan()
    assert len(begun) == 3
    planner = cluster.planner
    limits = planner.config.limits.model_copy(update={"max_draining": now_allowed})
    planner.reconfigure(planner.config.model_copy(update={"limits": limits}), cluster.now)
    for standing in ((), (begun[0],), tuple(begun)):
        assert cluster.plan(standing=standing, ready=tuple(begun)) == []
        assert cluster.without_slot == []
        assert planner.tally(cluster.now).draining == 3
    waits = [e.blocked for e in planner.entries.values() if e.blocked is not None]
    assert {skip_reason.text for skip_reason in waits} == {f"3 drains, allowed {now_allowed}"}
    done = State(Phase.DRAINED, OWNER, "Fault", "True", action="drain", since=int(cluster.now))
    for left, number in zip((2, 1, 0), begun, strict=True):
        cluster.set(number, "True", done)
        more = cluster.plan()
        assert len(more) == max(0, now_allowed - left) - max(0, now_allowed - left - 1)
        assert left + len(more) <= max(left, now_allowed)
        if more:
            break
