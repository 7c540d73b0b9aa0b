"""A message's way through the whole worker, with a connection that does what the test says."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from selfheal_worker.broker import Delivery, Outcome
from selfheal_worker.config import load
from selfheal_worker.metrics import Metrics
from selfheal_worker.model import breaker
from selfheal_worker.model.analysis import PROBE_TEXT
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.errors import ModelUnavailableError
from selfheal_worker.model.member import Member
from selfheal_worker.model.provider import Answer
from selfheal_worker.task import task_file
from selfheal_worker.worker import Worker
from tests.pure.worker.fake_link import FakeLink

GOOD = {
    "primary_emotion": "Joy",
    "sentiment": "Positive",
    "confidence_score": 0.9,
    "key_phrases": [],
}
CALLS_RUNNING = (
    b'selfheal_worker_model_calls_running{gen_ai_provider_name="test",gen_ai_request_model="m"}'
)
REFUSED, CONFIRMED = Outcome.REFUSED, Outcome.CONFIRMED


class Model:
    """Answers at once, but for texts that are held until the test lets go of them."""

    name, model, version = "test", "m", "1"

    def __init__(self) -> None:
        self.begun: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.let_go = threading.Event()
        self.away = False

    def warm_up(self) -> None: ...

    def close(self) -> None: ...

    def analyse(self, text: str, deadline: float) -> Answer:
        if self.away:
            raise ModelUnavailableError("connection refused")
        if text != PROBE_TEXT:
            self.begun.put(text)
        if text.startswith("held"):
            assert self.let_go.wait(60)
        return Answer(GOOD)


class Stage:
    """A worker that is ready, its connection and its model."""

    def __init__(self, **settings: str) -> None:
        self.model = Model()
        links: list[FakeLink] = []

        def connect(*arguments: Any) -> Any:
            links.append(FakeLink(*arguments))
            return links[0]

        chain = Chain([Member(self.model)], task_file.load())
        values = {"AMQP_HOST": "h", "CONCURRENCY": "3", **settings}
        self.worker = Worker(load(values), chain, Metrics(), connect)
        self.link = links[0]
        self.worker.on_up()
        self.until(lambda: not self.worker.status().not_ready)

    def until(self, done: Callable[[], bool]) -> None:
        """Let time pass until this is so."""
        end = time.monotonic() + 60
        while not done():
            assert time.monotonic() < end
            self.worker.on_tick()
            threading.Event().wait(0.002)

    def published(self, count: int) -> list[str]:
        """The queues of what is published, when it is so many."""
        self.until(lambda: len(self.link.published) == count)
        return sorted(made.queue for made, _ in self.link.published)

    @property
    def breakers(self) -> dict[str, str]:
        return self.worker.status().breakers

    @property
    def in_flight(self) -> int:
        return self.worker.status().in_flight


@pytest.fixture(autouse=True)
def _probes_are_due_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "FIRST_PAUSE", 0.0)


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.model.let_go.set()


def text(value: str) -> bytes:
    return b'{"text": "%s"}' % value.encode()


def test_a_message_is_acked_when_the_broker_has_its_answer_and_no_sooner(stage: Stage) -> None:
    delivery = stage.link.deliver()
    assert stage.published(1) == ["feedback.results"]
    assert (stage.in_flight, stage.link.acked) == (1, [])
    stage.link.answer()
    assert (stage.in_flight, stage.link.acked) == (0, [delivery])
    assert b'selfheal_worker_messages_total{outcome="answered"} 1.0' in stage.worker.exposition()


def test_what_is_no_message_goes_to_the_dead_letters(stage: Stage) -> None:
    stage.link.deliver(b"no JSON")
    assert stage.published(1) == ["feedback.dead-letters"]
    (made,) = stage.link.answer()
    assert made.properties.headers["x-selfheal-reason"] == "malformed_json"
    assert stage.in_flight == 0


def test_answers_that_are_refused_are_sent_again_and_then_work_flows_again(stage: Stage) -> None:
    first = stage.link.deliver()
    stage.published(1)  # before the second comes: handlers may finish in any order
    second = stage.link.deliver()
    stage.published(2)
    stage.link.answer(REFUSED, REFUSED)
    assert stage.breakers["results"] == "open"
    assert not stage.link.consuming
    stage.worker.on_cancelled()
    assert stage.published(2) == ["feedback.results"] * 2
    assert stage.breakers["results"] == "probing"
    stage.link.answer(CONFIRMED, REFUSED)  # one that is refused keeps it open
    assert stage.breakers["results"] == "open"
    assert stage.link.acked == [first]
    assert stage.published(1) == ["feedback.results"]
    stage.link.answer()
    assert stage.breakers["results"] == "closed"
    assert stage.link.acked == [first, second]
    assert stage.link.consuming


def test_what_is_finished_during_a_probe_is_published_after_it(stage: Stage) -> None:
    stage.link.deliver(text("held"))
    stage.link.deliver()
    stage.published(1)
    stage.link.answer(REFUSED)
    stage.published(1)  # the probe
    stage.model.let_go.set()
    stage.until(lambda: CALLS_RUNNING + b" 0.0" in stage.worker.exposition())
    assert stage.published(1) == ["feedback.results"]
    stage.link.answer()
    assert stage.published(1) == ["feedback.results"]
    stage.link.answer()
    assert stage.in_flight == 0


def test_after_a_lost_connection_one_message_shows_whether_a_full_queue_has_room(
    stage: Stage,
) -> None:
    stage.link.deliver()
    stage.published(1)
    stage.link.answer(REFUSED)
    stage.link.lose()
    assert stage.in_flight == 0
    stage.link.waiting = [text("a"), text("b")]
    stage.link.connect()
    stage.until(lambda: stage.in_flight == 1)
    assert not stage.link.consuming
    assert stage.published(1) == ["feedback.results"]  # the next probe sends it
    assert len(stage.link.waiting) == 1
    stage.link.answer()
    assert stage.breakers["results"] == "closed"
    assert stage.link.consuming


def test_a_queue_that_was_deleted_and_is_declared_again_lets_work_flow(stage: Stage) -> None:
    stage.link.deliver()
    stage.published(1)
    stage.link.answer(Outcome.RETURNED)
    stage.link.lose()
    stage.link.connect()
    stage.until(lambda: stage.breakers["results"] == "closed")
    assert stage.link.consuming


def test_a_probe_that_the_connection_was_lost_under_is_made_again(stage: Stage) -> None:
    stage.link.deliver()
    stage.published(1)
    stage.link.answer(REFUSED)
    stage.published(1)
    assert stage.breakers["results"] == "probing"
    stage.link.lose()
    assert stage.breakers["results"] == "open"
    stage.link.connect()
    stage.until(lambda: stage.breakers["results"] == "closed")  # nothing waits for room


def test_a_model_that_is_away_stops_the_consumer_and_its_messages_go_back(stage: Stage) -> None:
    stage.model.away = True
    delivery = stage.link.deliver()
    assert stage.published(1) == ["feedback"]
    assert not stage.link.consuming
    stage.link.answer()
    assert stage.link.acked == [delivery]
    stage.worker.on_cancelled()
    stage.model.away = False
    stage.until(lambda: stage.breakers["model"] == "closed")
    assert stage.link.consuming


def test_what_comes_after_the_consumer_was_cancelled_goes_back(stage: Stage) -> None:
    stage.model.away = True
    stage.link.deliver()
    stage.published(1)
    stage.link.answer()
    stage.link.deliver(text("late"))
    assert [made.body for made in stage.link.answer()] == [text("late")]


def test_a_message_that_may_have_ended_workers_is_alone(stage: Stage) -> None:
    stage.link.deliver(text("held"))
    assert stage.model.begun.get(timeout=60) == "held"
    suspect = {"redelivered": True, "x-delivery-count": 2}
    stage.link.deliver(text("one"), **suspect)
    stage.link.deliver(text("two"), **suspect)
    assert not stage.link.consuming
    stage.link.deliver(text("other"))
    assert [made.body for made in stage.link.answer()] == [text("other")]  # it goes back
    assert stage.model.begun.empty()
    stage.model.let_go.set()
    stage.published(1)
    stage.link.answer()
    assert stage.model.begun.get(timeout=60) == "one"
    stage.published(1)
    assert stage.model.begun.empty()
    stage.link.answer()
    assert stage.model.begun.get(timeout=60) == "two"
    stage.worker.on_cancelled()
    stage.published(1)
    stage.link.answer()
    stage.until(lambda: stage.link.consuming)


def test_suspects_go_back_when_the_model_is_away(stage: Stage) -> None:
    stage.link.deliver(text("held"))
    stage.model.begun.get(timeout=60)
    stage.link.deliver(text("one"), redelivered=True, **{"x-delivery-count": 2})
    stage.model.away = True
    stage.link.deliver(text("two"), redelivered=True, **{"x-delivery-count": 2})
    stage.worker.stop()
    stage.worker.on_tick()
    assert {made.body for made in stage.link.answer()} == {text("one"), text("two")}


def oversized(stage: Stage) -> tuple[Delivery, Any]:
    delivery = stage.link.delivery(b"")
    delivery.oversized = 10**9
    publication, done = stage.worker.on_oversized(delivery)
    assert publication.queue == "feedback.dead-letters"
    assert publication.properties.headers["x-selfheal-reason"] == "body_too_large"
    stage.worker.on_delivery(delivery)  # its end
    assert stage.link.published == []
    return delivery, done


def test_a_body_that_is_too_large_is_acked_when_it_is_a_dead_letter(stage: Stage) -> None:
    delivery, done = oversized(stage)
    assert stage.in_flight == 1
    done(CONFIRMED)
    assert (stage.in_flight, stage.link.acked, stage.link.requeued) == (0, [delivery], [])


def test_a_body_that_is_too_large_is_requeued_when_the_dead_letters_are_full(stage: Stage) -> None:
    delivery, done = oversized(stage)
    done(REFUSED)
    assert (stage.in_flight, stage.link.acked, stage.link.requeued) == (0, [], [delivery])
    assert stage.breakers["results"] == "open"
    assert not stage.link.consuming


def test_a_worker_that_stops_finishes_what_it_has(stage: Stage) -> None:
    delivery = stage.link.deliver(text("held"))
    stage.model.begun.get(timeout=60)
    stage.worker.stop()
    assert stage.worker.status().not_ready == ("stopping",)
    stage.worker.on_tick()
    assert not stage.link.consuming
    stage.worker.on_cancelled()
    assert not stage.link.closed
    stage.model.let_go.set()
    assert stage.published(1) == ["feedback.results"]
    stage.link.answer()
    assert stage.link.acked == [delivery]
    assert stage.link.closed


def test_a_worker_that_stops_waits_until_no_message_can_come(stage: Stage) -> None:
    stage.worker.stop()
    stage.worker.on_tick()
    assert not stage.link.closed
    stage.link.deliver()
    stage.worker.on_cancelled()
    assert not stage.link.closed
    assert [made.queue for made in stage.link.answer()] == ["feedback"]
    assert stage.link.closed


def test_what_comes_between_the_signal_and_the_tick_begins_the_end(stage: Stage) -> None:
    stage.worker.stop()
    stage.link.deliver()
    assert not stage.link.consuming
    assert [made.queue for made in stage.link.answer()] == ["feedback"]
    stage.worker.on_cancelled()
    assert stage.link.closed


def test_a_second_signal_requeues_what_is_not_finished(stage: Stage) -> None:
    stage.link.deliver(text("held"))
    stage.link.deliver(text("done"))
    stage.published(1)
    stage.link.answer(REFUSED)  # its answer is parked
    stage.worker.stop()
    stage.worker.on_tick()
    stage.worker.on_cancelled()
    assert stage.link.published == []
    stage.worker.stop()
    stage.worker.on_tick()
    published = stage.link.answer()
    assert {made.queue for made in published} == {"feedback"}
    assert {made.body for made in published} == {text("held"), text("done")}
    assert stage.link.closed


def test_without_a_connection_it_stops_at_once(stage: Stage) -> None:
    stage.link.deliver(text("held"))
    stage.link.lose()
    stage.worker.stop()
    stage.worker.on_tick()
    assert stage.link.closed
