"""What each class of failure does: to the breaker, the message's attempts, its end, the metrics.

Pure. docs/providers.md has the same table, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from selfheal_worker.model.errors import (
    BadOutputError,
    ContentFilteredError,
    ModelError,
    ModelUnavailableError,
    OverloadedError,
    RefusedTextError,
    TextTooLongError,
    TransientError,
)
from selfheal_worker.model.limits import LimitedError, pause_asked
from selfheal_worker.model.provider import UnconfirmedRefusalError


class FailureClass(Enum):
    """Whose failure it was; the value is the name in the docs."""

    UNAVAILABLE = "unavailable"
    OVERLOADED = "overloaded"
    NO_TURN = "no turn"
    UNCONFIRMED = "refused once"
    REFUSED = "request refused"
    TOO_LONG = "text too long"
    FILTERED = "content filtered"
    BAD_OUTPUT = "bad output"
    FAILED_CALL = "failed call"
    OUR_BUG = "our bug"


class BreakerEffect(Enum):
    """What a failure does to the circuit breaker of the model."""

    OPENS = "opens it"
    COUNTS = "counts: five in a row open it"
    COUNTS_IN_CHAIN = "none; where a fallback is next: counts"
    NONE = "none"


class Pause(Enum):
    """What pauses, and for how long."""

    UNTIL_PROBED = "the model, until a probe is answered"
    ADAPTIVE = "as the server asks; else fewer calls at once"
    LADDER = "this message, by the delay ladder"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Effect:
    """counted: whether the message has one attempt less. reason: of the dead letter, None where
    there is none; final: at once, not after the last attempt. label: error_type in the metrics."""

    breaker: BreakerEffect
    counted: bool
    pause: Pause
    reason: str | None
    label: str
    final: bool = False


EXHAUSTED = "retries_exhausted"
_REFUSED_LABEL = "RefusedTextError"

EFFECTS: Mapping[FailureClass, Effect] = {
    FailureClass.UNAVAILABLE: Effect(
        BreakerEffect.OPENS, False, Pause.UNTIL_PROBED, None, "ModelUnavailableError"
    ),
    FailureClass.OVERLOADED: Effect(
        BreakerEffect.COUNTS_IN_CHAIN, False, Pause.ADAPTIVE, None, "TransientError"
    ),
    FailureClass.NO_TURN: Effect(BreakerEffect.NONE, False, Pause.LADDER, None, "TransientError"),
    FailureClass.UNCONFIRMED: Effect(
        BreakerEffect.NONE, True, Pause.LADDER, RefusedTextError.reason, _REFUSED_LABEL
    ),
    FailureClass.REFUSED: Effect(
        BreakerEffect.NONE, True, Pause.NONE, RefusedTextError.reason, _REFUSED_LABEL, final=True
    ),
    FailureClass.TOO_LONG: Effect(
        BreakerEffect.NONE, True, Pause.NONE, TextTooLongError.reason, _REFUSED_LABEL, final=True
    ),
    FailureClass.FILTERED: Effect(
        BreakerEffect.NONE,
        True,
        Pause.NONE,
        ContentFilteredError.reason,
        _REFUSED_LABEL,
        final=True,
    ),
    FailureClass.BAD_OUTPUT: Effect(
        BreakerEffect.COUNTS, True, Pause.LADDER, EXHAUSTED, "BadOutputError"
    ),
    FailureClass.FAILED_CALL: Effect(
        BreakerEffect.COUNTS, True, Pause.LADDER, EXHAUSTED, "TransientError"
    ),
    FailureClass.OUR_BUG: Effect(
        BreakerEffect.COUNTS_IN_CHAIN, True, Pause.LADDER, EXHAUSTED, "_OTHER"
    ),
}

# The first that fits counts: a class before those that it is derived from.
_CLASSES: tuple[tuple[type[BaseException], FailureClass], ...] = (
    (LimitedError, FailureClass.NO_TURN),
    (OverloadedError, FailureClass.OVERLOADED),
    (BadOutputError, FailureClass.BAD_OUTPUT),
    (TextTooLongError, FailureClass.TOO_LONG),
    (ContentFilteredError, FailureClass.FILTERED),
    (UnconfirmedRefusalError, FailureClass.UNCONFIRMED),
    (RefusedTextError, FailureClass.REFUSED),
    (ModelUnavailableError, FailureClass.UNAVAILABLE),
    (ModelError, FailureClass.FAILED_CALL),
)


def classify(error: BaseException) -> FailureClass:
    """The class of what a model call, or the code around it, raised."""
    found = (one for kind, one in _CLASSES if isinstance(error, kind))
    return next(found, FailureClass.OUR_BUG)


def effect_of(error: BaseException) -> Effect:
    """What an error does."""
    return EFFECTS[classify(error)]


def breaker_effect(
    error: BaseException, patience: float, *, fallback: bool = False
) -> BreakerEffect:
    """OPENS, COUNTS or NONE for the breaker of a model; patience: seconds of its shortest call.

    A server that requests a longer pause than a message can wait counts as unavailable.
    fallback: whether another model can be called, so that pausing this one costs less.
    """
    if pause_asked(error) > patience:
        return BreakerEffect.OPENS
    wanted = effect_of(error).breaker
    if wanted is BreakerEffect.COUNTS_IN_CHAIN:
        return BreakerEffect.COUNTS if fallback else BreakerEffect.NONE
    return wanted


def excused(error: BaseException) -> bool:
    """Whether the failure proves nothing against a text while its model is away."""
    return isinstance(error, TransientError | ModelUnavailableError | UnconfirmedRefusalError)
