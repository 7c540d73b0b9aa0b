"""Spans of time for people. Pure."""

from __future__ import annotations


def span(seconds: float) -> str:
    """Seconds for people: 42s, 5m, 2h10m."""
    whole = round(max(0.0, seconds))
    if whole < 120:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 120:
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m" if minutes else f"{hours}h"
