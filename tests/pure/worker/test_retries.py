from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_worker.backoff import backoff
from selfheal_worker.model.errors import BadOutputError, ModelUnavailableError, TransientError
from selfheal_worker.model.limits import LimitedError
from selfheal_worker.retries import DeadLetter, Decision, Requeue, Retry, attempts_of, decide

DELAYS = (1, 5, 30, 120)


def after(error: BaseException, attempts: int, *, away: bool = False, most: int = 5) -> Decision:
    return decide(error, attempts=attempts, max_attempts=most, delays=DELAYS, model_away=away)


def test_the_ladder_is_climbed_and_ends_in_the_dead_letters() -> None:
    error = TransientError("429")
    assert [after(error, attempts, most=7) for attempts in range(7)] == [
        Retry(1, 1),
        Retry(5, 2),
        Retry(30, 3),
        Retry(120, 4),
        Retry(120, 5),
        Retry(120, 6),
        DeadLetter("retries_exhausted", "TransientError", 7),
    ]


def test_one_attempt_means_no_retry() -> None:
    assert after(BadOutputError("x"), 0, most=1) == DeadLetter(
        "retries_exhausted", "BadOutputError", 1
    )


@pytest.mark.parametrize("attempts", [0, 4, 100])
def test_a_model_that_is_away_is_not_the_messages_fault(attempts: int) -> None:
    assert after(ModelUnavailableError("refused"), attempts) == Requeue()
    assert after(TransientError("503"), attempts, away=True) == Requeue()


@pytest.mark.parametrize(("attempts", "most"), [(0, 1), (0, 5), (4, 5)])
def test_who_got_no_turn_comes_again_without_an_attempt(attempts: int, most: int) -> None:
    found = after(LimitedError("no turn"), attempts, most=most)
    assert found == Retry(DELAYS[min(attempts, 3)], attempts)


def test_a_fault_of_ours_is_counted_even_when_the_model_is_away() -> None:
    assert after(KeyError("x"), 4, away=True) == DeadLetter("retries_exhausted", "KeyError", 5)
    assert after(KeyError("x"), 0, away=True) == Retry(1, 1)


@pytest.mark.parametrize(("asked", "delay"), [(0.5, 1), (3, 5), (31, 120), (9999, 120)])
def test_the_server_may_ask_for_a_longer_pause(asked: float, delay: int) -> None:
    assert after(TransientError("429", retry_after=asked), 0) == Retry(delay, 1)


@pytest.mark.parametrize(
    ("header", "attempts"),
    [
        *((3, 3), (0, 0), (-1, 0), (True, 0), ("3", 0), (None, 0), ([3], 0), (2.5, 0)),
        *((1000, 1000), (1001, 0), (2**63 - 1, 0), (b"3", 0), ({}, 0)),
    ],
)
def test_what_a_publisher_wrote_into_the_header(header: object, attempts: int) -> None:
    assert attempts_of({"x-selfheal-attempts": header}) == attempts
    assert attempts_of(None) == 0


@pytest.mark.parametrize("reason", ["retries_exhausted", "", None, 7])
def test_a_dead_letter_that_was_moved_back_by_hand_has_all_its_attempts_again(
    reason: object,
) -> None:
    assert attempts_of({"x-selfheal-attempts": 5, "x-selfheal-reason": reason}) == 0


@given(
    st.integers(0, 10**9),
    st.integers(1, 1000),
    st.lists(st.integers(1, 10**6), min_size=1, max_size=6, unique=True).map(sorted),
    st.none() | st.floats(0, 10**7),
)
def test_every_message_ends(
    attempts: int, most: int, delays: list[int], asked: float | None
) -> None:
    decision = decide(
        TransientError("x", retry_after=asked),
        attempts=attempts,
        max_attempts=most,
        delays=delays,
        model_away=False,
    )
    if isinstance(decision, Retry):
        assert decision.delay in delays
        assert decision.attempts == attempts + 1 < most
        assert decision.delay >= min(asked or 0, delays[-1])
    else:
        assert isinstance(decision, DeadLetter)
        assert attempts + 1 >= most


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_backoff_grows_within_its_bounds(attempts: int, chance: float) -> None:
    pause = backoff(attempts, chance)
    assert 0.1 <= pause <= 10
    assert backoff(attempts + 1, chance) >= pause
