"""One seed of the worker's simulation: the world is run, and its history is checked."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from random import Random
from typing import Any

import pika

from selfheal_worker import config
from selfheal_worker.broker import topology
from selfheal_worker.config import Settings
from selfheal_worker.health import Status
from selfheal_worker.metrics import Metrics
from selfheal_worker.model import registry
from selfheal_worker.model.analysis import Call
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.member import Member
from selfheal_worker.model.providers import ollama, openai
from selfheal_worker.task import task_file
from tests.simulation.broker.broker import Broker
from tests.simulation.broker.queues import Message as Queued
from tests.simulation.models.backend import SimulatedBackend
from tests.simulation.models.conditions import Condition
from tests.simulation.models.network import Network
from tests.simulation.models.server import ModelServer
from tests.simulation.process import EPOCH, Process
from tests.simulation.scheduler import Simulation
from tests.simulation.worker import invariants
from tests.simulation.worker.checks import Problem
from tests.simulation.worker.exam import Exam
from tests.simulation.worker.faults import Fault, Kind
from tests.simulation.worker.history import ANSWERED, DEAD, End, History, Life, Sample
from tests.simulation.worker.messages import Message, number_of
from tests.simulation.worker.plug_in import PlugIn, PlugInModel
from tests.simulation.worker.process import WorkerProcess, logs_in_trace
from tests.simulation.worker.world import BUILT_IN, World

#: Seconds after the last message in which all must be settled, beside what the world adds.
_SETTLE = 1800.0
_SAMPLE = 5.0
#: Samples in a row in which a worker is unhealthy, until its kubelet kills it.
_UNHEALTHY = 3
#: How likely a thread gets the CPU late at each lock, while a fault makes threads late.
_LATE = 0.1
#: Steps of the threads after which a fault strikes a worker.
_STEPS = 60
#: Seconds that a pod needs to start.
_START = (0.5, 3.0)
#: Seconds in which a worker finds that its connection is gone, beside its heartbeats, and is back.
_RECONNECT = 60.0
TASK = task_file.load()
#: Imported before a simulation begins: urllib3 opens a socket when it is imported.
PROVIDERS = (ollama, openai)
#: Asked here for the same reason: OpenAI's client sends it, and it takes a process to find out.
PROCESSOR = platform.processor()


class Pod:
    """One process of a worker, from its start to its end."""

    def __init__(self, run: Run, name: str, skew: float) -> None:
        self.life = Life(name, run.simulation.now)
        self.made = WorkerProcess(
            run.simulation,
            name,
            run.world.env,
            run.broker,
            chain=self._chain,
            skew=skew,
        )
        self._run = run
        self._metrics: Metrics | None = None
        self._unhealthy = 0
        process = self.made.process
        process.at_kill(self._gone)
        self.made.start()
        process.start("samples", self._look)

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.life.ended is None

    def _chain(self, settings: Settings, process: Process, metrics: Metrics) -> Chain:
        self._metrics = metrics

        def observe(call: Call) -> None:
            metrics.model.called(call.origin, call.seconds, call.error, call.usage)

        def network(bounds: Any, _: object) -> SimulatedBackend:
            return SimulatedBackend(self._run.network, process.name, bounds, process.event)

        if self._run.plug_ins:
            names = (settings.model_active, *settings.model_fallback)
            return Chain(
                [self._member(settings, name, network) for name in names],
                TASK,
                clamp=settings.model_clamp,
                shorten=settings.model_text_too_long == "shorten",
                observe=observe,
                loaded=metrics.model.loaded,
                runtime=process,
            )
        return registry.chain(
            settings,
            TASK,
            observe=observe,
            loaded=metrics.model.loaded,
            network=network,
            runtime=process,
        )

    def _member(self, settings: Settings, name: str, network: Any) -> Member:
        process = self.made.process
        if (plug_in := self._run.plug_ins.get(name)) is not None:
            return Member(PlugInModel(plug_in, process), key=name, runtime=process)
        return registry.member(settings, TASK, name, network=network, runtime=process)

    def _look(self) -> None:
        """As a kubelet probes it, from another thread."""
        while True:
            self.made.process.sleep(_SAMPLE)
            if (status := self.made.status()) is not None:
                self._run.look(self, status)
                self._unhealthy = self._unhealthy + 1 if status.unhealthy() else 0
                if self._unhealthy == _UNHEALTHY:
                    # Not from here: this thread ends with its process.
                    self._run.simulation.after(0.0, partial(self._run.restart, self))

    def terminate(self) -> None:
        """SIGTERM."""
        if self.life.terminated is None and self.alive:
            self.life.terminated = self._run.simulation.now
            self.made.terminate()

    def kill(self) -> None:
        """SIGKILL."""
        if self.alive:
            self.life.killed = self._run.simulation.now
            self.made.kill()

    def pause(self, seconds: float) -> None:
        """No CPU."""
        now = self._run.simulation.now
        self.life.stopped.append((now, now + seconds))
        self.made.pause(seconds)

    def late(self, seconds: float) -> None:
        """For so long its threads get the CPU late."""
        now, process = self._run.simulation.now, self.made.process
        self.life.stopped.append((now, now + seconds))
        process.late = _LATE
        self._run.simulation.after(seconds, partial(setattr, process, "late", 0.0))

    def take_metrics(self) -> None:
        """Its last scrape."""
        if self._metrics is not None:
            self.life.metrics = _read(self._metrics.exposition())
            lost = self.life.metrics["selfheal_worker_broker_disconnects_total"]
            self.life.lost_connections = int(lost)

    def _gone(self) -> None:
        self.life.ended = self._run.simulation.now
        if self.life.killed is None:
            self.life.code = self.made.code
        self._run.network.drop(self.life.name)


class Run:
    """A world in a simulation."""

    def __init__(self, world: World, *, detail: bool = False) -> None:
        """detail: the trace has every scheduling point."""
        self.world = world
        self.simulation = simulation = Simulation(world.seed, detail=detail)
        self.settings = config.load(world.env)
        self.history = History(world)
        self._chance = Random(f"{world.seed} run")
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
        self.plug_ins = {
            name: PlugIn(name, simulation, TASK, world.seed) for name in world.plug_ins
        }
        self.broker = Broker(simulation, consumer_timeout=world.consumer_timeout)
        self.broker.observe(self._observe)
        for queue in topology.queues(self.settings):
            self.broker.declare(queue.name, queue.arguments)
        self._copies: Counter[int] = Counter()
        self._broker_well = 0.0
        self.pods: list[Pod] = []
        self._places: dict[int, Pod] = {}
        self._wanted = 0
        self._expected = 0
        #: Until when the threads in a place get the CPU late.
        self._late: dict[int, float] = {}

    def run(self) -> History:
        """Run until all is settled, or until it should be; then hold the exam."""
        world, simulation = self.world, self.simulation
        for scale in world.scaling:
            simulation.at(scale.at, partial(self._scale, scale.workers))
        with simulation, logs_in_trace(simulation):
            self._settle(world.messages, world.faults, world.calm)
            if world.exam is not None:
                self._examine(world.exam)
            self._end()
        return self.history

    def _examine(self, exam: Exam) -> None:
        history = self.history
        if history.settled is not None:
            history.examined = self.simulation.now
            self._settle(exam.trouble, exam.faults, exam.calm)
        if history.settled is not None:
            # Loaded again, where a fault unloaded it: that may take longer than a message's call.
            for server in self.servers:
                server.load()
            self._settle(exam.fresh + exam.crowd, (), 0.0)

    def _settle(self, messages: Sequence[Message], faults: Sequence[Fault], calm: float) -> None:
        """Publish these, have that go wrong, and wait until all is settled, or should be."""
        simulation, begin = self.simulation, self.simulation.now
        self.history.settled = None
        self._expected += len(messages)
        for message in messages:
            simulation.at(begin + message.at, partial(self._publish, message))
        for fault in faults:
            simulation.at(begin + fault.at, partial(self._begin, fault.later(begin)))
        last = max([calm, *(one.at for one in messages)])
        simulation.at(begin + last, self._check_settled)
        load = sum(setup.load for setup in self.world.servers)
        simulation.run(begin + last + _SETTLE + 20 * load)

    def _end(self) -> None:
        history = self.history
        history.over = self.simulation.now
        history.remaining = self._depths()
        for pod in self.pods:
            pod.take_metrics()
        history.lives = [pod.life for pod in self.pods]
        history.exchanges = sorted(
            (one for model in self._models() for one in model.exchanges),
            key=lambda one: (one.opened, one.server, one.number),
        )

    def _depths(self) -> dict[str, int]:
        ends = (self.settings.results_queue, self.settings.dlq_name)
        names = (queue.name for queue in topology.queues(self.settings))
        return {name: len(self.broker.messages(name)) for name in names if name not in ends}

    def _models(self) -> list[ModelServer | PlugIn]:
        return [*self.servers, *self.plug_ins.values()]

    def restart(self, pod: Pod) -> None:
        """Its kubelet does, in the same place."""
        pod.kill()
        for place, known in self._places.items():
            if known is pod:
                self._restart(place)

    def look(self, pod: Pod, status: Status) -> None:
        """A sample of a worker, from its own thread."""
        history = self.history
        ready = len(self.broker.queues[self.settings.queue_name].ready)
        now, ends = self.simulation.now, len(history.ends)
        history.samples.append(Sample(now, pod.life.name, status, ready, ends, self._able(pod)))

    def _able(self, pod: Pod) -> bool:
        """Whether nothing keeps it from answering."""
        models = any(one.name == BUILT_IN for one in self.world.chain) or any(
            one.condition is Condition.UP for one in self._models()
        )
        broker = self.simulation.now > self._broker_well
        return broker and models and pod.life.terminated is None

    # --- what the broker tells

    def _observe(self, kind: str, queue: str, message: Queued, client: str, now: float) -> None:
        number = number_of(message.properties.correlation_id)
        if number is None:
            return
        history = self.history
        match kind:
            case "queued":
                self._copies[number] += 1
                self._note_end(queue, message, client, now)
            case "delivered":
                history.deliveries[number] += 1
                history.takers[number].add(client)
            case "requeued":
                history.returned[number] += 1
            case "expired":
                self._copies[number] -= 1
            case "acked":
                self._copies[number] -= 1
                if self._copies[number] <= 0:
                    history.acked_early.append(number)

    def _note_end(self, queue: str, message: Queued, client: str, now: float) -> None:
        kinds = {self.settings.results_queue: ANSWERED, self.settings.dlq_name: DEAD}
        if queue not in kinds:
            return
        properties = message.properties
        end = End(
            now,
            kinds[queue],
            properties.correlation_id,
            message.body,
            message.headers,
            client,
            properties.message_id,
            properties.content_type,
        )
        self.history.ends.append(end)

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
        self.broker.publish(self.settings.queue_name, message.body, properties)

    def _scale(self, workers: int) -> None:
        self._wanted = workers
        for place in range(workers):
            self._start(place)
        for place in sorted(self._places):
            if place >= workers:
                self._places.pop(place).terminate()

    def _start(self, place: int) -> None:
        current = self._places.get(place)
        running = current is not None and current.alive and current.life.terminated is None
        if place >= self._wanted or running:
            return
        skews = self.world.skews or (0.0,)
        pod = Pod(self, f"worker-{len(self.pods) + 1}", skews[place % len(skews)])
        self.pods.append(pod)
        self._places[place] = pod
        if (late := self._late.get(place, 0.0) - self.simulation.now) > 0:
            pod.late(late)

    def _restart(self, place: int) -> None:
        self.simulation.after(self._chance.uniform(*_START), partial(self._start, place))

    def _check_settled(self) -> None:
        done = not any(self._depths().values())
        if done and len(self.history.published) == self._expected:
            self.history.settled = self.simulation.now
            # Two samples more, so that what was opened by the last messages shows; pauses that many
            # at once have brought about are over.
            pause = max((setup.pause for setup in self.world.servers), default=0.0)
            more = 2 * _SAMPLE + 1.0 + (pause if self.history.examined is not None else 0.0)
            self.simulation.after(more, self.simulation.stop)
        else:
            self.simulation.after(1.0, self._check_settled)

    # --- faults

    def _begin(self, fault: Fault) -> None:
        self.simulation.record("world", fault.story())
        if fault.target in self.plug_ins:
            assert fault.condition is not None
            plug_in = self.plug_ins[fault.target]
            plug_in.become(fault.condition)
            self.simulation.after(fault.seconds, partial(plug_in.become, Condition.UP))
            return
        if fault.kind in (Kind.CONDITION, Kind.SLOTS, Kind.SWAP, Kind.UNLOAD):
            for server in self.servers:
                if server.setup.name == fault.target:
                    self._of_server(fault, server)
            return
        if fault.kind not in (Kind.PAUSE, Kind.CLOCK_JUMP, Kind.LATE_THREADS):
            away = 2 * self.settings.amqp_heartbeat + _RECONNECT
            self._broker_well = max(self._broker_well, fault.end + away)
        if not fault.target:
            self._of_broker(fault)
            return
        # In the middle of what the threads do at that moment, not only while all of them wait.
        step = self.simulation.steps + self._chance.randrange(_STEPS)
        self.simulation.at_step(step, partial(self._strike, fault, int(fault.target)))

    def _strike(self, fault: Fault, place: int) -> None:
        pod = self._places.get(place)
        if pod is not None and pod.alive:
            self._of_pod(fault, place, pod)

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
        broker, seconds = self.broker, fault.seconds
        match fault.kind:
            case Kind.BROKER_RESTART:
                broker.restart(seconds, orderly=self._chance.random() < 0.5)
            case Kind.BROKER_ALARM:
                broker.alarm(seconds)
            case Kind.BROKER_SLOW:
                broker.slow_down(seconds, self._chance.choice((0.5, 5.0, 20.0)))
            case Kind.NACK:
                broker.reject(seconds)
            case Kind.RESULTS_FULL:
                broker.fill(self.settings.results_queue, seconds)
            case Kind.NO_LEADER:
                broker.change_leader(self.settings.queue_name, seconds)

    def _of_pod(self, fault: Fault, place: int, pod: Pod) -> None:
        name, broker = pod.life.name, self.broker
        match fault.kind:
            case Kind.KILL:
                pod.kill()
                self._restart(place)
            case Kind.TERMINATE:
                pod.terminate()
                self._restart(place)
            case Kind.PAUSE:
                pod.pause(fault.seconds)
            case Kind.LATE_THREADS:
                self._late[place] = self.simulation.now + fault.seconds
                pod.late(fault.seconds)
            case Kind.CLOCK_JUMP:
                pod.made.clock_jump(fault.amount)
            case Kind.HALF_OPEN:
                broker.lose_silently(name)
            case Kind.DISCONNECT:
                broker.disconnect(name)
            case Kind.CHANNEL_CLOSED:
                broker.close_channels(name)
            case Kind.CONSUMER_CANCELLED:
                broker.cancel_consumers(name)


def run(world: World, *, detail: bool = False) -> tuple[History, list[Problem], Sequence[str]]:
    """A world's history, what is wrong with it, and the trace."""
    made = Run(world, detail=detail)
    try:
        history = made.run()
    except AssertionError as error:
        made.history.over = made.simulation.now
        found = Problem("the run", "an error of the scheduler fails the run", str(error))
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
