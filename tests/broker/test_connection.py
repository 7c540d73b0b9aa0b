"""The lasting connection by itself."""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING

import pytest

from selfheal_worker.broker import Done, Link, Outcome, Publication, new_properties
from selfheal_worker.broker.topology import queues
from selfheal_worker.config import load
from tests.broker.release_lines import each_line

if TYPE_CHECKING:
    from selfheal_worker.broker import BrokerError, Delivery
    from tests.support.rabbit import Vhost


class Clumsy:
    """Fails once, in the connection's thread: at a delivery, or at a tick."""

    def __init__(self, vhost: Vhost, where: str) -> None:
        self.where = where
        settings = load({"AMQP_URI": vhost.uri})
        self.link = Link(settings, queues(settings), self)
        self.up = threading.Event()
        self.ended = threading.Event()
        self.got: list[Delivery] = []
        self.down: list[str] = []

    def on_tick(self) -> None:
        if self.where == "tick" and self.got:
            self.where = "done"
            raise KeyError("nobody catches this")
        if self.up.is_set():
            self.link.consume()

    def on_up(self) -> None:
        self.up.set()

    def on_down(self, error: BrokerError) -> None:
        self.up.clear()
        self.down.append(str(error))

    def on_cancelled(self) -> None: ...

    def on_oversized(self, delivery: Delivery) -> tuple[Publication, Done]:
        raise AssertionError("no message here is that large")

    def on_delivery(self, delivery: Delivery) -> None:
        self.got.append(delivery)
        if len(self.got) == 1 and self.where == "delivery":
            raise KeyError("nobody catches this")
        if len(self.got) == 1:
            return
        properties = new_properties(None)
        publication = Publication("feedback.results", delivery.body, properties)

        def sent(outcome: Outcome) -> None:
            assert outcome is Outcome.CONFIRMED
            self.link.ack(delivery)
            self.link.call_soon(lambda: self.link.close(self.ended.set))

        self.link.publish(publication, sent)


class Hasty(Clumsy):
    """Cancels at its first delivery, when the others are on the way."""

    def __init__(self, vhost: Vhost) -> None:
        super().__init__(vhost, "nowhere")
        self.vhost = vhost
        self.filled = threading.Event()
        self.cancelled = threading.Event()

    def on_tick(self) -> None:
        if self.filled.is_set() and not self.got:
            self.link.consume()

    def on_delivery(self, delivery: Delivery) -> None:
        self.got.append(delivery)
        if len(self.got) == 1:
            end = time.monotonic() + 60
            while self.vhost.unacked() < 8 and time.monotonic() < end:
                time.sleep(0.05)
            self.link.cancel()

    def on_cancelled(self) -> None:
        self.cancelled.set()


@each_line
def test_what_is_on_the_way_when_the_consumer_is_cancelled_still_comes(vhost: Vhost) -> None:
    """pika would reject it, which counts as a delivery: enough of that, and it is a dead letter."""
    hasty = Hasty(vhost)
    thread = threading.Thread(target=hasty.link.run, daemon=True)
    thread.start()
    assert hasty.up.wait(60)
    vhost.fill([b"x"] * 20)
    hasty.filled.set()
    assert hasty.cancelled.wait(60)
    assert len(hasty.got) == 8  # the prefetch
    assert not any(delivery.redelivered for delivery in hasty.got)
    assert vhost.unacked() == 8
    hasty.link.call_soon(lambda: hasty.link.close(hasty.ended.set))
    assert hasty.ended.wait(60)
    thread.join(60)
    vhost.wait_count("feedback", 20)


class Idle(Clumsy):
    """Does not consume."""

    def on_tick(self) -> None: ...


@each_line
def test_one_message_is_taken_without_a_consumer(vhost: Vhost) -> None:
    idle = Idle(vhost, "nowhere")
    thread = threading.Thread(target=idle.link.run, daemon=True)
    thread.start()
    assert idle.up.wait(60)
    taken: SimpleQueue[Delivery | None] = SimpleQueue()
    for body in (None, b"x", None):
        if body is not None:
            vhost.publish([body])
        idle.link.call_soon(lambda: idle.link.get(taken.put))
        one = taken.get(timeout=60)
        assert (one.body if one is not None else None) == body
    idle.link.call_soon(lambda: idle.link.close(idle.ended.set))
    assert idle.ended.wait(60)
    thread.join(60)
    vhost.wait_count("feedback", 1)


@pytest.mark.parametrize(
    ("where", "why"), [("delivery", "connection lost"), ("tick", "internal error: KeyError")]
)
def test_an_exception_in_the_loop_is_a_lost_connection_and_no_end(
    vhost: Vhost, where: str, why: str
) -> None:
    clumsy = Clumsy(vhost, where)
    thread = threading.Thread(target=clumsy.link.run, daemon=True)
    thread.start()
    assert clumsy.up.wait(60)
    vhost.publish([b"x"])
    assert clumsy.ended.wait(60)
    thread.join(60)
    assert [delivery.body for delivery in clumsy.got] == [b"x", b"x"]
    assert clumsy.got[1].redelivered
    (said,) = clumsy.down
    assert why in said
    vhost.wait_count("feedback", 0)
