"""A model in the worker's own process, as anybody's plug-in may be: it can fail to return."""

from __future__ import annotations

from random import Random

from selfheal_worker.model.errors import ModelUnavailableError, TransientError
from selfheal_worker.model.provider import Answer
from selfheal_worker.task.task import Task
from tests.simulation.models import words
from tests.simulation.models.conditions import Condition
from tests.simulation.models.truth import Did, Exchange
from tests.simulation.process import Process
from tests.simulation.scheduler import Simulation


class PlugIn:
    """The plug-in, whichever process it is in. Its conditions are those of `faults.PLUG_IN`."""

    def __init__(self, name: str, simulation: Simulation, task: Task, seed: int) -> None:
        self.name = name
        self.condition = Condition.UP
        self.exchanges: list[Exchange] = []
        self._simulation = simulation
        self._task = task
        self._chance = Random(f"{seed} {name}")

    def become(self, condition: Condition) -> None:
        """A fault begins, or ends. Calls that do not return never will."""
        self.condition = condition

    def call(self, process: Process, text: str) -> Answer:
        """One call. Raises ModelError."""
        now = self._simulation.now
        one = Exchange(self.name, process.name, len(self.exchanges), now, words.number_of(text))
        one.version = PlugInModel.version
        self.exchanges.append(one)
        try:
            return self._answer(one, process, text)
        finally:
            one.ended = self._simulation.now

    def _answer(self, one: Exchange, process: Process, text: str) -> Answer:
        if self.condition is Condition.SILENT:
            one.did, one.ended = Did.SILENT, self._simulation.now
            process.event().wait()
        process.sleep(self._chance.uniform(0.01, 1.0))
        if self.condition is Condition.NOT_LOADED:
            one.did = Did.AWAY
            raise ModelUnavailableError("its weights are not there")
        if self.condition is Condition.ERRORS:
            one.did = Did.FAILED
            raise TransientError("it failed")
        one.did = Did.ANSWERED
        return Answer(words.answer(self._task, text))


class PlugInModel:
    """The plug-in in one process. A provider; see `selfheal_worker.model.provider`."""

    name, model, version = "plug-in", "m", "1"

    def __init__(self, plug_in: PlugIn, process: Process) -> None:
        self._plug_in = plug_in
        self._process = process

    def warm_up(self) -> None:
        """Takes a moment."""
        self._plug_in.call(self._process, "")

    def analyse(self, text: str, deadline: float) -> Answer:
        """Answers, fails, or never returns."""
        return self._plug_in.call(self._process, text)

    def close(self) -> None:
        """Nothing is open."""
