"""All nodes together: a simulated cluster, in which nothing may ever pass a limit."""

import copy
import random
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from selfheal_remediator.config import PODS_HUNG, Config
from selfheal_remediator.kube.informer import Change
from selfheal_remediator.kube.objects import Node, Taint, node_from_json
from selfheal_remediator.node.actions import Action, Kind
from selfheal_remediator.node.annotation import STATE_KEY, Phase, State, read_state
from selfheal_remediator.node.conditions import observe
from selfheal_remediator.node.evaluate import assess
from selfheal_remediator.node.limits import budget
from selfheal_remediator.node.patches import SCALE_DOWN_KEY, node_patch
from selfheal_remediator.node.planner import Planner
from selfheal_remediator.node.schedule import DUE_SPARE
from tests.pure.remediator import builders, json_patch
from tests.pure.remediator.builders import NOW, OWNER, READY, condition, node

NAMES = [f"n{number}" for number in range(6)]
CONFIG = Config.model_validate(
    {
        "rules": [
            {"condition": "Fault", "for": "10s", "action": "drain"},
            {"condition": "Mild", "for": "0s", "action": "cordon"},
        ],
        "limits": {"maxUnavailable": 2, "minAllowed": 0, "maxDraining": 1},
        "recovery": {"stabilizationWindow": "30s", "flapWindow": "1h", "maxFlaps": 4},
        "signal": {"enabled": False},
    }
)


def raw_node(name: str) -> dict[str, Any]:
    """A Node as the API server keeps it."""
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": "1"},
        "spec": {},
        "status": {"conditions": [_written("Ready", "True", NOW)], "nodeInfo": {"bootID": "b"}},
    }


def _written(kind: str, status: str, now: float) -> dict[str, Any]:
    text = builders.datetime_text(now)
    return {
        "type": kind,
        "status": status,
        "reason": "Why",
        "lastTransitionTime": text,
        "lastHeartbeatTime": text,
    }


