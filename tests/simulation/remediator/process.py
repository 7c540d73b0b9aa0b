"""The remediator as a process of the simulation: the product whole, as `run` assembles it.

A replica that ends or is killed is started again by its kubelet after a while, under the same pod
name, as a container of the same pod is. Commands for people run as short processes of their own.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes.client import Configuration

from selfheal_remediator.__main__ import main
from selfheal_remediator.config import Config
from selfheal_remediator.controller.loop import Remediator
from selfheal_remediator.failures import Failure
from selfheal_remediator.healing.progress_probe import NoAnswer
from selfheal_remediator.run import Place, assemble
from tests.simulation.cluster.cluster import Cluster
from tests.simulation.cluster.messages import Server
from tests.simulation.process import Process
from tests.simulation.remediator.pool import SimulatedPool
from tests.simulation.remediator.wire import Disturb, undisturbed
from tests.simulation.scheduler import Simulation

NAMESPACE = "selfheal"
#: Seconds until a container that ended is started again; kubelets wait longer each time.
RESTARTED_AFTER = 10.0
URL = "http://api"
#: How a pod answers a probe for progress: status and body, None = not at all.
Progress = Callable[[str, int, str], tuple[int, bytes] | None]


def _silent(_address: str, _port: int, _path: str) -> None:
    """No pod answers."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the processes of one simulation talk to."""

    simulation: Simulation
    server: Server
    disturb: Disturb = undisturbed
    progress: Progress = _silent

    def pool(self, process: Process) -> SimulatedPool:
        """The connections of a process."""
        return SimulatedPool(process, self.server, self.disturb)

    def fetch(
        self, process: Process, address: str, port: int, path: str, timeout: float
    ) -> tuple[int, dict[str, str], bytes]:
        """See progress_probe.Fetch."""
        process.sleep(0.001 + 0.02 * process.random.random())
        answer = self.progress(address, port, path)
        if answer is None:
            process.sleep(timeout)
            raise NoAnswer("too slow")
        return answer[0], {}, answer[1]


class Replica:
    """One pod of the remediator's Deployment. skew: seconds by which its clock is ahead."""

    def __init__(
        self, around: Surroundings, name: str, config: Config, *, uid: str = "", skew: float = 0.0
    ) -> None:
        self._around, self.name, self._uid, self._skew = around, name, uid, skew
        self.config = config
        self.process: Process | None = None
        #: What runs in the process, once it is assembled.
        self.remediator: Remediator | None = None
        self.starts = 0

    @property
    def runs(self) -> bool:
        """Whether there is a process now."""
        return self.process is not None and not self.process.killed

    def start(self) -> None:
        """Start the container, unless it runs."""
        if self.runs:
            return
        self.starts += 1
        process = self.process = self._around.simulation.process(self.name, self._skew)
        process.start("main", lambda: self._run(process))

    def kill(self, again_after: float | None = RESTARTED_AFTER) -> None:
        """kill -9; again_after: seconds until it is started again, None = never."""
        process, self.process, self.remediator = self.process, None, None
        if process is not None:
            if again_after is not None:
                self._around.simulation.after(again_after, self.start)
            process.kill()

    def stop(self, again_after: float | None = RESTARTED_AFTER) -> None:
        """SIGTERM; again_after: see `kill`."""
        if self.remediator is not None:
            self._restart_after = again_after
            self.remediator.stop()

    _restart_after: float | None = RESTARTED_AFTER

    def _run(self, process: Process) -> None:
        access = Configuration()
        access.host = URL
        lease = self.config.lease
        place = Place(NAMESPACE, lease, f"{self.name}_{self.starts}", self._uid)
        try:
            daemon = assemble(
                self.config,
                access,
                place,
                pool=self._around.pool(process),
                fetch=lambda *asked: self._around.fetch(process, *asked),
                runtime=process,
            )
            self.remediator = daemon.remediator
            daemon.remediator.run()
        except Failure as failure:
            process.simulation.record(process.name, f"ends: {failure}")
        self.kill(self._restart_after)


@dataclass(slots=True)
class Outcome:
    """What became of a command. status None = it has not ended; printed: that of several at a time
    may be mixed up."""

    arguments: tuple[str, ...]
    status: int | None = None
    printed: str = ""


class Console:
    """People's commands. settings: of the configuration file; folder: where that and the
    kubeconfig are written."""

    def __init__(self, around: Surroundings, settings: Mapping[str, Any], folder: Path) -> None:
        self._around = around
        #: What became of each.
        self.outcomes: list[Outcome] = []
        context = {"cluster": "c", "user": "u"}
        kubeconfig = {
            "clusters": [{"name": "c", "cluster": {"server": URL}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": context}],
            "current-context": "x",
        }
        self._kubeconfig = folder / "kubeconfig"
        self._kubeconfig.write_text(json.dumps(kubeconfig))
        self._config = folder / "remediator.yaml"
        self._config.write_text(json.dumps(settings))

    def run(self, *arguments: str) -> Outcome:
        """Begin a command in a process of its own."""
        outcome = Outcome(arguments)
        self.outcomes.append(outcome)
        process = self._around.simulation.process(f"command-{len(self.outcomes)}")
        process.start("main", lambda: self._run(process, outcome))
        return outcome

    def _run(self, process: Process, outcome: Outcome) -> None:
        process.simulation.record(process.name, " ".join(outcome.arguments))
        access = ("--kubeconfig", str(self._kubeconfig), "--config", str(self._config))
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            outcome.status = main(
                [*outcome.arguments, *access, "--namespace", NAMESPACE],
                pool=self._around.pool(process),
                runtime=process,
            )
        outcome.printed = printed.getvalue()
        process.simulation.record(process.name, f"ends with {outcome.status}")
        process.kill()


class _Lines(logging.Handler):
    """Log lines become lines of the trace."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(logging.INFO)
        self._simulation = simulation

    def emit(self, record: logging.LogRecord) -> None:
        thread = self._simulation.current
        who = thread.process.name if thread is not None else "world"
        self._simulation.record(who, f"{record.levelname.lower()}: {record.getMessage()}")


@contextlib.contextmanager
def logged(simulation: Simulation) -> Iterator[None]:
    """While the simulation runs: what the product logs is in the trace, and nothing is printed."""
    root, lines = logging.getLogger("selfheal_remediator"), _Lines(simulation)
    before, propagates = root.level, root.propagate
    root.addHandler(lines)
    root.setLevel(logging.INFO)
    root.propagate = False
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        root.removeHandler(lines)
        root.setLevel(before)
        root.propagate = propagates


def answers_of(cluster: Cluster, answer: Callable[[str, str], bytes | None]) -> Progress:
    """Pods that answer for themselves. answer: of (namespace, name), None = it hangs."""

    def progress(address: str, _port: int, _path: str) -> tuple[int, bytes] | None:
        pod = cluster.pod_at(address)
        if pod is None:
            return None
        body = answer(pod["metadata"]["namespace"], pod["metadata"]["name"])
        return None if body is None else (200, body)

    return progress
