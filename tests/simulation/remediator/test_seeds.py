"""The whole remediator in clusters that a seed makes, with what goes wrong in them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from selfheal_remediator.config import Config
from tests.simulation import pool
from tests.simulation.remediator import world
from tests.simulation.remediator.run import run
from tests.simulation.remediator.wire import undisturbed
from tests.simulation.remediator.world import BLOCK
from tests.simulation.scheduler import Simulation

#: How many seeds are run here.
SEEDS = int(os.environ.get("SEEDS", "300"))


def test_no_seed_breaks_an_invariant() -> None:
    if failures := pool.failures("remediator", range(SEEDS)):
        pytest.fail("\n\n".join(failures))


def _features(config: Config) -> set[str]:
    """What is configured beside the defaults."""
    found = {
        "steps": any(rule.then for rule in config.rules),
        "verify": any(rule.verify for rule in config.rules),
        "windows": bool(config.groups),
        "taint": config.taint is not None,
        "surge": config.drain.surge,
        "conditions": config.drain.lifecycle_conditions,
        "completion": config.drain.wait_for_completion.max < 3600.0,
    }
    return {name for name, there in found.items() if there}


def test_half_of_the_seeds_may_have_what_is_off_by_default(tmp_path: Path) -> None:
    plain, wide = (_features_of(range(first, first + 20), tmp_path) for first in (0, BLOCK))
    assert not plain
    assert len(plain | wide) == 7
    assert all(times >= 3 for times in wide.values())


def _features_of(seeds: Iterable[int], folder: Path) -> Counter[str]:
    """In how many of the seeds' worlds what is configured."""
    found: Counter[str] = Counter()
    for seed in seeds:
        with Simulation(seed, detail=False) as simulation:
            found.update(_features(world.build(simulation, undisturbed, folder).config))
    return found


@pytest.mark.parametrize("seed", [3, BLOCK + 5])
def test_the_same_seed_gives_the_same_run(seed: int) -> None:
    first, second = (run(seed, chaos=400.0, quiet=60.0, detail=True) for _ in range(2))
    assert first.steps > 2000
    assert first.story() == second.story()
