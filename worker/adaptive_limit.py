"""How many calls of one model may run at once, learnt from its answers. Pure.

Additive increase, multiplicative decrease (Chiu and Jain, 1989), as TCP and Netflix's
concurrency-limits do it: there is no limit until the server says for the first time that it is
overloaded; from then on each answer raises the limit a little and an overload lowers it. Several
workers share a server without knowing of each other. Where there are more workers than slots, one
whose only call was refused waits, by chance and for longer each time; one that keeps a slot lets it
go now and then. Times are the caller's clock, seconds; chance is from 0 to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

#: What is left of the limit after an overload.
DECREASE = 0.7
#: By how much the limit grows while as many calls as it allows are answered: at first, and at most.
SLOWEST_INCREASE, FASTEST_INCREASE = 0.1, 1.0
# A large limit grows faster from the first: so much of it is missing after a decrease.
_LIMITS_SHARE = 35.0
# After a refused call with no other under way: so many times as long as an answer takes, a little
# more with each refusal. The first pause and the longest where no answer was seen yet.
_PAUSE_FACTOR, _PAUSE_GROWTH, _LONGEST_FACTOR = 3.5, 1.05, 8.0
_FIRST_PAUSE, _LONGEST_FIRST_PAUSE = 0.1, 3.0
_LONGEST_PAUSE = 30.0
# A worker lets its slots go after so many answers each, for about the time of one: the workers that
# were refused ask again meanwhile. From so many slots on the decreases alone see to that.
_ANSWERS_IN_A_ROW, _MANY_SLOTS = 32, 10
# A server that has refused so many calls in a row, for so long, is taken for unavailable.
_STARVED_REFUSALS, _STARVED_SECONDS = 5, 20.0
# Weight of the newest answer in the mean of how long they take.
_NEWEST = 0.2


@dataclass(frozen=True, slots=True)
class AdaptiveLimit:
    """limit: calls at once, None as long as the server has refused none. running: calls now.

    lowered_at, lowered_to: of the last overload that counted. refused, refused_since: calls that
    were refused since the last answer. not_before: when the next call may begin. seconds: mean
    duration of a call that was answered. answers: since it last let its slots go.
    """

    limit: float | None = None
    running: int = 0
    lowered_at: float = -math.inf
    lowered_to: float = 1.0
    refused: int = 0
    refused_since: float = math.inf
    not_before: float = -math.inf
    seconds: float | None = None
    answers: int = 0


def next_at(now_: AdaptiveLimit) -> float:
    """When the next call may begin; infinity while as many run as may."""
    if now_.limit is not None and now_.running >= math.floor(now_.limit):
        return math.inf
    return now_.not_before


def sent(before: AdaptiveLimit) -> AdaptiveLimit:
    """A call begins."""
    return replace(before, running=before.running + 1)


def failed(before: AdaptiveLimit) -> AdaptiveLimit:
    """A call ended in a way that says nothing about the server's load."""
    return replace(before, running=before.running - 1)


def answered(before: AdaptiveLimit, sent_at: float, now: float, chance: float) -> AdaptiveLimit:
    """A call was answered. The limit grows only if it was what kept more calls from running."""
    took = max(0.0, now - sent_at)
    if before.seconds is None:
        mean = min(took, _LONGEST_FIRST_PAUSE)  # the first may have waited for the model to load
    else:
        mean = before.seconds + _NEWEST * (took - before.seconds)
    after = replace(
        before, running=before.running - 1, refused=0, refused_since=math.inf, seconds=mean
    )
    if before.limit is None or before.running < math.floor(before.limit):
        return after
    grown = max(0.0, before.limit - before.lowered_to)
    slowest = max(SLOWEST_INCREASE, before.limit / _LIMITS_SHARE)
    increase = min(FASTEST_INCREASE, slowest * (1 + grown))
    after = replace(after, limit=before.limit + increase / before.limit, answers=before.answers + 1)
    if before.limit >= _MANY_SLOTS or after.answers < _ANSWERS_IN_A_ROW * math.floor(before.limit):
        return after
    return replace(after, answers=0, not_before=now + mean * (0.5 + chance))


def overloaded(before: AdaptiveLimit, sent_at: float, now: float, chance: float) -> AdaptiveLimit:
    """The server refused a call as one too many.

    Calls that were sent before the last decrease belong to the same overload: they lower nothing.
    """
    running = before.running - 1
    refused = before.refused + 1
    after = replace(
        before,
        running=running,
        refused=refused,
        refused_since=min(before.refused_since, now),
    )
    if sent_at >= before.lowered_at:
        limit = before.running if before.limit is None else before.limit
        lowered = max(1.0, min(DECREASE * limit, float(running)))
        after = replace(after, limit=lowered, lowered_to=lowered, lowered_at=now)
    wait = 0.0
    if not running:
        wait = _backoff(refused, before.seconds) * (0.5 + chance)
    return replace(after, not_before=max(before.not_before, now + wait))


def paused(before: AdaptiveLimit, now: float, seconds: float, chance: float) -> AdaptiveLimit:
    """The server wants no call for so long.

    It is left alone for longer by up to a tenth: all workers were asked for the same.
    """
    until = now + seconds * (1 + chance / 10)
    return replace(before, not_before=max(before.not_before, until))


def starved(now_: AdaptiveLimit, now: float) -> bool:
    """Whether the server has refused every call for so long that it counts as unavailable."""
    return now_.refused >= _STARVED_REFUSALS and now - now_.refused_since >= _STARVED_SECONDS


def _backoff(refused: int, seconds: float | None) -> float:
    """The mean pause after so many refused calls in a row."""
    times = min(refused - 1, 40)
    if seconds is None:
        return float(min(_LONGEST_FIRST_PAUSE, _FIRST_PAUSE * 1.25**times))
    factor = min(_LONGEST_FACTOR, _PAUSE_FACTOR * _PAUSE_GROWTH**times)
    return min(max(_LONGEST_PAUSE, seconds * _PAUSE_FACTOR), seconds * factor)
