"""Run the programs in simulated worlds, one world for each seed, on all cores.

exit status: 0 all passed; 1 a seed failed, its story is printed; 2 wrong usage; 130 Ctrl-C.
SEED=n in the environment replays that seed of one side with its log.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time

from tests.simulation import pool

SIDES = ("remediator", "worker")
HASH_SEED = pool.HASH_SEED
#: Seconds between two lines of progress: on a terminal, where one takes the place of the other,
#: and elsewhere.
_ON_TERMINAL, _ELSEWHERE = 1.0, 60.0


def main() -> int:
    """Run the seeds of one side or of both. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--side", choices=SIDES, help="one program only (default: both at once)")
    parser.add_argument("--seeds", type=int, default=300, help="how many (default: 300)")
    parser.add_argument(
        "--from", type=int, default=0, dest="first", metavar="SEED", help="the first (default: 0)"
    )
    given = parser.parse_args()
    if (only := os.environ.get("SEED")) is not None:
        if given.side is None:
            parser.error(f"SEED replays a seed of one side: add --side, one of {', '.join(SIDES)}")
        if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
            os.environ["PYTHONHASHSEED"] = HASH_SEED
            os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
        side = importlib.import_module(f"tests.simulation.{given.side}.seeds")
        return 0 if side.replay(int(only)) else 1
    sides = SIDES if given.side is None else (given.side,)
    try:
        return run(sides, range(given.first, given.first + given.seeds))
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        return 130


def run(sides: tuple[str, ...], seeds: range) -> int:
    """Run these seeds of each side, print what fails at once and the rates at the end."""
    tasks = [(side, seed) for seed in seeds for side in sides]
    began, progress = time.monotonic(), _Progress(len(tasks))
    done: dict[str, list[pool.Outcome]] = {side: [] for side in sides}
    for outcome in pool.run_all(pool.check, tasks):
        done[outcome.side].append(outcome)
        if outcome.failure:
            progress.clear()
            sys.stdout.write(outcome.failure + "\n")
            sys.stdout.flush()
        progress.note(failed=bool(outcome.failure))
    progress.clear()
    seconds = time.monotonic() - began
    for side, outcomes in done.items():
        failed = sorted(one.seed for one in outcomes if one.failure)
        numbers = f" {failed}" if failed else ""
        sys.stdout.write(f"{side}: {len(outcomes)} seeds, {len(failed)} failed{numbers}\n")
    every = [one for outcomes in done.values() for one in outcomes]
    sys.stdout.write(
        f"{sum(one.node_hours for one in every):,.0f} node-hours and "
        f"{sum(one.messages for one in every):,} messages in {seconds:,.0f} s\n"
    )
    return 1 if any(one.failure for one in every) else 0


class _Progress:
    """How many seeds are done, on stderr."""

    def __init__(self, count: int) -> None:
        self._count, self._done, self._failed = count, 0, 0
        self._terminal = sys.stderr.isatty()
        self._began = self._shown = time.monotonic()

    def note(self, *, failed: bool) -> None:
        self._done += 1
        self._failed += failed
        now = time.monotonic()
        if now - self._shown >= (_ON_TERMINAL if self._terminal else _ELSEWHERE):
            self._shown = now
            line = f"{self._done} of {self._count} seeds, {self._failed} failed"
            line = f"{line}, {now - self._began:,.0f} s"
            sys.stderr.write(f"\r{line}\033[K" if self._terminal else f"{line}\n")
            sys.stderr.flush()

    def clear(self) -> None:
        """Before other lines."""
        if self._terminal:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
