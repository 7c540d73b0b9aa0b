"""The queues, and their arguments: only what never changes. Pure.

The work queue and the delay ladder are quorum queues that dead-letter at least once, which RabbitMQ
supports only together with the overflow reject-publish. A delivery limit is always set: since
RabbitMQ 4.0 the default is 20, after which a message without a dead-letter target is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from selfheal_worker.config import Settings

# For queues where no number of deliveries says anything against a message.
NO_DELIVERY_LIMIT = 2_147_483_647


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue and the arguments that it is declared with."""

    name: str
    arguments: Mapping[str, str | int]


def queues(settings: Settings) -> tuple[Queue, ...]:
    """All queues, in an order in which each dead-letter target exists before its source."""
    quorum: dict[str, str | int] = {"x-queue-type": "quorum"}
    kept = {**quorum, "x-delivery-limit": NO_DELIVERY_LIMIT}
    safe: dict[str, str | int] = {
        **quorum,
        "x-dead-letter-exchange": "",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    results = dict(kept)
    if settings.results_max_length:
        # Full: the publish is rejected, the worker stops consuming, nothing is lost.
        results |= {"x-max-length": settings.results_max_length, "x-overflow": "reject-publish"}
    if settings.results_max_age:
        results["x-message-ttl"] = settings.results_max_age * 1000
    dead = dict(kept)
    if settings.dlq_max_length:
        # Full: the oldest go, or one sender of rubbish could stop the work.
        dead |= {"x-max-length": settings.dlq_max_length, "x-overflow": "drop-head"}
    if settings.dlq_max_age:
        dead["x-message-ttl"] = settings.dlq_max_age * 1000
    work = {
        **safe,
        "x-dead-letter-routing-key": settings.dlq_name,
        "x-delivery-limit": settings.delivery_limit,
    }
    ladder = (
        Queue(
            settings.delay_queue(seconds),
            {
                **safe,
                "x-dead-letter-routing-key": settings.queue_name,
                "x-message-ttl": seconds * 1000,
                "x-delivery-limit": NO_DELIVERY_LIMIT,
            },
        )
        for seconds in settings.retry_delays
    )
    return (
        Queue(settings.dlq_name, dead),
        Queue(settings.results_queue, results),
        Queue(settings.queue_name, work),
        *ladder,
    )


_INEQUIVALENT = re.compile(
    r"inequivalent arg '(?P<argument>[^']+)' for queue '(?P<queue>.*?)' in vhost '(?P<vhost>.*?)': "
    r"received (?P<wanted>.+?) but current is (?P<found>.+?)$"
)


def conflict(queue: Queue, reply: str) -> str:
    """Say what a refused declaration (406) means, from the broker's reply text."""
    match = _INEQUIVALENT.search(reply)
    if match is None:
        return f"queue '{queue.name}' cannot be declared: {reply}"
    wanted, found = (_value(match[group]) for group in ("wanted", "found"))
    return (
        f"queue '{queue.name}' exists with other arguments: {match['argument']} is {found}, "
        f"the settings want {wanted}. Nothing was changed. Change the setting back, use another "
        "queue name, or empty and delete the queue"
    )


def _value(text: str) -> str:
    """RabbitMQ writes "the value '100' of type 'signedint'", "'true'" or "none"."""
    match = re.search(r"the value '(.*?)' of type", text)
    if match:
        return match[1]
    return "not set" if text.strip().startswith("none") else text.strip("' ")
