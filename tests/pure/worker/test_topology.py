from __future__ import annotations

import pytest

from selfheal_worker.broker.topology import NO_DELIVERY_LIMIT, Queue, conflict, queues
from selfheal_worker.config import load

URI = "amqp://broker/"


def test_every_queue_is_a_quorum_queue_with_an_explicit_delivery_limit() -> None:
    for queue in queues(load({"AMQP_URI": URI})):
        assert queue.arguments["x-queue-type"] == "quorum"
        assert "x-delivery-limit" in queue.arguments


def test_the_work_queue_and_the_ladder_dead_letter_at_least_once() -> None:
    made = {queue.name: queue.arguments for queue in queues(load({"AMQP_URI": URI}))}
    assert list(made) == [
        "feedback.dead-letters",
        "feedback.results",
        "feedback",
        "feedback.retry.1s",
        "feedback.retry.5s",
        "feedback.retry.30s",
        "feedback.retry.120s",
    ]
    for name, target in (("feedback", "feedback.dead-letters"), ("feedback.retry.5s", "feedback")):
        assert made[name]["x-dead-letter-exchange"] == ""
        assert made[name]["x-dead-letter-routing-key"] == target
        assert made[name]["x-dead-letter-strategy"] == "at-least-once"
        assert made[name]["x-overflow"] == "reject-publish"
    assert made["feedback"]["x-delivery-limit"] == 100
    assert made["feedback.retry.5s"]["x-message-ttl"] == 5000
    for name in ("feedback.results", "feedback.dead-letters"):
        assert made[name] == {"x-queue-type": "quorum", "x-delivery-limit": NO_DELIVERY_LIMIT}


def test_limits_are_arguments_only_where_they_are_wanted() -> None:
    settings = load(
        {
            "AMQP_URI": URI,
            "RESULTS_MAX_LENGTH": "10",
            "RESULTS_MAX_AGE": "60",
            "DLQ_MAX_LENGTH": "20",
            "DLQ_MAX_AGE": "120",
        }
    )
    made = {queue.name: queue.arguments for queue in queues(settings)}
    results, dead = made["feedback.results"], made["feedback.dead-letters"]
    assert (results["x-max-length"], results["x-message-ttl"]) == (10, 60_000)
    assert results["x-overflow"] == "reject-publish"
    assert (dead["x-max-length"], dead["x-message-ttl"]) == (20, 120_000)
    assert dead["x-overflow"] == "drop-head"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (
            "PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue 'q' in vhost '/': "
            "received the value '100' of type 'signedint' but current is the value '7' of type "
            "'signedint'",
            "x-delivery-limit is 7, the settings want 100",
        ),
        (
            "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': "
            "received none but current is the value '7000' of type 'signedint'",
            "x-message-ttl is 7000, the settings want not set",
        ),
        (
            "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': "
            "received 'true' but current is 'false'",
            "durable is false, the settings want true",
        ),
        ("PRECONDITION_FAILED - something new", "something new"),
    ],
)
def test_a_conflict_names_both_values(reply: str, said: str) -> None:
    text = conflict(Queue("q", {}), reply)
    assert "'q'" in text
    assert said in text
