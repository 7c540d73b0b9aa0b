"""Waiting for a model's turn: it uses up no call's time, is no hang, and burns no attempt."""

from __future__ import annotations

import contextlib
import json
import math
import queue
import threading
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest

from selfheal_worker.broker import Delivery
from selfheal_worker.config import load
from selfheal_worker.handlers import Handlers, Work
from selfheal_worker.hangs import Hangs
from selfheal_worker.in_flight import InFlight
from selfheal_worker.message import Message
from selfheal_worker.metrics import Metrics
from selfheal_worker.model import provider, registry
from selfheal_worker.model.analysis import PROBE_TEXT
from selfheal_worker.model.call_time import LONGEST_TURN_WAIT
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.errors import ModelUnavailableError, OverloadedError, TransientError
from selfheal_worker.model.limits import LimitedError, Limits
from selfheal_worker.model.member import Member
from selfheal_worker.model.provider import Answer
from selfheal_worker.publishing import PARKED_LONGEST
from selfheal_worker.runtime import REAL
from selfheal_worker.settlement import Settlement
from selfheal_worker.task import task_file
from selfheal_worker.worker import Worker, turn_wait
from tests.pure.worker.fake_link import FakeLink

GOOD = {
    "primary_emotion": "Joy",
    "sentiment": "Positive",
    "confidence_score": 0.9,
    "key_phrases": [],
}


