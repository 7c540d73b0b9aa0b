"""What one node calls for by itself."""

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from selfheal_remediator.config import PODS_HUNG, Rule
from selfheal_remediator.kube.objects import Condition, Taint
from selfheal_remediator.node.actions import Kind
from selfheal_remediator.node.annotation import Phase, State
from selfheal_remediator.node.assessment import Assessment
from selfheal_remediator.node.conditions import NodeHistory, observe
from selfheal_remediator.node.evaluate import assess
from tests.pure.remediator.builders import (
    NOW,
    OWNER,
    condition,
    cordoned,
    look,
    node,
    rule,
    scope,
)

CORDONED = State(
    Phase.CORDONED,
    OWNER,
    condition="Fault",
    status="True",
    reason="Why",
    action="cordon",
    transition=int(NOW - 100),
    first_seen=int(NOW - 90),
    since=int(NOW - 80),
    boot_id="boot-1",
    cordons=(int(NOW - 80),),
)
BAD = condition("True")
DRAINING = replace(CORDONED, phase=Phase.DRAINING, action="drain", drain_started=int(NOW))


def test_a_bad_condition_asks_for_a_cordon() -> None:
    seen = look(node("n", BAD), scope())
    assert seen.limited_action is not None
    assert seen.limited_action.kind is Kind.CORDON
    assert seen.limited_action.state is not None
    assert (seen.limited_action.state.action, seen.limited_action.state.boot_id) == (
        "drain",
        "boot-1",
    )


def test_for_is_waited_by_our_clock_not_by_the_nodes() -> None:
    about = scope(rule(**{"for": "1m"}))
    old = node("n", condition("True", transition=NOW - 9999))
    seen = look(old, about)
    assert (seen.limited_action, seen.standing) == (None, "seen")
    assert look(old, about, NOW + 60, since=NOW).limited_action is not None


def test_a_transition_in_the_future_makes_nothing_earlier_or_later() -> None:
    """The writer's clock is its node's, and may be wrong by hours."""
    about = scope(rule(**{"for": "1m"}))
    ahead = node("n", condition("True", transition=NOW + 7200, heartbeat=NOW))
    assert look(ahead, about, NOW + 59, since=NOW).limited_action is None
    assert look(ahead, about, NOW + 60, since=NOW).limited_action is not None


def test_a_running_for_is_noted_so_that_a_restart_keeps_it() -> None:
    about = scope(rule(**{"for": "1m"}))
    bad = node("n", BAD)
    assert look(bad, about).action is None
    action = look(bad, about, NOW + 5, since=NOW).action
    assert action is not None
    assert action.kind is Kind.NOTE
    noted = node("n", BAD, state=action.state)
    # Another process sees the node for the first time, 30 s later.
    seen = look(noted, about, NOW + 30)
    assert seen.action is None
    assert seen.due == pytest.approx(NOW + 60, abs=1)


def test_a_blip_leaves_no_trace() -> None:
    noted = node("n", condition("False"), state=replace(CORDONED, phase=Phase.SEEN, cordons=()))
    action = look(noted, scope()).action
    assert action is not None
    assert (action.kind, action.state) == (Kind.CLEAR, None)


@pytest.mark.parametrize(
    ("name", "values", "standing"),
    [
        ("cordoned by a human", {"unschedulable": True}, "foreign-cordon"),
        ("deleted", {"deleting": True}, "deleting"),
        ("opted out", {"labels": {"selfheal.dev/exclude": "true"}}, "not-selected"),
        ("control plane", {"labels": {"node-role.kubernetes.io/master": ""}}, "not-selected"),
        ("on hold", {"annotations": {"selfheal.dev/exclude": "mine"}}, "excluded"),
        ("garbled", {"annotations": {"selfheal.dev/state": "{"}}, "unreadable"),
        ("other owner", {"state": replace(CORDONED, by="there/x")}, "foreign"),
        ("kured", {"annotations": {"weave.works/kured-reboot-in-progress": "x"}}, "foreign-mark"),
        (
            "cluster-autoscaler",
            {"taints": (Taint("ToBeDeletedByClusterAutoscaler", "1", "NoSchedule"),)},
            "foreign-mark",
        ),
        (
            "Karpenter",
            {"taints": (Taint("karpenter.sh/disrupted", "", "NoSchedule"),)},
            "foreign-mark",
        ),
        (
            "medik8s",
            {"taints": (Taint("remediation.medik8s.io/x", "", "NoExecute"),)},
            "foreign-mark",
        ),
    ],
)
def test_hands_off(name: str, values: dict[str, Any], standing: str) -> None:
    seen = look(node("n", BAD, **values), scope())
    assert seen.standing == standing
    assert seen.limited_action is None
    assert seen.action is None
    assert seen.why


