"""The probe of a model that is away: how long it may take."""

from __future__ import annotations

import threading
import time

from selfheal_worker.availability import PROBE_DEADLINES, ModelAvailability
from selfheal_worker.handlers import HANG_MARGIN
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.load_time import LONGEST_LOAD
from selfheal_worker.model.member import Member
from selfheal_worker.model.provider import Answer
from selfheal_worker.task import task_file


class Stuck:
    """A model that was warm, and whose warm-up does not end then."""

    name, model, version = "test", "m", "1"

    def __init__(self) -> None:
        self.stuck = False
        self.ends = threading.Event()

    def warm_up(self) -> None:
        if self.stuck:
            self.ends.wait(60)

    def analyse(self, text: str, deadline: float) -> Answer:
        raise NotImplementedError

    def close(self) -> None: ...


def test_a_probe_is_hung_when_the_model_could_have_been_loaded_again_and_no_sooner() -> None:
    model = Stuck()
    chain = Chain([Member(model)], task_file.load())
    chain.wake(60)
    model.stuck = True
    availability = ModelAvailability(chain, 20, changed=lambda: None)
    begun = time.monotonic()
    availability.probe(begun)
    assert not availability.hung_probe(begun + LONGEST_LOAD + 20)
    assert availability.hung_probe(begun + LONGEST_LOAD + 20 * PROBE_DEADLINES + HANG_MARGIN + 1)
    model.ends.set()
