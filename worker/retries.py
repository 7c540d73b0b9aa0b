"""What happens to a message whose analysis failed. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.limits import LimitedError
from worker.model import ModelUnavailableError, OverloadedError, RefusedTextError, TransientError

ATTEMPTS_HEADER = "x-selfheal-attempts"


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
class Hold:
    """Back to the queue as it came: the failure was not this message's."""


Decision = Retry | DeadLetter | Hold


def attempts_of(headers: Mapping[str, Any] | None) -> int:
    """Failed attempts on record; what a publisher may have written there in error counts as 0."""
    value = (headers or {}).get(ATTEMPTS_HEADER)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def decide(
    error: BaseException,
    *,
    attempts: int,
    max_attempts: int,
    delays: Sequence[int],
    model_away: bool,
) -> Decision:
    """Say what to do after one more failure; attempts are those before it.

    model_away: the circuit breaker is open, so that a transient failure proves nothing against
    the message. A limit of ours that left it no turn does not count as an attempt either, nor does
    a server that is overloaded: it comes again later. An error that is no `ModelError` is a fault
    of ours or of a plug-in: it is retried too, because the next version may not have it, and it
    ends in the dead letters.
    """
    if isinstance(error, ModelUnavailableError) or (
        model_away and isinstance(error, TransientError)
    ):
        return Hold()
    if isinstance(error, RefusedTextError):
        return DeadLetter(error.reason, type(error).__name__, attempts + 1)
    overloaded = isinstance(error, OverloadedError)
    made = attempts if overloaded or isinstance(error, LimitedError) else attempts + 1
    if made >= max_attempts and not overloaded:
        return DeadLetter("retries_exhausted", type(error).__name__, made)
    wanted = getattr(error, "retry_after", None) or 0
    rung = min(attempts, len(delays) - 1)
    while rung < len(delays) - 1 and delays[rung] < wanted:
        rung += 1
    return Retry(delays[rung], made)


def backoff(attempts: int, chance: float) -> float:
    """Seconds to wait before connecting again; chance (0 to 1) keeps a fleet from doing it at once.

    attempts: those that failed in a row before. From 0.1–0.2 s, doubling, to 5–10 s.
    """
    return float(min(10.0, 0.2 * 2 ** min(attempts, 16)) * (0.5 + chance / 2))
