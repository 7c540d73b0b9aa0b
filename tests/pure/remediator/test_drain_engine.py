"""The drain engine: one POST a pod, budgets wake it up, nothing of another node is touched."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from selfheal_remediator.config import Drain
from selfheal_remediator.drain.engine import Actions, NodeDrain
from selfheal_remediator.drain.eviction import FALLBACKS, UNDECIDED, UNDECIDED_TRIES
from selfheal_remediator.drain.filters import Surroundings
from selfheal_remediator.kube.budgets import Budget
from selfheal_remediator.kube.pods import Pod
from selfheal_remediator.kube.responses import EvictionResult, Outcome
from tests.pure.remediator.builders import NOW, pod

REFUSED = EvictionResult(
    Outcome.BUDGET, "The disruption budget b needs 2 healthy pods and has 2 currently"
)
ACCEPTED = EvictionResult(Outcome.ACCEPTED)


def budget(allowed: int, uid: str = "b", **more: object) -> Budget:
    """A budget over all pods `app: web`."""
    values = {
        "match_labels": {"app": "web"},
        "match_expressions": (),
        "selects": True,
        "healthy": 2,
        "desired": 2,
        "expected": 2,
        "current": True,
        "always_allow_unhealthy": False,
    }
    return Budget("default", uid, uid, "1", allowed=allowed, **{**values, **more})  # type: ignore[arg-type]


def drain(*pods: Pod, **more: object) -> NodeDrain:
    """A drain of node `n` that knows its pods."""
    around = Surroundings(Drain(), own_uid="uid-me")
    made = NodeDrain("n", "uid-n", NOW, NOW + 600, around, synced=True)
    for item in pods:
        made.pod_changed(None, item)
    made.begin_wave(0)
    return made


def _names(pods: tuple[Pod, ...]) -> list[str]:
    return sorted(item.name for item in pods)


def test_each_pod_is_asked_once_and_all_at_once() -> None:
    made = drain(pod("a"), pod("b"))
    assert _names(made.step(NOW).evict) == ["a", "b"]
    assert made.step(NOW).evict == ()
    for name in ("a", "b"):
        made.answered(f"uid-{name}", ACCEPTED, NOW)
        assert made.step(NOW + 100).evict == ()
        made.pod_changed(pod(name), pod(name, deletion=NOW + 30))
    assert not made.step(NOW + 100).done
    made.pod_changed(pod("a"), None)
    made.pod_changed(pod("b"), None)
    assert made.step(NOW + 100).done
    assert (made.evicted, made.posts) == (2, 2)


def test_a_pod_on_its_way_is_not_gone() -> None:
    """On a node that is away nobody confirms it: neither asked again nor taken for success."""
    made = drain(pod("a"), pod("b", deletion=NOW - 3600))
    assert _names(made.step(NOW).evict) == ["a"]
    made.answered("uid-a", ACCEPTED, NOW)
    made.pod_changed(pod("a"), pod("a", deletion=NOW + 30))
    for later in (1, 599, 999_999):
        actions = made.step(NOW + later, on_deadline="delete")
        assert (actions.evict, actions.delete, actions.done) == ((), (), False)


def test_nothing_begins_before_the_pods_are_known() -> None:
    made = drain(pod("a"))
    made.synced = False
    assert made.step(NOW).evict == ()
    assert not made.step(NOW).done


def test_a_refused_pod_waits_for_its_budget_not_for_a_poll() -> None:
    made = drain(pod("a"))
    made.step(NOW)
    made.answered("uid-a", REFUSED, NOW)
    actions = made.step(NOW + 1)
    assert actions.evict == ()
    assert actions.wake is not None
    assert actions.wake >= NOW + 10
    made.budget_changed(budget(0), NOW + 2)
    assert made.step(NOW + 2).evict == ()
    made.budget_changed(budget(1), NOW + 3)
    assert _names(made.step(NOW + 3).evict) == ["a"]


def test_only_as_many_are_tried_as_the_budget_allows() -> None:
    made = drain(*(pod(name) for name in "abc"))
    made.step(NOW)
    for name in "abc":
        made.answered(f"uid-{name}", REFUSED, NOW)
    made.budget_changed(budget(1), NOW + 1)
    assert _names(made.step(NOW + 1).evict) == ["a"]
    # Seen again while the first is on its way: no second one.
    made.budget_changed(budget(1), NOW + 1)
    assert made.step(NOW + 1).evict == ()
    # A budget that the controller has not computed yet opens nothing.
    made.budget_changed(budget(3, current=False), NOW + 1)
    assert made.step(NOW + 1).evict == ()


def test_a_server_that_lags_behind_its_budgets_watch_is_asked_again_at_once() -> None:
    made = drain(pod("a"))
    made.step(NOW)
    for minute in range(5):  # refused rightly, many times
        made.answered("uid-a", REFUSED, NOW + minute)
        made.budget_changed(budget(0), NOW + minute)
    made.budget_changed(budget(1), NOW + 10)
    assert _names(made.step(NOW + 10).evict) == ["a"]
    made.answered("uid-a", REFUSED, NOW + 10)
    wake = made.step(NOW + 10).wake
    assert wake is not None
    assert wake <= NOW + 10.1
    # It does not spin, though: each refusal in a row doubles the wait.
    made.step(wake)
    made.answered("uid-a", REFUSED, wake)
    later = made.step(wake).wake
    assert later is not None
    assert later - wake > 0.09


def test_without_any_budget_event_the_slow_retry_comes() -> None:
    made = drain(pod("a"))
    made.step(NOW)
    made.answered("uid-a", REFUSED, NOW)
    wake = made.step(NOW).wake
    assert wake is not None
    assert _names(made.step(wake).evict) == ["a"]


def test_two_budgets_are_tried_again_only_when_one_goes() -> None:
    made = drain(pod("a"))
    made.step(NOW)
    made.answered("uid-a", EvictionResult(Outcome.SEVERAL_BUDGETS, "more than one"), NOW)
    made.budget_changed(budget(5, "one"), NOW)
    made.budget_changed(budget(5, "two"), NOW)
    assert made.step(NOW + 1).evict == ()
    (blocker,) = made.blockers(NOW + 1)
    assert blocker.text == "more than one PDB: default/one, default/two"
    made.budget_changed(budget(5, "two"), NOW + 2, gone=True)
    assert _names(made.step(NOW + 2).evict) == ["a"]


def test_the_wait_that_the_server_asks_for_is_kept() -> None:
    made = drain(pod("a"))
    made.step(NOW)
    made.answered("uid-a", EvictionResult(Outcome.PROCESSING, "", 10.0), NOW)
    assert made.step(NOW + 9).evict == ()
    assert _names(made.step(NOW + 10).evict) == ["a"]


def test_waves_wait_for_a_fresh_read_and_for_the_wave_before() -> None:
    made = drain(pod("web"), pod("dns", priority=2_000_000_000), pod("me"))
    assert _names(made.step(NOW).evict) == ["web"]
    made.answered("uid-web", ACCEPTED, NOW)
    made.pod_changed(pod("web"), None)
    assert made.step(NOW).new_wave == 1
    assert made.step(NOW).evict == ()
    made.begin_wave(1)
    assert _names(made.step(NOW).evict) == ["dns"]
    made.pod_changed(pod("dns"), None)
    made.begin_wave(2)
    assert _names(made.step(NOW).evict) == ["me"]


def test_a_statefulset_pod_that_moved_is_not_followed() -> None:
    """kubernetes#138229: the same name, on another node, is another pod."""
    first = pod("db-0", uid="one")
    made = drain(first)
    made.step(NOW)
    made.answered("one", REFUSED, NOW)
    made.pod_changed(first, None)
    made.pod_changed(None, pod("db-0", uid="two", node="elsewhere"))
    made.budget_changed(budget(9), NOW + 1)
    actions = made.step(NOW + 999)
    assert actions.evict == ()
    assert actions.done


