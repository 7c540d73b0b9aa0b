"""Seeds of the remediator's side: what fails, and the whole story of one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable

from tests.simulation.pool import Outcome
from tests.simulation.remediator.problems import Problem
from tests.simulation.remediator.run import run
from tests.simulation.remediator.shrinking import smallest_story


def failing(seeds: Iterable[int]) -> dict[int, list[Problem]]:
    """The problems of each seed that has some."""
    logging.disable(logging.NOTSET)
    found = {}
    for seed in seeds:
        if problems := run(seed).problems:
            found[seed] = problems
    return found


def check(seed: int) -> Outcome:
    """Run one; where it fails, find the smallest world that fails by the same invariant."""
    logging.disable(logging.NOTSET)  # what the product logs is part of the story
    result, failure = run(seed), ""
    if not result.passed:
        smallest = smallest_story(seed, result.problems[0].invariant)
        failure = f"{smallest}\nseed {seed}: {'; '.join(map(str, result.problems))}"
    hours = result.nodes * result.seconds / 3600
    return Outcome("remediator", seed, failure, node_hours=hours)


def replay(seed: int) -> bool:
    """Run one and print all of it; whether it went well."""
    logging.disable(logging.NOTSET)
    result = run(seed)
    sys.stdout.write(result.story() + "\n")
    return result.passed
