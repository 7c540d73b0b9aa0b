"""One table says what each class of failure does: the code's, which the docs repeat."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfheal_worker.metrics import DEAD_LETTER_REASONS, ERROR_TYPES
from selfheal_worker.model.errors import (
    BadOutputError,
    ContentFilteredError,
    ModelAccessError,
    ModelError,
    ModelUnavailableError,
    OverloadedError,
    RefusedTextError,
    TextTooLongError,
    TransientError,
)
from selfheal_worker.model.failure_effects import (
    EFFECTS,
    BreakerEffect,
    FailureClass,
    Pause,
    breaker_effect,
    classify,
)
from selfheal_worker.model.limits import LimitedError
from selfheal_worker.model.provider import UnconfirmedRefusalError
from selfheal_worker.retries import DeadLetter, Requeue, Retry, decide

DOCS = Path(__file__).parents[3] / "docs" / "providers.md"
ERRORS: dict[BaseException, FailureClass] = {
    ModelUnavailableError("x"): FailureClass.UNAVAILABLE,
    ModelAccessError("x"): FailureClass.UNAVAILABLE,
    OverloadedError("x"): FailureClass.OVERLOADED,
    LimitedError("x"): FailureClass.NO_TURN,
    UnconfirmedRefusalError("x"): FailureClass.UNCONFIRMED,
    RefusedTextError("x"): FailureClass.REFUSED,
    TextTooLongError("x"): FailureClass.TOO_LONG,
    ContentFilteredError("x"): FailureClass.FILTERED,
    BadOutputError("x"): FailureClass.BAD_OUTPUT,
    TransientError("x"): FailureClass.FAILED_CALL,
    ModelError("x"): FailureClass.FAILED_CALL,
    KeyError("x"): FailureClass.OUR_BUG,
    MemoryError(): FailureClass.OUR_BUG,
}


def test_the_docs_have_the_same_table() -> None:
    part = DOCS.read_text().split("## Failures\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")][1:]
    found = [
        tuple(cell.strip().strip("`") for cell in line.strip("|").split("|")) for line in lines
    ]
    assert found == [
        (
            one.value,
            effect.breaker.value,
            "yes" if effect.counted else "no",
            effect.pause.value,
            effect.reason or "none",
            effect.label,
        )
        for one, effect in EFFECTS.items()
    ]
    assert set(EFFECTS) == set(FailureClass)


@pytest.mark.parametrize(("error", "wanted"), ERRORS.items())
def test_the_class_of_an_error(error: BaseException, wanted: FailureClass) -> None:
    assert classify(error) is wanted


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("attempts", [0, 3, 4, 100])
def test_what_becomes_of_the_message(error: BaseException, attempts: int) -> None:
    effect = EFFECTS[classify(error)]
    found = decide(error, attempts=attempts, max_attempts=5, delays=(1, 5), model_away=False)
    if effect.pause is Pause.UNTIL_PROBED:
        assert found == Requeue()
    elif effect.reason and (effect.final or attempts >= 4):
        assert found == DeadLetter(effect.reason, type(error).__name__, attempts + 1)
    else:
        assert isinstance(found, Retry)
        assert found.attempts == attempts + effect.counted


@pytest.mark.parametrize("error", ERRORS)
def test_what_it_does_to_the_breaker(error: BaseException) -> None:
    wanted = EFFECTS[classify(error)].breaker
    chain = wanted is BreakerEffect.COUNTS_IN_CHAIN
    assert breaker_effect(error, 60) is (BreakerEffect.NONE if chain else wanted)
    assert breaker_effect(error, 60, fallback=True) is (BreakerEffect.COUNTS if chain else wanted)


def test_a_pause_that_no_message_can_wait_for_opens_the_breaker() -> None:
    for error in (
        OverloadedError("429", retry_after=61),
        TransientError("500", retry_after=61),
        LimitedError("no turn", retry_after=61, paused=61),
    ):
        assert breaker_effect(error, 60) is BreakerEffect.OPENS
    assert breaker_effect(OverloadedError("429", retry_after=60), 60) is BreakerEffect.NONE
    assert breaker_effect(LimitedError("no turn", retry_after=61), 60) is BreakerEffect.NONE


def test_every_reason_and_label_is_one_that_the_metrics_know() -> None:
    assert {one.reason for one in EFFECTS.values() if one.reason} <= set(DEAD_LETTER_REASONS)
    assert {one.label for one in EFFECTS.values()} == set(ERROR_TYPES)
