"""Run the programs in simulated worlds, one world for each seed.

exit status: 0 all passed; 1 a seed failed, its story is printed; 2 wrong usage.
SEED=n in the environment replays that seed of one side with its log.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys

SIDES = ("remediator", "worker")
#: The same as in ci/test.
HASH_SEED = "0"


def main() -> int:
    """Run the seeds of one side, or of both side by side. Returns the exit status."""
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
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        # The remediator goes through sets of names: their order is part of a seed's world.
        os.environ["PYTHONHASHSEED"] = HASH_SEED
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    if given.side is None:
        if "SEED" in os.environ:
            parser.error(f"SEED replays a seed of one side: add --side, one of {', '.join(SIDES)}")
        command = [sys.executable, "-m", "tests.simulation", *sys.argv[1:], "--side"]
        running = [subprocess.Popen([*command, side]) for side in SIDES]
        return max([process.wait() for process in running])
    side = importlib.import_module(f"tests.simulation.{given.side}.seeds")
    return 0 if side.main(range(given.first, given.first + given.seeds)) else 1


if __name__ == "__main__":
    sys.exit(main())