def test_a_stale_signal_is_not_believed() -> None:
    seen = look(node("n", condition("True", heartbeat=NOW - 3600)), scope())
    assert (seen.limited_action, seen.rejected) == (None, "stale-heartbeat")


def test_observe_notes_once() -> None:
    about = scope(rule(action="observe"))
    action = look(node("n", BAD), about).action
    assert action is not None
    assert action.reason == "ConditionSeen"
    assert look(node("n", BAD, state=action.state), about).action is None


@pytest.mark.parametrize("action", ["drain", "cordon", "observe"])
def test_what_is_only_noted_does_not_stop_the_timer_of_another_rule(action: str) -> None:
    """Also where nothing more is heard of the node."""
    rules = (rule(condition="Mild", action="observe"), rule(action=action, **{"for": 600}))
    seen = look(node("n", condition("True", "Mild"), BAD), scope(*rules))
    assert seen.due is not None
    assert seen.due <= NOW + 600
    noted = seen.action is not None and seen.action.state is not None
    assert noted or action != "observe"
    assert seen.standing == ("noted" if action == "observe" else "seen")
    later = look(node("n", condition("True", "Mild"), BAD), scope(*rules), NOW + 600, since=NOW)
    assert (later.limited_action is not None) is (action != "observe")


def test_the_worst_rule_wins() -> None:
    rules = (rule(condition="Mild", action="cordon"), rule())
    seen = look(node("n", BAD, condition("True", "Mild")), scope(*rules))
    assert seen.limited_action is not None
    assert seen.limited_action.state is not None
    assert seen.limited_action.state.condition == "Fault"


def test_a_recovered_node_is_uncordoned_after_the_stabilization_window() -> None:
    about = scope(recovery={"stabilizationWindow": "1m"})
    good = cordoned(CORDONED, condition("False"))
    assert look(good, about).action is None
    assert look(good, about).due == NOW + 60
    action = look(good, about, NOW + 60, since=NOW).action
    assert action is not None
    assert action.kind is Kind.UNCORDON


@pytest.mark.parametrize("conditions", [[], [condition("Unknown")], [BAD]])
def test_unknown_absent_or_bad_is_no_recovery(conditions: list[Any]) -> None:
    seen = look(cordoned(CORDONED, *conditions), scope(), NOW + 9999, since=NOW)
    assert seen.action is None
    assert seen.due is None or seen.due > NOW + 9999


def test_another_bad_condition_keeps_the_node() -> None:
    rules = (rule(), rule(condition="Other", action="cordon"))
    found = cordoned(CORDONED, condition("False"), condition("True", "Other"))
    assert look(found, scope(*rules), NOW + 9999, since=NOW).action is None


def test_latched_is_remembered_even_if_the_rule_forgot() -> None:
    latched = replace(CORDONED, latched=True)
    now = NOW + 600
    good = cordoned(latched, condition("False", heartbeat=now))
    assert look(good, scope(), now, since=NOW).action is None
    rebooted = replace(good, boot_id="boot-2")
    assert look(rebooted, scope(), now, since=NOW).action is not None


def test_a_rule_that_was_dropped_keeps_no_node_cordoned_for_ever() -> None:
    found = cordoned(CORDONED)
    about = scope(rule(condition="Else"))
    action = look(found, about, NOW + 400).action
    assert action is not None
    assert action.kind is Kind.UNCORDON


