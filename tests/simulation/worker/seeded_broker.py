"""Whole workers with a stub of a model beside a broker that fails: a run that a seed decides.

What is checked here is between worker and broker: no message is lost or acked too early, each is
answered or dead-lettered with the right reason, and all work is done once the faults are over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import Any

from selfheal_worker.broker import topology
from selfheal_worker.config import Settings, load
from selfheal_worker.health import LOOP_STUCK_AFTER
from selfheal_worker.metrics import Metrics
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.errors import BadOutputError, ModelUnavailableError, TransientError
from selfheal_worker.model.limits import Limits
from selfheal_worker.model.member import Member
from selfheal_worker.model.provider import Answer
from selfheal_worker.task import task_file
from tests.simulation.broker.broker import Broker
from tests.simulation.broker.queues import Message
from tests.simulation.broker.session import properties
from tests.simulation.process import Process
from tests.simulation.scheduler import Simulation
from tests.simulation.worker.process import WorkerProcess, logs_in_trace

ANSWER = {
    "primary_emotion": "Joy",
    "sentiment": "Positive",
    "confidence_score": 0.9,
    "key_phrases": [],
}
#: Seconds after which faults are over, and until when all must be done.
FAULTS, CALM = 90.0, 1500.0
DEADLINE = 10.0
#: Seconds from SIGTERM until a worker is gone: its grace, the time to requeue the rest, and that to
#: close the connection.
LONGEST_END = 15.0 + 2.0 + 3.0 + 1.0
#: Texts that the model cannot analyse, ever, and bodies that are no message: the dead letter's
#: reason.
NEVER = "never usable"
POISON: Mapping[bytes, str] = {
    b"{": "malformed_json",
    b"[]": "not_an_object",
    b'{"id": "x"}': "missing_text",
    b'{"text": "  "}': "blank_text",
    b'{"text": "a", "id": [1]}': "bad_id",
    b'{"text": "' + b"x" * 70_000 + b'"}': "text_too_large",
    b" " * 600_000: "body_too_large",
}
ENV = {
    "AMQP_HOST": "broker",
    "AMQP_USERNAME": "user",
    "AMQP_PASSWORD": "password",
    "QUEUE_NAME": "feedback",
    "MODEL_DEADLINE": str(DEADLINE),
    "SHUTDOWN_GRACE": "15",
}


class Stub:
    """A model that is slow, fails, and hangs, by the process's own chance until the faults end."""

    name, model, version = "stub", "m", "1"

    def __init__(self, process: Process) -> None:
        self._process = process

    def warm_up(self) -> None:
        """Takes a moment."""
        self._fail()

    def analyse(self, text: str, deadline: float) -> Answer:
        """Sleeps, then answers or fails."""
        self._fail()
        if NEVER in text:
            raise BadOutputError("never usable")
        return Answer(ANSWER)

    def close(self) -> None:
        """Nothing is open."""

    def _fail(self) -> None:
        process = self._process
        chance = process.random.random()
        process.sleep(process.random.random() * (0.1 if chance < 0.8 else 5.0))
        if process.simulation.now > FAULTS:
            return
        if chance > 0.995:
            process.sleep(60.0)
        elif chance > 0.98:
            raise ModelUnavailableError("away")
        elif chance > 0.95:
            raise TransientError("busy", retry_after=process.random.random() * 3)


class Watch:
    """The broker's view of all messages; raises AssertionError where one was acked too early."""

    def __init__(self, settings: Settings) -> None:
        self._work = settings.queue_name
        self._results, self._dead = settings.results_queue, settings.dlq_name
        self.outcomes: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.letters: dict[str, list[str]] = {}
        self.open: Counter[str] = Counter()
        self.redelivered: Counter[str] = Counter()

    def __call__(self, kind: str, queue: str, message: Message, client: str, now: float) -> None:
        """See `Broker.observe`."""
        name = str(message.properties.message_id)
        if kind == "queued":
            self.open[name] += 1
            self.outcomes[name] += queue != self._work
            self.answers[name] += queue == self._results
            if queue == self._dead:
                headers = message.headers
                reason = headers.get("x-selfheal-reason") or headers.get("x-first-death-reason")
                self.letters.setdefault(name, []).append(str(reason))
        elif kind == "acked":
            self.open[name] -= 1
            assert self.open[name] > 0, f"{name} was acked, and nothing is left of it"
        elif kind == "expired":
            self.open[name] -= 1
        elif kind == "requeued":
            self.redelivered[name] += 1
        elif kind == "dropped":
            raise AssertionError(f"the broker dropped {name} of {queue}")

    def ends(self, name: str) -> int:
        """How often it was answered or dead-lettered."""
        return self.answers[name] + len(self.letters.get(name, []))

    def done(self, name: str) -> bool:
        """Whether it was answered or dead-lettered."""
        return self.ends(name) > 0