def test_what_stays_does_not_keep_the_drain_from_ending() -> None:
    made = drain(pod("alone", owner_kind=""), pod("done", phase="Succeeded"))
    assert made.step(NOW).done
    assert [(item.name, why) for item, why in made.staying] == [
        ("alone", "unmanaged: no controller would replace it")
    ]


def test_past_the_deadline() -> None:
    def late() -> NodeDrain:
        made = drain(pod("a"))
        made.step(NOW)
        made.answered("uid-a", REFUSED, NOW)
        return made

    after = NOW + 601
    assert _names(late().step(after, on_deadline="wait").evict) == ["a"]
    assert late().step(after, on_deadline="report").evict == ()
    actions = late().step(after, on_deadline="delete")
    assert (actions.evict, _names(actions.delete)) == ((), ["a"])


def test_what_is_reported_past_the_deadline_is_left_to_a_human() -> None:
    made = drain(pod("a"))
    made.step(NOW)
    made.answered("uid-a", REFUSED, NOW)
    made.budget_changed(budget(1), NOW + 700)
    assert made.step(NOW + 700, on_deadline="report") == Actions()
    made.pod_changed(pod("a"), None)
    assert made.step(NOW + 700, on_deadline="report").done


@pytest.mark.parametrize("outcome", [o for o in Outcome if o in FALLBACKS])
def test_a_refused_deletion_is_not_asked_for_again_at_once(outcome: Outcome) -> None:
    """Long past the deadline, whatever the server answers, and from the first answer on."""
    made = drain(pod("a"))
    made.step(NOW)
    made.answered("uid-a", REFUSED, NOW + 599)
    now, asked = NOW + 600, list[float]()
    while len(asked) < 5:
        actions = made.step(now, on_deadline="delete")
        assert (actions.evict, _names(actions.delete)) == ((), ["a"])
        asked.append(now)
        made.answered("uid-a", EvictionResult(outcome, "no"), now)
        again = made.step(now, on_deadline="delete")
        assert (again.evict, again.delete) == ((), ())
        assert again.wake is not None
        now = again.wake
    pauses = [after - before for before, after in pairwise(asked)]
    first, longest = FALLBACKS[outcome]
    assert all(first <= pause <= longest for pause in pauses)
    assert pauses == sorted(pauses)


