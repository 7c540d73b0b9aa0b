"""How many calls of one model may run at once, learnt from its answers. Pure.

Additive increase, multiplicative decrease (Chiu and Jain, 1989), as TCP and Netflix's
concurrency-limits do it: there is no limit until the server says for the first time that it is
overloaded; from then on each answer raises the limit a little and an overload lowers it, to no more
than what is under way. Several workers share a server without knowing of each other. One that keeps
a slot uses it without a break; one whose only call was refused waits, by chance and for longer each
time, and `slot_rotation` says when they change places. Times are the caller's clock, seconds;
chance is from 0 to 1; ahead: by how much Unix time is ahead of that clock.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from selfheal_worker.backoff import growing, spread_after, spread_around
from selfheal_worker.model import slot_rotation

#: What is left of the limit after an overload.
DECREASE = 0.9
#: By how much the limit grows while as many calls as it allows are answered: at first, and at most.
SLOWEST_INCREASE, FASTEST_INCREASE = 0.1, 1.0
# A large limit grows faster from the first: so much of it is missing after a decrease.
_LIMITS_SHARE, _LARGE = 35.0, 4.0
# A limit that grew by so much was not at its end yet.
_FURTHER = 1.5
# After a refused call with no other under way: so many times the duration of an answer, more with
# each refusal, at most _LONGER_WITH_EACH times for each boundary at which there was no slot either,
# _LONGEST_FACTOR times in all, and _LONGEST_PAUSE unless a call takes very long. As others keep the
# slots busy meanwhile, rare calls cost no capacity.
_PAUSE_FACTOR, _PAUSE_GROWTH, _LONGEST_FACTOR = 6.0, 2.0, 26.0
_LONGER_WITH_EACH = 16.0
_LONGEST_PAUSE, _LONG_CALLS = 120.0, 4.0
# So many steps of that are left out where a worker has just handed over its slots.
_HANDED_OVER = 1
# The first pause and the longest if there was no answer yet.
_FIRST_PAUSE, _LONGEST_FIRST_PAUSE, _FIRST_GROWTH = 0.1, 3.0, 1.25
# A server that has refused so many calls in a row is taken for unavailable after so many seconds,
# or for the duration of so many answers: others may be served meanwhile.
_STARVED_REFUSALS, _STARVED_SECONDS, _STARVED_ANSWERS, _STARVED_LONGEST = 5, 20.0, 100, 300.0
# Weight of the newest answer in the mean of how long they take.
_NEWEST = 0.2


class AdaptiveLimit(NamedTuple):
    """What is known of the limit. A named tuple: each message replaces it several times, which is
    slow with a dataclass.

    limit: calls at once, None until the server has refused one. running: calls now.

    lowered_at, lowered_to: of the last overload that counted. at_end: the limit was refused when it
    grew. refused, refused_since: calls that were refused since the last answer. step: of the next
    pause. not_before: when the next call may begin. seconds: mean duration of a call that was
    answered. period: of the rotation. missed_periods: how many began with a refusal of its call.
    released: it released its slots and has not called since. unclaimed: nobody took them the last
    time.
    """

    limit: float | None = None
    running: int = 0
    lowered_at: float = -math.inf
    lowered_to: float = 1.0
    at_end: bool = False
    refused: int = 0
    refused_since: float = math.inf
    step: int = 0
    not_before: float = -math.inf
    seconds: float | None = None
    period: float = 0.0
    missed_periods: int = 0
    released: bool = False
    unclaimed: bool = False


def next_at(state: AdaptiveLimit) -> float:
    """When the next call may begin; infinity while as many run as may."""
    if state.limit is not None and state.running >= math.floor(state.limit):
        return math.inf
    return state.not_before


def sent(before: AdaptiveLimit) -> AdaptiveLimit:
    """A call begins."""
    return AdaptiveLimit(before.limit, before.running + 1, *before[2:])  # faster than _replace


def failed(before: AdaptiveLimit) -> AdaptiveLimit:
    """A call ended in a way that says nothing about the server's load, but was not refused as one
    too many: a text that is refused, a deadline that passed."""
    return _taken(before, before.seconds, before.period)


def answered(
    before: AdaptiveLimit, sent_at: float, now: float, chance: float, ahead: float = 0.0
) -> AdaptiveLimit:
    """A call was answered. The limit grows only if it was what kept more calls from running."""
    took = max(0.0, now - sent_at)
    if before.seconds is None:
        mean = min(took, _LONGEST_FIRST_PAUSE)  # the first may have waited for the model to load
    else:
        mean = before.seconds + _NEWEST * (took - before.seconds)
    after = _taken(before, mean, slot_rotation.period(mean, before.period))
    if before.limit is not None and before.running >= math.floor(before.limit):
        after = _raised(after, before.limit)
    return rotated(after, sent_at, now, chance, ahead)


def rotated(
    after: AdaptiveLimit, sent_at: float, now: float, chance: float, ahead: float = 0.0
) -> AdaptiveLimit:
    """A call that had a slot ended: whether the worker's slots are taken by others meanwhile.

    If a period began during the call, the worker sends nothing for a while. Every second period
    will do where nobody took the slots the last time.
    """
    seconds = after.seconds
    if after.limit is None or seconds is None:
        return after
    if after.released and sent_at >= after.not_before:
        after = after._replace(released=False, unclaimed=True)
    which = slot_rotation.number(now, ahead, after.period)
    begun = slot_rotation.boundary(which, ahead, after.period)
    if not sent_at < begun <= now or after.not_before >= begun:
        return after
    if after.unclaimed and which % 2:
        return after
    until = slot_rotation.returns_at(begun, seconds, chance)
    return after._replace(released=True, not_before=max(after.not_before, until))


def overloaded(
    before: AdaptiveLimit, sent_at: float, now: float, chance: float, ahead: float = 0.0
) -> AdaptiveLimit:
    """The server refused a call as one too many.

    Calls that were sent before the last decrease belong to the same overload: they lower the limit
    to what is under way, and no further.
    """
    running = before.running - 1
    limit = before.running if before.limit is None else before.limit
    after = before._replace(
        running=running,
        refused=before.refused + 1,
        refused_since=min(before.refused_since, now),
    )
    if sent_at >= before.lowered_at:
        lowered = max(1.0, min(DECREASE * limit, float(running)))
        after = after._replace(
            limit=lowered, lowered_to=lowered, lowered_at=now, at_end=running > 0
        )
    elif running < limit:
        lowered = max(1.0, float(running))
        after = after._replace(limit=lowered, lowered_to=lowered)
    if before.released and sent_at >= before.not_before:
        after = after._replace(released=False, unclaimed=False, step=_HANDED_OVER)
    if running:
        return after._replace(not_before=max(before.not_before, now))
    return _after_pause(after, now, chance, ahead)


def paused(before: AdaptiveLimit, now: float, seconds: float, chance: float) -> AdaptiveLimit:
    """The server requests a pause of this length.

    The pause is extended by up to a tenth, because all workers got the same request.
    """
    until = now + spread_after(seconds, chance)
    return before._replace(not_before=max(before.not_before, until))


def starved(state: AdaptiveLimit, now: float) -> bool:
    """Whether the server has refused every call for so long that it counts as unavailable."""
    enough = min(_STARVED_LONGEST, _STARVED_ANSWERS * (state.seconds or 0.0))
    return state.refused >= _STARVED_REFUSALS and now - state.refused_since >= max(
        _STARVED_SECONDS, enough
    )


def _taken(before: AdaptiveLimit, seconds: float | None, period: float) -> AdaptiveLimit:
    """A call ended that the server took: refusals in a row end with it."""
    return before._replace(
        running=before.running - 1,
        refused=0,
        refused_since=math.inf,
        step=0,
        seconds=seconds,
        period=period,
        missed_periods=0,
    )


def _raised(after: AdaptiveLimit, limit: float) -> AdaptiveLimit:
    grown = max(0.0, limit - after.lowered_to)
    slowest = SLOWEST_INCREASE / 2 if after.at_end else SLOWEST_INCREASE
    if limit >= _LARGE:
        slowest = max(slowest, limit / _LIMITS_SHARE)
    increase = min(FASTEST_INCREASE, slowest * (1 + grown))
    at_end = after.at_end and grown < _FURTHER
    return after._replace(limit=limit + increase / limit, at_end=at_end)


def _after_pause(after: AdaptiveLimit, now: float, chance: float, ahead: float) -> AdaptiveLimit:
    """Call again after a pause, or when the others release their slots, if that is sooner."""
    until = now + spread_around(_pause(after), chance)
    if after.seconds is not None:
        length = slot_rotation.period(after.seconds, after.period)
        following = slot_rotation.number(now, ahead, length) + 1
        begins = slot_rotation.boundary(following, ahead, length)
        first, asks = slot_rotation.asks_at(begins, after.seconds, after.missed_periods, chance)
        if until > min(first, begins):
            until = asks
            after = after._replace(missed_periods=after.missed_periods + 1)
    return after._replace(step=after.step + 1, not_before=max(after.not_before, until))


def _pause(after: AdaptiveLimit) -> float:
    """The mean pause before the next call."""
    if after.seconds is None:
        return growing(_FIRST_PAUSE, _FIRST_GROWTH, after.step, _LONGEST_FIRST_PAUSE)
    most = min(_LONGEST_FACTOR, _LONGER_WITH_EACH * (1 + after.missed_periods))
    factor = growing(_PAUSE_FACTOR, _PAUSE_GROWTH, after.step, most)
    return min(after.seconds * factor, max(_LONGEST_PAUSE, after.seconds * _LONG_CALLS))
