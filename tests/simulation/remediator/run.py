"""One seed: a world, what goes wrong in it, and whether everything that must hold did."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulation.cluster.messages import Request
from tests.simulation.process import Process
from tests.simulation.remediator import faults, settled, world
from tests.simulation.remediator.faults import Network
from tests.simulation.remediator.invariants import Watcher
from tests.simulation.remediator.problems import Broken, Problem
from tests.simulation.remediator.process import logged
from tests.simulation.remediator.wire import Trouble
from tests.simulation.scheduler import Simulation, SimulationError

#: Seconds in which things go wrong, and in which the world may settle.
CHAOS, QUIET = 900.0, 1500.0


@dataclass(slots=True)
class Result:
    """What became of a seed. problems: what did not hold, empty = all did."""

    seed: int
    problems: list[Problem] = field(default_factory=list)
    #: What the world is made of, and the trace.
    made_of: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    #: For measuring: scheduling points, virtual seconds, nodes.
    steps: int = 0
    seconds: float = 0.0
    nodes: int = 0

    @property
    def passed(self) -> bool:
        """Whether everything held."""
        return not self.problems

    def story(self) -> str:
        """For people: the world, what happened, what was wrong."""
        lines = [f"seed {self.seed}", *(f"  {line}" for line in self.made_of), *self.trace]
        return "\n".join([*lines, *(f"BROKEN: {problem}" for problem in self.problems)])


def run(seed: int, *, chaos: float = CHAOS, quiet: float = QUIET, detail: bool = False) -> Result:
    """Run one seed. detail: each scheduling point is in the trace."""
    result = Result(seed)
    with tempfile.TemporaryDirectory() as folder:
        simulation = Simulation(seed, detail=detail)
        with logged(simulation), simulation:
            network = Network(simulation.random)
            watching: list[Watcher] = []

            def disturb(request: Request) -> Trouble:
                for watcher in watching:
                    watcher.sent(request)
                return network.disturb(request)

            made = world.build(simulation, disturb, Path(folder))
            watching.append(Watcher.of(made))
            planned = faults.schedule(made, network, chaos)
            planned.plan()
            try:
                made.start()
                simulation.run(chaos)
                _repair(made, network)
                simulation.run(chaos + quiet)
                result.problems += settled.settled(made, watching[0], quiet)
                result.problems += _unexpected(simulation)
            except Broken as error:
                result.problems.append(error.problem)
            except SimulationError as error:
                result.problems.append(Problem(type(error).__name__, str(error)))
            result.made_of, result.trace = made.story, simulation.trace
            result.steps, result.seconds = simulation.steps, simulation.now
            result.nodes = len(made.nodes)
    return result


def _repair(made: world.World, network: Network) -> None:
    """Faults stop: what was broken for a while is whole again."""
    network.rate, network.down = 0.0, False
    made.server.clear()
    made.pods.heal()
    for replica in made.replicas:
        replica.start()
    for name in made.nodes:
        made.cluster.kubelets.of[name].revive()
        detector = made.detectors.of.get(name)
        if detector is None or not detector.runs:
            made.detectors.start(name)


def _unexpected(simulation: Simulation) -> list[Problem]:
    """ARCHITECTURE: an exception that nobody expects is a mistake of the program."""
    return [
        Problem("no_unexpected_exception", line)
        for line in simulation.trace
        if ": unexpected " in line
    ]


__all__ = ["Process", "Result", "run"]