class Cluster(RuleBasedStateMachine):
    """Humans, detectors, crashes and the remediator take turns on six nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.version = 1
        self.raws = {name: raw_node(name) for name in NAMES}
        self.humans: set[str] = set()
        self.flying: list[Action] = []
        #: The version of its node that each action was decided on.
        self.decided_on: dict[str, str] = {}
        self.answers: list[tuple[Action, Node]] = []
        self.events: list[Node] = []
        self.planner = self._started()
        self.paused = ""

    # -- the world ----------------------------------------------------------------------

    def _started(self) -> Planner:
        planner = Planner(CONFIG, OWNER, self.now)
        for raw in self.raws.values():
            planner.apply(Change(raw["metadata"]["name"], None, node_from_json(raw)), self.now)
        return planner

    def _changed(self, name: str) -> None:
        self.version += 1
        self.raws[name]["metadata"]["resourceVersion"] = str(self.version)
        self.events.append(node_from_json(self.raws[name]))

    @precondition(lambda self: self.events)
    @rule(count=st.integers(1, 20))
    def the_watch_delivers(self, count: int) -> None:
        for found in self.events[:count]:
            self.planner.apply(Change(found.name, None, found), self.now)
        del self.events[:count]

    @precondition(lambda self: self.answers)
    @rule()
    def an_answer_is_heard(self) -> None:
        action, found = self.answers.pop(0)
        self.planner.settled(action, found, self.now)

    @rule(
        name=st.sampled_from(NAMES),
        kind=st.sampled_from(["Fault", "Mild"]),
        status=st.sampled_from(["True", "False", "Unknown"]),
    )
    def detector_writes(self, name: str, kind: str, status: str) -> None:
        conditions = self.raws[name]["status"]["conditions"]
        conditions[:] = [item for item in conditions if item["type"] != kind]
        conditions.append(_written(kind, status, self.now))
        self._changed(name)

    @rule(
        names=st.sets(st.sampled_from(NAMES), min_size=3), kind=st.sampled_from(["Fault", "Mild"])
    )
    def several_go_bad(self, names: set[str], kind: str) -> None:
        for name in sorted(names):
            self.detector_writes(name, kind, "True")

    @rule(name=st.sampled_from(NAMES))
    def human_cordons(self, name: str) -> None:
        spec = self.raws[name]["spec"]
        if not spec.get("unschedulable"):
            spec["unschedulable"] = True
            state = read_state(node_from_json(self.raws[name]))
            if state is None or not state.phase.cordoned:
                # Else it was ours, uncordoned unseen: nothing tells their cordon from ours.
                self.humans.add(name)
            self._changed(name)

    @rule(name=st.sampled_from(NAMES))
    def human_uncordons(self, name: str) -> None:
        if self.raws[name]["spec"].pop("unschedulable", None):
            self.humans.discard(name)
            self._changed(name)

    @rule(seconds=st.sampled_from([0.5, 5, 11, 40, 4000]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for raw in self.raws.values():
            for item in raw["status"]["conditions"]:
                item["lastHeartbeatTime"] = builders.datetime_text(self.now)
        for name in NAMES:
            self._changed(name)

    @rule(why=st.sampled_from(["", "tea"]))
    def human_pauses(self, why: str) -> None:
        self.paused = why

    @rule()
    def the_leader_is_replaced(self) -> None:
        self.flying.clear()
        self.answers.clear()
        self.events.clear()
        self.planner = self._started()

    # -- the remediator -----------------------------------------------------------------

    @rule()
    def plans(self) -> None:
        plan = self.planner.plan(self.now, paused=self.paused)
        if self.paused:
            assert not any(i.kind in (Kind.CORDON, Kind.DRAIN) for i in plan.actions)
        self.flying += plan.actions
        for action in plan.actions:
            self.decided_on[action.uid] = self.planner.entries[action.uid].node.version

    @precondition(lambda self: self.flying)
    @rule(at=st.integers(0, 9))
    def a_write_arrives(self, at: int) -> None:
        action = self.flying.pop(at % len(self.flying))
        raw = self.raws[action.node]
        fresh = node_from_json(raw)
        entry = self.planner.entries[action.uid]
        if fresh.version != self.decided_on[action.uid]:
            history = observe(entry.history, entry.node, fresh, CONFIG.rules, self.now)
            again = assess(fresh, history, self.planner.scope(), self.now)
            asked = again.action or again.limited_action
            if asked is None or asked.kind is not action.kind:
                self.planner.failed(action, self.now)
                return
        after = json_patch.apply(raw, node_patch(action, fresh, scale_down_disabled=True))
        self.version += 1
        after["metadata"]["resourceVersion"] = str(self.version)
        self.raws[action.node] = after
        if action.kind is Kind.UNCORDON:
            assert action.node not in self.humans, "a foreign cordon was undone"
        found = node_from_json(after)
        self.answers.append((action, found))
        self.events.append(found)

    @precondition(lambda self: self.flying)
    @rule(arrives=st.booleans())
    def an_answer_is_lost(self, arrives: bool) -> None:
        """The change was made or not: the remediator looks before it continues."""
        if arrives:
            self.a_write_arrives(0)
            if not self.answers:
                return
            action, _ = self.answers.pop()
        else:
            action = self.flying.pop()
        found = node_from_json(self.raws[action.node])
        self.planner.apply(Change(found.name, None, found), self.now)
        self.planner.failed(action, self.now)

    # -- what always holds --------------------------------------------------------------

    def _ours(self) -> list[Node]:
        found = [node_from_json(raw) for raw in self.raws.values()]
        return [
            n
            for n in found
            if (state := read_state(n)) and state.phase.cordoned and n.unschedulable
        ]

    @invariant()
    def never_over_the_budget(self) -> None:
        assert len(self._ours()) <= budget(CONFIG.limits, len(NAMES))

    @invariant()
    def foreign_cordons_stay(self) -> None:
        for name in self.humans:
            assert self.raws[name]["spec"].get("unschedulable"), name

    @invariant()
    def never_too_many_drains(self) -> None:
        states = [read_state(n) for n in self._ours()]
        draining = [s for s in states if s and s.phase.value == "draining"]
        fresh = [s for s in draining if self.now < s.drain_started + CONFIG.drain.deadline]
        assert len(fresh) <= CONFIG.limits.max_draining

    @invariant()
    def marks_come_and_go_with_cordons(self) -> None:
        for raw in self.raws.values():
            annotations = raw["metadata"].get("annotations") or {}
            if SCALE_DOWN_KEY in annotations:
                assert STATE_KEY in annotations

    def teardown(self) -> None:
        """In the end all conditions are good: every node that we cordon is uncordoned."""
        self.paused = "even while paused"
        for name in NAMES:
            conditions = [_written("Ready", "True", self.now)]
            conditions += [_written(kind, "False", self.now) for kind in ("Fault", "Mild")]
            self.raws[name]["status"]["conditions"] = conditions
            self._changed(name)
        for action in self.flying:
            self.planner.failed(action, self.now)
        self.flying.clear()
        # Beyond the flap window: what flapped needs a human only while that lasts.
        for _ in range(5):
            self.time_passes(4000)
            self.the_watch_delivers(999)
            self.plans()
            while self.flying:
                self.a_write_arrives(0)
            while self.answers:
                self.an_answer_is_heard()
        assert self._ours() == []
        super().teardown()


TestCluster = Cluster.TestCase
TestCluster.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# -- single stories ------------------------------------------------------------------------


def _planner(count: int, **more: Any) -> Planner:
    base = {
        "limits": {"maxUnavailable": "100%", "maxDraining": 0},
        "recovery": {"stabilizationWindow": "10s"},
    }
    about = builders.config(builders.rule(), builders.rule(condition="Genuine"), **{**base, **more})
    planner = Planner(about, OWNER, NOW)
    for number in range(count):
        _put(planner, node(f"n{number}", condition("False"), condition("False", "Genuine")))
    assert planner.plan(NOW).actions == ()
    return planner


def _put(planner: Planner, found: Node, now: float = NOW) -> None:
    planner.apply(Change(found.name, None, found), now)


def _carry_out(planner: Planner, actions: tuple[Action, ...], now: float) -> None:
    for action in actions:
        entry = planner.entries[action.uid]
        raw = {
            "metadata": {
                "uid": action.uid,
                "resourceVersion": entry.node.version,
                "annotations": dict(entry.node.annotations),
            },
            "spec": {"unschedulable": True} if entry.node.unschedulable else {},
        }
        patch = node_patch(action, entry.node, scale_down_disabled=False)
        after = json_patch.apply(raw, patch)
        done = replace(
            entry.node,
            unschedulable=bool(after["spec"].get("unschedulable")),
            annotations=after["metadata"]["annotations"],
            version=str(int(entry.node.version) + 1),
        )
        planner.settled(action, done, now)


def test_it_is_known_which_nodes_are_cordoned_for_their_pods() -> None:
    """Also those that are about to be; no more after a failure, another term, or the node's end."""
    rules = builders.rule(condition=PODS_HUNG, action="cordon"), builders.rule(action="cordon")
    about = builders.config(*rules, limits={"maxUnavailable": "100%"}, signal={"enabled": False})
    planner = Planner(about, OWNER, NOW)
    for name in ("hung", "bad", "well"):
        _put(planner, node(name, condition("True" if name == "bad" else "False")))
    planner.plan(NOW)
    assert planner.pods_hung == []
    planner.signal({"hung": condition("True", PODS_HUNG)}, NOW)
    (cordon,) = planner.plan(NOW).actions
    assert planner.pods_hung == ["hung"]
    planner.failed(cordon, NOW)
    assert planner.pods_hung == []
    planner.plan(NOW + 1)
    assert planner.pods_hung == ["hung"]
    planner.forget_pending()
    assert planner.pods_hung == []
    _carry_out(planner, planner.plan(NOW + 2).actions, NOW + 2)
    planner.plan(NOW + 2)
    assert planner.pods_hung == ["hung"]
    planner.apply(Change("hung", planner.entries["uid-hung"].node, None), NOW + 3)
    assert planner.pods_hung == []