class Clock:
    """Stands still unless it is asked to continue."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(REAL, "monotonic", self)

    def __call__(self) -> float:
        return self.now


class Model:
    """Answers as `say` does; remembers how long each call was given."""

    name, model, version = "test", "m", "1"

    def __init__(
        self,
        say: Callable[[int], Any] = lambda n: GOOD,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._clock = clock
        self.given: list[float] = []

    def warm_up(self) -> None: ...

    def close(self) -> None: ...

    def analyse(self, text: str, deadline: float) -> Answer:
        self.given.append(deadline - self._clock())
        said = self._say(len(self.given))
        if isinstance(said, Exception):
            raise said
        return Answer(said)


def _chain(model: Model, limits: Limits) -> Chain:
    models = Chain([Member(model, limits=limits)], task_file.load())
    models.members[0].warm = True
    return models


def _wait_until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end
        threading.Event().wait(0.005)


def test_the_deadline_of_a_call_counts_from_when_it_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    model = Model(clock=clock)
    limits = Limits(concurrency=1, clock=clock)
    models, work = _chain(model, limits), _work()
    done = threading.Thread(
        target=models.ask, args=("text", clock() + 5), kwargs={"wait": 300, "watched": work}
    )
    with limits.turn(math.inf):
        done.start()
        _wait_until(lambda: limits.waiting == 1)
        assert work.due == math.inf
        clock.now += 100
    done.join(60)
    assert model.given == [5.0]
    assert (work.due, work.waited) == (1105.0, 100.0)


def test_all_of_many_short_calls_are_answered_whatever_they_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """80 texts at once, 2 turns, calls that take half of their deadline."""
    clock = Clock(monkeypatch)
    lock = threading.Lock()
    ended: queue.SimpleQueue[object] = queue.SimpleQueue()

    def say(_: int) -> Any:
        with lock:
            clock.now += 0.25
        return GOOD

    models = _chain(Model(say, clock), Limits(concurrency=2, clock=clock))

    def ask() -> None:
        try:
            ended.put(models.ask("text", clock() + 1.0).validated.fields() == GOOD)
        except Exception as error:  # noqa: BLE001 it fails the test
            ended.put(error)

    for _ in range(80):
        threading.Thread(target=ask, daemon=True).start()
    assert [ended.get(timeout=60) for _ in range(80)] == [True] * 80


def test_where_a_fallback_is_next_a_lowered_limit_is_waited_for_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    waits: list[float] = []
    first, second = Model(clock=clock), Model(clock=clock)
    second.model = "fallback"
    limits = Limits(concurrency=1, clock=clock, chance=lambda: 0.5)
    real, one_turn = limits.enter, limits.turn(math.inf)

    def full(deadline: float, longest_pause: float, given_up: Callable[[], bool]) -> float:
        waits.append(deadline - clock.now)
        return real(clock.now, longest_pause, given_up)  # for all that it would wait

    monkeypatch.setattr(limits, "enter", full)
    models = Chain(
        [Member(first, limits=limits), Member(second, limits=Limits(clock=clock))],
        task_file.load(),
    )
    for one in models.members:
        one.warm = True
    assert models.ask("text", clock() + 60).origin.name == "fallback"
    with contextlib.suppress(OverloadedError), one_turn:
        raise OverloadedError("too many")
    assert limits.lowered
    assert models.ask("text", clock() + 60).origin.name == "fallback"
    assert waits == [30.0, 1.0]


def test_a_wait_ends_by_its_own_bound() -> None:
    limits = Limits(concurrency=1)
    with limits.turn(math.inf), pytest.raises(LimitedError, match="allows no turn"):
        _chain(Model(), limits).ask("text", time.monotonic() + 600, wait=0.01)


def test_a_text_that_finds_the_server_overloaded_is_sent_again_with_all_of_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)

    def say(number: int) -> Any:
        clock.now += 4  # slow to refuse, too
        return OverloadedError("503") if number <= 3 else GOOD

    model = Model(say, clock)
    reply = _chain(model, Limits(clock=clock, chance=lambda: -0.5)).ask(
        "text", clock() + 5, wait=100
    )
    assert reply.validated.fields() == GOOD
    assert model.given == [5.0] * 4


def test_where_a_fallback_is_next_an_overload_is_not_waited_for() -> None:
    first, second = Model(lambda n: OverloadedError("503")), Model()
    second.model = "fallback"
    models = Chain([Member(first), Member(second)], task_file.load())
    for one in models.members:
        one.warm = True
    assert models.ask("text", time.monotonic() + 600).origin.name == "fallback"
    assert len(first.given) == 1


def test_a_server_that_refuses_everything_is_unavailable_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)

    def say(_: int) -> Any:
        clock.now += 5
        return OverloadedError("http://h answered 503")

    model = Model(say, clock)
    models = _chain(model, Limits(clock=clock, chance=lambda: -0.5))
    with pytest.raises(ModelUnavailableError, match="answered 503, and to every call before"):
        models.ask("text", clock() + 30, wait=1000)
    assert len(model.given) == 5


def test_a_pause_that_comes_with_an_answer_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    class Counted(Model):
        def analyse(self, text: str, deadline: float) -> Answer:
            return Answer(GOOD, pause=30.0)

    models = _chain(Counted(), Limits(clock=clock))
    models.ask("text", clock() + 5)
    with pytest.raises(LimitedError, match="requested a pause, 30 s"):
        models.ask("text", clock() + 5, wait=300)
    ((_, used),) = models.concurrency()
    assert (used.running, used.allowed) == (0, 0)


def test_who_is_given_up_while_it_waits_stops_waiting() -> None:
    limits, work = Limits(concurrency=1), _work()
    finished: queue.SimpleQueue[Work] = queue.SimpleQueue()
    models = _chain(Model(), limits)
    handlers = Handlers(models, threads=1, deadline=5, finished=finished.put, wait=600)
    with limits.turn(math.inf):
        handlers.submit(work)
        _wait_until(lambda: work.waiting)
        work.given_up = True
        models.release()
        assert isinstance(finished.get(timeout=60).error, LimitedError)
    assert not work.waiting


def test_a_handler_that_waits_for_its_turn_is_no_hang_and_no_lack_of_progress() -> None:
    limits = Limits(concurrency=1)
    models = _chain(Model(), limits)
    in_flight = InFlight(load({"AMQP_HOST": "localhost"}))
    work = in_flight.begin(_work().delivery)
    finished: queue.SimpleQueue[Work] = queue.SimpleQueue()
    handlers = Handlers(models, threads=1, deadline=5, finished=finished.put)
    hangs = Hangs(handlers, Metrics())
    with limits.turn(math.inf):
        handlers.submit(work)
        _wait_until(lambda: work.waiting)
        in_flight.last_progress = 1.0
        assert hangs.find(time.monotonic() + 3600) == []
        assert len(hangs) == 0
        in_flight.see_waiting()
        assert in_flight.last_progress > 1.0
        work.given_up = True
        models.release()
        assert finished.get(timeout=60) is work


class Blocking(Model):
    """Its calls end as the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.ends: queue.SimpleQueue[Exception] = queue.SimpleQueue()

    def analyse(self, text: str, deadline: float) -> Answer:
        if text == PROBE_TEXT:
            return Answer(GOOD)
        self.begun.put(text)
        raise self.ends.get(timeout=60)


