"""python -m tests.simulation.reverts.first SIDE FIRST SEEDS: the first seed that fails, as JSON."""

from __future__ import annotations

import importlib
import json
import sys


def main(side: str, first: int, seeds: int) -> None:
    """Write the seed and the invariants that it broke; null where all went well."""
    failing = importlib.import_module(f"tests.simulation.{side}.seeds").failing
    found: dict[str, object] = {"seed": None, "invariants": []}
    for seed in range(first, first + seeds):
        if problems := failing([seed]).get(seed):
            names = sorted({one.invariant for one in problems})
            found = {"seed": seed, "invariants": names}
            break
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
