"""Durations and numbers of nodes, as a user writes them. Pure."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

#: Longer is a mistake, and no date that can be named.
LONGEST_DAYS = 10_000
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_AMOUNT = re.compile(r"^(\d+)(%?)$")


def parse_duration(value: object) -> float:
    """Seconds from `90s`, `1m`, `1h30m`, `250ms` or a plain number of seconds.

    Raises ValueError with what is allowed.
    """
    seconds = _seconds(value)
    if seconds > LONGEST_DAYS * _UNITS["d"]:
        raise ValueError(f"{str(value)[:40]!r} is too long; allowed is at most {LONGEST_DAYS}d")
    return seconds


def _seconds(value: object) -> float:
    allowed = "a duration such as 30s, 5m, 1h30m"
    if isinstance(value, bool) or value is None:
        raise ValueError(f"{value!r} is not {allowed}")
    if isinstance(value, int | float):
        if value < 0:
            raise ValueError(f"{value!r} is negative; allowed is {allowed}")
        if not math.isfinite(value):
            raise ValueError(f"{value!r} is not {allowed}")
        return float(value)
    text = str(value).strip()
    if text == "0":
        return 0.0
    pieces = _DURATION.findall(text)
    if not pieces or "".join(number + unit for number, unit in pieces) != text:
        raise ValueError(f"{value!r} is not {allowed}")
    return sum(float(number) * _UNITS[unit] for number, unit in pieces)


@dataclass(frozen=True, slots=True)
class Amount:
    """A number of nodes, or a percentage of the nodes that the rules apply to."""

    number: int
    percent: bool

    def of(self, population: int) -> int:
        """Nodes out of `population`; a percentage is rounded down (the floor is set apart)."""
        return population * self.number // 100 if self.percent else self.number

    def __str__(self) -> str:
        return f"{self.number}%" if self.percent else str(self.number)


def parse_amount(value: object) -> Amount:
    """An Amount from `3` or `"10%"`. Raises ValueError with what is allowed."""
    if isinstance(value, Amount):
        return value
    found = None if isinstance(value, bool) else _AMOUNT.match(str(value).strip())
    if found is None:
        raise ValueError(f'{value!r} is not a number of nodes (3) or a percentage ("10%")')
    number, percent = int(found[1]), bool(found[2])
    if percent and number > 100:
        raise ValueError(f"{value!r} is over 100%")
    return Amount(number, percent)
