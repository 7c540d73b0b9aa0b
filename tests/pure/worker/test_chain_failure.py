"""A chain in which no model answered: each class of failure at each place.

A text is dead-lettered for what one model says of it only when every model that could still answer
has failed on it.
"""

from __future__ import annotations

import itertools
import time

import pytest

from selfheal_worker import retries
from selfheal_worker.model import breaker
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.chain_failure import Awaited, awaited, combined
from selfheal_worker.model.errors import (
    BadOutputError,
    ContentFilteredError,
    ModelAccessError,
    ModelUnavailableError,
    OverloadedError,
    RefusedTextError,
    TextTooLongError,
    TransientError,
)
from selfheal_worker.model.limits import LimitedError
from selfheal_worker.model.member import Member
from selfheal_worker.model.provider import Answer, UnconfirmedRefusalError
from selfheal_worker.retries import DeadLetter, Requeue, Retry
from tests.pure.worker.test_chain import TASK, Model

DELAYS = (1, 5, 30, 120)
REFUSALS = {
    "too long": TextTooLongError("x"),
    "filtered": ContentFilteredError("x"),
    "refused": RefusedTextError("x"),
}
FAILURES = {
    "bad output": BadOutputError("x"),
    "failed call": TransientError("x"),
    "refused once": UnconfirmedRefusalError("x"),
}
BUG = {"our bug": KeyError("x")}
AWAY: dict[str, Exception | None] = {
    "not asked": None,
    "unavailable": ModelUnavailableError("x"),
    "no key": ModelAccessError("x"),
    "overloaded": OverloadedError("x"),
    "no turn": LimitedError("x"),
    "paused": LimitedError("x", retry_after=900, paused=900),
}
ALL: dict[str, Exception | None] = {**AWAY, **REFUSALS, **FAILURES, **BUG}


def decided(*names: str, attempts: int = 0, model_away: bool = False) -> retries.Decision:
    return retries.decide(
        combined([ALL[name] for name in names]),
        attempts=attempts,
        max_attempts=5,
        delays=DELAYS,
        model_away=model_away,
    )


@pytest.mark.parametrize("attempts", [0, 4, 100])
@pytest.mark.parametrize("size", [2, 3])
def test_each_class_at_each_place(size: int, attempts: int) -> None:
    for names in itertools.product(ALL, repeat=size):
        found = decided(*names, attempts=attempts)
        if all(name in REFUSALS for name in names):
            first = ALL[names[0]]
            assert isinstance(first, RefusedTextError)
            assert found == DeadLetter(first.reason, type(first).__name__, attempts + 1), names
        if isinstance(found, DeadLetter):
            assert names[0] not in AWAY or "our bug" in names, names
            assert attempts >= 4 or all(name in REFUSALS for name in names), names
        if names[0] in AWAY and isinstance(found, Retry) and "our bug" not in names:
            assert found.attempts == attempts, names


@pytest.mark.parametrize("attempts", [0, 4, 100])
@pytest.mark.parametrize("said", [*REFUSALS, *FAILURES])
@pytest.mark.parametrize("away", [name for name in AWAY if name != "overloaded"])
def test_while_the_active_model_is_away_no_fallback_ends_a_message(
    away: str, said: str, attempts: int
) -> None:
    found = decided(away, said, attempts=attempts)
    assert found == Retry(30 if attempts == 0 else 120, attempts)
    assert decided(away, said, said) == Retry(30, 0)
    assert not isinstance(decided(away, said, model_away=True), DeadLetter)


@pytest.mark.parametrize("said", REFUSALS)
@pytest.mark.parametrize("away", [name for name in AWAY if name != "overloaded"])
def test_a_fallback_that_is_away_may_come_back_within_the_messages_attempts(
    away: str, said: str
) -> None:
    refusal = REFUSALS[said]
    for names in ((said, away), (said, said, away), (said, away, said)):
        assert [decided(*names, attempts=made) for made in range(5)] == [
            Retry(1, 1),
            Retry(5, 2),
            Retry(30, 3),
            Retry(120, 4),
            DeadLetter(refusal.reason, type(refusal).__name__, 5),
        ]


def test_a_model_that_is_away_alone_holds_the_message() -> None:
    assert decided("unavailable", "not asked") == Requeue()
    assert decided("not asked", "not asked") == Requeue()


def test_an_error_that_is_raised_again_tells_of_its_own_chain() -> None:
    error = TextTooLongError("x")
    assert awaited(combined([None, error])) is Awaited.ACTIVE
    assert awaited(combined([error, None])) is Awaited.FALLBACK
    assert awaited(combined([error, error])) is None
    assert awaited(error) is None


@pytest.mark.parametrize("state", list(breaker.State))
@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=list(REFUSALS))
def test_a_text_waits_for_the_active_model_whatever_keeps_it_away(
    refusal: RefusedTextError, state: breaker.State
) -> None:
    """Closed: its server is gone at this very call."""

    class Fallback(Model):
        def analyse(self, text: str, deadline: float) -> Answer:
            if text == "theirs":
                raise refusal
            return super().analyse(text, deadline)

    members = [Member(Model("a", lambda n: ModelUnavailableError("x"))), Member(Fallback("b"))]
    chain = Chain(members, TASK)
    for member in members:
        member.warm = True
    now = time.monotonic()
    members[0].circuit.breaker = breaker.Breaker(state, probe_at=now + 600, probe_by=now + 600)
    with pytest.raises(RefusedTextError) as caught:
        chain.ask("theirs", now + 600)
    found = retries.decide(
        caught.value, attempts=4, max_attempts=5, delays=DELAYS, model_away=False
    )
    assert found == Retry(120, 4)
    assert chain.ask("another", now + 600).degraded


def test_a_model_that_is_away_has_no_room_for_a_text_beyond_its_context() -> None:
    fallback = Model("b", lambda n: TextTooLongError("x") if n == 1 else ALL["failed call"])
    members = [Member(Model("a"), longest_text=300), Member(fallback, longest_text=300)]
    members[0].circuit.breaker = breaker.Breaker(
        breaker.State.OPEN, probe_at=time.monotonic() + 600
    )
    with pytest.raises(TextTooLongError) as caught:
        Chain(members, TASK).ask("x" * 400, time.monotonic() + 600)
    assert awaited(caught.value) is None
    assert fallback.calls == 0
