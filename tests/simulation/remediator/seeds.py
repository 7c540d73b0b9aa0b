"""Many seeds of the remediator's side; SEED=n shows one with its whole story."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable

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


def main(seeds: Iterable[int]) -> bool:
    """Run them, and print what failed and how fast it went; whether all passed."""
    logging.disable(logging.NOTSET)  # what the product logs is part of the story
    only = os.environ.get("SEED")
    if only is not None:
        result = run(int(only))
        sys.stdout.write(result.story() + "\n")
        return result.passed
    failed, count, node_hours, began = [], 0, 0.0, time.monotonic()
    for seed in seeds:
        result = run(seed)
        count += 1
        node_hours += result.nodes * result.seconds / 3600
        if not result.passed:
            failed.append(seed)
            sys.stdout.write(smallest_story(seed, result.problems[0].invariant))
            sys.stdout.write(f"\nseed {seed}: {'; '.join(map(str, result.problems))}\n")
            sys.stdout.flush()
    seconds = time.monotonic() - began
    sys.stdout.write(
        f"{count} seeds, {len(failed)} failed {failed}, {node_hours:.0f} node-hours in "
        f"{seconds:.0f} s\n"
    )
    return not failed