def test_a_false_wave_touches_one_percent_and_the_genuine_are_served() -> None:
    """1,000 nodes; 400 get one false condition within seconds, 5 another, genuine one."""
    planner = _planner(1000)
    order = random.Random(7).sample(range(1000), 405)
    genuine = set(order[:5])
    touched: set[str] = set()
    at_most = 0
    now = NOW
    for number in order:
        now += 0.02
        kind = "Genuine" if number in genuine else "Fault"
        entry = planner.entries[f"uid-n{number}"]
        bad = condition("True", kind, transition=now, heartbeat=now)
        _put(planner, builders.with_condition(entry.node, bad), now)
        actions = planner.plan(now).actions
        touched |= {
            i.node
            for i in actions
            if i.kind is Kind.CORDON and i.state and i.state.condition == "Fault"
        }
        _carry_out(planner, actions, now)
        at_most = max(at_most, _cordoned(planner, "Fault"))
    assert len(touched) <= 10
    assert at_most <= 10
    for _ in range(3):
        _carry_out(planner, planner.plan(now).actions, now)
    assert _cordoned(planner, "Fault") == 0
    assert _cordoned(planner, "Genuine") == 5
    # The detector is fixed: the wave is over, and one node that is bad later is believed.
    now += 60
    for entry in list(planner.entries.values()):
        good = condition("False", transition=now, heartbeat=now)
        _put(planner, builders.with_condition(entry.node, good), now)
    _carry_out(planner, planner.plan(now).actions, now)
    assert planner.suspects == {}
    entry = planner.entries["uid-n999"]
    bad = condition("True", transition=now + 1, heartbeat=now)
    _put(planner, builders.with_condition(entry.node, bad), now + 1)
    assert [i.node for i in planner.plan(now + 1).actions if i.kind is Kind.CORDON] == ["n999"]


def _cordoned(planner: Planner, kind: str) -> int:
    states = [read_state(entry.node) for entry in planner.entries.values()]
    return sum(1 for s in states if s is not None and s.phase.cordoned and s.condition == kind)


def _restarts_and_reports(planner: Planner, name: str, now: float, bad: str = "Fault") -> None:
    """The node's detector begins again (everything False again), then finds the node bad."""
    seen = planner.entries[f"uid-{name}"].node
    for kind in ("Fault", "Genuine"):
        seen = builders.with_condition(
            seen, condition("False", kind, transition=now, heartbeat=now)
        )
    _put(planner, seen, now)
    then = now + 60
    bad_now = condition("True", bad, transition=then, heartbeat=then)
    _put(planner, builders.with_condition(seen, bad_now), then)


def test_a_rollout_of_a_wrong_detector_is_a_wave_however_slow() -> None:
    """One node a minute gets the new detector, which is wrong: no 30 seconds contain many."""
    planner = _planner(100)
    at_most, now = 0, NOW
    for number in range(10):
        now = NOW + 60 * number
        _restarts_and_reports(planner, f"n{number}", now)
        _carry_out(planner, planner.plan(now + 60).actions, now + 60)
        at_most = max(at_most, _cordoned(planner, "Fault"))
    assert at_most <= 3  # signal.floor
    for _ in range(2):
        _carry_out(planner, planner.plan(now + 60).actions, now + 60)
    assert _cordoned(planner, "Fault") == 0
    assert planner.suspects.keys() == {"Fault"}


def test_the_same_faults_without_a_restart_of_their_detectors_are_believed() -> None:
    planner = _planner(100)
    for number in range(10):
        now = NOW + 60 * number
        seen = planner.entries[f"uid-n{number}"].node
        bad = condition("True", transition=now, heartbeat=now)
        _put(planner, builders.with_condition(seen, bad), now)
        _carry_out(planner, planner.plan(now).actions, now)
    assert _cordoned(planner, "Fault") == 10
    assert planner.suspects == {}


def test_long_after_its_detectors_restart_a_node_counts_as_any_other() -> None:
    planner = _planner(100)
    for number in range(10):
        _restarts_and_reports(planner, f"n{number}", NOW + number, bad="Other")
    now = NOW + 1000  # past signal.rolloutWindow
    for number in range(10):
        seen = planner.entries[f"uid-n{number}"].node
        bad = condition("True", transition=now + 60 * number, heartbeat=now + 60 * number)
        _put(planner, builders.with_condition(seen, bad), now + 60 * number)
        _carry_out(planner, planner.plan(now + 60 * number).actions, now + 60 * number)
    assert _cordoned(planner, "Fault") == 10


def test_a_node_that_another_system_is_working_on_counts_and_is_left_alone() -> None:
    planner = _planner(4, limits={"maxUnavailable": 1})
    for number in (0, 1):
        seen = planner.entries[f"uid-n{number}"].node
        _put(planner, builders.with_condition(seen, condition("True")))
    planner.mark({"n0": "somebody else is working on it"})
    plan = planner.plan(NOW)
    assert plan.actions == ()
    assert plan.limited_by == {"unavailable": 1}
    planner.mark({})
    assert [action.node for action in planner.plan(NOW).actions] == ["n0"]


def test_a_zone_that_falls_silent_does_not_stop_the_others() -> None:
    planner = _planner(0)
    lost = replace(READY, status="Unknown")
    for number in range(9):
        zone = "abc"[number % 3]
        labels = {"topology.kubernetes.io/zone": zone}
        _put(planner, node(f"z{number}", *([lost] if zone == "a" else []), labels=labels))
    for number in (0, 1):  # one in the silent zone, one elsewhere
        seen = planner.entries[f"uid-z{number}"].node
        _put(planner, builders.with_condition(seen, condition("True")))
    plan = planner.plan(NOW)
    assert [action.node for action in plan.actions] == ["z1"]
    assert plan.limited_by == {"zoneOutage": 1}


