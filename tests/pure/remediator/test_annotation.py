"""The annotation: what is written is read again, it stays small, and rubbish is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_remediator.node.annotation import MAX_BYTES, Phase, State, Unreadable, parse_state

TEXT = st.text(max_size=300)
SECONDS = st.integers(0, 2**40)
STATES = st.builds(
    State,
    phase=st.sampled_from(Phase),
    by=st.text(max_size=120),
    condition=st.text(max_size=60),
    status=st.sampled_from(["True", "False", "Unknown"]),
    reason=TEXT,
    action=st.sampled_from(["drain", "cordon", "observe"]),
    latched=st.booleans(),
    transition=SECONDS,
    first_seen=SECONDS,
    since=SECONDS,
    drain_started=SECONDS,
    boot_id=st.text(max_size=40, alphabet="0123456789abcdef-"),
    scale_down_mark=st.booleans(),
    cordons=st.lists(SECONDS, max_size=40).map(tuple),
    steps=st.integers(0, 99),
    step=st.text(max_size=8, alphabet="0123456789abcdef"),
    step_began=SECONDS,
    step_ended=SECONDS,
    step_failed=st.booleans(),
    step_boot=st.text(max_size=36, alphabet="0123456789abcdef-"),
    unverified=st.booleans(),
    taint=st.text(max_size=8, alphabet="0123456789abcdef"),
    taint_only=st.booleans(),
)


@given(STATES)
def test_it_stays_small_and_keeps_what_matters(state: State) -> None:
    text = state.to_json()
    read = parse_state(text)
    assert read.phase is state.phase
    assert read.boot_id == state.boot_id
    assert read.first_seen == state.first_seen
    if len(state.by.encode()) + len(state.condition.encode()) + 2 * len(state.by) < 300:
        assert len(text.encode()) <= MAX_BYTES or len(json.dumps(state.condition)) > 100
    if len(state.untrimmed().encode()) <= MAX_BYTES:
        assert read == state


def test_the_newest_cordons_are_kept() -> None:
    state = State(Phase.HEALED, "me", cordons=tuple(range(1_700_000_000, 1_700_000_200)))
    read = parse_state(state.to_json())
    assert read.cordons
    assert read.cordons[-1] == 1_700_000_199
    assert len(state.to_json().encode()) <= MAX_BYTES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "schema version"),
        ('{"v":2,"phase":"seen"}', "schema version 2"),
        ('{"v":1,"phase":"dancing"}', "unknown phase 'dancing'"),
        ('{"v":1,"phase":"seen","since":"now"}', "since"),
        ('{"v":1,"phase":"seen","since":true}', "since"),
        ('{"v":1,"phase":"seen","cordons":["x"]}', "cordons"),
        *(
            (f'{{"v":1,"phase":"draining","{name}":{number}}}', f"{name} is no")
            for name in ("drainStarted", "drainUsed", "since", "firstSeen", "noRoom", "transition")
            for number in ("1" + "0" * 400, "-1" + "0" * 400, str(2**40 + 1))
        ),
        ('{"v":1,"phase":"healed","condition":"\\ud800"}', "condition is no text"),
        ('{"v":1,"phase":"healed","reason":"a\\udfff"}', "reason is no text"),
        ('{"v":1,"phase":"healed","cordons":[1' + "0" * 400 + "]}", "cordons"),
    ],
)
def test_what_cannot_be_read_says_why(text: str, message: str) -> None:
    with pytest.raises(Unreadable, match=message):
        parse_state(text)


@pytest.mark.parametrize("name", ["later", "", "first_seen", "bootId", "\\ud800", "a\\udfff"])
@pytest.mark.parametrize("value", ["1", "null", '"x"', "[]", '"\\ud800"'])
def test_fields_of_others_are_ignored(name: str, value: str) -> None:
    """Whatever they are called: a node's annotation may be written by its kubelet."""
    text = f'{{"v":1,"phase":"seen","{name}":{value}}}'
    assert parse_state(text) == State(Phase.SEEN)


@given(st.integers(0, 1024), st.integers(1, 20))
def test_a_long_reason_does_not_drop_the_flap_count(length: int, count: int) -> None:
    cordons = tuple(range(1_700_000_000, 1_700_000_000 + count))
    state = State(
        Phase.CORDONED,
        "a-namespace/selfheal-remediator",
        "KernelDeadlock",
        "True",
        "ü" * length,
        boot_id="0" * 36,
        cordons=cordons,
    )
    read = parse_state(state.to_json())
    assert read.cordons == cordons
    assert state.reason.startswith(read.reason)
    assert len(state.to_json().encode()) <= MAX_BYTES


def test_the_longest_names_leave_room_for_the_flap_count() -> None:
    state = State(
        Phase.REPAIRING,
        f"{'n' * 63}/{'l' * 253}",
        "c" * 316,
        "Unknown",
        "r" * 1024,
        "cordon",
        boot_id="0" * 36,
        cordons=tuple(range(1_700_000_000, 1_700_000_009)),
        rule="0" * 8,
        steps=10,
        step="0" * 8,
        step_began=1_700_000_000,
        step_ended=1_700_000_000,
        step_failed=True,
        step_boot="1" * 36,
        taint="0" * 8,
        taint_only=True,
    )
    read = parse_state(state.to_json())
    assert len(read.cordons) >= 3
    assert (read.by, read.condition) == (state.by, state.condition)
    assert len(state.to_json().encode()) <= MAX_BYTES
