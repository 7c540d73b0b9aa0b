"""python -m tests.simulation --side worker --seeds 300 --from 0; SEED=n replays with a log."""

from __future__ import annotations

import argparse
import importlib
import sys


def main() -> int:
    """Run the seeds of one side."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--side", choices=("worker", "remediator"), required=True)
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--from", type=int, default=0, dest="first")
    given = parser.parse_args()
    side = importlib.import_module(f"tests.simulation.{given.side}.seeds")
    return 0 if side.main(range(given.first, given.first + given.seeds)) else 1


if __name__ == "__main__":
    sys.exit(main())
