"""Points in time of which some never come (None). Pure."""

from __future__ import annotations


def earliest(*moments: float | None) -> float | None:
    """The first of them, None = none comes."""
    return min((moment for moment in moments if moment is not None), default=None)
