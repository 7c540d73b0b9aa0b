"""The modelled broker does what RabbitMQ does, as far as the worker relies on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pika
import pytest

from selfheal_worker.broker import (
    BrokerError,
    Delivery,
    Done,
    Link,
    Outcome,
    Publication,
    topology,
)
from selfheal_worker.config import load
from tests.simulation.broker.broker import Broker
from tests.simulation.broker.loop import Loop
from tests.simulation.broker.queues import Message, Queue, dead_lettered, is_cycle
from tests.simulation.broker.session import properties
from tests.simulation.scheduler import Simulation
from tests.simulation.worker.process import logs_in_trace

ENV = {
    "AMQP_HOST": "broker",
    "AMQP_USERNAME": "user",
    "AMQP_PASSWORD": "password",
    "QUEUE_NAME": "work",
    "CONCURRENCY": "3",
    "RESULTS_MAX_LENGTH": "2",
    "RETRY_DELAYS": "5",
}


class Client:
    """The worker's own connection; what it hears. settle: what it does with a delivery."""

    def __init__(self, simulation: Simulation, name: str = "client", **env: str) -> None:
        self.settings = load(ENV | env)
        self.process = simulation.process(name)
        self.broker: Broker | None = None
        self.got: list[Delivery] = []
        self.outcomes: list[Outcome] = []
        self.downs: list[str] = []
        self.cancelled = 0
        self.link: Any = None
        self.settle: Callable[[Delivery], None] = lambda _: None

    def begin(self, broker: Broker) -> Client:
        """Connect, and consume."""

        def main() -> None:
            self.link = Link(
                self.settings,
                topology.queues(self.settings),
                self,
                loop=lambda: Loop(self.process, broker),
                runtime=self.process,
            )
            self.link.run()

        self.process.start("main", main)
        return self

    def publish(self, queue: str, body: bytes = b"x") -> None:
        """Publish, and keep the outcome."""
        publication = Publication(queue, body, pika.BasicProperties())
        self.link.call_soon(lambda: self.link.publish(publication, self.outcomes.append))

    # --- as Events

    def on_up(self) -> None:
        self.link.consume()

    def on_down(self, error: BrokerError) -> None:
        self.downs.append(str(error))

    def on_cancelled(self) -> None:
        self.cancelled += 1

    def on_delivery(self, delivery: Delivery) -> None:
        self.got.append(delivery)
        self.settle(delivery)

    def on_oversized(self, delivery: Delivery) -> tuple[Publication, Done]:
        raise AssertionError

    def on_tick(self) -> None: ...

    def bodies(self) -> list[bytes]:
        """What came."""
        return [one.body for one in self.got]


class Stage:
    """A broker with a client."""

    def __init__(self, seed: int = 1, **more: Any) -> None:
        self.simulation = Simulation(seed)
        self.broker = Broker(self.simulation, **more)
        self.seen: list[tuple[str, str]] = []
        self.broker.observe(lambda kind, queue, *_: self.seen.append((kind, queue)))
        self.client = Client(self.simulation).begin(self.broker)
        self.run(3.0)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        with logs_in_trace(self.simulation):
            self.simulation.run(self.simulation.now + seconds)

    def deliver(self, *bodies: bytes) -> None:
        """Put messages into the work queue."""
        for body in bodies:
            self.broker.publish("work", body, properties(body.decode()))

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self.simulation.close()


def test_the_prefetch_limits_what_is_delivered_without_an_ack() -> None:
    with Stage() as stage:
        stage.deliver(b"1", b"2", b"3", b"4")
        stage.run(1.0)
        assert stage.client.bodies() == [b"1", b"2", b"3"]
        stage.client.link.call_soon(lambda: stage.client.link.ack(stage.client.got[0]))
        stage.client.publish("work.results")  # acks go with confirms
        stage.run(1.0)
        assert stage.client.bodies() == [b"1", b"2", b"3", b"4"]
        assert len(stage.broker.messages("work")) == 3


def test_a_message_that_is_requeued_comes_again_first_with_its_count() -> None:
    with Stage() as stage:
        stage.client.settle = lambda one: (
            None if one.redelivered else stage.client.link.requeue(one)
        )
        stage.deliver(b"1")
        stage.run(1.0)
        first, again = stage.client.got
        assert (first.redelivered, again.redelivered) == (False, True)
        assert "x-delivery-count" not in first.headers
        assert again.headers["x-delivery-count"] == 1


