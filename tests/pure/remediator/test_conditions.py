"""What a condition is worth: recovery, staleness, restarts of its detector, and clocks."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_remediator.kube.objects import Condition
from selfheal_remediator.node.conditions import (
    Bad,
    Heartbeat,
    NodeHistory,
    Observation,
    Reading,
    first_seen,
    fresh_until,
    observe,
    reading,
    recovery,
    stale,
)
from tests.pure.remediator.builders import NOW, condition, node, rule, with_condition


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        ("True", "Why", Reading.BAD),
        ("True", "Other", Reading.OTHER),
        ("False", "Why", Reading.GOOD),
        ("Unknown", "Why", Reading.UNKNOWN),
        (None, "", Reading.ABSENT),
    ],
)
def test_only_good_is_good(status: str | None, reason: str, expected: Reading) -> None:
    found = condition(status, reason=reason) if status else None
    assert reading(rule(reason="^Why$"), found) is expected


def test_unknown_may_be_what_a_rule_is_about() -> None:
    about = rule(condition="Ready", status=["False", "Unknown"])
    assert reading(about, condition("Unknown", "Ready")) is Reading.BAD


STEPS = st.lists(
    st.tuples(st.floats(0.1, 400), st.sampled_from("XYZ"), st.text(max_size=3), st.floats(-9, 9)),
    max_size=8,
)


@given(STEPS)
def test_how_long_it_is_bad_depends_on_the_status_alone(
    steps: list[tuple[float, str, str, float]],
) -> None:
    """Whatever the reason, the message and the transition time do in between."""
    about = rule()
    now, before = NOW, node("n", condition("True", transition=NOW - 50))
    history = observe(NodeHistory(), None, before, [about], now)
    for seconds, reason, message, moved in steps:
        now += seconds
        found = Condition("Fault", "True", reason, message, now + moved, now)
        seen = with_condition(before, found)
        history = observe(history, before, seen, [about], now)
        before = seen
        assert history.observations[about.key].since == NOW
        assert history.reset is None


@pytest.mark.parametrize("gap", ["False", "Unknown", None])
def test_another_status_is_a_new_occurrence(gap: str | None) -> None:
    about = rule()
    bad = node("n", condition("True"))
    between = node("n", *([condition(gap)] if gap else []))
    history = observe(NodeHistory(), None, bad, [about], NOW)
    history = observe(history, bad, between, [about], NOW + 5)
    history = observe(history, between, bad, [about], NOW + 6)
    assert history.observations[about.key].since == NOW + 6


def test_a_reason_that_the_rule_is_not_about_is_a_gap_for_this_rule_only() -> None:
    narrow, wide = rule(reason="^X$"), rule()
    history, before = NodeHistory(), None
    for second, reason in enumerate("XXYX"):
        found = node("n", condition("True", reason=reason, transition=NOW + second))
        history = observe(history, before, found, [narrow, wide], NOW + second)
        before = found
    assert history.observations[narrow.key].since == NOW + 3
    assert history.observations[wide.key].since == NOW


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("another reason", {"reason": "Else"}),
        ("another message", {"message": "else"}),
    ],
)
def test_a_transition_that_moves_with_the_text_is_no_restart(
    name: str, change: dict[str, str]
) -> None:
    good = node("n", condition("False"))
    after = replace(condition("False", transition=NOW + 9), **change)  # type: ignore[arg-type]
    assert observe(NodeHistory(), good, with_condition(good, after), [rule()], NOW).reset is None


def test_a_restart_moves_all_conditions_of_the_writer() -> None:
    before = node("n", condition("False"), condition("False", "Other"))
    moved = condition("False", transition=NOW + 9, heartbeat=NOW + 9)
    kept = condition("False", "Other", heartbeat=NOW + 9)
    one = with_condition(with_condition(before, moved), kept)
    assert observe(NodeHistory(), before, one, [rule()], NOW).reset is None
    both = with_condition(one, replace(kept, transition=NOW + 9))
    assert observe(NodeHistory(), before, both, [rule()], NOW).reset == NOW


def test_from_false_to_unknown_is_the_same_occurrence() -> None:
    about = rule(condition="Ready", status=["False", "Unknown"])
    first = node("n", condition("False", "Ready", transition=NOW))
    later = with_condition(first, condition("Unknown", "Ready", transition=NOW + 40))
    history = observe(NodeHistory(), None, first, [about], NOW)
    history = observe(history, first, later, [about], NOW + 40)
    assert history.observations[about.key].since == NOW


@pytest.mark.parametrize(
    ("value", "changed", "is_stale"),
    [
        (NOW - 10, None, False),
        (NOW - 700, None, True),
        (NOW - 700, NOW - 10, False),  # a slow clock that still moves
        (NOW + 7200, None, True),  # a clock in the future proves nothing
        (NOW + 7200, NOW - 10, False),
        (None, None, True),
    ],
)
def test_a_writer_is_alive_by_its_clock_or_by_what_we_saw(
    value: float | None, changed: float | None, is_stale: bool
) -> None:
    history = NodeHistory(heartbeats={"Fault": Heartbeat(value, changed)})
    assert stale(rule(heartbeat="11m"), history, NOW) is is_stale


def test_no_limit_is_no_check() -> None:
    history = NodeHistory(heartbeats={"Fault": Heartbeat(None, None)})
    assert not stale(rule(heartbeat=None), history, NOW)


@given(st.floats(0, 1e6), st.floats(-1e5, 1e5), st.none() | st.floats(-1e5, 0))
def test_freshness_ends_within_the_limit(limit: float, age: float, changed: float | None) -> None:
    heartbeat = Heartbeat(NOW - age, None if changed is None else NOW + changed)
    assert fresh_until(heartbeat, limit, NOW) <= NOW + limit + 60


def test_what_a_predecessor_wrote_down_counts_unless_we_saw_it_begin() -> None:
    known = Observation(Reading.BAD, NOW, "True", NOW - 100)
    assert first_seen(known, NOW - 90) == NOW - 90
    assert first_seen(known, None) == NOW
    assert first_seen(replace(known, bad=Bad(NOW, ("Why",), witnessed=True)), NOW - 90) == NOW


def _recovery(about, found, history, now, **more):
    settings = {
        "stabilization_window": 60.0,
        "reset_stabilization_window": 600.0,
        "cordoned_boot": "boot-1",
        "now": now,
    }
    return recovery(about, found, history, **{**settings, **more})


def test_good_for_the_stabilization_window_is_a_recovery() -> None:
    about = rule()
    found = node("n", condition("False"))
    history = observe(NodeHistory(), None, found, [about], NOW)
    assert _recovery(about, found, history, NOW).due == NOW + 60


@pytest.mark.parametrize("status", ["True", "Unknown", None])
def test_anything_else_is_none(status: str | None) -> None:
    about = rule()
    found = node("n", *([condition(status)] if status else []))
    history = observe(NodeHistory(), None, found, [about], NOW)
    assert _recovery(about, found, history, NOW).due is None


def test_latched_needs_another_boot() -> None:
    about = rule(latched=True)
    found = node("n", condition("False"))
    history = observe(NodeHistory(), None, found, [about], NOW)
    assert _recovery(about, found, history, NOW).due is None
    assert _recovery(about, replace(found, boot_id=""), history, NOW).due is None
    rebooted = replace(found, boot_id="boot-2")
    assert _recovery(about, rebooted, history, NOW).due == NOW + 60


def test_a_detectors_restart_waits_longer() -> None:
    """node-problem-detector#304: at its start it writes every condition False, unprobed."""
    about = rule()
    other = condition("False", "Another", transition=NOW - 5000)
    bad = node("n", condition("True"), other)
    reset = replace(other, transition=NOW + 5)
    good = with_condition(with_condition(bad, condition("False", transition=NOW + 5)), reset)
    history = observe(NodeHistory(), None, bad, [about], NOW)
    history = observe(history, bad, good, [about], NOW + 5)
    assert history.reset == NOW + 5
    assert _recovery(about, good, history, NOW + 5).due == NOW + 605


def test_the_kubelets_own_conditions_say_nothing_about_a_detector() -> None:
    before = node("n", condition("False", "DiskPressure", transition=NOW - 10))
    after = with_condition(before, condition("False", "DiskPressure", transition=NOW))
    assert observe(NodeHistory(), before, after, [rule()], NOW).reset is None