@pytest.mark.parametrize("opened", [True, False])
def test_messages_that_wait_go_back_unchanged_when_the_model_is_away_or_the_worker_stops(
    opened: bool,
) -> None:
    settings = load({"AMQP_HOST": "localhost", "CONCURRENCY": "2"})
    model, limits = Blocking(), Limits(concurrency=1)
    links: list[FakeLink] = []

    def connect(*arguments: Any) -> Any:
        links.append(FakeLink(*arguments))
        return links[0]

    worker = Worker(settings, _chain(model, limits), Metrics(), connect)
    (link,) = links

    def ready() -> bool:
        worker.on_tick()
        return not worker.status().not_ready

    worker.on_up()
    _wait_until(ready)
    link.deliver(b'{"text": "one"}')
    assert model.begun.get(timeout=60) == "one"
    link.deliver(b'{"text": "two"}')
    before = worker.status().last_progress
    _wait_until(lambda: worker.status().last_progress > before)  # it waits for its turn
    overloaded = OverloadedError("503", retry_after=120)  # so the other one does not get its turn
    if opened:
        model.ends.put(overloaded)
    else:
        worker.stop()

    def requeued() -> bool:
        worker.on_tick()
        return len(link.published) == (2 if opened else 1)

    _wait_until(requeued)
    published = {made.body: made for made in link.answer()}
    waited = published[b'{"text": "two"}']
    assert waited.queue == "feedback"
    assert not waited.properties.headers
    assert len(link.acked) == len(published)
    assert not worker.status().hung
    model.ends.put(overloaded)


def test_an_overload_at_the_end_burns_nothing() -> None:
    settings = load({"AMQP_HOST": "localhost"})
    link: Any = FakeLink(settings, (), Mock())
    in_flight = InFlight(settings)
    settlement = Settlement(
        settings, task_file.load(), link, in_flight, Metrics(), settled=Mock(), changed=Mock()
    )

    def queue_of(error: Exception, *, stopping: bool) -> str:
        work = in_flight.begin(_work().delivery)
        settlement.fail(work, error, excused=False, stopping=stopping)
        (made,) = link.answer()
        return str(made.queue)

    assert queue_of(OverloadedError("503"), stopping=False) == "feedback.retry.1s"
    assert queue_of(OverloadedError("503"), stopping=True) == "feedback"
    assert queue_of(TransientError("500"), stopping=True) == "feedback.retry.1s"


def test_a_wait_stays_below_the_brokers_consumer_timeout() -> None:
    assert turn_wait(60) == LONGEST_TURN_WAIT
    for deadline in (1, 60, 500, 600):
        assert turn_wait(deadline) + deadline + PARKED_LONGEST <= 1800
    assert turn_wait(3600) > 0


def _work() -> Work:
    import pika

    message = Message(id="1", id_generated=False, text="good", metadata=None, extra={})
    delivery = Delivery(1, 1, False, "", "feedback", b"{}", pika.BasicProperties())
    return Work(delivery, message, attempts=0, received=0.0, received_unix=0.0)


@pytest.mark.parametrize(
    ("own", "wanted", "allowed"),
    [(1, None, 1), (1, 8, 1), (4, 2, 2), (None, 3, 3), (None, None, None)],
)
def test_what_a_provider_can_do_at_once_is_a_limit_of_its_model(
    monkeypatch: pytest.MonkeyPatch, own: int | None, wanted: int | None, allowed: int | None
) -> None:
    made = Model()
    if own is not None:
        made.calls_at_once = own  # type: ignore[attr-defined]
    monkeypatch.setattr(provider, "build", lambda config: made)
    named = {"provider": "builtin"} | ({"concurrency": wanted} if wanted else {})
    common = {"MODEL_CONCURRENCY": str(wanted)} if wanted else {}
    settings = load(common | {"MODELS": json.dumps({"triage": named})}, broker=False)
    for name in ("", "triage"):
        found = registry.member(settings, task_file.load(), name)
        assert found.limits.used.allowed == allowed
