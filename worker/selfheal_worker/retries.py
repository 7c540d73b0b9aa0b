"""What happens to a message whose analysis failed. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfheal_worker.model.chain_failure import Awaited, awaited
from selfheal_worker.model.errors import RefusedTextError
from selfheal_worker.model.failure_effects import Pause, effect_of, excused

ATTEMPTS_HEADER = "x-selfheal-attempts"
#: Of a dead letter alone.
REASON_HEADER = "x-selfheal-reason"
# More than MAX_ATTEMPTS can be.
_MOST_ATTEMPTS = 1000
#: Seconds between two attempts of a message that waits for the active model: each calls a fallback,
#: which has failed before.
AWAITED_DELAY = 30


@dataclass(frozen=True, slots=True)
class Retry:
    """Again in delay seconds (one of the ladder's), with so many failed attempts on record."""

    delay: int
    attempts: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """To the dead letters, with the reason."""

    reason: str
    error_class: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Requeue:
    """Back to the queue as it came: the failure was not this message's."""


Decision = Retry | DeadLetter | Requeue


def attempts_of(headers: Mapping[str, Any] | None) -> int:
    """Failed attempts on record; what a publisher may have written there in error counts as 0.

    A dead letter that was moved back to the queue by other means than `dead-letters replay` (a
    shovel) still has its headers, and gets all its attempts again.
    """
    got = headers or {}
    value = got.get(ATTEMPTS_HEADER)
    if not isinstance(value, int) or isinstance(value, bool) or REASON_HEADER in got:
        return 0
    return value if 0 < value <= _MOST_ATTEMPTS else 0


def decide(
    error: BaseException,
    *,
    attempts: int,
    max_attempts: int,
    delays: Sequence[int],
    model_away: bool,
) -> Decision:
    """What to do after one more failure; attempts are those before it.

    model_away: the circuit breaker is open, so that a transient failure does not count against
    the message. `failure_effects` defines what else counts. An error that is not a `ModelError` is
    a bug of ours or of a plug-in: it is retried too, because the next version may not have it, and
    finally dead-lettered.

    While the active model of a chain is unavailable, a fallback's failure does not count against
    the text either. While a fallback is unavailable, a refusal is not final before the last
    attempt.
    """
    effect = effect_of(error)
    if effect.pause is Pause.UNTIL_PROBED or (model_away and excused(error)):
        return Requeue()
    missing = awaited(error)
    wanted = getattr(error, "retry_after", None) or 0
    made = attempts + 1 if effect.counted else attempts
    if missing is Awaited.ACTIVE and effect.counted and _of_the_text_or_call(error):
        return Retry(_rung(attempts, delays, max(wanted, AWAITED_DELAY)), attempts)
    final = effect.final and missing is None
    if effect.reason is not None and (final or made >= max_attempts):
        return DeadLetter(effect.reason, type(error).__name__, made)
    return Retry(_rung(attempts, delays, wanted), made)


def _of_the_text_or_call(error: BaseException) -> bool:
    return excused(error) or isinstance(error, RefusedTextError)


def _rung(attempts: int, delays: Sequence[int], wanted: float) -> int:
    """The ladder's delay after so many attempts, at least wanted seconds where it has one."""
    rung = min(attempts, len(delays) - 1)
    while rung < len(delays) - 1 and delays[rung] < wanted:
        rung += 1
    return delays[rung]