class Run:
    """One run. reasons: the messages that must become dead letters, with the reason."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._random = Random(f"{simulation.seed}/run")
        self._env = ENV | {
            "CONCURRENCY": self._random.choice("1248"),
            "RETRY_DELAYS": self._random.choice(("1", "1,2,3", "1,5,30,120")),
            "RESULTS_MAX_LENGTH": self._random.choice("0027"),
        }
        self._settings = load(self._env)
        self._workers: list[WorkerProcess] = []
        self._generations = 0
        self._paused: set[str] = set()
        self.reasons: dict[str, str] = {}
        self.names: list[str] = []
        self.broker = Broker(
            simulation,
            max_message_size=1_000_000,
            consumer_timeout=self._random.choice((120.0, 1800.0)),
        )
        self.watch = Watch(self._settings)
        self.broker.observe(self._observe)
        for queue in topology.queues(self._settings):
            self.broker.declare(queue.name, queue.arguments)
        self._publish_all()
        for place in range(self._random.randint(1, 3)):
            self._begin(place)
        for _ in range(self._random.randint(0, 8)):
            at = round(self._random.random() * FAULTS, 3)
            simulation.at(at, self._fault)
        for _ in range(self._random.randint(0, 3)):
            simulation.at_step(self._random.randrange(30_000), self._kill)
        simulation.after(1.0, self._check)

    def _observe(self, kind: str, queue: str, message: Message, client: str, now: float) -> None:
        try:
            self.watch(kind, queue, message, client, now)
        except AssertionError as error:
            self._simulation.fail(error)

    def _publish_all(self) -> None:
        for number in range(self._random.randint(1, 60)):
            name, chance = f"m{number}", self._random.random()
            body = b'{"text": "message %d"}' % number
            if chance < 0.15:
                body, self.reasons[name] = self._random.choice(list(POISON.items()))
            elif chance < 0.2:
                body, self.reasons[name] = b'{"text": "%s"}' % NEVER.encode(), "retries_exhausted"
            self.names.append(name)
            at = self._random.random() * FAULTS * 0.8
            message = (self._settings.queue_name, body, properties(name))
            self._simulation.at(at, partial(self._publish, *message))

    def _publish(self, *message: Any) -> None:
        self.broker.publish(*message)

    def _begin(self, place: int) -> None:
        """A new process in a place of the Deployment."""
        self._generations += 1
        name = f"worker-{place}-{self._generations}"
        made = WorkerProcess(
            self._simulation,
            name,
            self._env,
            self.broker,
            chain=_stub,
            skew=self._random.uniform(-5, 5),
        )
        made.process.at_kill(partial(self._ended, place))
        self._workers.append(made)
        made.start()

    def _ended(self, place: int) -> None:
        self._workers = [one for one in self._workers if not one.process.killed]
        self._simulation.after(self._random.random() * 5, partial(self._begin, place))

    def _kill(self) -> None:
        if self._workers and self._simulation.now < FAULTS:
            self._simulation.choose(self._workers).kill()

    def _fault(self) -> None:
        chance = self._random
        seconds = chance.choice((0.2, 2.0, 20.0, 60.0)) * chance.random()
        if chance.random() < 0.5 or not self._workers:
            self._fail_broker(seconds)
        else:
            self._fail_worker(chance.choice(self._workers), seconds)

    def _fail_broker(self, seconds: float) -> None:
        chance, broker = self._random, self.broker
        queue = chance.choice(sorted(broker.queues))
        faults: list[Callable[[], None]] = [
            partial(broker.restart, seconds, orderly=chance.random() < 0.5),
            partial(broker.alarm, seconds),
            partial(broker.slow_down, seconds, chance.random() * 20),
            partial(broker.reject, seconds),
            partial(broker.fill, self._settings.results_queue, seconds),
            partial(broker.change_leader, queue, seconds),
            partial(broker.hide, seconds, chance.choice(("silent", "mute"))),
            partial(broker.delete, self._settings.results_queue),
        ]
        chance.choice(faults)()

    def _fail_worker(self, worker: WorkerProcess, seconds: float) -> None:
        chance, broker, name = self._random, self.broker, worker.name
        faults: list[Callable[[], None]] = [
            partial(broker.disconnect, name),
            partial(broker.lose_silently, name),
            partial(broker.close_channels, name),
            partial(broker.cancel_consumers, name),
            partial(self._pause, worker, seconds),
            partial(worker.clock_jump, chance.uniform(-4000, 4000)),
            partial(self._limit_threads, worker, seconds),
            partial(self._terminate, worker),
            worker.kill,
        ]
        chance.choice(faults)()

    def _limit_threads(self, worker: WorkerProcess, seconds: float) -> None:
        """The machine has no other thread for it for a while."""
        worker.process.thread_limit = len(worker.process.threads)
        self._simulation.after(seconds, partial(setattr, worker.process, "thread_limit", None))

    def _pause(self, worker: WorkerProcess, seconds: float) -> None:
        self._paused.add(worker.name)
        worker.pause(seconds)

    def _terminate(self, worker: WorkerProcess) -> None:
        worker.terminate()
        self._simulation.after(LONGEST_END, partial(self._check_ended, worker))

    def _check_ended(self, worker: WorkerProcess) -> None:
        if worker.process.paused:
            self._simulation.after(LONGEST_END, partial(self._check_ended, worker))
        else:
            assert worker.ended is not None, f"{worker.name} does not end after SIGTERM"

    def _check(self) -> None:
        """Take results, restart what its probes would, and stop when all is done."""
        results = self.broker.queues.get(self._settings.results_queue)
        if results is not None and self._random.random() < 0.3:
            results.ready.clear()
        for worker in [*self._workers]:
            status = worker.status()
            if status is None or not status.unhealthy() or worker.process.paused:
                continue
            stuck = status.tick_age > LOOP_STUCK_AFTER and worker.name not in self._paused
            assert not stuck, f"{worker.name} has not ticked for {status.tick_age} s"
            worker.kill()
        empty = all(
            not self.broker.messages(queue.name)
            for queue in topology.queues(self._settings)
            if queue.name not in (self._settings.results_queue, self._settings.dlq_name)
        )
        if empty and self._simulation.now > FAULTS and all(map(self.watch.done, self.names)):
            self._simulation.stop()
        else:
            self._simulation.after(1.0, self._check)


def _stub(settings: Settings, process: Process, _: Metrics) -> Chain:
    member = Member(Stub(process), limits=Limits(concurrency=3, runtime=process), runtime=process)
    return Chain([member], task_file.load(), runtime=process)


def run(seed: int, *, detail: bool = False) -> list[str]:
    """Run it; the trace. Raises AssertionError where a guarantee does not hold."""
    with Simulation(seed, detail=detail) as simulation, logs_in_trace(simulation):
        made = Run(simulation)
        try:
            simulation.run(until=CALM)
            _check_ends(made)
        except Exception as error:
            error.add_note("\n".join(simulation.trace[-60:]))
            raise
        return simulation.trace


def _check_ends(made: Run) -> None:
    watch = made.watch
    for name in made.names:
        assert watch.done(name), f"{name} was never answered or dead-lettered"
        more = watch.ends(name) - 1 - watch.redelivered[name]
        assert more <= 0, f"{name} ended {more} times more than it was delivered again"
        wanted, letters = made.reasons.get(name), watch.letters.get(name, [])
        if wanted is None:
            assert not letters, f"{name} can be answered, and is a dead letter: {letters}"
        else:
            assert set(letters) == {wanted}, f"{name} must be {wanted}, not {letters}"
            assert not watch.answers[name], f"{name} was answered"
