"""The loop's look whether the model is back: how long it may take."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from selfheal_worker import worker as loop
from selfheal_worker.config import load
from selfheal_worker.metrics import Metrics
from selfheal_worker.model.chain import Chain, Member
from selfheal_worker.model.provider import LONGEST_LOAD, Answer
from selfheal_worker.task import task_file
from selfheal_worker.worker import Worker


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


def test_a_look_is_hung_when_the_model_could_have_been_loaded_again_and_no_sooner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Stuck()
    chain = Chain([Member(model)], task_file.load())
    chain.wake(60)
    model.stuck = True
    worker = Worker(load({"AMQP_HOST": "h", "MODEL_DEADLINE": "20"}), chain, Metrics())
    begun = time.monotonic()
    ahead = 0.0
    monkeypatch.setattr(
        loop, "time", SimpleNamespace(time=time.time, monotonic=lambda: begun + ahead)
    )
    worker._probe_model()
    ahead = LONGEST_LOAD + 20
    assert not worker.status().hung_probe
    ahead = LONGEST_LOAD + 20 * loop.PROBE_DEADLINES + loop.HANG_MARGIN + 1
    assert worker.status().hung_probe
    model.ends.set()
