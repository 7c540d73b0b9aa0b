"""Seeds of the worker's side: what fails is shrunk, and one is replayed."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from tests.simulation.pool import Outcome
from tests.simulation.worker import run, world
from tests.simulation.worker.checks import Problem
from tests.simulation.worker.shrinking import Kept, shrink
from tests.simulation.worker.world import World


def failing(seeds: Iterable[int]) -> dict[int, list[Problem]]:
    """The problems of each seed that has some."""
    found = {}
    for seed in seeds:
        _, problems, _ = run.run(world.make(seed))
        if problems:
            found[seed] = problems
    return found


def check(seed: int) -> Outcome:
    """Run one; where it fails, find the smallest world that fails by the same invariant."""
    history, problems, _ = run.run(world.make(seed))
    failure = smallest_story(seed, problems) if problems else ""
    return Outcome("worker", seed, failure, messages=len(history.published))


def smallest_story(seed: int, problems: list[Problem]) -> str:
    """The story of the smallest world that has the first of a seed's problems, and its test."""
    first = problems[0].invariant
    kept = shrink(seed, lambda made: _has(made, first))
    return "\n".join(story(kept, first))


def _has(made: World, invariant: str) -> bool:
    _, problems, _ = run.run(made)
    return invariant in {one.invariant for one in problems}


def story(kept: Kept, invariant: str) -> list[str]:
    """What happens in a world, what is wrong with it, and a test of that."""
    history, problems, _ = run.run(kept.world())
    return [
        *history.story(),
        "",
        *(str(one) for one in problems),
        "",
        kept.test(invariant),
    ]


def replay(seed: int) -> bool:
    """Run one seed and print all of it; whether it went well."""
    history, problems, trace = run.run(world.make(seed), detail=True)
    _say(*trace, "", *history.story(), "", *map(str, problems))
    return not problems


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
