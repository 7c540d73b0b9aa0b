"""Many seeds at once: a process for each core, and each seed in whichever of them is free.

Which process it is, and what ran there before, changes nothing of a seed's world.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

#: The remediator goes through sets of names: their order is part of a seed's world. The same as
#: in ci/test.
HASH_SEED = "0"
_VARIABLE = "PYTHONHASHSEED"

Task = TypeVar("Task")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a seed. failure: what is wrong, with the story of the smallest world in which
    it is; empty = it passed. node_hours, messages: simulated."""

    side: str
    seed: int
    failure: str = ""
    node_hours: float = 0.0
    messages: int = 0


def check(task: tuple[str, int]) -> Outcome:
    """Run a seed of a side."""
    side, seed = task
    outcome: Outcome = importlib.import_module(f"tests.simulation.{side}.seeds").check(seed)
    return outcome


def failures(side: str, seeds: Iterable[int]) -> list[str]:
    """What is wrong with those seeds of a side that fail."""
    outcomes = run_all(check, [(side, seed) for seed in seeds])
    return [outcome.failure for outcome in outcomes if outcome.failure]


def run_all(
    function: Callable[[Task], Answer], tasks: Iterable[Task], processes: int | None = None
) -> Iterator[Answer]:
    """The function's answers, in the order in which they are there. Raises BrokenProcessPool where
    a process dies. Where the caller stops, no further task begins."""
    executor = ProcessPoolExecutor(
        processes or os.cpu_count() or 1,
        # Not forked: what runs here, threads and simulations, is none of theirs.
        multiprocessing.get_context("spawn"),
        # Ctrl-C reaches all processes of a terminal: these end at once and print nothing.
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_DFL),
    )
    with _hash_seed():
        futures = [executor.submit(function, task) for task in tasks]
    try:
        for future in as_completed(futures):
            yield future.result()
    finally:
        executor.shutdown(cancel_futures=True)


@contextmanager
def _hash_seed() -> Iterator[None]:
    """What is started now has it."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = HASH_SEED
    try:
        yield
    finally:
        del os.environ[_VARIABLE]
        if before is not None:
            os.environ[_VARIABLE] = before
