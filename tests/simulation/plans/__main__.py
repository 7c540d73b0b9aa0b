"""Compare plans with what happens, a cluster for each seed: prints a table by kind, and misses.

`python -m tests.simulation.plans FIRST NUMBER`; with one seed its story is printed, too.
"""

from __future__ import annotations

import json
import os
import sys

from tests.simulation.__main__ import HASH_SEED
from tests.simulation.plans.run import run, table


def main() -> int:
    """Returns the exit status."""
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        os.environ["PYTHONHASHSEED"] = HASH_SEED
        arguments = [sys.executable, "-m", "tests.simulation.plans", *sys.argv[1:]]
        os.execv(sys.executable, arguments)
    first, number = int(sys.argv[1]), int((*sys.argv, "1")[2])
    results = []
    for seed in range(first, first + number):
        result = run(seed)
        results.append(result)
        for one in result.findings:
            if not one.right:
                print(f"seed {seed}: {one.kind}: {one.subject}: {one.shown!r} -> {one.happened!r}")
        for line in result.unexpected:
            print(f"seed {seed}: {line}")
    if number == 1:
        print("\n".join([*results[0].made_of, *results[0].trace]))
        print(json.dumps(results[0].plans, indent=1))
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