def test_a_deletion_that_was_cancelled_is_requested_again_at_once() -> None:
    made = drain(pod("a"))
    made.step(NOW)
    made.answered("uid-a", REFUSED, NOW + 599)
    assert _names(made.step(NOW + 600, on_deadline="delete").delete) == ["a"]
    made.not_sent("uid-a")
    assert _names(made.step(NOW + 600, on_deadline="delete").delete) == ["a"]


#: What the API server may say of a pod that nobody has tried to evict, past the deadline.
FIRST_ANSWERS = [o for o in Outcome if o in FALLBACKS and o not in UNDECIDED]


@pytest.mark.parametrize("outcome", FIRST_ANSWERS)
def test_a_pod_that_was_never_tried_is_evicted_before_it_is_deleted(outcome: Outcome) -> None:
    """It came late, or another process was to evict it: its budget may have room."""
    made = drain(pod("a"))
    actions = made.step(NOW + 700, on_deadline="delete")
    assert (_names(actions.evict), actions.delete) == (["a"], ())
    made.answered("uid-a", EvictionResult(outcome, "no"), NOW + 700)
    actions = made.step(NOW + 700, on_deadline="delete")
    assert (actions.evict, _names(actions.delete)) == ((), ["a"])


def test_a_pod_that_its_budget_lets_go_past_the_deadline_is_not_deleted() -> None:
    made = drain(pod("a"), pod("b"))
    assert _names(made.step(NOW + 700, on_deadline="delete").evict) == ["a", "b"]
    made.answered("uid-a", ACCEPTED, NOW + 700)
    made.answered("uid-b", REFUSED, NOW + 700)
    actions = made.step(NOW + 700, on_deadline="delete")
    assert (actions.evict, _names(actions.delete)) == ((), ["b"])


@pytest.mark.parametrize("outcome", UNDECIDED)
def test_an_answer_that_decides_nothing_is_no_refusal(outcome: Outcome) -> None:
    made, now, tries = drain(pod("a")), NOW + 700.0, 0
    actions = made.step(now, on_deadline="delete")
    while actions.evict:
        assert actions.delete == ()
        tries += 1
        made.answered("uid-a", EvictionResult(outcome, "busy"), now)
        now += 60
        actions = made.step(now, on_deadline="delete")
    assert (tries, _names(actions.delete)) == (UNDECIDED_TRIES, ["a"])
    made = drain(pod("a"))
    made.step(NOW)
    made.answered("uid-a", REFUSED, NOW)
    made.budget_changed(budget(1), NOW + 1)
    made.step(NOW + 60)
    made.answered("uid-a", EvictionResult(outcome, "busy"), NOW + 60)
    assert _names(made.step(NOW + 700, on_deadline="delete").delete) == ["a"]


