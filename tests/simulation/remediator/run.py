"""One seed: a world, what goes wrong in it, and whether everything that must hold did."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.simulation.cluster.messages import Request
from tests.simulation.process import Process
from tests.simulation.remediator import others, pools, settled, world
from tests.simulation.remediator.exams import examine
from tests.simulation.remediator.faults import Network, schedule
from tests.simulation.remediator.invariants import Watcher
from tests.simulation.remediator.invariants_of_habits import Habits
from tests.simulation.remediator.invariants_of_ladders import Ladders
from tests.simulation.remediator.invariants_of_others import Others
from tests.simulation.remediator.invariants_of_pools import Pools
from tests.simulation.remediator.invariants_of_windows import Windows
from tests.simulation.remediator.ladder_faults import add_ladder_faults
from tests.simulation.remediator.others import add_others
from tests.simulation.remediator.problems import Broken, Problem
from tests.simulation.remediator.process import logged
from tests.simulation.remediator.requests import add_requests, withdraw_all
from tests.simulation.remediator.scenes import add_scenes
from tests.simulation.remediator.takeover import Takeover
from tests.simulation.remediator.wire import Trouble
from tests.simulation.scheduler import Simulation, SimulationError

Places = tuple[int, ...] | None
#: Seconds in which things go wrong, and in which the world may settle.
CHAOS, QUIET = 900.0, 1000.0
#: After so much of the quiet time the leader is killed.
TAKEOVER = 300.0


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
    #: How many there are in the seed's lists.
    faults: int = 0
    apps: int = 0
    nodes_made: int = 0

    @property
    def passed(self) -> bool:
        """Whether everything held."""
        return not self.problems

    def story(self) -> str:
        """For people: the world, what happened, what was wrong."""
        lines = [f"seed {self.seed}", *(f"  {line}" for line in self.made_of), *self.trace]
        return "\n".join([*lines, *(f"BROKEN: {problem}" for problem in self.problems)])


def run(
    seed: int,
    *,
    chaos: float = CHAOS,
    quiet: float = QUIET,
    detail: bool = False,
    faults: Places = None,
    apps: Places = None,
    nodes: Places = None,
) -> Result:
    """Run one seed. detail: each scheduling point is in the trace; faults, apps, nodes: which of
    them there are, by their places in the seed's lists, None = all."""
    result = Result(seed)
    with tempfile.TemporaryDirectory() as folder:
        simulation = Simulation(seed, detail=detail)
        with logged(simulation), simulation:
            network = Network(simulation.random)
            watching: list[Watcher] = []
            windows: list[Windows] = []

            def disturb(request: Request) -> Trouble:
                for watcher in watching:
                    watcher.sent(request)
                for of_windows in windows:
                    of_windows.sent(request)
                return network.disturb(request)

            made = world.build(simulation, disturb, Path(folder))
            watching.append(Watcher.of(made))
            Pools.watch(made, watching[0])
            Others.watch(made, watching[0])
            windows.append(Windows(made, watching[0]))
            ladders = Ladders.watch(made, watching[0])
            habits = Habits.watch(made, watching[0])
            planned = schedule(made, network, chaos)
            add_others(planned)
            add_scenes(planned)
            add_ladder_faults(planned)
            add_requests(planned)
            result.faults = len(planned.entries)
            if faults is not None:
                planned.entries = [planned.entries[place] for place in faults]
            planned.plan()
            result.apps, result.nodes_made = _leave_out(made, apps, nodes)
            try:
                made.start()
                simulation.run(chaos)
                _repair(made, network)
                takeover = Takeover(made, watching[0])
                # In the others it is the same leader until the end: what it has forgotten shows.
                if quiet > TAKEOVER and Random(f"{seed}/takeover").random() < 0.5:
                    simulation.after(TAKEOVER, takeover.kill)
                simulation.run(chaos + quiet)
                result.problems += takeover.problems
                result.problems += settled.settled(made, watching[0], quiet)
                result.problems += [*ladders.settled(), *habits.settled()]
                result.problems += examine(made, watching[0])
                result.problems += _unexpected(simulation)
            except Broken as error:
                result.problems.append(error.problem)
            except SimulationError as error:
                result.problems.append(Problem(type(error).__name__, str(error)))
            result.made_of, result.trace = made.story, simulation.trace
            result.steps, result.seconds = simulation.steps, simulation.now
            result.nodes = len(made.nodes)
    return result


def _leave_out(made: world.World, apps: Places, nodes: Places) -> tuple[int, int]:
    """Take what is not kept out of the world; returns how many applications and nodes it had.

    They are there at first, so that the seed's chances stay the same."""
    store = made.cluster.store
    workers = [name for name in made.nodes if not name.startswith("control-")]
    owners = sorted(
        (plural, raw["metadata"]["name"])
        for plural in ("deployments", "statefulsets")
        for raw in store.all(plural, "default")
    )
    for place, (plural, name) in enumerate(owners):
        if apps is not None and place not in apps:
            store.remove((plural, "default", name))
    for place, name in enumerate(workers):
        if nodes is not None and place not in nodes:
            made.cluster.kubelets.vanish(name)
            store.remove(("nodes", "", name))
    return len(owners), len(workers)


def _repair(made: world.World, network: Network) -> None:
    """Faults stop: what was broken for a while is whole again."""
    network.rate, network.down = 0.0, False
    made.server.clear()
    made.pods.heal()
    made.steps.reliable = True
    made.attachments.detach_all()
    others.repair(made)
    withdraw_all(made)
    pools.repair(made.cluster)
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
