"""Which fault comes when, by a seed, and what came of each (pure)."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median


def order(names: Sequence[str], seed: int) -> Iterator[str]:
    """The faults one after the other: every one once, in an order of the seed, and so on."""
    chance = random.Random(seed)
    while True:
        round_ = sorted(names)
        chance.shuffle(round_)
        yield from round_


def chance_of(seed: int, number: int) -> random.Random:
    """What the fault of that number (from 1) chooses by: the same in every replay."""
    return random.Random(f"{seed}/{number}")


@dataclass(frozen=True)
class Outcome:
    """One fault: seconds from its end until all was healthy again, None = it never was.

    `broken` are the invariants that did not hold, one sentence each.
    """

    fault: str
    seconds: float | None
    broken: tuple[str, ...] = ()

    @property
    def survived(self) -> bool:
        """All came back, and nothing happened that must not."""
        return self.seconds is not None and not self.broken


def table(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """Rows of fault, how often, survived, seconds to recover: median, worst."""
    rows = []
    for name in sorted({one.fault for one in outcomes}):
        of_it = [one for one in outcomes if one.fault == name]
        seconds = sorted(one.seconds for one in of_it if one.seconds is not None)
        rows.append(
            [
                name,
                str(len(of_it)),
                str(sum(one.survived for one in of_it)),
                f"{median(seconds):.1f}" if seconds else "-",
                f"{seconds[-1]:.1f}" if seconds else "-",
            ]
        )
    return rows