def test_the_pods_of_a_later_wave_are_evicted_before_they_are_deleted() -> None:
    made = drain(pod("web"), pod("dns", priority=2_000_000_000))
    made.step(NOW)
    made.answered("uid-web", REFUSED, NOW)
    assert made.step(NOW + 600, on_deadline="delete").new_wave == 1
    made.begin_wave(1)
    actions = made.step(NOW + 600, on_deadline="delete")
    assert (_names(actions.evict), _names(actions.delete)) == (["dns"], ["web"])


def test_a_stop_starts_nothing_new() -> None:
    assert drain(pod("a")).step(NOW, stopped=True).evict == ()


def test_blockers_are_named() -> None:
    made = drain(pod("a"), pod("b"), pod("c", deletion=NOW - 100, finalizers=("x/y",)))
    made.step(NOW)
    made.answered("uid-a", REFUSED, NOW)
    made.answered("uid-b", REFUSED, NOW)
    texts = [blocker.text for blocker in made.blockers(NOW)]
    assert texts == ["PDB default/b needs 2, has 2", "terminating, overdue, finalizers x/y"]
    assert made.causes(NOW) == {"pdb": 2, "terminating": 1}


def _drained() -> NodeDrain:
    made = drain()
    assert made.step(NOW).done
    made.watch_on()
    assert made.step(NOW) == Actions()
    return made


def test_what_is_put_on_a_drained_node_goes_again_after_a_fresh_read() -> None:
    made = _drained()
    made.pod_changed(None, pod("tolerant"))
    assert made.step(NOW + 9999).new_wave == 0  # no deadline any more
    made.begin_wave(0)
    assert _names(made.step(NOW + 9999).evict) == ["tolerant"]
    made.pod_changed(pod("tolerant"), None)
    assert made.step(NOW + 9999) == Actions()
    made.pod_changed(None, pod("tolerant", uid="second"))
    assert made.step(NOW + 9999).new_wave == 0  # each time


def test_an_owner_that_insists_is_not_fought_for_ever() -> None:
    made = _drained()
    for number in range(5):
        name = f"tolerant-{number}"
        made.pod_changed(None, pod(name))
        made.pod_changed(pod(name), pod(name, version="2"))  # seen again is not put here again
        made.begin_wave(0)
        evicted = _names(made.step(NOW).evict)
        assert evicted == ([name] if number < 3 else [])
        if evicted:
            made.pod_changed(pod(name), None)
    assert [why for _, why in made.staying] == [
        "scheduled to the drained node repeatedly by default/ReplicaSet/rs"
    ] * 2
    made.pod_changed(None, pod("other", owner_name="else"))
    made.begin_wave(0)
    assert _names(made.step(NOW).evict) == ["other"]


def test_on_a_drained_node_what_belongs_there_stays() -> None:
    made = _drained()
    made.pod_changed(None, pod("agent", owner_kind="DaemonSet"))
    made.pod_changed(None, pod("going", deletion=NOW))
    made.begin_wave(0)
    assert made.step(NOW).evict == ()
    assert made.returns.counts == {}


@pytest.mark.parametrize(
    "owner",
    [
        lambda n: {"owner_kind": "ReplicaSet", "owner_uid": f"rs-{n}"},
        lambda n: {"owner_name": f"web-h{n}", "labels": {"pod-template-hash": f"h{n}"}},
        lambda _: {"owner_kind": "StatefulSet", "name": "db-0"},
        lambda n: {"owner_kind": "Job", "owner_name": f"report-2938475{n}"},
        lambda n: {"owner_kind": "Custom", "owner_api": "x/v1", "owner_uid": f"c-{n}"},
    ],
    ids=["recreated ReplicaSet", "Deployment", "StatefulSet", "CronJob", "custom"],
)
def test_returns_are_limited_while_the_drain_runs(owner: Callable[[int], dict[str, Any]]) -> None:
    made = drain(pod("blocked", owner_name="else"))
    made.step(NOW)
    made.answered("uid-blocked", REFUSED, NOW)
    evicted = 0
    tolerations = (("", "Exists", "", ""),)
    for number in range(9):
        values = {"name": f"p-{number}", "uid": f"u-{number}", **owner(number)}
        item = pod(values.pop("name"), tolerations=tolerations, **values)
        made.pod_changed(None, item)
        if made.step(NOW).evict:
            evicted += 1
            made.answered(item.uid, ACCEPTED, NOW)
            made.pod_changed(item, replace(item, deletion=NOW))
            made.pod_changed(item, None)
    assert evicted == 1 + 3
    assert len(made.staying) == 5
    assert all("cordoned node repeatedly" in why for _, why in made.staying)
    assert all("tolerates the cordon" in why for _, why in made.staying)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=40))
