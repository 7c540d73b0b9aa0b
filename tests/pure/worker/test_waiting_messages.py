"""What the worker publishes for a message that waits, or that was moved back by hand."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pika
import pytest

from selfheal_worker.broker import Delivery, Publication
from selfheal_worker.config import load
from selfheal_worker.in_flight import InFlight
from selfheal_worker.metrics import Metrics
from selfheal_worker.model.chain_failure import combined
from selfheal_worker.model.errors import TextTooLongError, TransientError
from selfheal_worker.settlement import Settlement
from selfheal_worker.task import task_file
from tests.pure.worker.fake_link import FakeLink


@pytest.fixture
def published() -> Any:
    """What is published for a delivery with these headers whose analysis failed so."""
    settings, task = load({"AMQP_HOST": "h"}), task_file.load()
    link: Any = FakeLink(settings, (), Mock())
    in_flight = InFlight(settings)
    settlement = Settlement(
        settings, task, link, in_flight, Metrics(), settled=Mock(), changed=Mock()
    )

    def publish(error: Exception, headers: dict[str, Any]) -> Publication:
        properties = pika.BasicProperties(headers=headers)
        work = in_flight.begin(Delivery(1, 1, False, "ex", "key", b'{"text": "x"}', properties))
        settlement.fail(work, error, excused=False, stopping=False)
        made: Publication
        (made,) = link.answer()
        return made

    return publish


def test_a_text_that_a_fallback_refuses_waits_on_the_ladder_without_an_attempt(
    published: Any,
) -> None:
    for _ in range(20):
        made = published(combined([None, TextTooLongError("x")]), {"x-selfheal-attempts": 3})
        assert made.queue == "feedback.retry.120s"
        assert made.properties.headers["x-selfheal-attempts"] == 3


def test_a_text_that_all_refuse_is_dead_lettered(published: Any) -> None:
    error = TextTooLongError("x")
    made = published(combined([error, error]), {})
    assert made.queue == "feedback.dead-letters"
    assert made.properties.headers["x-selfheal-reason"] == "text_too_long"


def test_a_dead_letter_that_was_moved_back_counts_on_from_its_next_attempt(
    published: Any,
) -> None:
    headers = {
        "x-selfheal-attempts": 5,
        "x-selfheal-reason": "retries_exhausted",
        "x-selfheal-detail": "d",
        "x-selfheal-first-time": "2026-01-01T00:00:00.000+00:00",
        "mine": "kept",
    }
    for attempts in (1, 2, 3, 4):
        made = published(TransientError("x"), headers)
        headers = dict(made.properties.headers)
        assert headers["x-selfheal-attempts"] == attempts
        assert not headers.keys() & {"x-selfheal-reason", "x-selfheal-detail"}
    assert headers["x-selfheal-first-time"] == "2026-01-01T00:00:00.000+00:00"
    assert headers["mine"] == "kept"
    assert published(TransientError("x"), headers).queue == "feedback.dead-letters"
