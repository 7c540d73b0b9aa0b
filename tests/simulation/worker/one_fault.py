"""One fault at one step of a small run: what may happen between any two steps of a worker.

Seeds strike at steps by chance; here each kind of fault strikes at steps of the whole run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from selfheal_worker.broker import topology
from selfheal_worker.config import Settings, load
from selfheal_worker.metrics import Metrics
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.errors import TransientError
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
from tests.simulation.worker.seeded_broker import ANSWER, Watch

ENV = {
    "AMQP_HOST": "broker",
    "QUEUE_NAME": "feedback",
    "CONCURRENCY": "2",
    "MODEL_DEADLINE": "10",
    "RETRY_DELAYS": "1",
    "SHUTDOWN_GRACE": "15",
}
#: Bodies; the reason of those that become dead letters.
BODIES: Mapping[bytes, str] = {
    **{b'{"text": "good %d"}' % number: "" for number in range(4)},
    b'{"text": "fails once"}': "",
    b"{": "malformed_json",
    b" " * 600_000: "body_too_large",
}
FIRST = "worker-0"


class _Model:
    """Takes a moment; one text fails the first time."""

    name, model, version = "stub", "m", "1"

    def __init__(self, process: Process) -> None:
        self._process = process
        self._failed = False

    def warm_up(self) -> None:
        self._process.sleep(0.05)

    def analyse(self, text: str, deadline: float) -> Answer:
        self._process.sleep(0.01 + self._process.random.random() * 0.05)
        if "once" in text and not self._failed:
            self._failed = True
            raise TransientError("once")
        return Answer(ANSWER)

    def close(self) -> None: ...


class OneFault:
    """A worker, some messages, and a fault; another worker begins where the first has ended."""

    def __init__(self, seed: int, step: int, fault: Callable[[OneFault], None]) -> None:
        self.simulation = Simulation(seed, detail=False)
        self.broker = Broker(self.simulation)
        self.settings = load(ENV)
        self.watch = Watch(self.settings)
        self.failures: list[Message] = []
        self.broker.observe(self._observe)
        for queue in topology.queues(self.settings):
            self.broker.declare(queue.name, queue.arguments)
        for number, body in enumerate(BODIES):
            self.broker.publish("feedback", body, properties(f"m{number}"))
        self.worker = self._begin(FIRST)
        self.happened = False
        self.simulation.at_step(step, partial(self._happen, fault))

    def _happen(self, fault: Callable[[OneFault], None]) -> None:
        self.happened = True
        fault(self)

    def _begin(self, name: str) -> WorkerProcess:
        made = WorkerProcess(self.simulation, name, ENV, self.broker, chain=_chain)
        made.process.at_kill(partial(self._continue, f"{name}'"))
        made.start()
        return made

    def _continue(self, name: str) -> None:
        self.simulation.after(1.0, lambda: _discard(self._begin(name)))

    def _observe(self, kind: str, queue: str, message: Message, client: str, now: float) -> None:
        try:
            self.watch(kind, queue, message, client, now)
        except AssertionError as error:
            self.simulation.fail(error)

    def run(self) -> OneFault:
        """Run until all is done. Raises AssertionError where a guarantee does not hold."""
        with self.simulation, logs_in_trace(self.simulation):
            try:
                self.simulation.run(until=60.0)
                self._check()
            except Exception as error:
                error.add_note("\n".join(self.simulation.trace[-80:]))
                raise
        return self

    def _check(self) -> None:
        for number, reason in enumerate(BODIES.values()):
            name = f"m{number}"
            letters = self.watch.letters.get(name, [])
            assert self.watch.done(name), f"{name} was never answered or dead-lettered"
            assert set(letters) == ({reason} if reason else set()), f"{name}: {letters}"
            more = self.watch.ends(name) - 1 - self.watch.redelivered[name]
            assert more <= 0, f"{name} ended {more} times more than it was delivered again"
        left = [one.name for one in self.broker.messages("feedback")]
        assert not left, f"still in the queue: {left}"


def _discard(_: object) -> None:
    """Make a statement of an expression."""


def _chain(settings: Settings, process: Process, _: Metrics) -> Chain:
    member = Member(_Model(process), limits=Limits(runtime=process), runtime=process)
    return Chain([member], task_file.load(), runtime=process)


#: What may happen to the first worker, or to the broker.
FAULTS: Mapping[str, Callable[[OneFault], None]] = {
    "kill": lambda one: one.worker.kill(),
    "SIGTERM": lambda one: one.worker.terminate(),
    "disconnect": lambda one: one.broker.disconnect(FIRST),
    "half open": lambda one: one.broker.lose_silently(FIRST),
    "channels closed": lambda one: one.broker.close_channels(FIRST),
    "consumer cancelled": lambda one: one.broker.cancel_consumers(FIRST),
    "restart": lambda one: one.broker.restart(2.0),
    "orderly restart": lambda one: one.broker.restart(2.0, orderly=True),
    "no leader": lambda one: one.broker.change_leader("feedback", 3.0),
    "alarm": lambda one: one.broker.alarm(5.0),
    "results full": lambda one: one.broker.fill("feedback.results", 5.0),
    "results deleted": lambda one: one.broker.delete("feedback.results"),
    "rejects": lambda one: one.broker.reject(5.0),
    "pause": lambda one: one.worker.pause(20.0),
}