def test_a_message_above_the_delivery_limit_becomes_a_dead_letter() -> None:
    with Stage() as stage:
        stage.client.settle = stage.client.link.requeue
        stage.deliver(b"1")
        stage.run(5.0)
        assert len(stage.client.got) == stage.client.settings.delivery_limit + 1
        [letter] = stage.broker.messages("work.dead-letters")
        assert letter.headers["x-first-death-reason"] == "delivery_limit"
        assert letter.headers["x-death"][0]["queue"] == "work"


def test_a_delay_queue_returns_a_message_after_its_time() -> None:
    with Stage() as stage:
        stage.client.publish("work.retry.5s", b"later")
        stage.run(4.9)
        assert (stage.client.outcomes, stage.client.got) == ([Outcome.CONFIRMED], [])
        stage.run(0.3)
        assert stage.client.bodies() == [b"later"]
        assert stage.client.got[0].headers["x-death"][0]["reason"] == "expired"


def test_a_full_queue_rejects_and_an_absent_one_returns() -> None:
    with Stage() as stage:
        for _ in range(3):
            stage.client.publish("work.results")
        stage.client.publish("nowhere")
        stage.run(1.0)
        assert sorted(one.name for one in stage.client.outcomes) == [
            *("CONFIRMED", "CONFIRMED", "REFUSED", "RETURNED"),
        ]


def test_a_dead_letter_waits_for_room_in_its_target() -> None:
    with Stage() as stage:
        stage.broker.fill("work.dead-letters", 30.0)
        stage.client.settle = stage.client.link.requeue
        stage.deliver(b"1")
        stage.run(20.0)
        assert len(stage.broker.messages("work")) == 1
        stage.run(20.0)
        assert len(stage.broker.messages("work.dead-letters")) == 1


def test_a_restart_takes_back_what_was_not_acked_and_keeps_what_was_confirmed() -> None:
    with Stage() as stage:
        stage.deliver(b"1", b"2")
        stage.client.publish("work.results")
        stage.run(1.0)
        stage.broker.restart(10.0)
        stage.run(5.0)
        assert not stage.client.link.up
        stage.run(30.0)
        assert stage.client.bodies() == [b"1", b"2"] * 2
        assert all(one.headers["x-delivery-count"] == 1 for one in stage.client.got[2:])
        assert len(stage.broker.messages("work.results")) == 1


@pytest.mark.parametrize("seed", range(8))
def test_what_was_not_confirmed_before_a_restart_is_there_or_not(seed: int) -> None:
    with Stage(seed) as stage:
        stage.broker.slow_down(20.0, 10.0)
        stage.client.publish("work.results")
        stage.run(1.0)
        stage.broker.restart(0.1)
        stage.run(20.0)
        assert stage.client.outcomes == [Outcome.LOST]
        there = len(stage.broker.messages("work.results"))
        assert there == (("queued", "work.results") in stage.seen)


def test_without_a_leader_a_queue_neither_delivers_nor_confirms() -> None:
    with Stage() as stage:
        stage.broker.change_leader("work", 10.0)
        stage.broker.change_leader("work.results", 10.0)
        stage.deliver(b"1")
        stage.client.publish("work.results")
        stage.run(9.0)
        assert (stage.client.got, stage.client.outcomes) == ([], [])
        stage.run(2.0)
        assert stage.client.bodies() == [b"1"]
        assert stage.client.outcomes == [Outcome.CONFIRMED]


def test_an_alarm_blocks_who_publishes_until_it_is_over() -> None:
    with Stage() as stage:
        stage.broker.alarm(120.0)
        stage.client.publish("work.results")
        stage.run(60.0)
        assert stage.client.link.blocked
        assert stage.client.outcomes == []
        stage.run(70.0)
        assert not stage.client.link.blocked
        assert (stage.client.outcomes, stage.client.downs) == ([Outcome.CONFIRMED], [])


def test_both_ends_find_a_half_open_connection_by_its_heartbeat() -> None:
    with Stage() as stage:
        stage.deliver(b"1")
        stage.run(1.0)
        stage.broker.lose_silently("client")
        stage.run(14.0)
        assert stage.client.downs == []
        stage.run(60.0)
        assert len(stage.client.downs) == 1
        assert "heartbeat" in stage.client.downs[0]
        assert stage.client.bodies() == [b"1", b"1"]


