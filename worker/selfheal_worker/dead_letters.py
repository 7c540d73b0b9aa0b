"""Dead letters: their headers, whoever sent them. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from selfheal_worker.broker import Delivery
from selfheal_worker.model.provider import UnconfirmedRefusalError
from selfheal_worker.model.refusals import MAY_RETRY, NO_HISTORY, RefusalHistory
from selfheal_worker.retries import ATTEMPTS_HEADER, REASON_HEADER, DeadLetter

# A larger body is not decoded for its id: that takes thirty times its size.
_MOST_DECODED = 1024 * 1024
REASON = REASON_HEADER
DETAIL = "x-selfheal-detail"
ERROR_CLASS = "x-selfheal-error-class"
FIRST_TIME = "x-selfheal-first-time"
LAST_TIME = "x-selfheal-last-time"
EXCHANGE = "x-selfheal-original-exchange"
ROUTING_KEY = "x-selfheal-original-routing-key"
# On a message that was sent to the queue again: it did not wait there since its timestamp.
REPLAYED = "x-selfheal-replayed"
OWN_HEADERS = frozenset(
    {ATTEMPTS_HEADER, REASON, DETAIL, ERROR_CLASS, FIRST_TIME, LAST_TIME, EXCHANGE, ROUTING_KEY}
)


def retry_headers(
    delivery: Delivery, attempts: int, error_class: str, now: float
) -> dict[str, Any]:
    """Headers of a message after so many failed attempts; now in Unix seconds.

    What the first attempt wrote stays: when it came, and the exchange and routing key by which it
    came (after the delay ladder they are the ladder's). Without a number of attempts beside them
    such headers are a publisher's, and say nothing.
    """
    got = delivery.headers
    old = got if isinstance(got.get(ATTEMPTS_HEADER), int) else {}
    stamp = _stamp(now)
    return {
        ATTEMPTS_HEADER: attempts,
        ERROR_CLASS: error_class,
        FIRST_TIME: _text(old.get(FIRST_TIME), stamp),
        LAST_TIME: stamp,
        EXCHANGE: _text(old.get(EXCHANGE), delivery.exchange),
        ROUTING_KEY: _text(old.get(ROUTING_KEY), delivery.routing_key),
    }


def refusal_history(
    got: Mapping[str, Any], attempts: int, received: float, *, max_attempts: int, delay: float
) -> RefusalHistory:
    """What a message's headers say for when its text is refused.

    received: when it came (`time.monotonic()`); delay: the shortest of the delay ladder, in which
    it was since it was refused. attempts: those before this one.
    """
    if attempts and got.get(ERROR_CLASS) == UnconfirmedRefusalError.__name__:
        return RefusalHistory(refused_by=received - delay)
    return MAY_RETRY if attempts + 1 < max_attempts else NO_HISTORY


def headers(delivery: Delivery, letter: DeadLetter, detail: str, now: float) -> dict[str, Any]:
    """Headers of a dead letter; detail is for people and never quotes the text."""
    return retry_headers(delivery, letter.attempts, letter.error_class, now) | {
        REASON: letter.reason,
        DETAIL: detail[:500],
    }


def _text(value: object, otherwise: str) -> str:
    return value if isinstance(value, str) else otherwise


def _stamp(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")


def describe(delivery: Delivery) -> dict[str, Any]:
    """What is known about a dead letter, without its text.

    The worker's own dead letters have x-selfheal headers and no x-death records, which it
    removes; those that the broker itself dead-lettered (delivery limit, expiry) have them, and a
    reason beside them is a publisher's.
    """
    death = _first_death(delivery.headers)
    got = delivery.headers
    if death:
        got = {name: value for name, value in got.items() if name not in (REASON, DETAIL)}
    if REASON in got:
        reason = got[REASON]
    else:
        reason = got.get("x-last-death-reason") or death.get("reason") or "unknown"
    when = death.get("time")
    stamp = when.isoformat() if isinstance(when, datetime) else None
    known = {
        "id": _body_id(delivery.body),
        "message_id": delivery.message_id,
        "reason": reason if isinstance(reason, str) else repr(_plain(reason)),
        "detail": got.get(DETAIL),
        "error_class": got.get(ERROR_CLASS),
        "attempts": got.get(ATTEMPTS_HEADER),
        "first_time": got.get(FIRST_TIME) or stamp,
        "last_time": got.get(LAST_TIME) if REASON in got else stamp,
        "original_exchange": got.get(EXCHANGE, death.get("exchange")),
        "original_routing_key": got.get(ROUTING_KEY) or _first(death.get("routing-keys")),
        "bytes": len(delivery.body),
    }
    return {name: _plain(value) for name, value in known.items()}


def _plain(value: object) -> Any:
    """Any AMQP value as one of JSON: publishers may have written what they like."""
    match value:
        case bytes():
            return value.decode(errors="replace")
        case datetime():
            return value.isoformat()
        case dict():
            return {str(_plain(name)): _plain(inside) for name, inside in value.items()}
        case list():
            return [_plain(inside) for inside in value]
    known = value is None or isinstance(value, bool | int | str)
    return value if known or (isinstance(value, float) and math.isfinite(value)) else str(value)


def _first_death(got: dict[str, Any]) -> dict[str, Any]:
    deaths = got.get("x-death")
    first = deaths[0] if isinstance(deaths, list) and deaths else None
    return first if isinstance(first, dict) else {}


def _first(value: object) -> object:
    return value[0] if isinstance(value, list) and value else None


def _body_id(body: bytes) -> str | int | None:
    if len(body) > _MOST_DECODED:
        return None
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return None
    found = fields.get("id") if isinstance(fields, dict) else None
    return found if isinstance(found, str | int) and not isinstance(found, bool) else None