def test_drains_that_are_handed_out_count_in_their_zone_at_once() -> None:
    limits = {"maxUnavailable": "100%", "maxDraining": 9, "maxDrainingPerZone": 1}
    planner = _planner(0, limits=limits, signal={"enabled": False})
    for number in range(4):
        labels = {"topology.kubernetes.io/zone": "ab"[number % 2]}
        _put(planner, node(f"d{number}", condition("True"), labels=labels))
    actions = planner.plan(NOW).actions
    phases = [action.state.phase.value for action in actions if action.state]
    assert sorted(phases) == ["cordoned", "cordoned", "draining", "draining"]
    _carry_out(planner, actions, NOW)
    plan = planner.plan(NOW)
    assert plan.actions == ()
    assert plan.limited_by == {"maxDraining": 2}


def test_groups_are_known_by_their_label() -> None:
    limits = {
        "maxUnavailable": "100%",
        "maxDraining": 0,
        "groupLabel": "pool",
        "maxUnavailablePerGroup": 1,
    }
    planner = _planner(0, limits=limits, signal={"enabled": False})
    for number in range(4):
        _put(planner, node(f"g{number}", condition("True"), labels={"pool": "xy"[number % 2]}))
    plan = planner.plan(NOW)
    assert sorted(action.node for action in plan.actions) == ["g0", "g1"]
    assert plan.limited_by == {"group": 2}


def test_what_was_bad_long_before_the_start_is_no_wave() -> None:
    about = builders.config(limits={"maxUnavailable": "100%"})
    planner = Planner(about, OWNER, NOW)
    for number in range(100):
        long_ago = condition("True", transition=NOW - 5000 - 100 * number)
        _put(planner, node(f"n{number}", long_ago))
    planner.plan(NOW)
    assert planner.suspects == {}


def _cordons_in_ten_minutes(planner: Planner, begun: float) -> list[str]:
    """The nodes that are held while nothing more is heard of any."""
    names = []
    for second in range(0, 600, 10):
        actions = planner.plan(begun + second).actions
        names += [action.node for action in actions if action.kind is Kind.CORDON]
        _carry_out(planner, actions, begun + second)
    return names


def test_a_new_leader_suspects_the_detector_as_its_predecessor_did() -> None:
    now = NOW + 3600
    planner = Planner(builders.config(limits={"maxUnavailable": "100%"}), OWNER, now)
    for number in range(100):
        reverted = State(Phase.SUSPECT, OWNER, "Fault", "True", "Why", transition=int(NOW))
        bad = condition("True", transition=NOW + number % 10, heartbeat=now)
        _put(planner, node(f"n{number}", bad, state=reverted if number < 3 else None), now)
    planner.begin_term(now)
    assert _cordons_in_ten_minutes(planner, now) == []
    assert planner.suspects == {"Fault": NOW}


@pytest.mark.parametrize("rollout", [False, True])
def test_a_standby_that_saw_a_wave_suspects_it_when_it_leads_much_later(rollout: bool) -> None:
    planner = _planner(100)
    for number in range(60):
        if rollout:
            _restarts_and_reports(planner, f"n{number}", NOW + 60 * number)
        else:
            _goes_bad(planner, f"n{number}", NOW + number / 10)
    now = NOW + 60 * 60 + 3600
    for entry in list(planner.entries.values()):
        beat = replace(entry.node.conditions["Fault"], heartbeat=now)
        _put(planner, builders.with_condition(entry.node, beat), now)
    planner.begin_term(now)
    assert _cordons_in_ten_minutes(planner, now) == []
    for number in range(60):
        good = condition("False", transition=now, heartbeat=now)
        _put(planner, builders.with_condition(planner.entries[f"uid-n{number}"].node, good), now)
    _goes_bad(planner, "n99", now)
    assert _cordons_in_ten_minutes(planner, now + 600) == ["n99"]


def test_of_a_wave_that_passed_before_it_leads_a_standby_suspects_nothing() -> None:
    planner = _planner(100)
    for number in range(10):
        _goes_bad(planner, f"n{number}", NOW)
    for number in range(3, 10):
        good = condition("False", transition=NOW + 9, heartbeat=NOW + 9)
        entry = planner.entries[f"uid-n{number}"]
        _put(planner, builders.with_condition(entry.node, good), NOW + 9)
    planner.begin_term(NOW + 60)
    actions = planner.plan(NOW + 60).actions
    assert sorted(i.node for i in actions if i.kind is Kind.CORDON) == ["n0", "n1", "n2"]


def test_silence_of_most_nodes_is_the_control_planes_fault() -> None:
    planner = _planner(10, signal={"enabled": False})
    lost = replace(READY, status="Unknown")
    for number in range(6):
        entry = planner.entries[f"uid-n{number}"]
        _put(planner, builders.with_condition(entry.node, lost), NOW)
    _put(planner, builders.with_condition(planner.entries["uid-n9"].node, condition("True")), NOW)
    plan = planner.plan(NOW)
    assert plan.actions == ()
    assert plan.limited_by == {"controlPlaneUnhealthy": 1}


def test_a_watch_event_older_than_our_own_write_is_ignored() -> None:
    planner = _planner(3)
    before = replace(planner.entries["uid-n0"].node, version="5")
    bad = builders.with_condition(before, condition("True"))
    _put(planner, bad, NOW)
    (action,) = planner.plan(NOW).actions
    _carry_out(planner, (action,), NOW)
    _put(planner, replace(bad, version="5"), NOW)
    assert planner.plan(NOW).actions == ()
    assert planner.entries["uid-n0"].node.unschedulable


