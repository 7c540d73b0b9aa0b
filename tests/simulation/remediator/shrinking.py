"""A failing seed becomes as small as it can be while the same invariant still does not hold."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.simulation.fewest import Runs, fewest
from tests.simulation.remediator.run import Result, run


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a seed's world, by the places in its lists; None: all.

    faults: of what goes wrong; apps: of the applications; nodes: of those for applications.
    """

    seed: int
    faults: tuple[int, ...] | None = None
    apps: tuple[int, ...] | None = None
    nodes: tuple[int, ...] | None = None

    def run(self) -> Result:
        """Run what is kept."""
        return run(self.seed, faults=self.faults, apps=self.apps, nodes=self.nodes)

    def test(self, invariant: str) -> str:
        """A test to be pasted."""
        return (
            f"def test_seed_{self.seed}_keeps_{invariant}() -> None:\n"
            f"    kept = Kept({self.seed}, {self.faults}, {self.apps}, {self.nodes})\n"
            f'    assert "{invariant}" not in {{one.invariant for one in kept.run().problems}}\n'
        )


def shrink(seed: int, invariant: str, *, most_runs: int = 60) -> Kept:
    """The smallest that was found in so many runs."""
    whole, runs = run(seed), Runs(most_runs)
    kept = Kept(
        seed,
        tuple(range(whole.faults)),
        tuple(range(whole.apps)),
        tuple(range(whole.nodes_made)),
    )

    def fails(made: Kept) -> bool:
        return invariant in {one.invariant for one in made.run().problems}

    def still_with(places: tuple[int, ...]) -> bool:
        return runs.left() and fails(replace(kept, faults=places))

    kept = replace(kept, faults=fewest(kept.faults or (), still_with))

    def still_of(places: tuple[int, ...]) -> bool:
        return runs.left() and fails(replace(kept, apps=places))

    kept = replace(kept, apps=fewest(kept.apps or (), still_of))

    def still_on(places: tuple[int, ...]) -> bool:
        return bool(places) and runs.left() and fails(replace(kept, nodes=places))

    return replace(kept, nodes=fewest(kept.nodes or (), still_on))


def smallest_story(seed: int, invariant: str) -> str:
    """The story of the smallest world in which it does not hold, and a test of it."""
    kept = shrink(seed, invariant)
    return f"{kept.run().story()}\n\n{kept.test(invariant)}"
