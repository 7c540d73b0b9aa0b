"""A refusal is the text's fault only if the model takes another text."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import pytest

from selfheal_worker import retries
from selfheal_worker.dead_letters import ERROR_CLASS, refusal_history
from selfheal_worker.model import refusals
from selfheal_worker.model.analysis import PROBE_TEXT
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.errors import (
    BadOutputError,
    ContentFilteredError,
    ModelUnavailableError,
    RefusedTextError,
    TextTooLongError,
    TransientError,
)
from selfheal_worker.model.member import Member
from selfheal_worker.model.provider import Answer, UnconfirmedRefusalError, Usage
from selfheal_worker.model.refusals import NO_HISTORY, RefusalHistory, Refusals
from selfheal_worker.retries import DeadLetter, Requeue, Retry
from tests.pure.worker.test_chain import GOOD, TASK

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


def _failed_call(model: Model, text: str = "theirs") -> Exception:
    models = Chain([Member(model)], TASK)
    with pytest.raises(Exception) as caught:  # noqa: PT011 the callers check its type
        models.ask(text, time.monotonic() + 600)
    return caught.value


def _decided(error: Exception) -> retries.Decision:
    return retries.decide(error, attempts=0, max_attempts=5, delays=[1], model_away=False)


@causes
def test_a_model_that_refuses_every_text_is_unavailable(cause: type[RefusedTextError]) -> None:
    model = Model(lambda text: cause("no"))
    error = _failed_call(model)
    assert isinstance(error, ModelUnavailableError)
    assert "refuses every text" in str(error)
    assert isinstance(_decided(error), Requeue)
    assert model.asked == ["theirs", PROBE_TEXT]


@causes
def test_a_text_that_alone_is_refused_is_dead_lettered(cause: type[RefusedTextError]) -> None:
    model = Model(lambda text: cause("no") if text == "theirs" else None)
    error = _failed_call(model)
    assert type(error) is cause
    assert isinstance(_decided(error), DeadLetter)
    assert model.asked == ["theirs", PROBE_TEXT]


@pytest.mark.parametrize("cause", [TextTooLongError, ContentFilteredError])
def test_many_refusals_with_a_named_cause_cost_one_text_of_ours(
    cause: type[RefusedTextError],
) -> None:
    model = Model(lambda text: cause("no") if text == "theirs" else None)
    models = Chain([Member(model)], TASK)
    for _ in range(100):
        with pytest.raises(cause):
            models.ask("theirs", time.monotonic() + 600)
    assert model.asked.count(PROBE_TEXT) <= 1 + 100 // 10


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
    assert type(_failed_call(model)) is raised


def test_another_texts_answer_that_began_later_is_proof_enough() -> None:
    refused, answered = threading.Event(), threading.Event()

    def takes(text: str) -> Exception | None:
        if text != "theirs":
            return None
        refused.set()
        assert answered.wait(60)
        return RefusedTextError("no")

    model = Model(takes)
    models = Chain([Member(model)], TASK)
    caught: list[Exception] = []

    def ask() -> None:
        try:
            models.ask("theirs", time.monotonic() + 600)
        except RefusedTextError as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert refused.wait(60)
    models.ask("a neighbour", time.monotonic() + 600)
    answered.set()
    thread.join(60)
    assert [type(error) for error in caught] == [RefusedTextError]
    assert PROBE_TEXT not in model.asked


def test_an_answer_from_before_is_no_proof_where_the_cause_is_not_named() -> None:
    """The server may have been reconfigured between the two."""
    broken = threading.Event()
    model = Model(lambda text: RefusedTextError("no") if broken.is_set() else None)
    models = Chain([Member(model)], TASK)
    models.ask("before", time.monotonic() + 600)
    broken.set()
    with pytest.raises(ModelUnavailableError):
        models.ask("theirs", time.monotonic() + 600)


ONCE_MORE = RefusalHistory(may_retry=True)


class Server:
    """A model's refusals under a clock of its own, and the texts of ours that were sent to it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sent = 0
        self.broken = False
        self.refusals = Refusals(clock=lambda: self.now)

    def refuse(
        self,
        history: RefusalHistory = NO_HISTORY,
        cause: type[RefusedTextError] = RefusedTextError,
    ) -> None:
        self.refusals.confirm(cause("no"), self.now, self.now + 60, self.probe, history)

    def answer(self) -> None:
        self.refusals.taken(self.now)

    def probe(self) -> None:
        self.sent += 1
        if self.broken:
            raise RefusedTextError("no")