def test_when_etcd_was_restored_what_is_listed_counts_though_it_is_older() -> None:
    planner = _planner(3)
    _put(planner, replace(planner.entries["uid-n0"].node, version="900"), NOW)
    bad = builders.with_condition(planner.entries["uid-n0"].node, condition("True"))
    listed = replace(bad, version="500")
    planner.apply(Change("n0", None, listed, restored=True), NOW)
    assert [action.kind for action in planner.plan(NOW).actions] == [Kind.CORDON]
    _put(planner, replace(builders.with_condition(bad, condition("False")), version="501"), NOW)
    assert planner.entries["uid-n0"].node.version == "501"


@pytest.mark.parametrize(
    ("known", "listed", "version", "counts"),
    [
        ("900", "500", 950, True),  # nothing later than the list is known: it was undone
        ("900", "500", 900, True),
        ("900", "500", 890, False),  # changed after the list was read
        ("900", "900", 950, False),
        ("500", "900", 950, False),  # the watch tells it
    ],
)
def test_a_list_shows_what_a_restore_of_etcd_took_back(
    known: str, listed: str, version: int, counts: bool
) -> None:
    planner = _planner(3)
    state = State(Phase.CORDONED, OWNER, "Fault", "True", since=int(NOW))
    before = planner.entries["uid-n0"].node
    cordoned = builders.node(
        "n0", condition("True"), state=state, unschedulable=True, version=known
    )
    _put(planner, cordoned, NOW)
    nodes = [replace(before, version=listed), replace(before, name="x", uid="uid-x")]
    assert [node.name for node in planner.listed(nodes, version, NOW)] == ["n0"] * counts
    assert planner.entries["uid-n0"].node.unschedulable is not counts
    planner.plan(NOW)
    assert planner.tally(NOW).cordoned == (0 if counts else 1)
    assert "uid-x" not in planner.entries


def test_an_answer_older_than_the_watch_does_not_undo_what_was_seen() -> None:
    planner = _planner(3)
    bad = builders.with_condition(planner.entries["uid-n0"].node, condition("True"))
    _put(planner, bad, NOW)
    (action,) = planner.plan(NOW).actions
    assert action.state is not None
    written = replace(
        bad, version="5", unschedulable=True, annotations={STATE_KEY: action.state.to_json()}
    )
    fixed = replace(builders.with_condition(written, condition("False")), version="6")
    _put(planner, fixed, NOW)
    planner.settled(action, written, NOW)
    assert planner.entries["uid-n0"].node == fixed
    planner.plan(NOW)
    (back,) = planner.plan(NOW + 10).actions
    assert back.kind is Kind.UNCORDON


def test_a_place_is_free_only_when_the_node_is_really_uncordoned() -> None:
    planner = _planner(3, limits={"maxUnavailable": 1})
    _put(planner, builders.with_condition(planner.entries["uid-n0"].node, condition("True")))
    (cordon,) = planner.plan(NOW).actions
    _carry_out(planner, (cordon,), NOW)
    good = builders.with_condition(planner.entries["uid-n0"].node, condition("False"))
    _put(planner, good, NOW)
    _put(planner, builders.with_condition(planner.entries["uid-n1"].node, condition("True")))
    assert planner.plan(NOW).actions == ()
    (back,) = planner.plan(NOW + 10).actions
    assert back.kind is Kind.UNCORDON
    assert planner.plan(NOW + 10).actions == ()
    _carry_out(planner, (back,), NOW + 10)
    (cordon,) = planner.plan(NOW + 10).actions
    assert (cordon.kind, cordon.node) == (Kind.CORDON, "n1")


def test_a_paused_drain_keeps_its_place() -> None:
    """When it continues, it has as much more time: another must not have begun beside it."""
    planner = _planner(3, recovery={"stabilizationWindow": "2h"}, drain={"deadline": "30m"})
    state = State(Phase.DRAINING, OWNER, "Fault", "True", action="drain", drain_started=int(NOW))
    draining = builders.node("n0", condition("True"), unschedulable=True, state=state)
    _put(planner, draining, NOW)
    planner.plan(NOW)
    assert planner.tally(NOW + 1801).draining == 1
    planner.plan(NOW + 1801)
    assert planner.tally(NOW + 1801).draining == 0
    good = condition("False", transition=NOW + 1801, heartbeat=NOW + 1801)
    _put(planner, builders.with_condition(draining, good), NOW + 1801)
    planner.plan(NOW + 1801)
    assert planner.tally(NOW + 1801).draining == 1


def test_a_paused_drain_past_its_deadline_keeps_nobody_awake() -> None:
    """Its deadline is over, and nothing happens before the node has recovered: the main loop is
    not to evaluate it again and again until then."""
    planner = _planner(3, recovery={"stabilizationWindow": "10m"}, drain={"deadline": "30m"})
    state = State(Phase.DRAINING, OWNER, "Fault", "True", action="drain", drain_started=int(NOW))
    draining = builders.node("n0", condition("True"), unschedulable=True, state=state)
    _put(planner, draining, NOW)
    planner.plan(NOW)
    good = condition("False", transition=NOW + 1801, heartbeat=NOW + 1801)
    _put(planner, builders.with_condition(draining, good), NOW + 1801)
    plan = planner.plan(NOW + 1801)
    assert plan.actions == ()
    assert plan.wake == NOW + 1801 + 600


def test_a_failed_write_is_tried_again_later_not_at_once() -> None:
    planner = _planner(3)
    _put(planner, builders.with_condition(planner.entries["uid-n0"].node, condition("True")), NOW)
    (action,) = planner.plan(NOW).actions
    planner.failed(action, NOW)
    plan = planner.plan(NOW)
    assert plan.actions == ()
    assert plan.wake is not None
    (again,) = planner.plan(plan.wake).actions
    assert (again.kind, again.node) == (action.kind, action.node)


