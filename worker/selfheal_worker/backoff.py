"""How long to wait before a connection is tried again. Pure."""

from __future__ import annotations


def backoff(attempts: int, chance: float) -> float:
    """Seconds to wait before connecting again; chance (0 to 1) keeps a fleet from doing it at once.

    attempts: those that failed in a row before. From 0.1–0.2 s, doubling, to 5–10 s.
    """
    return float(min(10.0, 0.2 * 2 ** min(attempts, 16)) * (0.5 + chance / 2))
