"""How the worker's throughput grows: with the calls in flight, and with the processes.

The real worker and a real broker. In flight: the model takes 50 ms a call, so n in flight can do at
most n / 0.05 a second. Processes: the handler does nothing, 32 in flight in each. The last run is
kept in build/bench-growth.json.

    ci/bench tests.benchmarks.growth [--seconds S]
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks.report import commit
from tests.benchmarks.worker import Bench, rate, stage
from tests.support.rabbit import available
from tests.support.worker_process import WorkerProcess

KEPT = Path("build/bench-growth.json")
IN_FLIGHT = (1, 2, 4, 8, 16, 32, 64, 128)
PROCESSES = (1, 2, 4)
MODEL_SECONDS = 0.05


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="about so long a point (8)")
    parser.add_argument("--messages", type=int, default=20_000, help="a point of processes (20000)")
    options = parser.parse_args()
    if why := available():
        print(why, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        with stage(Path(name), options) as bench:
            result = {
                "commit": commit(),
                "cores": os.cpu_count(),
                "load_average": os.getloadavg()[0],
                "model_seconds": MODEL_SECONDS,
                "in_flight": [
                    [count, _in_flight(bench, count, options.seconds)] for count in IN_FLIGHT
                ],
                "processes": [
                    [count, _processes(bench, count, options.messages)] for count in PROCESSES
                ],
            }
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 0


def _in_flight(bench: Bench, count: int, seconds: float) -> float:
    # A tenth at each end is not measured, so there must be some of both.
    messages = max(40, int(count / MODEL_SECONDS * seconds))
    found = _run(bench, 1, messages, CONCURRENCY=count, FAULT_MODEL_DELAY=MODEL_SECONDS)
    print(f"{count} in flight: {found:,.1f} messages/s", file=sys.stderr, flush=True)
    return found


def _processes(bench: Bench, count: int, messages: int) -> float:
    found = _run(bench, count, messages)
    print(f"{count} processes: {found:,.0f} messages/s", file=sys.stderr, flush=True)
    return found


def _run(bench: Bench, processes: int, messages: int, **more: object) -> float:
    bench.fill("selfheal", messages)
    env = bench.environment(MODEL_PROVIDER="noop", **more)
    with ExitStack() as stack:
        workers = [
            WorkerProcess(env, bench.folder / f"growth-{number}.log") for number in range(processes)
        ]
        for worker in workers:
            stack.callback(worker.terminate)
        per_second, _ = rate(bench.vhost, messages, workers[0].process.pid)
        return per_second


if __name__ == "__main__":
    sys.exit(main())