def test_the_peak_is_by_when_the_population_was_last_so_large() -> None:
    planner = _planner(20)
    now = NOW + 7200
    for number in range(1, 20):
        gone = planner.entries[f"uid-n{number}"].node
        planner.apply(Change(gone.name, gone, None), now)
    assert planner.tally(now + 3599).peak == 20
    assert planner.tally(now + 3601).peak == 1


RATE = {"rate": {"count": 1, "window": "10m"}}


@pytest.mark.parametrize(
    ("limit", "pace"), [("rate", RATE), ("minInterval", {"minInterval": "10m"})]
)
@pytest.mark.parametrize("phase", [Phase.CORDONED, Phase.DRAINED, Phase.HEALED])
def test_a_new_leader_knows_from_the_nodes_when_the_last_ones_were_cordoned(
    limit: str, pace: dict[str, Any], phase: Phase
) -> None:
    planner = _planner(3, limits={"maxUnavailable": "100%", **pace})
    now = NOW + 7200
    state = State(phase, OWNER, "Fault", "True", "Why", "cordon", cordons=(int(now - 400),))
    found = node("n2", condition("True", heartbeat=now), unschedulable=phase.cordoned, state=state)
    _put(planner, replace(found, version="2"), now)
    planner.begin_term(now)
    _goes_bad(planner, "n0", now)
    plan = planner.plan(now)
    assert [i.node for i in plan.actions if i.kind is Kind.CORDON] == []
    assert plan.limited_by[limit] >= 1
    assert planner.plan(now + 199).limited_by[limit] >= 1
    granted = [i.node for i in planner.plan(now + 200).actions if i.kind is Kind.CORDON]
    assert len(granted) == 1


def test_a_new_leader_is_not_stopped_where_nothing_was_cordoned() -> None:
    planner = _planner(3, limits={"maxUnavailable": "100%", **RATE})
    planner.begin_term(NOW + 7200)
    _goes_bad(planner, "n0", NOW + 7200)
    assert [action.node for action in planner.plan(NOW + 7200).actions] == ["n0"]


def test_a_rate_beyond_what_the_nodes_keep_counts_as_used_up_for_the_rest() -> None:
    planner = _planner(
        3,
        limits={"maxUnavailable": "100%", "rate": {"count": 1, "window": "10h"}},
        recovery={"flapWindow": "6h"},
    )
    now = NOW + 72000
    planner.begin_term(now)
    _goes_bad(planner, "n0", now)
    plan = planner.plan(now)
    assert (plan.actions, plan.limited_by) == ((), {"rate": 1})
    assert plan.wake == pytest.approx(now + 4 * 3600)


def test_a_cordon_that_waited_for_the_limits_is_written_with_its_own_time() -> None:
    planner = _planner(3, limits={"maxUnavailable": "100%", "minInterval": "5m"})
    for name in ("n0", "n1"):
        _goes_bad(planner, name, NOW)
    _carry_out(planner, planner.plan(NOW).actions, NOW)
    (late,) = planner.plan(NOW + 300).actions
    assert late.state is not None
    assert late.state.cordons == (int(NOW + 300),)


def test_a_rate_that_is_added_does_not_take_the_past_for_idle() -> None:
    planner = _planner(3, limits={"maxUnavailable": "100%"})
    now = NOW + 7200
    _goes_bad(planner, "n0", now)
    _carry_out(planner, planner.plan(now).actions, now)
    _goes_bad(planner, "n1", now + 60)
    planner.plan(now + 60, paused="tea")
    limits = {"maxUnavailable": "100%", "rate": {"count": 1, "window": "10m"}}
    planner.reconfigure(_with_limits(planner, limits), now + 60)
    plan = planner.plan(now + 60)
    assert (plan.actions, plan.limited_by) == ((), {"rate": 1})
    assert [action.node for action in planner.plan(now + 660).actions] == ["n1"]


def test_a_rate_that_is_raised_gives_room_at_once() -> None:
    planner = _planner(3, limits={"maxUnavailable": "100%", "rate": {"count": 1, "window": "10m"}})
    now = NOW + 7200
    _goes_bad(planner, "n0", now)
    _carry_out(planner, planner.plan(now).actions, now)
    _goes_bad(planner, "n1", now)
    assert planner.plan(now).limited_by == {"rate": 1}
    limits = {"maxUnavailable": "100%", "rate": {"count": 2, "window": "10m"}}
    planner.reconfigure(_with_limits(planner, limits), now + 60)
    assert [action.node for action in planner.plan(now + 60).actions] == ["n1"]


def _goes_bad(planner: Planner, name: str, now: float) -> None:
    bad = condition("True", transition=now, heartbeat=now)
    _put(planner, builders.with_condition(planner.entries[f"uid-{name}"].node, bad), now)


def _with_limits(planner: Planner, limits: dict[str, Any]) -> Config:
    made = builders.config(limits=limits).limits
    return planner.config.model_copy(update={"limits": made})


def test_dry_run_remembers_what_it_would_cordon() -> None:
    planner = _planner(3, mode="dryRun", limits={"maxUnavailable": 1})
    for name in ("uid-n0", "uid-n1"):
        _put(planner, builders.with_condition(planner.entries[name].node, condition("True")), NOW)
    (action,) = planner.plan(NOW).actions
    _carry_out(planner, (action,), NOW)
    assert planner.plan(NOW).actions == ()
    # The watch shows the node as it really is: untouched. That is no human uncordon.
    actual = planner.entries[action.uid].node
    shown = replace(actual, unschedulable=False, annotations={}, version="9")
    _put(planner, copy.copy(shown), NOW)
    assert planner.plan(NOW).actions == ()
    assert planner.plan(NOW).limited_by == {"maxUnavailable": 1}


