"""How long to wait before something that failed is tried again. Pure."""

from __future__ import annotations

#: Doubled more often, every first delay is beyond every longest one.
_DOUBLINGS = 60


def delay_after(failures: int, *, first: float, longest: float) -> float:
    """Seconds before the next attempt: `first` after one failure, twice as long after each further
    one in a row, at most `longest`."""
    return min(longest, first * 2.0 ** min(max(failures, 1) - 1, _DOUBLINGS))
