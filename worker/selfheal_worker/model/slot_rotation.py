"""When workers that share an overloaded server rotate its slots. Pure.

Workers do not know each other, but their clocks agree. At times that are the same for all (whole
multiples of a period in Unix time) each lets its calls end and sends no new ones for about the
duration of one; those that were refused call at that moment, the longest refused first, and have
the slots before the others return. If clocks differ by more than the duration of a call, slots
rotate only by chance: capacity and calls do not change, waits become longer. Times are seconds.
"""

from __future__ import annotations

import math

#: A period is so many calls long, at least; and so many seconds.
CALLS, SHORTEST = 36, 10.0
# In calls after the boundary: those that were refused start to call, and are spread over so many.
_ASK, _ASK_SPREAD = 1.0, 0.6
# A worker refused at so many boundaries calls earlier, by so much.
_OLD, _OLD_EARLIER = 12, 0.35
# A worker that released its slots calls again, and is spread over so many.
_RETURN, _RETURN_SPREAD = 1.7, 0.5


def period(seconds: float, before: float) -> float:
    """The period for calls of so many seconds: a power of two, so that workers whose calls differ
    a little have boundaries in common. before: the one until now, 0.0 for none; it stays until it
    no longer fits."""
    wanted = max(SHORTEST, CALLS * seconds)
    if before and 0.4 * before <= wanted <= 1.5 * before:
        return before
    return float(SHORTEST * 2 ** math.ceil(math.log2(wanted / SHORTEST)))


def number(now: float, ahead: float, length: float) -> int:
    """How many periods had ended by now; ahead: by how much Unix time is ahead of now."""
    return math.floor((now + ahead) / length)


def boundary(which: int, ahead: float, length: float) -> float:
    """When a period begins, in the caller's clock."""
    return which * length - ahead


def asks_at(begun: float, seconds: float, missed: int, chance: float) -> tuple[float, float]:
    """The earliest call of a worker without a slot, and when this one calls.

    begun: the boundary; seconds: duration of a call; missed: boundaries at which it was refused.
    """
    first = begun + seconds * (_ASK - _OLD_EARLIER * min(1.0, (missed + 1) / _OLD))
    return first, first + seconds * _ASK_SPREAD * chance / (missed + 2)


def returns_at(begun: float, seconds: float, chance: float) -> float:
    """When a worker calls again that released its slots at the boundary."""
    return begun + seconds * (_RETURN + _RETURN_SPREAD * chance)