@pytest.mark.parametrize("phase", [Phase.DRAINED, Phase.CORDONED])
def test_dry_run_remembers_a_cordon_through_its_later_writes(phase: Phase) -> None:
    """Their answers show the node as it really is, which nobody cordoned."""
    planner = _planner(3, mode="dryRun", limits={"maxUnavailable": 1})
    _goes_bad(planner, "n0", NOW)
    actual = replace(planner.entries["uid-n0"].node, version="9")
    (cordon,) = planner.plan(NOW).actions
    _carry_out(planner, (cordon,), NOW)
    assert cordon.state is not None
    note = replace(
        cordon, kind=Kind.NOTE, state=replace(cordon.state, phase=phase, no_room=int(NOW))
    )
    assert note.state is not None
    assert planner.request(note, NOW)
    answer = replace(actual, annotations={STATE_KEY: note.state.to_json()})
    planner.settled(note, answer, NOW)
    _put(planner, copy.copy(actual), NOW + 1)
    assert planner.plan(NOW + 1).actions == ()
    assert planner.entries["uid-n0"].assessment.standing == phase.value
    assert planner.tally(NOW + 1).cordoned == 1
    _put(planner, builders.with_condition(actual, condition("False")), NOW + 1)
    (back,) = planner.plan(NOW + 11).actions
    assert back.kind is Kind.UNCORDON
    planner.settled(back, actual, NOW + 11)
    planner.plan(NOW + 11)
    assert planner.tally(NOW + 11).cordoned == 0
    assert not planner.entries["uid-n0"].node.unschedulable


@pytest.mark.parametrize("answered", [True, False])
def test_what_was_cordoned_in_dry_run_only_is_asked_for_when_it_counts(answered: bool) -> None:
    """At once: a node of which nothing more is heard is as bad as the others."""
    planner = _planner(3, mode="dryRun")
    _goes_bad(planner, "n0", NOW)
    (dry_run,) = planner.plan(NOW).actions
    if answered:
        _carry_out(planner, (dry_run,), NOW)
    planner.reconfigure(planner.config.model_copy(update={"mode": "enforce"}), NOW)
    (cordon,) = planner.plan(NOW).actions
    assert (cordon.kind, cordon.node) == (Kind.CORDON, "n0")
    if not answered:
        _carry_out(planner, (dry_run,), NOW)  # the answer to the dry run: nothing is cordoned
        assert not planner.entries["uid-n0"].node.unschedulable
        planner.failed(dry_run, NOW)
        assert planner.plan(NOW).actions == ()  # the write is under way
    _carry_out(planner, (cordon,), NOW)
    assert planner.entries["uid-n0"].node.unschedulable
    assert planner.tally(NOW).cordoned == 1


def test_a_heartbeat_alone_is_no_reason_to_do_or_to_think_anything_else() -> None:
    planner = _planner(50)
    revision = planner.revision
    for number in range(50):
        entry = planner.entries[f"uid-n{number}"]
        for kind in ("Fault", "Genuine"):
            beat = replace(entry.node.conditions[kind], heartbeat=NOW + 300)
            _put(planner, builders.with_condition(entry.node, beat), NOW + 300)
    assert planner.plan(NOW + 300).actions == ()
    assert planner.revision == revision


def test_all_that_may_be_cordoned_are_before_the_first_is_drained() -> None:
    """Else pods go from one bad node to the next one."""
    planner = _planner(4, limits={"maxUnavailable": "100%", "maxDraining": 1})
    for number in range(3):
        entry = planner.entries[f"uid-n{number}"]
        _put(planner, builders.with_condition(entry.node, condition("True", heartbeat=NOW)))
    actions = planner.plan(NOW).actions
    assert {i.node for i in actions if i.kind is Kind.CORDON} == {"n0", "n1", "n2"}
    phases = sorted(i.state.phase.value for i in actions if i.state is not None)
    assert phases == ["cordoned", "cordoned", "draining"]


def test_neither_a_pause_nor_an_unhealthy_control_plane_keeps_a_recovered_node() -> None:
    planner = _planner(3)
    entry = planner.entries["uid-n0"]
    _put(planner, builders.with_condition(entry.node, condition("True", heartbeat=NOW)))
    _carry_out(planner, planner.plan(NOW).actions, NOW)
    assert _cordoned(planner, "Fault") == 1
    is_healthy = condition("False", transition=NOW + 1, heartbeat=NOW + 1)
    _put(planner, builders.with_condition(planner.entries["uid-n0"].node, is_healthy), NOW + 1)
    assert planner.plan(NOW + 2, paused="tea", unhealthy="it does not answer").actions == ()
    [back] = planner.plan(NOW + 12, paused="tea", unhealthy="it does not answer").actions
    assert (back.kind, back.node) == (Kind.UNCORDON, "n0")


def test_a_for_is_over_by_a_timer_not_by_the_next_event() -> None:
    about = builders.config(builders.rule(**{"for": "1m"}), limits={"maxUnavailable": "100%"})
    planner = Planner(about, OWNER, NOW)
    _put(planner, node("n", condition("True", heartbeat=NOW + 50)))
    plan = planner.plan(NOW)
    assert plan.wake == NOW + 5  # to write down that it is seen
    (note,) = planner.plan(NOW + 5).actions
    assert note.kind is Kind.NOTE
    _carry_out(planner, (note,), NOW + 5)
    plan = planner.plan(NOW + 5)
    assert (plan.actions, plan.wake) == ((), NOW + 60)
    (cordon,) = planner.plan(NOW + 60).actions
    assert cordon.kind is Kind.CORDON


def _plain(*found: Node) -> Planner:
    """A planner with the default limits."""
    planner = Planner(builders.config(), OWNER, NOW)
    for item in found:
        _put(planner, item)
    return planner


BAD = condition("True")
SILENT = replace(READY, status="Unknown")
TAINTED = {"taints": (Taint("dedicated", "x", "NoSchedule"),)}


