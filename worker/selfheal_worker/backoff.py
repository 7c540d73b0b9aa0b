"""How long to wait before something is tried again, and by how much to vary that. Pure.

Times in seconds. chance is from 0 to 1: a fleet must not do the same thing at the same time.
"""

from __future__ import annotations

_MOST_STEPS = 40


def growing(first: float, growth: float, step: int, longest: float) -> float:
    """A pause that is longer with each step (from 0), up to the longest."""
    return float(min(longest, first * growth ** min(step, _MOST_STEPS)))


def spread(pause: float, chance: float) -> float:
    """From half of a pause to all of it."""
    return pause * (0.5 + chance / 2)


def spread_around(pause: float, chance: float) -> float:
    """From half of a pause to one and a half: others are spread by it that began together."""
    return pause * (0.5 + chance)


def spread_after(pause: float, chance: float) -> float:
    """A pause that must be kept, and up to a tenth more."""
    return pause * (1 + chance / 10)


def backoff(attempts: int, chance: float) -> float:
    """Seconds to wait before connecting again.

    attempts: those that failed in a row before. From 0.1–0.2 s, doubling, to 5–10 s.
    """
    return spread(growing(0.2, 2.0, attempts, 10.0), chance)
