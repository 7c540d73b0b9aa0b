"""The whole remediator in clusters that a seed makes, with what goes wrong in them."""

from __future__ import annotations

import os

import pytest

from tests.simulation.remediator.run import run

#: How many seeds are run here: one test for ten of them.
SEEDS = int(os.environ.get("SEEDS", "150"))


@pytest.mark.parametrize("first", range(0, SEEDS, 10))
def test_no_seed_breaks_an_invariant(first: int) -> None:
    for seed in range(first, min(first + 10, SEEDS)):
        result = run(seed)
        assert result.passed, result.story()


@pytest.mark.parametrize("seed", [3, 5])
def test_the_same_seed_gives_the_same_run(seed: int) -> None:
    first, second = (run(seed, chaos=400.0, quiet=60.0, detail=True) for _ in range(2))
    assert first.steps > 2000
    assert first.story() == second.story()
