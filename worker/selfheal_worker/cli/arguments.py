"""What a number on the command line may be."""

from __future__ import annotations


def count(value: str) -> int:
    """A whole number that is not negative. Raises ValueError."""
    number = int(value)
    if number < 0:
        raise ValueError
    return number


def seconds(value: str) -> float:
    """A number of seconds, 0 or more. Raises ValueError."""
    number = float(value)
    if not 0 <= number < 1e9:
        raise ValueError
    return number


def age(value: str) -> float:
    """A number with its unit (s, m, h, d), in seconds. Raises ValueError."""
    factor = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(value[-1:], 0)
    if not factor:
        raise ValueError
    return seconds(value[:-1]) * factor