def test_a_hundred_refused_texts_cost_one_text_of_ours_where_they_may_come_again() -> None:
    server = Server()
    for _ in range(100):
        server.now += refusals.CHECK_INTERVAL / 101
        with contextlib.suppress(UnconfirmedRefusalError):
            server.refuse(ONCE_MORE)
    assert server.sent == 1


def test_nobody_waits_for_the_text_of_ours_that_another_one_sends() -> None:
    server = Server()
    outcomes: list[str] = []

    def probe() -> None:
        for history, error in ((ONCE_MORE, UnconfirmedRefusalError), (NO_HISTORY, TransientError)):
            with pytest.raises(error):
                server.refusals.confirm(
                    RefusedTextError("no"), server.now, server.now, pytest.fail, history
                )
            outcomes.append(error.__name__)

    server.refusals.confirm(RefusedTextError("no"), server.now, server.now, probe, ONCE_MORE)
    assert outcomes == ["UnconfirmedRefusalError", "TransientError"]


def test_a_text_that_is_refused_again_is_confirmed_by_an_answer_in_between() -> None:
    server = Server()
    server.answer()
    server.now += 0.5
    with pytest.raises(UnconfirmedRefusalError):
        server.refuse(ONCE_MORE)
    again = RefusalHistory(refused_by=server.now)
    server.now += 0.5
    server.answer()
    server.now += 60
    server.refuse(again)
    assert server.sent == 0


def test_an_answer_from_before_both_refusals_confirms_neither() -> None:
    server = Server()
    server.answer()
    server.broken = True
    server.now += 0.5
    with pytest.raises(UnconfirmedRefusalError):
        server.refuse(ONCE_MORE)
    again = RefusalHistory(refused_by=server.now)
    server.now += 1
    with pytest.raises(ModelUnavailableError):
        server.refuse(again)
    assert server.sent == 1


@causes
def test_a_model_that_comes_to_refuse_everything_is_unavailable_a_second_later(
    cause: type[RefusedTextError],
) -> None:
    server = Server()
    server.answer()
    server.broken = True
    server.now += max(refusals.CHECK_INTERVAL, refusals.NAMED_CAUSE) + 0.001
    with pytest.raises(ModelUnavailableError):
        server.refuse(ONCE_MORE, cause)


def test_a_refusal_that_is_not_confirmed_counts_unless_the_model_is_away() -> None:
    error = UnconfirmedRefusalError("no")

    def decided(*, away: bool) -> retries.Decision:
        return retries.decide(error, attempts=0, max_attempts=5, delays=[2, 9], model_away=away)

    assert decided(away=False) == Retry(2, 1)
    assert decided(away=True) == Requeue()


@pytest.mark.parametrize(
    ("attempts", "error_class", "wanted"),
    [
        (0, None, RefusalHistory(may_retry=True)),
        (0, "UnconfirmedRefusalError", RefusalHistory(may_retry=True)),  # a publisher's word
        (1, "TransientError", RefusalHistory(may_retry=True)),
        (1, "UnconfirmedRefusalError", RefusalHistory(refused_by=98.0)),
        (3, "UnconfirmedRefusalError", RefusalHistory(refused_by=98.0)),
        (4, "TransientError", RefusalHistory()),
        (4, 7, RefusalHistory()),
    ],
)
def test_what_the_headers_say_of_earlier_refusals(
    attempts: int, error_class: object, wanted: RefusalHistory
) -> None:
    headers = {ERROR_CLASS: error_class} if error_class else {}
    found = refusal_history(headers, attempts, 100.0, max_attempts=5, delay=2)
    assert found == wanted


def test_a_fallback_answers_for_a_model_whose_refusal_is_not_confirmed() -> None:
    first = Model(lambda text: RefusedTextError("no") if text == "theirs" else None)
    models = Chain([Member(first), Member(Model(lambda text: None))], TASK)
    models.ask("a neighbour", time.monotonic() + 600)
    reply = models.ask("theirs", time.monotonic() + 600, history=ONCE_MORE)
    assert reply.degraded
    assert PROBE_TEXT not in first.asked
