"""A refusal is the text's fault only if the model takes another text."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tests.pure.worker.test_asking import GOOD, TASK
from worker import asking, retries
from worker.asking import Asker, Member
from worker.model import (
    Answer,
    BadOutputError,
    ContentFilteredError,
    ModelUnavailableError,
    RefusedTextError,
    TextTooLongError,
    TransientError,
    Usage,
)
from worker.retries import DeadLetter, Hold

CAUSES = [RefusedTextError, TextTooLongError, ContentFilteredError]
causes = pytest.mark.parametrize("cause", CAUSES)


class Model:
    """Takes or refuses each text as `takes` says."""

    name, model, version = "test", "m", ""

    def __init__(self, takes: Callable[[str], Exception | None]) -> None:
        self._takes = takes
        self.asked: list[str] = []

    def warm_up(self) -> None: ...

    def analyse(self, text: str, deadline: float) -> Answer:
        self.asked.append(text)
        if (refusal := self._takes(text)) is not None:
            raise refusal
        return Answer(GOOD, Usage(10, 3))

    def close(self) -> None: ...


def _asked(model: Model, text: str = "theirs") -> Exception:
    asker = Asker([Member(model)], TASK)
    with pytest.raises(Exception) as caught:  # noqa: PT011 the callers look at its type
        asker.ask(text, time.monotonic() + 600)
    return caught.value


def _decided(error: Exception) -> retries.Decision:
    return retries.decide(error, attempts=0, max_attempts=5, delays=[1], model_away=False)


@causes
def test_a_model_that_refuses_every_text_is_unavailable(cause: type[RefusedTextError]) -> None:
    model = Model(lambda text: cause("no"))
    error = _asked(model)
    assert isinstance(error, ModelUnavailableError)
    assert "refuses every text" in str(error)
    assert isinstance(_decided(error), Hold)
    assert model.asked == ["theirs", asking.PROBE_TEXT]


@causes
def test_a_text_that_alone_is_refused_is_dead_lettered(cause: type[RefusedTextError]) -> None:
    model = Model(lambda text: cause("no") if text == "theirs" else None)
    error = _asked(model)
    assert type(error) is cause
    assert isinstance(_decided(error), DeadLetter)
    assert model.asked == ["theirs", asking.PROBE_TEXT]


@pytest.mark.parametrize("cause", [TextTooLongError, ContentFilteredError])
def test_many_refusals_with_a_named_cause_cost_one_text_of_ours(
    cause: type[RefusedTextError],
) -> None:
    model = Model(lambda text: cause("no") if text == "theirs" else None)
    asker = Asker([Member(model)], TASK)
    for _ in range(100):
        with pytest.raises(cause):
            asker.ask("theirs", time.monotonic() + 600)
    assert model.asked.count(asking.PROBE_TEXT) <= 1 + 100 // 10


@pytest.mark.parametrize(
    ("ours", "raised"),
    [
        (ModelUnavailableError("gone"), ModelUnavailableError),
        (TransientError("late"), TransientError),
        (BadOutputError("not JSON"), RefusedTextError),
    ],
)
def test_what_our_own_text_meets_decides(ours: Exception, raised: type[Exception]) -> None:
    model = Model(lambda text: RefusedTextError("no") if text == "theirs" else ours)
    assert type(_asked(model)) is raised


def test_a_neighbours_answer_that_began_later_is_proof_enough() -> None:
    refused, answered = threading.Event(), threading.Event()

    def takes(text: str) -> Exception | None:
        if text != "theirs":
            return None
        refused.set()
        assert answered.wait(60)
        return RefusedTextError("no")

    model = Model(takes)
    asker = Asker([Member(model)], TASK)
    caught: list[Exception] = []

    def ask() -> None:
        try:
            asker.ask("theirs", time.monotonic() + 600)
        except RefusedTextError as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert refused.wait(60)
    asker.ask("a neighbour", time.monotonic() + 600)
    answered.set()
    thread.join(60)
    assert [type(error) for error in caught] == [RefusedTextError]
    assert asking.PROBE_TEXT not in model.asked


def test_an_answer_from_before_is_no_proof_where_the_cause_is_not_named() -> None:
    """The server may have been reconfigured between the two."""
    broken = threading.Event()
    model = Model(lambda text: RefusedTextError("no") if broken.is_set() else None)
    asker = Asker([Member(model)], TASK)
    asker.ask("before", time.monotonic() + 600)
    broken.set()
    with pytest.raises(ModelUnavailableError):
        asker.ask("theirs", time.monotonic() + 600)
