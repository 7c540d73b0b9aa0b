"""A model whose server requested a pause, and when it is called again."""

from __future__ import annotations

import time as clocks

import pytest

from selfheal_worker.model.analysis import PROBE_TEXT
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.errors import (
    BadOutputError,
    ModelError,
    ModelUnavailableError,
    OverloadedError,
    TransientError,
)
from selfheal_worker.model.limits import LimitedError
from selfheal_worker.model.member import Member
from selfheal_worker.model.provider import Answer
from selfheal_worker.runtime import REAL
from tests.pure.worker.test_chain import GOOD, TASK

DEADLINE, PAUSE = 10.0, 600.0
OURS = ["warm up", PROBE_TEXT]
_MONOTONIC = clocks.monotonic


class Model:
    """Answers each call, but for those that `fails` has an error for; pause: with each answer."""

    name, model, version = "test", "m", ""

    def __init__(self) -> None:
        self.fails: list[Exception] = []
        self.pause: float | None = None
        self.asked: list[str] = []

    def warm_up(self) -> None:
        self.asked.append("warm up")

    def analyse(self, text: str, deadline: float) -> Answer:
        self.asked.append(text)
        if self.fails:
            raise self.fails.pop(0)
        return Answer(GOOD, pause=self.pause)

    def close(self) -> None: ...


class World:
    """A chain, and a clock that can be set forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *others: Model) -> None:
        self.ahead = 0.0
        monkeypatch.setattr(REAL, "monotonic", self.monotonic)
        self.model = Model()
        self.chain = Chain([Member(one) for one in (self.model, *others)], TASK)
        self.chain.wake(DEADLINE)
        self.chain.ask("before", self.deadline)
        self.model.asked.clear()

    def monotonic(self) -> float:
        return _MONOTONIC() + self.ahead

    @property
    def deadline(self) -> float:
        return self.monotonic() + DEADLINE

    def fails_with(self, *errors: Exception) -> None:
        """Each of them ends the call about another text."""
        for error in errors:
            self.model.fails = [error] * 100
            with pytest.raises(ModelError):
                self.chain.ask("theirs", self.deadline, wait=0.1)
        self.model.fails.clear()
        self.model.asked.clear()

    def probed(self) -> list[str]:
        """What a probe asks the model, which must be there."""
        self.chain.wake(DEADLINE)
        asked, self.model.asked = self.model.asked, []
        return asked


def paused(seconds: float = PAUSE) -> OverloadedError:
    return OverloadedError("429", retry_after=seconds)


def test_after_a_pause_the_next_message_shows_that_the_model_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch)
    world.fails_with(paused())
    for ahead in (0.0, PAUSE - 60.0):
        world.ahead = ahead
        with pytest.raises(LimitedError) as caught:
            world.chain.wake(DEADLINE)
        assert caught.value.paused > 0
    world.ahead = PAUSE * 1.1 + 1.0
    assert world.probed() == []
    world.chain.ask("theirs", world.deadline)
    assert world.model.asked == ["theirs"]


def test_a_pause_that_came_with_an_answer_needs_no_text_of_ours_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch)
    world.model.pause = PAUSE
    world.chain.ask("theirs", world.deadline)
    world.model.asked.clear()
    with pytest.raises(LimitedError):
        world.chain.wake(DEADLINE)
    world.ahead = PAUSE * 1.1 + 1.0
    assert world.probed() == []


@pytest.mark.parametrize(
    "failures",
    [
        [ModelUnavailableError("gone")],
        [paused(), ModelUnavailableError("gone")],
        [paused(), TransientError("late")],
        [paused(), BadOutputError("no JSON")],
        [paused(), OverloadedError("503")],
        [paused(DEADLINE - 1.0)],
    ],
    ids=lambda failures: ", ".join(map(repr, failures)),
)
def test_a_model_that_failed_otherwise_is_asked_a_text_of_ours(
    failures: list[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(monkeypatch)
    for at, failure in enumerate(failures):
        world.ahead = at * (PAUSE * 1.1 + 1.0)
        world.fails_with(failure)
    world.ahead += PAUSE * 1.1 + 1.0
    assert world.probed() == OURS


def test_a_model_with_a_fallback_is_asked_a_text_of_ours_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch, Model())
    world.model.fails = [paused()]
    world.chain.ask("theirs", world.deadline)
    world.model.asked.clear()
    world.ahead = PAUSE * 1.1 + 1.0
    assert world.probed() == OURS
