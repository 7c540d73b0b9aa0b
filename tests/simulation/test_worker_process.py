"""Whole workers beside a broker that fails, by seeds: nothing is lost, and a seed is a run."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from selfheal_worker.broker import topology
from selfheal_worker.config import load
from selfheal_worker.runtime import REAL
from tests.simulation.broker.broker import Broker
from tests.simulation.broker.session import properties
from tests.simulation.scheduler import Simulation
from tests.simulation.worker import seeded_broker
from tests.simulation.worker.process import WorkerProcess, logs_in_trace

ROOT = Path(__file__).parents[2]
ENV = {"AMQP_HOST": "broker", "QUEUE_NAME": "feedback", "CONCURRENCY": "2"}
NAMES = ("monotonic", "time", "sleep", "event", "lock", "rlock", "condition", "queue", "local")


@pytest.fixture
def no_real_time(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The machine's clocks, locks and threads fail; which were used."""
    used: list[str] = []

    def refuse(name: str, *_: object, **__: object) -> Any:
        used.append(name)
        raise AssertionError(f"REAL.{name} is used in the simulation")

    for name in (*NAMES, "start"):
        monkeypatch.setattr(REAL, name, partial(refuse, name))
    monkeypatch.setattr(REAL, "random", None)
    return used


def test_a_worker_answers_and_ends_at_sigterm(no_real_time: list[str]) -> None:
    with Simulation(1) as simulation, logs_in_trace(simulation):
        broker = Broker(simulation)
        worker = WorkerProcess(simulation, "worker-0", ENV, broker)
        for queue in topology.queues(load(ENV)):
            broker.declare(queue.name, queue.arguments)
        for number in range(5):
            broker.publish("feedback", b'{"text": "A lovely day!"}', properties(f"m{number}"))
        broker.publish("feedback", b"{", properties("poison"))
        worker.start()
        simulation.run(until=10.0)
        status = worker.status()
        assert status is not None
        assert (status.not_ready, status.in_flight, status.unhealthy()) == ((), 0, [])
        assert b'selfheal_worker_messages_total{outcome="answered"} 5.0' in worker.metrics()
        worker.terminate()
        simulation.run(until=20.0)
        assert (worker.code, worker.ended) == (0, pytest.approx(10.0, abs=1.0))
        assert len(broker.messages("feedback.results")) == 5
        [letter] = broker.messages("feedback.dead-letters")
        assert letter.headers["x-selfheal-reason"] == "malformed_json"
        assert broker.messages("feedback") == []
    assert no_real_time == []


@pytest.mark.parametrize("seed", range(24))
def test_nothing_is_lost(seed: int, no_real_time: list[str]) -> None:
    seeded_broker.run(seed)
    assert no_real_time == []


def test_a_seed_is_one_run_and_others_are_others() -> None:
    traces = [seeded_broker.run(seed, detail=True) for seed in (3, 3, 4)]
    assert traces[0] == traces[1]
    assert traces[0] != traces[2]


def test_a_run_does_not_depend_on_how_python_hashes_texts() -> None:
    code = (
        "import hashlib; from tests.simulation.worker.seeded_broker import run; "
        "print(hashlib.sha256('\\n'.join(run(5, detail=True)).encode()).hexdigest())"
    )
    paths = os.pathsep.join([str(ROOT), str(ROOT / "worker")])
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": paths},
            check=True,
            capture_output=True,
            timeout=120,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1
