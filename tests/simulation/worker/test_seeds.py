"""Seeds of the worker's simulation; `python -m tests.simulation --side worker` runs more."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest

pytest.importorskip("greenlet")
pytest.importorskip("langchain_ollama")
pytest.importorskip("langchain_openai")

from tests.simulation import pool
from tests.simulation.worker import run, seeds, world
from tests.simulation.worker.shrinking import Kept, shrink
from tests.simulation.worker.world import World

#: How many seeds are run here.
SEEDS = int(os.environ.get("SEEDS", "300"))


def test_no_seed_breaks_an_invariant() -> None:
    if failures := pool.failures("worker", range(SEEDS)):
        pytest.fail("\n\n".join(failures))


def _digest(seed: int) -> str:
    history, _, trace = run.run(world.make(seed), detail=True)
    told = "\n".join([*trace, *history.story(), repr(history.ends), repr(history.samples)])
    return hashlib.sha256(told.encode()).hexdigest()


@pytest.mark.parametrize("seed", [5, 7])
def test_the_same_seed_gives_the_same_run(seed: int) -> None:
    assert _digest(seed) == _digest(seed)


def test_another_process_gives_the_same_run() -> None:
    source = "from tests.simulation.worker import test_seeds;print(test_seeds._digest(2))"
    # The hash of strings differs there.
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", source], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == _digest(2)


def test_a_failing_world_shrinks_to_what_it_fails_by() -> None:
    seed = next(n for n in range(100) if len(world.make(n).faults) > 3)
    made = world.make(seed)
    needed = (made.faults[2], made.messages[4], made.messages[7])

    def fails(tried: World) -> bool:
        return needed[0] in tried.faults and all(one in tried.messages for one in needed[1:])

    assert shrink(seed, fails) == Kept(seed, (2,), (4, 7), (), exam=False)


def test_a_shrunk_world_is_pasted_as_a_test() -> None:
    kept = Kept(5, (), (1,), (0,))
    assert kept.test("nothing_is_lost") == (
        "def test_seed_5_keeps_nothing_is_lost() -> None:\n"
        "    kept = Kept(5, (), (1,), (0,))\n"
        "    _, problems, _ = run.run(kept.world())\n"
        '    assert "nothing_is_lost" not in {one.invariant for one in problems}\n'
    )
    assert Kept(5, exam=False).test("x").count("Kept(5, None, None, None, exam=False)") == 1
    assert [one.number for one in kept.world().messages] == [world.make(5).messages[1].number]
    told = seeds.story(kept, "nothing_is_lost")
    assert any("is published" in line for line in told)