def test_a_human_uncordon_cancels() -> None:
    found = node("n", BAD, state=CORDONED)
    action = look(found, scope()).action
    assert action is not None
    assert action.kind is Kind.CANCEL
    cancelled = node("n", BAD, state=action.state)
    assert look(cancelled, scope()).limited_action is None
    # The same one, reported with other texts and times.
    for reason, moved in (("Why", NOW - 1), ("Else", NOW - 1), ("Else", NOW - 100)):
        again = node("n", condition("True", reason=reason, transition=moved), state=action.state)
        assert look(again, scope()).limited_action is None
        assert look(again, scope(rule(reason="^Why$"))).limited_action is None


@pytest.mark.parametrize("action", ["observe", "drain"])
def test_a_reason_that_alternates_is_written_down_once(action: str) -> None:
    about = scope(rule(action=action, **{"for": "10m" if action == "drain" else 0}))
    found, history = node("n", BAD), NodeHistory()
    history = observe(history, None, found, about.config.rules, NOW)
    first = assess(found, history, about, NOW + 9).action
    assert first is not None
    for second in range(10, 300, 10):
        now = NOW + second
        told = condition("True", reason="XY"[second % 20 // 10], transition=now, heartbeat=now)
        after = node("n", told, state=first.state)
        history = observe(history, found, after, about.config.rules, now)
        found = after
        assert assess(found, history, about, now).action is None
    taken_over = look(found, about, NOW + 300)
    assert taken_over.action is None
    if action == "drain":
        assert taken_over.due == pytest.approx(NOW + 600, abs=1)


def test_what_was_written_down_of_one_rule_counts_for_it_only() -> None:
    narrow, wide = rule(reason="^X$", **{"for": "5m"}), rule(**{"for": "10m"})
    about = scope(narrow, wide)
    noted = State(Phase.SEEN, OWNER, "Fault", "True", "X", "drain", first_seen=int(NOW - 400))
    found = node("n", condition("True", reason="X"), state=replace(noted, rule=wide.mark))
    assert look(found, about).limited_action is None
    assert look(found, about, NOW + 200).limited_action is not None
    found = node("n", condition("True", reason="X"), state=replace(noted, rule=narrow.mark))
    assert look(found, about).limited_action is not None


def test_no_reason_escapes_a_wave() -> None:
    about = replace(scope(), suspects={"Fault": NOW})
    first, second = node("n", BAD), node("n", condition("True", reason="Else"))
    history = observe(NodeHistory(), None, first, about.config.rules, NOW)
    history = observe(history, first, second, about.config.rules, NOW + 1)
    assert assess(second, history, about, NOW + 1).rejected == "suspected-detector"


def test_a_cancelled_occurrence_is_over_when_the_condition_is_good_not_unknown() -> None:
    cancelled = replace(CORDONED, phase=Phase.CANCELLED, cordons=())
    unknown = look(node("n", condition("Unknown"), state=cancelled), scope())
    assert unknown.action is None
    good = look(node("n", condition("False"), state=cancelled), scope()).action
    assert good is not None
    assert good.state is None


def test_a_new_leader_does_not_undo_a_humans_uncordon_of_hung_pods() -> None:
    """PodsHung is said by the leader itself: by each with times of its own, and not at once."""
    about = scope(rule(condition=PODS_HUNG), recovery={"stabilizationWindow": "5m"})
    cancelled = replace(CORDONED, phase=Phase.CANCELLED, condition=PODS_HUNG, cordons=())
    before, history = None, NodeHistory()

    def seen(now: float, *said: Condition) -> Assessment:
        nonlocal before, history
        found = node("n", *said, state=cancelled)
        history = observe(history, before, found, about.config.rules, now)
        before = found
        return assess(found, history, about, now)

    def is_healthy(since: float) -> Condition:
        return condition("False", PODS_HUNG, transition=since, heartbeat=since)

    unhealthy = condition("True", PODS_HUNG, transition=NOW + 30, heartbeat=NOW + 30)
    for now, said in (
        (NOW, ()),
        (NOW + 1, (is_healthy(NOW + 1),)),
        (NOW + 30, (unhealthy,)),
        (NOW + 99, (unhealthy,)),
    ):
        assert (seen(now, *said).standing, seen(now, *said).limited_action) == ("cancelled", None)
    # Well for the stabilization window it is over, by itself; what comes then is a new decision.
    assert seen(NOW + 200, is_healthy(NOW + 200)).due == NOW + 500
    over = seen(NOW + 500, is_healthy(NOW + 200)).action
    assert over is not None
    assert over.state is None


def test_too_many_cordons_need_a_human() -> None:
    flapping = replace(CORDONED, cordons=(int(NOW - 300), int(NOW - 200), int(NOW - 80)))
    seen = look(cordoned(flapping, condition("False")), scope(), NOW + 9999, since=NOW)
    assert seen.action is None
    assert "a human must uncordon it" in seen.why


#: Of no clock.
FAR = int(NOW) + 10**9


@pytest.mark.parametrize(
    ("state", "rules", "fault", "wanted"),
    [
        # A person uncordoned it; a rule that was dropped; too many cordons.
        (replace(CORDONED, phase=Phase.CANCELLED, since=FAR), (), "True", Kind.CORDON),
        (replace(CORDONED, since=FAR), (rule(condition="Else"),), "True", Kind.UNCORDON),
        (replace(CORDONED, cordons=(FAR, FAR, FAR)), (), "False", Kind.UNCORDON),
        (replace(CORDONED, phase=Phase.HEALED, cordons=(FAR,)), (), "False", Kind.CLEAR),
    ],
)
def test_a_time_that_no_clock_wrote_is_over_as_one_of_now(
    state: State, rules: tuple[Rule, ...], fault: str, wanted: Kind
) -> None:
    about, unschedulable = scope(*rules), state.phase.cordoned
    found = node("n", condition(fault), state=state, unschedulable=unschedulable)
    first = look(found, about)
    assert first.limited_action is None
    assert first.action is not None
    assert first.action.kind is Kind.NOTE
    assert first.action.state is not None
    assert first.action.state.phase is state.phase
    later = NOW + 90_000  # longer than every time that is set
    found = node(
        "n",
        condition(fault, heartbeat=later),
        state=first.action.state,
        unschedulable=unschedulable,
    )
    if wanted is not Kind.UNCORDON or fault == "False":
        assert look(found, about, NOW + 60, since=NOW).action is None  # as it was written
    seen = look(found, about, later, since=NOW)
    action = seen.action or seen.limited_action
    assert action is not None
    assert action.kind is wanted


def test_a_clock_that_is_ahead_is_waited_for() -> None:
    """By less than clocks differ: what it wrote stays as it is."""
    ahead = int(NOW) + 3000
    state = replace(CORDONED, since=ahead, cordons=(ahead,))
    assert look(cordoned(state, condition("False")), scope()).action is None


def test_a_cordoned_node_waits_for_a_drain_slot() -> None:
    waiting = replace(CORDONED, action="drain")
    seen = look(cordoned(waiting, BAD), scope())
    assert seen.limited_action is not None
    assert seen.limited_action.kind is Kind.DRAIN


WAITING = replace(CORDONED, action="drain")
LATCHED = replace(WAITING, latched=True)
NO_ROOM = replace(WAITING, no_room=int(NOW - 3600))


@pytest.mark.parametrize(
    ("name", "state", "found", "drained"),
    [
        ("bad", WAITING, BAD, True),
        ("good", WAITING, condition("False"), False),
        ("good, and had no room", NO_ROOM, condition("False"), False),
        ("bad, and had no room", NO_ROOM, BAD, True),
        ("latched, not rebooted", LATCHED, condition("False"), True),
        ("latched, rebooted", replace(LATCHED, boot_id="boot-0"), condition("False"), False),
        ("good by a silent writer", WAITING, condition("False", heartbeat=NOW - 3600), True),
        ("unknown", WAITING, condition("Unknown"), True),
    ],
)
def test_a_node_in_its_stabilization_window_is_not_drained(
    name: str, state: State, found: Condition, drained: bool
) -> None:
    seen = look(cordoned(state, found), scope(recovery={"stabilizationWindow": "5m"}))
    assert (seen.limited_action is not None and seen.limited_action.kind is Kind.DRAIN) is drained
    assert drained or seen.due == NOW + 300
    begun = replace(state, phase=Phase.DRAINING, drain_started=int(NOW), no_room=0)
    assert (
        look(cordoned(begun, found), scope(recovery={"stabilizationWindow": "5m"})).recovering
        is not drained
    )


@given(
    st.sampled_from([WAITING, NO_ROOM]),
    st.lists(
        st.tuples(st.sampled_from(["True", "False", "Unknown"]), st.sampled_from([1, 61, 301])),
        min_size=1,
    ),
)
def test_whatever_went_before_a_node_is_emptied_while_it_is_not_good(
    state: State, told: list[tuple[str, int]]
) -> None:
    """Not while it recovers, at whatever moment a place is free; again when it is bad again."""
    about, now = scope(recovery={"stabilizationWindow": "5m"}), NOW
    before, history = None, NodeHistory()
    for status, seconds in told:
        now += seconds
        found = cordoned(state, condition(status, transition=None, heartbeat=now))
        history = observe(history, before, found, about.config.rules, now)
        before, limited_action = found, assess(found, history, about, now).limited_action
        assert (limited_action is not None and limited_action.kind is Kind.DRAIN) is (
            status != "False"
        )


def test_a_drain_for_hung_pods_does_not_pause_because_they_have_left() -> None:
    state = replace(DRAINING, condition=PODS_HUNG)
    rules = (rule(condition=PODS_HUNG),)
    assert not look(cordoned(state, condition("False", PODS_HUNG)), scope(*rules)).recovering
    assert look(cordoned(DRAINING, condition("False")), scope()).recovering


def test_a_cordon_becomes_a_drain_when_a_worse_rule_joins() -> None:
    rules: tuple[Rule, ...] = (rule(action="cordon"), rule(condition="Worse"))
    seen = look(cordoned(CORDONED, BAD, condition("True", "Worse")), scope(*rules))
    assert seen.limited_action is not None
    assert seen.limited_action.kind is Kind.DRAIN


def test_a_wave_is_not_cordoned_or_uncordoned_but_older_cases_stay() -> None:
    about = replace(scope(), suspects={"Fault": NOW - 20})
    assert look(node("n", BAD), about).rejected == "suspected-detector"
    touched = replace(CORDONED, first_seen=int(NOW - 10))
    action = look(cordoned(touched, BAD), about).action
    assert action is not None
    assert (action.kind, action.reason) == (Kind.UNCORDON, "DetectorSuspected")
    assert look(cordoned(CORDONED, BAD), about).action is None
    other = node("n", condition("True", "Genuine"))
    about = replace(scope(rule(condition="Genuine")), suspects=about.suspects)
    assert look(other, about).limited_action is not None


def test_an_excluded_node_is_uncordoned() -> None:
    found = cordoned(CORDONED, BAD, labels={"selfheal.dev/exclude": "true"})
    action = look(found, scope()).action
    assert action is not None
    assert action.kind is Kind.UNCORDON


@pytest.mark.parametrize(
    ("selectors", "labels", "asked"),
    [
        ({}, {}, True),
        ({"nodeSelector": {"pool": "a"}}, {"pool": "a"}, True),
        ({"nodeSelector": {"pool": "a"}}, {"pool": "b"}, False),
        ({"nodeSelector": {"pool": "a"}}, {}, False),
        ({"excludeNodeSelector": {"pool": "a"}}, {"pool": "a"}, False),
        ({"excludeNodeSelector": {"pool": "a", "spot": "yes"}}, {"pool": "a"}, True),
        ({"controlPlane": True}, {"node-role.kubernetes.io/control-plane": ""}, True),
    ],
)
def test_which_nodes_are_managed(
    selectors: dict[str, Any], labels: dict[str, str], asked: bool
) -> None:
    seen = look(node("n", BAD, labels=labels), scope(**selectors))
    assert (seen.limited_action is not None) is asked


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("cordoned", [True, False])
def test_what_a_remediator_wrote_that_is_gone_counts_for_nothing(
    phase: Phase, cordoned: bool
) -> None:
    """Only what it cordoned stays cordoned, and is reported once, until a human says otherwise."""
    state = replace(CORDONED, phase=phase, by="there/x")
    found = node("n", BAD, state=state, unschedulable=cordoned)
    known = replace(scope(), live=frozenset({"there/x"}))
    respected = "healed" if phase is Phase.HEALED else "foreign"
    assert cordoned or look(found, known).standing in (respected, "wants-cordon")
    seen = look(found, replace(scope(), live=frozenset()))
    if not cordoned:
        assert seen.limited_action is not None
        assert seen.limited_action.kind is Kind.CORDON
        good = node("n", condition("False"), state=state)
        cleared = look(good, replace(scope(), live=frozenset())).action
        assert cleared is not None
        assert (cleared.kind, cleared.state) == (Kind.CLEAR, None)
        return
    assert seen.limited_action is None
    assert seen.standing == ("foreign" if phase.cordoned else "foreign-cordon")
    if phase.cordoned:
        assert seen.action is not None
        assert seen.action.reason == "CordonOrphaned"
        assert seen.action.state is not None
        again = look(
            replace(found, annotations=node("n", state=seen.action.state).annotations),
            replace(scope(), live=frozenset()),
        )
        assert (again.action, again.limited_action) == (None, None)
        assert "uncordon n" in again.why


def test_a_humans_uncordon_counts_for_a_time_that_is_set() -> None:
    about = scope(recovery={"cancelFor": "2h"})
    action = look(node("n", BAD, state=CORDONED), about).action
    assert action is not None
    cancelled = node("n", condition("True", heartbeat=NOW + 7100), state=action.state)
    assert look(cancelled, about, NOW + 7199).limited_action is None
    assert look(cancelled, about, NOW + 7199).due == NOW + 7200
    again = look(cancelled, about, NOW + 7200).limited_action
    assert again is not None
    assert "somebody uncordoned it 2h ago" in again.message


@pytest.mark.parametrize(
    ("manager", "human"),
    [
        *[(name, True) for name in ("", "kubectl-patch", "Mozilla", "oc", "k9s", "oc/4.1")],
        *[(name, False) for name in ("argocd-controller", "ocm-agent", "lenses", "curling")],
    ],
)
def test_a_controllers_uncordon_is_no_humans(manager: str, human: bool) -> None:
    found = node("n", BAD, state=replace(CORDONED, rule=rule().mark), unschedulable_by=manager)
    action = look(found, scope()).action
    assert action is not None
    assert action.state is not None
    assert action.kind is Kind.CANCEL
    assert action.state.phase is (Phase.CANCELLED if human else Phase.SEEN)
    after = look(replace(found, annotations=node("n", state=action.state).annotations), scope())
    assert (after.limited_action is None) is human


def test_two_controllers_do_not_fight_for_ever() -> None:
    flapping = replace(CORDONED, cordons=(int(NOW - 300), int(NOW - 200), int(NOW - 80)))
    action = look(node("n", BAD, state=flapping, unschedulable_by="x"), scope()).action
    assert action is not None
    assert action.state is not None
    assert action.state.phase is Phase.CANCELLED


def test_a_silent_detectors_bad_condition_keeps_only_the_node_that_it_cordoned() -> None:
    rules = (rule(), rule(condition="Other", action="cordon"))
    silent = condition("True", "Other", heartbeat=NOW - 3600)
    recovered = cordoned(CORDONED, condition("False"), silent)
    action = look(recovered, scope(*rules), NOW + 400, since=NOW).action
    assert action is not None
    assert action.kind is Kind.UNCORDON
    cause = cordoned(replace(CORDONED, condition="Other"), condition("False"), silent)
    seen = look(cause, scope(*rules), NOW + 400, since=NOW)
    assert seen.action is None
    assert (seen.rejected, "restart the detector" in seen.why) == ("stale-heartbeat", True)