def test_no_owner_is_evicted_more_often_than_its_pods_and_the_limit(
    arrivals: list[tuple[str, bool]],
) -> None:
    """Over every order of arrivals, before and after the node was empty."""
    made = drain(pod("first-a", owner_name="a"), pod("first-b", owner_name="b"))
    evicted: Counter[str] = Counter()
    for number, (owner, empties) in enumerate([("", False), *arrivals]):
        if owner:
            made.pod_changed(None, pod(f"{owner}-{number}", owner_name=owner))
        if empties and not made.evictions:
            made.watch_on()
        made.begin_wave(0)
        for item in made.step(NOW).evict:
            evicted[item.owner_name] += 1
            made.pod_changed(item, None)
    assert all(count <= 1 + 3 for count in evicted.values())


@pytest.mark.parametrize("on_deadline", ["wait", "report", "delete"])
@pytest.mark.parametrize("skew", [-3600.0, 0.0, 3600.0])
def test_a_pod_stuck_terminating_does_not_stop_the_later_waves(
    on_deadline: str, skew: float
) -> None:
    stuck = pod("stuck", deletion=NOW + skew, grace=60, finalizers=("x/y",))
    made = drain(stuck, pod("dns", priority=2_000_000_000), pod("me"))
    assert made.step(NOW, on_deadline=on_deadline) == Actions(wake=NOW + 90)
    assert made.step(NOW + 89, on_deadline=on_deadline).new_wave is None
    assert made.step(NOW + 90, on_deadline=on_deadline).new_wave == 1
    made.begin_wave(1)
    assert _names(made.step(NOW + 90, on_deadline=on_deadline).evict) == ["dns"]
    made.pod_changed(pod("dns"), None)
    assert made.step(NOW + 90, on_deadline=on_deadline).new_wave == 2
    made.begin_wave(2)
    assert _names(made.step(NOW + 90, on_deadline=on_deadline).evict) == ["me"]
    texts = [blocker.text for blocker in made.blockers(NOW + 90)]
    assert texts == ["terminating, overdue, finalizers x/y"]
    made.pod_changed(pod("me"), None)
    assert not made.step(NOW + 9999, on_deadline=on_deadline).done


@pytest.mark.parametrize("on_deadline", ["wait", "report", "delete"])
def test_a_refused_pod_holds_up_the_later_waves_only_until_the_deadline(on_deadline: str) -> None:
    made = drain(pod("web"), pod("dns", priority=2_000_000_000))
    made.step(NOW)
    made.answered("uid-web", REFUSED, NOW)
    assert made.step(NOW + 599, on_deadline=on_deadline).new_wave is None
    assert made.step(NOW + 600, on_deadline=on_deadline).new_wave == 1
    made.begin_wave(1)
    actions = made.step(NOW + 600, on_deadline=on_deadline)
    assert "dns" in _names(actions.evict) + _names(actions.delete)
    made.answered("uid-web", REFUSED, NOW + 600)
    web = made.step(NOW + 700, on_deadline=on_deadline)
    assert ("web" in _names(web.evict) + _names(web.delete)) is (on_deadline != "report")


