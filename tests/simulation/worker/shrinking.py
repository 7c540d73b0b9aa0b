"""A failing world becomes as small as it can be while it still fails in the same way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from tests.simulation.fewest import Runs, fewest
from tests.simulation.worker import world
from tests.simulation.worker.world import World

T = TypeVar("T")

#: Whether a world still fails in the same way.
Fails = Callable[[World], bool]


@dataclass(frozen=True)
class Kept:
    """What is kept of a seed's world, by the places in its lists; None: all."""

    seed: int
    faults: tuple[int, ...] | None = None
    messages: tuple[int, ...] | None = None
    scaling: tuple[int, ...] | None = None
    exam: bool = True

    def world(self) -> World:
        """The world with what is kept of it."""
        made = world.make(self.seed)
        return replace(
            made,
            faults=_kept(made.faults, self.faults),
            messages=_kept(made.messages, self.messages),
            scaling=_kept(made.scaling, self.scaling),
            exam=made.exam if self.exam else None,
        )

    def test(self, invariant: str) -> str:
        """A test to be pasted."""
        exam = "" if self.exam else ", exam=False"
        return (
            f"def test_seed_{self.seed}_keeps_{invariant}() -> None:\n"
            f"    kept = Kept({self.seed}, {self.faults}, {self.messages}, {self.scaling}{exam})\n"
            f"    _, problems, _ = run.run(kept.world())\n"
            f'    assert "{invariant}" not in {{one.invariant for one in problems}}\n'
        )


def _with(kept: Kept, field: str, places: tuple[int, ...]) -> Kept:
    changes: dict[str, Any] = {field: places}
    return replace(kept, **changes)


def _kept(parts: tuple[T, ...], places: tuple[int, ...] | None) -> tuple[T, ...]:
    return parts if places is None else tuple(parts[place] for place in places)


def shrink(seed: int, fails: Fails, *, most_runs: int = 80) -> Kept:
    """The smallest that was found in so many runs."""
    made = world.make(seed)
    kept = Kept(
        seed,
        tuple(range(len(made.faults))),
        tuple(range(len(made.messages))),
        tuple(range(len(made.scaling))),
    )
    runs = Runs(most_runs)

    def smaller(field: str) -> None:
        nonlocal kept

        def still(places: tuple[int, ...]) -> bool:
            return runs.left() and fails(_with(kept, field, places).world())

        kept = _with(kept, field, fewest(getattr(kept, field), still))

    alone = replace(kept, exam=False)
    if runs.left() and fails(alone.world()):
        kept = alone
    for field in ("faults", "messages", "scaling", "faults"):
        smaller(field)
    return kept