def test_a_message_that_is_not_acked_in_time_closes_its_channel() -> None:
    with Stage(consumer_timeout=1800.0) as stage:
        stage.deliver(b"1")
        stage.run(1700.0)
        assert stage.client.downs == []
        stage.run(300.0)
        assert "acknowledgement on channel" in stage.client.downs[0]
        assert len(stage.client.got) == 2


def test_a_message_that_is_too_large_closes_its_channel() -> None:
    with Stage(max_message_size=10) as stage:
        stage.client.publish("work.results", b"x" * 11)
        stage.run(10.0)
        assert "larger than configured max size 10" in stage.client.downs[0]
        assert stage.client.link.largest == 10


@pytest.mark.parametrize("fault", ["cancel_consumers", "close_channels", "disconnect"])
def test_the_client_comes_back_after(fault: str) -> None:
    with Stage() as stage:
        stage.deliver(b"1")
        stage.run(1.0)
        getattr(stage.broker, fault)("client")
        stage.run(10.0)
        assert len(stage.client.downs) == 1
        assert stage.client.bodies() == [b"1", b"1"]


@pytest.mark.parametrize("how", ["silent", "mute"])
def test_a_broker_that_does_not_answer_is_tried_again(how: Any) -> None:
    with Stage() as stage:
        stage.broker.hide(40.0, how)
        stage.broker.disconnect("client")
        stage.run(39.0)
        assert not stage.client.link.up
        assert "timed out" in stage.client.downs[-1]
        stage.run(30.0)
        assert stage.client.link.up


def test_publishes_to_a_queue_that_was_deleted_are_not_taken() -> None:
    with Stage() as stage:
        stage.broker.slow_down(5.0, 2.0)
        stage.client.publish("work.results")
        stage.run(1.0)
        stage.broker.delete("work.results")
        stage.client.publish("work.results")
        stage.run(5.0)
        assert stage.client.outcomes == [Outcome.REFUSED, Outcome.RETURNED]


def test_a_consumer_whose_queue_is_deleted_is_cancelled() -> None:
    with Stage() as stage:
        stage.broker.delete("work")
        stage.run(10.0)
        assert stage.client.downs == ["the broker cancelled the consumer"]
        stage.deliver(b"1")
        stage.run(1.0)
        assert stage.client.bodies() == [b"1"]


def test_what_a_killed_process_had_goes_to_another() -> None:
    with Stage() as stage:
        stage.deliver(b"1")
        stage.run(1.0)
        other = Client(stage.simulation, "other").begin(stage.broker)
        stage.run(5.0)
        stage.client.process.kill()
        stage.run(1.0)
        assert other.bodies() == [b"1"]


def test_a_queue_with_other_arguments_is_refused_by_name() -> None:
    with Stage() as stage:
        other = Client(stage.simulation, "other", RESULTS_MAX_LENGTH="3").begin(stage.broker)
        stage.run(5.0)
        assert "'work.results' exists with other arguments: x-max-length" in other.downs[0]


def _message(**headers: Any) -> Message:
    return Message(1, b"", pika.BasicProperties(headers=headers or None))


def test_a_message_that_died_in_a_queue_does_not_come_back_to_it_by_itself() -> None:
    message = _message()
    once = Message(1, b"", dead_lettered(message, "delay", "expired", 0))
    assert is_cycle(once, "delay")
    assert not is_cycle(once, "work")
    twice = Message(1, b"", dead_lettered(once, "delay", "expired", 0))
    assert [one["count"] for one in twice.headers["x-death"]] == [2]


def test_a_queue_that_drops_its_head_keeps_the_newest() -> None:
    queue = Queue("q", {"x-max-length": 2, "x-overflow": "drop-head"})
    messages = [Message(number, b"", pika.BasicProperties()) for number in range(3)]
    dropped = [one.number for message in messages for one in queue.put(message, 0.0)]
    assert (dropped, [one.number for one in queue.ready]) == ([0], [1, 2])


def test_a_message_of_its_own_expiry_goes_at_the_head() -> None:
    queue = Queue("q", {"x-message-ttl": 5000})
    queue.put(Message(1, b"", pika.BasicProperties(expiration="2000")), 1.0)
    assert queue.expires() == 3.0
