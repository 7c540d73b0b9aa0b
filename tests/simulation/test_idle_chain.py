"""A chain's model that was away is probed by time, also where no message comes."""

from __future__ import annotations

import json

import pytest

from selfheal_worker.broker import topology
from selfheal_worker.config import Settings, load
from selfheal_worker.metrics import Metrics
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.errors import ModelUnavailableError
from selfheal_worker.model.limits import Limits
from selfheal_worker.model.member import Member
from selfheal_worker.model.provider import Answer
from selfheal_worker.task import task_file
from tests.simulation.broker.broker import Broker
from tests.simulation.broker.session import properties
from tests.simulation.process import Process
from tests.simulation.scheduler import Simulation
from tests.simulation.worker.process import WorkerProcess, logs_in_trace
from tests.simulation.worker.seeded_broker import ANSWER

ENV = {"AMQP_HOST": "broker", "QUEUE_NAME": "feedback", "CONCURRENCY": "1", "MODEL_DEADLINE": "10"}


class Model:
    """Answers while it is there; asked: when it was, in seconds."""

    version = "1"

    def __init__(self, process: Process, name: str, away: tuple[float, float] = (0.0, 0.0)) -> None:
        self.name = self.model = name
        self._process = process
        self._away = away
        self.asked: list[float] = []

    def warm_up(self) -> None:
        self._ask()

    def analyse(self, text: str, deadline: float) -> Answer:
        self._ask()
        return Answer(ANSWER)

    def close(self) -> None: ...

    def _ask(self) -> None:
        now = self._process.simulation.now
        self.asked.append(now)
        self._process.sleep(0.1)
        if self._away[0] <= now < self._away[1]:
            raise ModelUnavailableError("away")


class Idle:
    """A worker with two models, of which the first is away for a while."""

    def __init__(self, simulation: Simulation, away: tuple[float, float]) -> None:
        self.broker = Broker(simulation)
        self._away = away
        self.models: list[Model] = []
        for queue in topology.queues(load(ENV)):
            self.broker.declare(queue.name, queue.arguments)
        WorkerProcess(simulation, "worker", ENV, self.broker, chain=self._chain).start()

    def _chain(self, settings: Settings, process: Process, metrics: Metrics) -> Chain:
        self.models = [Model(process, "active", self._away), Model(process, "fallback")]
        members = [
            Member(model, limits=Limits(runtime=process), runtime=process) for model in self.models
        ]
        return Chain(members, task_file.load(), runtime=process)

    def publish(self, name: str) -> None:
        self.broker.publish("feedback", b'{"text": "A text."}', properties(name))

    def answered_by(self) -> list[str]:
        results = self.broker.messages("feedback.results")
        return [json.loads(one.body)["model"]["name"] for one in results]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("away", [(0.0, 120.0), (4.0, 120.0)], ids=["from its start", "later"])
def test_a_model_that_came_back_answers_the_next_message(
    away: tuple[float, float], seed: int
) -> None:
    with Simulation(seed) as simulation, logs_in_trace(simulation):
        idle = Idle(simulation, away)
        simulation.at(5.0, lambda: idle.publish("first"))
        simulation.run(until=600.0)
        idle.publish("second")
        simulation.run(until=610.0)
        assert idle.answered_by() == ["fallback", "active"]
        active = idle.models[0]
        while_away = [at for at in active.asked if 10 < at < 120]
        assert 5 <= len(while_away) <= 60  # each few seconds, and rarer and rarer
        # Once it is there it is not asked by itself any more.
        assert len([at for at in active.asked if 450 < at < 600]) == 0
