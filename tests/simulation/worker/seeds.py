"""Many seeds, one after the other: what fails is shrunk and printed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable

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


def main(seeds: range) -> bool:
    """Run these seeds, or the one of the environment variable SEED; whether all went well."""
    if given := os.environ.get("SEED"):
        return replay(int(given))
    begun, bad = time.perf_counter(), 0
    for seed in seeds:
        if problems := failing([seed]).get(seed):
            bad += 1
            _say(smallest_story(seed, problems))
    seconds = time.perf_counter() - begun
    _say(f"worker: {len(seeds)} seeds, {bad} failed, {seconds:.0f} s")
    return not bad


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
