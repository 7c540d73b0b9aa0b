"""One seed of the worker's simulation: the world is run, and its history is checked."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from functools import partial
from random import Random
from typing import Any

import pika

from selfheal_worker import config
from selfheal_worker.health import Status
from selfheal_worker.metrics import Metrics
from selfheal_worker.model import registry
from selfheal_worker.model.analysis import Call
from selfheal_worker.model.providers import ollama, openai
from selfheal_worker.task import task_file
from selfheal_worker.worker import Worker
from tests.simulation.models.backend import SimulatedBackend
from tests.simulation.models.conditions import Condition
from tests.simulation.models.network import Network
from tests.simulation.models.server import ModelServer
from tests.simulation.process import EPOCH, Process
from tests.simulation.scheduler import Simulation
from tests.simulation.worker import invariants
from tests.simulation.worker.checks import Problem
from tests.simulation.worker.faults import Fault, Kind
from tests.simulation.worker.history import ANSWERED, DEAD, End, History, Life, Sample
from tests.simulation.worker.link_broker import Broker, SimulatedLink, connector
from tests.simulation.worker.messages import Message
from tests.simulation.worker.world import World

#: Seconds after the last fault in which all must be settled, beside what the world adds.
_SETTLE = 1800.0
_SAMPLE = 5.0
#: Seconds that a pod needs to start, and that the broker is away when it restarts.
_START = (0.5, 3.0)
_BROKER_RESTART = (0.5, 8.0)
TASK = task_file.load()
#: Imported before a simulation begins: urllib3 opens a socket when it is imported.
PROVIDERS = (ollama, openai)
#: Asked here for the same reason: OpenAI's client sends it, and it takes a process to find out.
PROCESSOR = platform.processor()


class Pod:
    """One process of a worker, from its start to its end."""

    def __init__(self, run: Run, name: str, skew: float) -> None:
        self.life = Life(name, run.simulation.now)
        self.link: SimulatedLink | None = None
        self.worker: Worker | None = None
        self._run = run
        self._metrics = Metrics()
        self.process: Process = run.simulation.process(name, skew)
        self.process.start("main", self._main)
        self.process.start("samples", self._look)

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.life.ended is None

    def _main(self) -> None:
        run, process, metrics = self._run, self.process, self._metrics

        def observe(call: Call) -> None:
            metrics.model.called(call.origin, call.seconds, call.error, call.usage)

        def network(bounds: Any, _: object) -> SimulatedBackend:
            return SimulatedBackend(run.network, self.life.name, bounds, process.event)

        chain = registry.chain(
            run.settings,
            TASK,
            observe=observe,
            loaded=metrics.model.loaded,
            network=network,
            runtime=process,
        )
        connect = connector(run.broker, self.life.name, process, self._lost, self._connected)
        self.worker = Worker(run.settings, chain, metrics, connect=connect, runtime=process)
        self.worker.run()
        self.life.code = 0
        self._gone()
        process.kill()

    def _lost(self) -> None:
        self.life.lost_connections += 1

    def _connected(self, link: SimulatedLink) -> None:
        self.link = link

    def _look(self) -> None:
        """As a kubelet and KEDA look at it, from another thread."""
        while True:
            self.process.sleep(_SAMPLE)
            if self.worker is not None:
                self._run.look(self, self.worker.status())

    def terminate(self) -> None:
        """SIGTERM."""
        if self.life.terminated is None and self.alive:
            self.life.terminated = self._run.simulation.now
            if self.worker is None:
                self.kill()
            else:
                self.worker.stop()

    def kill(self) -> None:
        """SIGKILL."""
        if self.alive:
            self.life.killed = self._run.simulation.now
            self._gone()
            self.process.kill()

    def pause(self, seconds: float) -> None:
        """No CPU."""
        now = self._run.simulation.now
        self.life.stopped.append((now, now + seconds))
        self.process.pause(seconds)

    def take_metrics(self) -> None:
        """Its last scrape."""
        if self.worker is not None:
            self.life.metrics = _read(self.worker.exposition())

    def _gone(self) -> None:
        self.life.ended = self._run.simulation.now
        if self.life.killed is None:
            self.take_metrics()
        if self.link is not None:
            self.link.drop()
        self._run.network.drop(self.life.name)


class Run:
    """A world in a simulation."""

    def __init__(self, world: World, *, detail: bool = False) -> None:
        """detail: the trace has every scheduling point."""
        self.world = world
        self.simulation = Simulation(world.seed, detail=detail)
        self.settings = config.load(world.env)
        self.history = History(world)
        self._chance = Random(f"{world.seed} run")
        simulation = self.simulation
        self.network = Network(simulation)
        self.servers = [
            ModelServer(
                setup,
                simulation,
                TASK,
                world.seed,
                natures=world.natures[setup.name],
                unix=lambda: EPOCH + simulation.now,
            )
            for setup in world.servers
        ]
        for server in self.servers:
            self.network.add(server)
        self.broker = Broker(
            simulation,
            self.settings,
            self,
            Random(f"{world.seed} broker"),
            consumer_timeout=world.consumer_timeout,
        )
        self.pods: list[Pod] = []
        self._places: dict[int, Pod] = {}
        self._wanted = 0
        self._faults_under_way = 0

    def run(self) -> History:
        """Run until all is settled, or until it should be."""
        world, simulation = self.world, self.simulation
        for message in world.messages:
            simulation.at(message.at, partial(self._publish, message))
        for scale in world.scaling:
            simulation.at(scale.at, partial(self._scale, scale.workers))
        for fault in world.faults:
            simulation.at(fault.at, partial(self._begin, fault))
        last = max([world.calm, *(one.at for one in world.messages)])
        simulation.at(last, self._check_settled)
        limit = last + _SETTLE + 20 * sum(setup.load for setup in world.servers)
        with simulation:
            simulation.run(limit)
            self.history.over = simulation.now
            self.history.remaining = dict(self.broker.depth())
            for pod in self.pods:
                if pod.alive:
                    pod.take_metrics()
        self.history.lives = [pod.life for pod in self.pods]
        self.history.exchanges = sorted(
            (one for server in self.servers for one in server.exchanges),
            key=lambda one: (one.opened, one.server, one.number),
        )
        return self.history

    def look(self, pod: Pod, status: Status) -> None:
        """A sample of a worker, from its own thread."""
        history = self.history
        sample = Sample(
            self.simulation.now,
            pod.life.name,
            status,
            self.broker.depth()["ready"],
            len(history.ends),
            self._able(pod),
        )
        history.samples.append(sample)

    def _able(self, pod: Pod) -> bool:
        broker = self.broker
        taken = broker.up and not broker.blocked and not broker.refuses
        link = pod.link
        connected = link is not None and link.up and not link.blocked
        models = len(self.servers) < len(self.world.chain) or any(
            server.condition is Condition.UP for server in self.servers
        )
        return bool(taken and connected and models and pod.life.terminated is None)

    # --- the broker's observer

    def delivered(self, number: int | None, worker: str) -> None:
        """A message was sent to a worker."""
        if number is not None:
            self.history.deliveries[number] += 1

    def returned(self, number: int | None, worker: str) -> None:
        """The broker took a message back."""
        if number is not None:
            self.history.returned[number] += 1

    def ended(self, queue: str, body: bytes, properties: Any, worker: str) -> None:
        """A result or a dead letter came."""
        kind = ANSWERED if queue == self.settings.results_queue else DEAD
        self.history.ends.append(
            End(
                self.simulation.now,
                kind,
                properties.correlation_id,
                body,
                dict(properties.headers or {}),
                worker,
                properties.message_id,
                properties.content_type,
            )
        )

    # --- the world

    def _publish(self, message: Message) -> None:
        self.history.published[message.number] = self.simulation.now
        properties = pika.BasicProperties(
            correlation_id=message.correlation_id,
            message_id=message.message_id,
            timestamp=message.timestamp,
            headers=dict(message.headers) or None,
            delivery_mode=2,
        )
        self.broker.put(message.body, properties)

    def _scale(self, workers: int) -> None:
        self._wanted = workers
        for place in range(max(workers, max(self._places, default=-1) + 1)):
            pod = self._places.get(place)
            if place < workers and (pod is None or not pod.alive):
                self._start(place)
            elif place >= workers and pod is not None:
                pod.terminate()
                del self._places[place]

    def _start(self, place: int) -> None:
        if place >= self._wanted:
            return
        current = self._places.get(place)
        if current is not None and current.alive and current.life.terminated is None:
            return
        skews = self.world.skews or (0.0,)
        pod = Pod(self, f"worker-{len(self.pods) + 1}", skews[place % len(skews)])
        self.pods.append(pod)
        self._places[place] = pod

    def _restart(self, place: int) -> None:
        self.simulation.after(self._chance.uniform(*_START), partial(self._start, place))

    def _check_settled(self) -> None:
        done = not any(self.broker.depth().values())
        if done and len(self.history.published) == len(self.world.messages):
            self.history.settled = self.simulation.now
            # Two samples more, so that what was opened by the last message shows.
            self.simulation.after(2 * _SAMPLE + 1.0, self.simulation.stop)
        else:
            self.simulation.after(1.0, self._check_settled)

    # --- faults

    def _begin(self, fault: Fault) -> None:
        self.simulation.record("world", fault.story())
        kind = fault.kind
        if kind in (Kind.CONDITION, Kind.SLOTS, Kind.SWAP, Kind.UNLOAD):
            for server in self.servers:
                if server.setup.name == fault.target:
                    self._of_server(fault, server)
        elif fault.target:
            pod = self._places.get(int(fault.target))
            if pod is not None and pod.alive:
                self._of_pod(fault, int(fault.target), pod)
        else:
            self._of_broker(fault)

    def _of_server(self, fault: Fault, server: ModelServer) -> None:
        if fault.kind is Kind.CONDITION:
            assert fault.condition is not None
            server.become(fault.condition)
            self.simulation.after(fault.seconds, partial(server.become, Condition.UP))
        elif fault.kind is Kind.SLOTS:
            before = server.setup.slots
            server.change(slots=int(fault.amount))
            self.simulation.after(fault.seconds, lambda: server.change(slots=before))
        elif fault.kind is Kind.SWAP:
            server.change(digest=f"{self._chance.getrandbits(64):016x}")
        else:
            server.unload()

    def _of_broker(self, fault: Fault) -> None:
        broker, after = self.broker, self.simulation.after
        if fault.kind is Kind.BROKER_RESTART:
            broker.restart(self._chance.uniform(*_BROKER_RESTART))
        elif fault.kind is Kind.BROKER_ALARM:
            broker.block(True)
            after(fault.seconds, partial(broker.block, False))
        elif fault.kind is Kind.BROKER_SLOW:
            before, broker.confirm_seconds = broker.confirm_seconds, 2.0
            after(fault.seconds, lambda: setattr(broker, "confirm_seconds", before))
        else:
            name = self.settings.results_queue if fault.kind is Kind.RESULTS_FULL else "*"
            broker.refuses.add(name)
            after(fault.seconds, lambda: broker.refuses.discard(name))

    def _of_pod(self, fault: Fault, place: int, pod: Pod) -> None:
        link = pod.link
        match fault.kind:
            case Kind.KILL:
                pod.kill()
                self._restart(place)
            case Kind.TERMINATE:
                pod.terminate()
                self._restart(place)
            case Kind.PAUSE:
                pod.pause(fault.seconds)
            case Kind.CLOCK_JUMP:
                pod.process.clock_jump(fault.amount)
            case Kind.HALF_OPEN if link is not None and link.up:
                link.half_open()
            case _ if link is not None and link.up:
                link.lose(fault.kind.value)


def run(world: World, *, detail: bool = False) -> tuple[History, list[Problem], Sequence[str]]:
    """A world's history, what is wrong with it, and the trace."""
    made = Run(world, detail=detail)
    try:
        history = made.run()
    except AssertionError as error:
        made.history.over = made.simulation.now
        found = Problem("the run", "sim.md: an error of the scheduler fails the run", str(error))
        return made.history, [found], made.simulation.trace
    return history, invariants.problems(history), made.simulation.trace


def _read(exposition: bytes) -> Mapping[str, float]:
    """The samples of a scrape."""
    found = {}
    for line in exposition.decode().splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found