class AgainstABudget(RuleBasedStateMachine):
    """A server with one budget, replacements that take their time, events late or twice."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.alive = {f"uid-{name}": pod(name) for name in "abcdef"}
        self.made = drain(*self.alive.values())
        self.allowed = 1
        self.posted: list[str] = []
        self.accepted: set[str] = set()
        self.posts = 0

    @rule()
    def steps(self) -> None:
        actions = self.made.step(self.now)
        for item in actions.evict:
            assert item.uid in self.alive
            assert item.uid not in self.posted
            assert item.uid not in self.accepted
            self.posted.append(item.uid)
            self.posts += 1

    @rule()
    def the_server_answers(self) -> None:
        if not self.posted:
            return
        uid = self.posted.pop(0)
        if self.allowed <= 0:
            self.made.answered(uid, REFUSED, self.now)
            return
        self.allowed -= 1
        self.accepted.add(uid)
        self.made.answered(uid, ACCEPTED, self.now)
        self.made.budget_changed(budget(self.allowed), self.now)

    @rule()
    def an_accepted_pod_goes(self) -> None:
        for uid in sorted(self.accepted & set(self.alive)):
            gone = self.alive.pop(uid)
            self.made.pod_changed(replace(gone, deletion=self.now), None)
            break

    @rule()
    def a_replacement_is_ready(self) -> None:
        if self.allowed < 1:
            self.allowed += 1
        self.made.budget_changed(budget(self.allowed), self.now)

    @rule(seconds=st.sampled_from([0.1, 1.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def it_is_over_exactly_when_all_went(self) -> None:
        assert self.made.step(self.now, stopped=True).done == (not self.alive)

    def teardown(self) -> None:
        """With the budget reopening again and again the drain ends, in few requests."""
        for _ in range(100):
            self.steps()
            while self.posted:
                self.the_server_answers()
            self.an_accepted_pod_goes()
            self.a_replacement_is_ready()
        assert not self.alive
        super().teardown()


TestAgainstABudget = AgainstABudget.TestCase
TestAgainstABudget.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("after", [False, True])
def test_a_pod_that_asked_to_stay_for_a_time_goes_when_it_is_over(after: bool) -> None:
    kept = pod("kept", keep_reason="annotation x=1h", keep_until=NOW + 300)
    made = drain(kept, pod("a"))
    if after:
        made.pod_changed(pod("a"), None)
        made.watch_on()
    actions = made.step(NOW)
    assert _names(actions.evict) == ([] if after else ["a"])
    assert actions.wake == NOW + 300
    assert made.staying == ((kept, "annotation x=1h"),)
    made.pod_changed(pod("a"), None)
    assert made.step(NOW + 299).done is not after  # it stays, and is reported
    made.begin_wave(0)
    actions = made.step(NOW + 300)
    assert _names(actions.evict) == ["kept"]
    assert made.staying == ()
    assert made.evictions["uid-kept"].stayed  # nobody put it here past the cordon
    assert made.returns.counts == {}


def test_a_pod_that_asked_to_stay_may_ask_for_longer() -> None:
    made = drain(pod("kept", keep_reason="x", keep_until=NOW + 300))
    made.step(NOW)
    made.pod_changed(pod("kept"), pod("kept", keep_reason="x", keep_until=NOW + 900))
    actions = made.step(NOW + 300)
    assert (actions.evict, actions.wake) == ((), NOW + 900)


def test_a_time_that_was_over_before_the_drain_keeps_nothing() -> None:
    made = drain(pod("kept", keep_reason="x", keep_until=NOW - 1))
    assert _names(made.step(NOW).evict) == ["kept"]


@pytest.mark.parametrize("seconds", [301.0, 86400.0, float("inf")])
@pytest.mark.parametrize("outcome", [one for one in Outcome if not one.over])
def test_no_retry_after_keeps_a_pod_for_ever(outcome: Outcome, seconds: float) -> None:
    made = drain(pod("a"))
    assert _names(made.step(NOW).evict) == ["a"]
    made.answered("uid-a", EvictionResult(outcome, "no", seconds), NOW)
    assert made.step(NOW + 299).evict == ()
    assert _names(made.step(NOW + 300).evict) == ["a"]


@given(priorities=st.lists(st.sampled_from([-5, 0, 7, 7000, 2_000_000_000]), max_size=8))
def test_by_priority_each_wave_waits_for_the_lower_ones(priorities: list[int]) -> None:
    around = Surroundings(Drain.model_validate({"order": "priority"}))
    made = NodeDrain("n", "uid-n", NOW, NOW + 600, around, synced=True)
    for number, priority in enumerate(priorities):
        made.pod_changed(None, pod(f"p{number}", priority=priority))
    for expected in sorted(set(priorities)):
        wave = made.step(NOW).new_wave  # each begins with a fresh read of the node
        assert wave is not None
        made.begin_wave(wave)
        going = made.step(NOW).evict
        assert {item.priority for item in going} == {expected}
        assert len(going) == priorities.count(expected)
        assert made.step(NOW + 1).new_wave is None
        for item in going:
            made.pod_changed(item, None)
    assert made.step(NOW).done
