"""The result of a probe comes from another thread, at any moment of a tick."""

from __future__ import annotations

import itertools
import sys
import threading
from types import FrameType
from typing import Any

import pytest

from selfheal_worker.availability import ModelAvailability
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.errors import ModelUnavailableError
from selfheal_worker.model.member import Member
from selfheal_worker.model.provider import Answer
from selfheal_worker.task import task_file


class Loading:
    """A model whose warm-up ends when it is asked to."""

    name, model, version = "test", "m", "1"

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails
        self.ends = threading.Event()

    def warm_up(self) -> None:
        assert self.ends.wait(30)
        if self.fails:
            raise ModelUnavailableError("no answer")

    def analyse(self, text: str, deadline: float) -> Answer:
        raise NotImplementedError

    def close(self) -> None: ...


def take_while_it_ends(availability: ModelAvailability, model: Loading, step: int) -> bool:
    """Take the result while the probe ends before this step of it; whether there is such a step."""
    steps = itertools.count()

    def end_probe(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code is not ModelAvailability.take_probe_result.__code__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and next(steps) == step:
            model.ends.set()
            for thread in threading.enumerate():
                if thread.name == "probe":
                    thread.join(30)
        return end_probe

    before = sys.gettrace()
    sys.settrace(end_probe)
    try:
        availability.take_probe_result()
    finally:
        sys.settrace(before)
    return next(steps) > step


@pytest.mark.parametrize("fails", [False, True])
def test_a_probe_that_ends_while_its_result_is_taken_is_not_lost(fails: bool) -> None:
    for step in itertools.count():
        model = Loading(fails=fails)
        availability = ModelAvailability(
            Chain([Member(model)], task_file.load()), 20, changed=lambda: None
        )
        availability.probe(0.0)
        if not take_while_it_ends(availability, model, step):
            model.ends.set()
            break
        availability.take_probe_result()  # at the next tick
        assert availability.closed is not fails, f"before step {step}"
        assert availability.circuit.due(1e12) is fails, f"before step {step}"
    assert step > 2
