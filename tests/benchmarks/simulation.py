"""How much simulated time passes in a second: `make bench-simulation`.

Both sides run one after the other, each in one process. The last run is kept in
build/bench-simulation.json.

    python -m tests.benchmarks.simulation [--seeds N]
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.report import commit
from tests.simulation.__main__ import HASH_SEED
from tests.simulation.remediator.run import run as run_remediator
from tests.simulation.worker.run import run as run_worker
from tests.simulation.worker.world import make

KEPT = Path("build/bench-simulation.json")


def main() -> int:
    """Exit status 0: measured; 1: a seed failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=60, help="of each side (60)")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        os.environ["PYTHONHASHSEED"] = HASH_SEED
        os.execv(
            sys.executable, [sys.executable, "-m", "tests.benchmarks.simulation", *sys.argv[1:]]
        )
    result = measure(range(options.seeds))
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 1 if result["failed"] else 0


def measure(seeds: range) -> dict[str, Any]:
    """Rates by the clock and, which other load changes little, by the processor's time."""
    failed, node_hours, messages = 0, 0.0, 0
    begin = _Times()
    for seed in seeds:
        result = run_remediator(seed)
        node_hours += result.nodes * result.seconds / 3600
        failed += not result.passed
    middle = _Times()
    for seed in seeds:
        history, problems, _ = run_worker(make(seed))
        messages += len(history.published)
        failed += bool(problems)
    end = _Times()
    return {
        "commit": commit(),
        "seeds": len(seeds),
        "failed": failed,
        "load_average": os.getloadavg()[0],
        "node_hours_per_s": node_hours / (middle.real - begin.real),
        "remediator_cpu_s_per_seed": (middle.cpu - begin.cpu) / len(seeds),
        "messages_per_s": messages / (end.real - middle.real),
        "worker_cpu_s_per_seed": (end.cpu - middle.cpu) / len(seeds),
    }


class _Times:
    def __init__(self) -> None:
        self.real, self.cpu = time.perf_counter(), time.process_time()


if __name__ == "__main__":
    sys.exit(main())
