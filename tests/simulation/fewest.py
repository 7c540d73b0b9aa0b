"""Of the parts of a failing world, the fewest with which it still fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class Runs:
    """How many more may be made."""

    def __init__(self, runs: int) -> None:
        self._runs = runs

    def left(self) -> bool:
        """Whether one more may be made; it is counted."""
        self._runs -= 1
        return self._runs >= 0


def fewest(places: Sequence[int], still: Callable[[tuple[int, ...]], bool]) -> tuple[int, ...]:
    """Without halves, then quarters, … of the places, while the rest still fails."""
    kept = tuple(places)
    size = max(1, len(kept) // 2)
    while kept:
        at = 0
        while at < len(kept):
            rest = kept[:at] + kept[at + size :]
            if still(rest):
                kept = rest
            else:
                at += size
        if size == 1:
            break
        size = max(1, size // 2)
    return kept
