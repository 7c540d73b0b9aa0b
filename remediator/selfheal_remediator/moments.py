"""Points in time: some were written by no clock, some never come (None). Pure."""

from __future__ import annotations

#: So far (seconds) ahead of ours the clock may be that wrote a time down. What is later no clock
#: wrote: who may write an annotation can write any number into it.
MOST_AHEAD = 3600.0


def credible(moment: float, now: float) -> bool:
    """Whether a clock may have written this, which is in the past by its writer."""
    return moment <= now + MOST_AHEAD


def earliest(*moments: float | None) -> float | None:
    """The first of them, None = none comes."""
    return min((moment for moment in moments if moment is not None), default=None)
