"""What follows a drain: each step of the ladder, its end, and `verify`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_remediator.config import Rule
from selfheal_remediator.kube.objects import DRAIN_KEY, Condition, Taint
from selfheal_remediator.node import lifecycle
from selfheal_remediator.node.actions import Kind
from selfheal_remediator.node.annotation import Phase, State
from selfheal_remediator.node.assessment import Assessment, Attached, Scope
from selfheal_remediator.node.conditions import NodeHistory, observe
from selfheal_remediator.node.evaluate import assess
from selfheal_remediator.node.limits import CountedNode, GroupTally, Tally, check_repair
from selfheal_remediator.node.repair import ladder_text
from tests.pure.remediator.builders import (
    NOW,
    OWNER,
    READY,
    condition,
    config,
    cordoned,
    look,
    rule,
    with_condition,
)

JOB = {"job": {"template": {"spec": {"containers": [{"name": "c"}]}}}, "settle": "5m"}
WAIT = {"wait": "5m"}
VERIFY = {"condition": {"type": "Checked"}}
BAD, GOOD = condition("True"), condition("False")
NONE_ATTACHED = {"uid-n": Attached()}
STILL = {"uid-n": Attached("csi-1", NOW - 10)}
#: Longer than every window: good for so long is recovered.
LONG = 4000.0


def ladder(*steps: dict[str, Any], **more: Any) -> Rule:
    return rule(then=list(steps), **more)


def drained(about: Rule, **more: Any) -> State:
    state = State(Phase.DRAINED, OWNER, "Fault", "True", action="drain", boot_id="boot-1")
    return replace(state, rule=about.mark, since=int(NOW) - 5, first_seen=int(NOW) - 90, **more)


def begun(about: Rule, number: int = 1, ago: float = 10) -> State:
    """Its step of this number (from 1) was begun."""
    state = drained(about)
    for step in about.then[:number]:
        state = lifecycle.repairing(state, step.mark, "boot-1", NOW - ago)
    return state


def ended(about: Rule, *, failed: bool = False, number: int = 1, ago: float = 10) -> State:
    return lifecycle.step_ended(begun(about, number), NOW - ago, failed=failed)


def verifying(about: Rule, state: State | None = None) -> State:
    return lifecycle.verifying(state or drained(about), "boot-1", NOW - 10)


def seen(
    about: Rule,
    state: State,
    fault: Condition = BAD,
    since: float = NOW,
    attached: dict[str, Attached] | None = None,
    **more: Any,
) -> Assessment:
    settings = {key: more.pop(key) for key in ("mode", "recovery") if key in more}
    scope = Scope(config(about, **settings), OWNER, attached=attached or {})
    return look(cordoned(state, fault, **more), scope, since=since)


def phase_after(found: Assessment) -> Phase | None:
    """What it calls for, limited or not; None = nothing, or no annotation."""
    action = found.action or found.limited_action
    return action.state.phase if action is not None and action.state is not None else None


def uncordons(found: Assessment) -> bool:
    return found.action is not None and found.action.kind is Kind.UNCORDON


# -- the first step ------------------------------------------------------------------------


def test_a_drained_node_waits_without_a_ladder() -> None:
    found = seen(rule(), drained(rule()), attached=NONE_ATTACHED)
    assert (found.standing, found.action, found.limited_action) == ("drained", None, None)


def test_the_first_step_begins_once_nothing_is_attached() -> None:
    about = ladder(JOB)
    assert phase_after(seen(about, drained(about))) is None  # not known yet
    waiting = seen(about, drained(about), attached=STILL)
    assert phase_after(waiting) is None
    assert "csi-1" in waiting.why
    found = seen(about, drained(about), attached=NONE_ATTACHED)
    assert found.limited_action is not None
    assert found.limited_action.kind is Kind.REPAIR
    state = found.limited_action.state
    assert state is not None
    assert (state.phase, state.steps, state.step) == (Phase.REPAIRING, 1, about.then[0].mark)
    assert state.step_runs


def test_volumes_that_stay_attached_are_reported() -> None:
    about = ladder(JOB)
    state = drained(about)
    waited = replace(state, since=int(NOW) - 7200)  # for its turn
    assert seen(about, waited, attached=STILL).due == NOW + 590
    found = seen(about, state, attached={"uid-n": Attached("csi-1", NOW - 600)})
    assert phase_after(found) is Phase.REPAIR_FAILED
    assert found.action is not None
    assert "csi-1" in found.action.message
    assert found.action.warning


def test_a_node_that_recovers_is_left_to_recover() -> None:
    about = ladder(JOB)
    assert phase_after(seen(about, drained(about), GOOD, attached=NONE_ATTACHED)) is None
    assert uncordons(seen(about, drained(about), GOOD, NOW - LONG, NONE_ATTACHED))


def test_no_step_begins_beside_another_system() -> None:
    about = ladder(JOB, JOB)
    taints = (Taint("karpenter.sh/disrupted", "", "NoSchedule"),)
    for state in (drained(about), ended(about, failed=True)):
        found = seen(about, state, attached=NONE_ATTACHED, taints=taints)
        assert (found.standing, phase_after(found)) == ("cordoned-foreign", None)


def test_no_step_begins_while_a_person_keeps_the_node_drained() -> None:
    about = ladder(JOB, JOB)
    for state in (drained(about), ended(about, failed=True), ended(about, ago=301)):
        node = cordoned(state, BAD)
        node = replace(node, annotations={**node.annotations, DRAIN_KEY: "a disk is replaced"})
        found = look(node, Scope(config(about), OWNER, attached=NONE_ATTACHED))
        assert (found.standing, phase_after(found)) == (state.phase.value, None)
        assert "a disk is replaced" in found.why


def test_a_node_that_is_not_selected_any_more_is_uncordoned_once_its_step_has_ended() -> None:
    about = ladder(JOB, JOB)
    for state, leaves in ((begun(about), False), (ended(about), True)):
        settings = config(about, nodeSelector={"pool": "other"})
        found = look(cordoned(state, BAD), Scope(settings, OWNER, attached=NONE_ATTACHED))
        assert uncordons(found) is leaves


def test_a_flapping_node_is_left_to_a_person() -> None:
    about = ladder(JOB)
    state = drained(about, cordons=(int(NOW) - 3, int(NOW) - 2, int(NOW) - 1))
    assert phase_after(seen(about, state, attached=NONE_ATTACHED)) is Phase.REPAIR_FAILED


# -- steps ---------------------------------------------------------------------------------


def test_a_step_that_runs_is_waited_for() -> None:
    about = ladder(JOB, JOB)
    for fault, since in ((BAD, NOW), (GOOD, NOW), (GOOD, NOW - LONG)):
        found = seen(about, begun(about), fault, since)
        assert (found.standing, phase_after(found)) == ("repairing", None)
        assert not uncordons(found)


def test_a_wait_ends_with_recovery() -> None:
    about = ladder(WAIT, JOB)
    assert phase_after(seen(about, begun(about))) is None
    assert uncordons(seen(about, begun(about), GOOD, NOW - LONG))


def test_after_a_step_recovery_is_waited_for() -> None:
    about = ladder(JOB, JOB)
    found = seen(about, ended(about))
    assert (phase_after(found), found.due) == (None, NOW + 290)
    assert phase_after(seen(about, ended(about, ago=301), GOOD)) is None
    assert uncordons(seen(about, ended(about, ago=301), GOOD, NOW - LONG))


def test_a_step_that_ended_at_a_time_that_no_clock_wrote_ended_now() -> None:
    about = ladder(JOB, JOB)
    state = replace(ended(about), step_ended=int(NOW) + 10**9)
    action = seen(about, state).action
    assert action is not None
    assert action.state == replace(state, step_ended=int(NOW))


def test_what_was_reported_before_a_step_ended_does_not_begin_the_next() -> None:
    """It may have helped."""
    about = ladder(JOB, JOB)
    state = ended(about, ago=400)
    old = replace(BAD, heartbeat=NOW - 401)
    found = seen(about, state, old)
    assert (found.standing, phase_after(found), found.yields) == ("repairing", None, False)
    assert "not reported since" in found.why
    assert phase_after(seen(about, state, replace(BAD, heartbeat=NOW - 399))) is Phase.REPAIRING
    ahead = seen(about, state, replace(BAD, heartbeat=NOW + 9999))
    assert phase_after(ahead) is None
    failed = seen(about, ended(about, failed=True), old)
    assert phase_after(failed) is Phase.REPAIRING
    unchecked = ladder(JOB, JOB, heartbeat=None)
    assert phase_after(seen(unchecked, ended(unchecked, ago=400), old)) is Phase.REPAIRING


def test_a_detector_that_stays_silent_is_reported_and_keeps_no_place() -> None:
    about = ladder(JOB, JOB)
    old = replace(BAD, heartbeat=NOW - 5000)
    found = seen(about, ended(about, ago=400), old)
    assert (phase_after(found), found.rejected, found.yields) == (None, "stale-heartbeat", True)


def test_by_whichever_clock_a_report_is_one() -> None:
    """And a node that is not Ready needs none."""
    about = ladder(JOB, JOB)
    state, scope = ended(about, ago=400), Scope(config(about), OWNER)
    before = cordoned(state, replace(BAD, heartbeat=NOW - 9000))
    after = cordoned(state, replace(BAD, heartbeat=NOW - 8000))  # its clock is behind
    known = observe(NodeHistory(), None, before, scope.config.rules, NOW - 500)
    history = observe(known, before, after, scope.config.rules, NOW - 300)
    assert phase_after(assess(after, history, scope, NOW)) is Phase.REPAIRING
    down = with_condition(before, replace(READY, status="Unknown"))
    assert phase_after(assess(before, known, scope, NOW)) is None
    assert phase_after(assess(down, known, scope, NOW)) is Phase.REPAIRING


@pytest.mark.parametrize(("failed", "ago"), [(False, 301.0), (True, 0.0)])
def test_a_step_that_did_not_help_is_followed_by_the_next(failed: bool, ago: float) -> None:
    about = ladder(JOB, WAIT)
    found = seen(about, ended(about, failed=failed, ago=ago))
    assert found.limited_action is not None
    state = found.limited_action.state
    assert state is not None
    assert (state.phase, state.steps, state.step_failed) == (Phase.REPAIRING, 2, False)


@pytest.mark.parametrize(("failed", "ago"), [(False, 301.0), (True, 0.0)])
def test_after_the_last_step_the_node_stays_out(failed: bool, ago: float) -> None:
    about = ladder(JOB)
    found = seen(about, ended(about, failed=failed, ago=ago))
    assert phase_after(found) is Phase.REPAIR_FAILED
    assert found.action is not None
    assert (found.action.reason, found.action.warning) == ("RepairFailed", True)
    assert found.action.state is not None
    out = found.action.state
    assert phase_after(seen(about, out)) is None
    assert uncordons(seen(about, out, GOOD, NOW - LONG))


def test_what_only_a_person_uncordons_is_not_said_to_be_uncordoned_when_it_recovers() -> None:
    about = ladder(JOB)
    flapped = replace(drained(about), cordons=(int(NOW) - 30, int(NOW) - 20, int(NOW) - 10))
    long_attached = {"uid-n": Attached("csi-1", NOW - 600)}
    cases = (
        (flapped, NONE_ATTACHED, False),
        (flapped, long_attached, False),
        (drained(about), long_attached, True),
        (ended(about, failed=True, ago=0), NONE_ATTACHED, True),
    )
    for state, attached, alone in cases:
        found = seen(about, state, attached=attached)
        assert phase_after(found) is Phase.REPAIR_FAILED
        assert found.action is not None
        assert ("until it recovers" in found.action.message) is alone
        assert ("until you uncordon it" in found.action.message) is not alone
        assert found.action.state is not None
        assert uncordons(seen(about, found.action.state, GOOD, NOW - LONG)) is alone


def test_a_step_that_was_changed_meanwhile_is_not_mistaken_for_another() -> None:
    about = ladder(JOB, JOB)
    other = ladder(WAIT, JOB)
    assert phase_after(seen(other, begun(about))) is Phase.REPAIR_FAILED
    assert uncordons(seen(other, begun(about), GOOD, NOW - LONG))
    longer = ladder({**JOB, "timeout": "20m", "settle": "1m"}, JOB)
    assert phase_after(seen(longer, begun(about))) is None


def test_a_person_who_uncordons_it_ends_its_ladder() -> None:
    about = ladder(JOB, JOB)
    for state in (begun(about), ended(about), verifying(about)):
        found = look(
            replace(cordoned(state, BAD), unschedulable=False), Scope(config(about), OWNER)
        )
        assert phase_after(found) is Phase.CANCELLED


def test_in_dry_run_the_first_step_is_all_that_is_reported() -> None:
    about = ladder(JOB, JOB)
    assert phase_after(seen(about, drained(about), mode="dryRun")) is Phase.REPAIRING
    assert phase_after(seen(about, begun(about), mode="dryRun")) is None
    assert uncordons(seen(about, begun(about), GOOD, NOW - LONG, mode="dryRun"))


# -- verify --------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.CORDONED, Phase.DRAINING, Phase.DRAINED])
def test_what_recovered_is_verified_before_it_is_uncordoned(phase: Phase) -> None:
    about = rule(verify=VERIFY)
    state = replace(drained(about), phase=phase)
    assert phase_after(seen(about, state, GOOD, NOW - LONG)) is Phase.VERIFYING
    assert uncordons(seen(about, state, GOOD, NOW - LONG, mode="dryRun"))


def test_it_is_uncordoned_once_it_is_verified() -> None:
    about = ladder(JOB, verify=VERIFY)
    assert phase_after(seen(about, ended(about), GOOD, NOW - LONG)) is Phase.VERIFYING
    state = verifying(about, ended(about))
    assert phase_after(seen(about, state, GOOD, NOW - LONG)) is None
    good = lifecycle.step_ended(state, NOW, failed=False)
    assert uncordons(seen(about, good, GOOD, NOW - LONG))
    assert not uncordons(seen(about, good, GOOD))  # a new leader does not know since when
    assert uncordons(seen(rule(), replace(state, rule=rule().mark), GOOD, NOW - LONG))


def test_while_it_is_verified_no_time_is_waited_for_that_is_over() -> None:
    """Else the node would be assessed again and again until its verification ends."""
    about = ladder(JOB, verify=VERIFY)
    found = seen(about, verifying(about, ended(about)), GOOD, NOW - LONG)
    assert found.action is None
    assert found.due is None or found.due > NOW


def test_bad_again_while_it_is_verified_it_is_drained_again() -> None:
    about = ladder(JOB, verify=VERIFY)
    found = seen(about, verifying(about, ended(about)))
    assert found.action is not None
    state = found.action.state
    assert state is not None
    assert (state.phase, state.unverified, state.steps) == (Phase.CORDONED, False, 1)
    again = seen(about, state)
    assert again.limited_action is not None
    assert again.limited_action.kind is Kind.DRAIN


def test_not_verified_it_is_drained_and_its_next_step_begins() -> None:
    """Though it recovered: also before it was ever drained."""
    about = ladder(JOB, verify=VERIFY)
    failed = lifecycle.step_ended(verifying(about), NOW, failed=True)
    state = _next_state(seen(about, failed, GOOD, NOW - LONG))
    assert (state.phase, state.unverified) == (Phase.CORDONED, True)
    state = _next_state(seen(about, state, GOOD, NOW - LONG))
    assert state.phase is Phase.DRAINING
    state = lifecycle.drained(state, NOW)
    state = _next_state(seen(about, state, GOOD, NOW - LONG, NONE_ATTACHED))
    assert (state.phase, state.steps) == (Phase.REPAIRING, 1)
    assert not seen(about, state, GOOD, NOW - LONG).recovering  # the step is needed
    after = lifecycle.step_ended(state, NOW, failed=False)
    assert phase_after(seen(about, after, GOOD, NOW - LONG)) is Phase.VERIFYING


@pytest.mark.parametrize("about", [ladder(JOB, verify=VERIFY), rule(verify=VERIFY)])
def test_not_verified_after_the_last_step_it_waits_for_a_person(about: Rule) -> None:
    before = ended(about) if about.then else drained(about)
    failed = lifecycle.step_ended(verifying(about, before), NOW, failed=True)
    state = _next_state(seen(about, failed, GOOD, NOW - LONG))
    assert (state.phase, state.unverified) == (Phase.REPAIR_FAILED, True)
    found = seen(about, state, GOOD, NOW - LONG)
    assert (phase_after(found), uncordons(found)) == (None, False)


def _next_state(found: Assessment) -> State:
    action = found.action or found.limited_action
    assert action is not None
    assert action.state is not None
    return action.state


def test_status_says_how_far_the_ladder_is() -> None:
    about = ladder(JOB, WAIT)
    texts = [
        ladder_text(config(about), state)
        for state in (
            drained(about),
            begun(about),
            ended(about),
            ended(about, failed=True, number=2),
            lifecycle.repair_failed(ended(about, number=2), NOW),
        )
    ]
    assert texts == [
        "",
        "step 1 of 2 (job) is under way",
        "step 1 of 2 (job) succeeded",
        "step 2 of 2 (wait) failed",
        "step 2 of 2 (wait) was its last",
    ]
    assert ladder_text(config(), begun(about)) == "step 1 is under way"


# -- limits --------------------------------------------------------------------------------


def test_a_node_keeps_its_place_until_its_ladder_ends() -> None:
    limits = config().limits
    first, other = CountedNode(cordoned=True, repairing=True), CountedNode(cordoned=True)
    tally = Tally.of([first, other], [], 2)
    assert check_repair(limits, tally, first) is None
    reason = check_repair(limits, tally, other)
    assert reason is not None
    assert reason.cause == "maxRepairing"
    assert check_repair(limits, Tally.of([other], [], 1), other) is None


def test_a_group_may_repair_fewer_at_a_time() -> None:
    about = {"nodeSelector": {"matchLabels": {"pool": "a"}}, "name": "a"}
    both = config(limits={"maxRepairing": 5}, groups=[{**about, "limits": {"maxRepairing": 1}}])
    [group] = both.groups
    tally = Tally(named={"a": GroupTally(group.limits, Tally())})
    first, other = (CountedNode(cordoned=True, group_name="a") for _ in range(2))
    assert check_repair(both.limits, tally, first) is None
    tally.add_repair(first)
    reason = check_repair(both.limits, tally, other)
    assert reason is not None
    assert reason.text == "group a: 1 nodes are being repaired, allowed 1"
    assert check_repair(both.limits, tally, CountedNode(cordoned=True)) is None
    [free] = config(groups=[about]).groups
    assert free.limits.max_repairing > 1000  # those over all nodes hold


# -- every way through ---------------------------------------------------------------------

EVENTS = st.sampled_from(("succeeds", "fails", "dies", "recovers", "worsens", "time passes"))


@given(
    st.lists(EVENTS, max_size=40),
    st.lists(st.sampled_from((JOB, WAIT)), max_size=3),
    st.booleans(),
)
def test_each_step_is_begun_at_most_once_and_in_order(
    events: list[str], steps: list[dict[str, Any]], verified: bool
) -> None:
    """Whatever happens, and whenever the leader is killed: it goes by what is written down."""
    about = ladder(*steps, **({"verify": VERIFY} if verified else {}))
    state, fault, since, now = drained(about), BAD, NOW, NOW
    started: list[int] = []
    passed = False
    for event in events:
        match event:
            case "succeeds" | "fails" if state.step_runs:
                passed = state.phase is Phase.VERIFYING and event == "succeeds"
                state = lifecycle.step_ended(state, now, failed=event == "fails")
            case "dies":
                since = now
            case "recovers" | "worsens":
                fault, since = (GOOD if event == "recovers" else BAD), now
            case "time passes":
                now += 700
        if state.phase is Phase.DRAINING:
            state = lifecycle.drained(state, now)
        healthy = replace(fault, heartbeat=now)
        scope = Scope(config(about), OWNER, attached=NONE_ATTACHED)
        found = look(cordoned(state, healthy), scope, now, since)
        action = found.action or found.limited_action
        if action is None:
            continue
        if action.kind is Kind.UNCORDON:
            assert fault is GOOD
            assert not state.step_runs or about.then[state.steps - 1].kind == "wait"
            assert passed or not verified
            return
        assert action.state is not None
        if action.kind is Kind.REPAIR:
            assert state.phase in (Phase.DRAINED, Phase.REPAIRING)
            assert not state.step_runs
            started.append(action.state.steps)
        state = action.state
        assert len(state.to_json().encode()) <= 1024
    assert started == list(range(1, len(started) + 1))
    assert len(started) <= len(steps)