@pytest.mark.parametrize(
    ("name", "bad", "others", "asked"),
    [
        ("the only node", node("n", BAD), [], False),
        ("the only node, not ready", node("n", BAD, SILENT), [], False),
        ("the other one is cordoned", node("n", BAD), [node("o", unschedulable=True)], False),
        ("the other one is silent", node("n", BAD), [node("o", SILENT)], False),
        ("the other one is tainted", node("n", BAD), [node("o", **TAINTED)], False),
        ("all are tainted", node("n", BAD, **TAINTED), [node("o", **TAINTED)], True),
        (
            "the other one is not selected",
            node("n", BAD),
            [node("o", labels={"node-role.kubernetes.io/control-plane": ""})],
            False,
        ),
        ("another one is there", node("n", BAD), [node("o")], True),
    ],
)
def test_the_only_schedulable_node_is_never_cordoned(
    name: str, bad: Node, others: list[Node], asked: bool
) -> None:
    plan = _plain(bad, *others).plan(NOW)
    assert [i.node for i in plan.actions if i.kind is Kind.CORDON] == (["n"] if asked else [])


def test_two_cordons_of_one_plan_leave_one_node() -> None:
    planner = _plain(node("a", BAD), node("b", BAD))
    limits = planner.config.limits.model_copy(update={"min_allowed": 2})
    planner.reconfigure(planner.config.model_copy(update={"limits": limits}), NOW)
    plan = planner.plan(NOW)
    assert [i.node for i in plan.actions if i.kind is Kind.CORDON] == ["a"]
    assert plan.limited_by == {"unavailable": 1}


def test_how_many_must_stay_can_be_set() -> None:
    planner = _plain(node("n", BAD))
    limits = builders.config(limits={"minSchedulable": 0}).limits
    planner.reconfigure(planner.config.model_copy(update={"limits": limits}), NOW)
    assert [action.kind for action in planner.plan(NOW).actions] == [Kind.CORDON]


@pytest.mark.parametrize(
    "pace",
    [{"minInterval": "1m"}, {"rate": {"count": 1, "window": "1m"}}],
    ids=["interval", "rate"],
)
def test_a_cordon_that_is_still_to_come_by_a_wrong_clock_delays_no_other_for_long(
    pace: dict[str, object],
) -> None:
    planner = Planner(builders.config(limits={"maxUnavailable": "100%", **pace}), OWNER, NOW - 1e6)
    ahead = State(Phase.HEALED, OWNER, cordons=(4_102_444_800,))
    for found in (node("ahead", state=ahead), node("bad", condition("True"))):
        planner.apply(Change(found.name, None, found), NOW)
    [noted] = planner.plan(NOW).actions  # that it is of now
    assert (noted.kind, noted.node) == (Kind.NOTE, "ahead")
    later = [action.node for action in planner.plan(NOW + 61).actions]
    assert later == ["bad"]


def test_a_node_that_is_seen_again_and_again_is_remembered_once() -> None:
    """Its next look lies hours ahead: nothing may pile up until then."""
    planner = _planner(3)
    state = State(Phase.HEALED, OWNER, "Fault", "True", cordons=(int(NOW),))
    for number in range(3000):
        seen = node("n0", condition("False", heartbeat=NOW + number), state=state, version="9")
        _put(planner, seen, NOW + number / 1000)
        planner.plan(NOW + number / 1000)
    assert len(planner.schedule) <= 3


def test_times_that_count_no_more_are_forgotten() -> None:
    planner = _planner(1)
    for number in range(5000):
        cordons = (int(NOW) - number % 2000,)
        state = State(Phase.HEALED, OWNER, "Fault", "True", cordons=cordons)
        _put(planner, node("n0", condition("False"), state=state, version="9"), NOW)
        planner.plan(NOW)
    assert len(planner.schedule) <= DUE_SPARE + 2
    plan = planner.plan(NOW)
    assert plan.wake is not None
    assert plan.wake <= NOW - 999 + planner.config.recovery.flap_window


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"maxUnavailable": 3}, {"maxUnavailable": 1}, "3 of 5 nodes cordoned, allowed 1"),
        (
            {"maxUnavailable": "100%"},
            {"maxUnavailable": "100%", "maxAllowed": 2},
            "cordoned, allowed 2",
        ),
        (
            {"maxUnavailable": "100%"},
            {"maxUnavailable": "100%", "minSchedulable": 4},
            "4 must stay",
        ),
    ],
)
def test_a_limit_that_is_lowered_under_what_is_out_uncordons_nothing(
    before: dict[str, Any], after: dict[str, Any], said: str
) -> None:
    planner = _planner(5, limits={"maxDraining": 0, **before}, signal={"enabled": False})
    for number in range(3):
        seen = planner.entries[f"uid-n{number}"].node
        _put(planner, builders.with_condition(seen, condition("True")))
    _carry_out(planner, planner.plan(NOW).actions, NOW)
    assert planner.tally(NOW).cordoned == 3
    config = planner.config.model_copy(
        update={"limits": Config.model_validate({"limits": {"maxDraining": 0, **after}}).limits}
    )
    planner.reconfigure(config, NOW)
    _put(planner, builders.with_condition(planner.entries["uid-n3"].node, condition("True")))
    plan = planner.plan(NOW + 1)
    assert plan.actions == ()
    blocked = planner.entries["uid-n3"].blocked
    assert blocked is not None
    assert said in blocked.text
    assert planner.tally(NOW + 1).cordoned == 3


@pytest.mark.parametrize("delay", [61.0, 86400.0, float("inf")])
def test_whatever_delay_is_asked_for_a_node_is_tried_again_within_a_minute(delay: float) -> None:
    planner = _planner(3)
    _put(planner, builders.with_condition(planner.entries["uid-n0"].node, condition("True")), NOW)
    (action,) = planner.plan(NOW).actions
    planner.failed(action, NOW, delay)
    assert planner.plan(NOW + 59).actions == ()
    assert [one.kind for one in planner.plan(NOW + 60).actions] == [action.kind]
