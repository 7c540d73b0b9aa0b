"""A worker in a simulated process: the whole program but for its HTTP server and its signals."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from selfheal_worker.broker import Link
from selfheal_worker.config import Settings, load
from selfheal_worker.health import Status
from selfheal_worker.logs import LOGGER
from selfheal_worker.metrics import Metrics
from selfheal_worker.model import injected_faults, registry
from selfheal_worker.model.analysis import Call
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.provider import Network
from selfheal_worker.task import task_file
from selfheal_worker.worker import Worker
from tests.simulation.broker.loop import Endpoint, Loop
from tests.simulation.process import Process
from tests.simulation.scheduler import Simulation

#: Makes the chain of models of a process.
MakeChain = Callable[[Settings, Process, Metrics], Chain]


class WorkerProcess:
    """One process of a worker. ended: when it was gone, in seconds; code: its exit status, None
    while it runs and where it was killed."""

    def __init__(
        self,
        simulation: Simulation,
        name: str,
        env: Mapping[str, str],
        broker: Endpoint,
        *,
        chain: MakeChain | None = None,
        network: Callable[[Process], Network] | None = None,
        skew: float = 0.0,
    ) -> None:
        """chain: by default the one that env names, whose HTTP clients use network."""
        self.process = simulation.process(name, skew)
        self.name = name
        self.ended: float | None = None
        self.code: int | None = None
        self._env = dict(env)
        self._broker = broker
        self._chain = chain or partial(_chain, network)
        self._worker: Worker | None = None
        self._terminated = False

    def start(self) -> None:
        """Have its main thread begin."""
        self.process.start("main", self._main)

    def terminate(self) -> None:
        """SIGTERM."""
        self._trace("gets SIGTERM")
        self._terminated = True
        if self._worker is not None:
            self._worker.stop()
        elif self.ended is None:
            self._exit()

    def kill(self) -> None:
        """SIGKILL."""
        if self.ended is None:
            self.ended = self.process.simulation.now
        self.process.kill()

    def pause(self, seconds: float) -> None:
        """No CPU for so long."""
        self.process.pause(seconds)

    def clock_jump(self, seconds: float) -> None:
        """Its machine's clock is set."""
        self.process.clock_jump(seconds)

    def status(self) -> Status | None:
        """What /progress, /healthz and /readyz go by; None before it can answer."""
        return None if self._worker is None else self._worker.status()

    def metrics(self) -> bytes:
        """What /metrics answers."""
        return b"" if self._worker is None else self._worker.exposition()

    def _main(self) -> None:
        process = self.process
        settings, metrics = load(self._env), Metrics()
        chain = self._chain(settings, process, metrics)
        connect = partial(Link, loop=partial(Loop, process, self._broker), runtime=process)
        self._worker = Worker(settings, chain, metrics, connect, runtime=process)
        self._worker.run()
        self._exit()

    def _exit(self) -> None:
        self.ended, self.code = self.process.simulation.now, 0
        self._trace("ends")
        self.process.kill()

    def _trace(self, what: str) -> None:
        self.process.simulation.record(self.name, what)


def _chain(
    network: Callable[[Process], Network] | None,
    settings: Settings,
    process: Process,
    metrics: Metrics,
) -> Chain:
    """As `selfheal-worker run` makes it."""

    def observe(call: Call) -> None:
        metrics.model.called(call.origin, call.seconds, call.error, call.usage)

    return registry.chain(
        settings,
        task_file.load(settings.task_file),
        observe=observe,
        loaded=metrics.model.loaded,
        before=injected_faults.before_calls(settings.fault_model_delay, None, process),
        network=None if network is None else network(process),
        runtime=process,
    )


class _Trace(logging.Handler):
    """Puts log lines into the trace."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__()
        self._simulation = simulation

    def emit(self, record: logging.LogRecord) -> None:
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        what = "".join(f" {name}={value}" for name, value in fields.items())
        thread = self._simulation.current
        who = "world" if thread is None else thread.name
        self._simulation.record(who, f"{record.levelname}: {record.getMessage()}{what}")


@contextmanager
def logs_in_trace(simulation: Simulation) -> Iterator[None]:
    """The worker's log lines go into the trace; pika's are dropped, as by the worker."""
    pika = logging.getLogger("pika")
    before = (LOGGER.handlers[:], LOGGER.level, LOGGER.propagate, pika.disabled, pika.level)
    LOGGER.handlers[:] = [_Trace(simulation)]
    LOGGER.setLevel(logging.DEBUG)
    LOGGER.propagate = False
    pika.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        LOGGER.handlers[:], LOGGER.propagate = before[0], before[2]
        LOGGER.setLevel(before[1])
        pika.setLevel(before[4])
