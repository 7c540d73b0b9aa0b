"""What was in flight when workers ended is tried alone."""

from __future__ import annotations

from typing import Any

import pika
import pytest

from selfheal_worker.broker import Delivery
from selfheal_worker.handlers import Work
from selfheal_worker.isolation import Isolation, is_suspect
from selfheal_worker.message import Message


def _delivery(
    tag: int = 1, *, headers: dict[str, Any] | None = None, redelivered: bool = True
) -> Delivery:
    properties = pika.BasicProperties(headers=headers)
    return Delivery(tag, 1, redelivered, "", "feedback", b"{}", properties)


def _work(tag: int = 1) -> Work:
    message = Message(id="1", id_generated=False, text="good", metadata=None, extra={})
    return Work(_delivery(tag), message, attempts=0, received=0.0, received_unix=0.0)


@pytest.mark.parametrize(
    ("headers", "suspect"),
    [
        ({}, False),
        ({"x-delivery-count": 0}, False),
        ({"x-delivery-count": 1}, False),
        ({"x-delivery-count": 2}, True),
        ({"x-delivery-count": 99}, True),
        ({"x-delivery-count": True}, False),
        ({"x-delivery-count": "7"}, False),
        ({"x-delivery-count": None}, False),
    ],
)
def test_after_its_second_redelivery(headers: dict[str, Any], suspect: bool) -> None:
    assert is_suspect(_delivery(headers=headers)) is suspect
    assert not is_suspect(_delivery(headers=headers, redelivered=False))


def test_while_suspects_are_tried_only_another_one_is_admitted() -> None:
    isolation = Isolation()
    suspect, other = _delivery(headers={"x-delivery-count": 2}), _delivery(redelivered=False)
    assert isolation.admits(suspect)
    assert isolation.admits(other)
    isolation.add(_work())
    assert isolation.admits(suspect)
    assert not isolation.admits(other)


def test_each_has_its_turn_when_nothing_else_is_in_flight() -> None:
    isolation, one, two = Isolation(), _work(1), _work(2)
    assert not isolation.active
    isolation.add(one)
    isolation.add(two)
    assert isolation.active
    assert isolation.next(in_flight=3) is None  # a message that came before
    assert isolation.next(in_flight=2) is one
    assert isolation.next(in_flight=2) is None
    isolation.settled(one)
    assert isolation.active
    assert isolation.next(in_flight=1) is two
    isolation.settled(two)
    assert not isolation.active


def test_those_that_wait_are_requeued_and_a_lost_connection_forgets_all() -> None:
    isolation, one, two, three = Isolation(), _work(1), _work(2), _work(3)
    for work in (one, two, three):
        isolation.add(work)
    assert isolation.next(in_flight=3) is one
    isolation.settled(three)
    assert isolation.give_up() == [two]
    assert isolation.active  # one is still tried
    isolation.clear()
    assert not isolation.active
