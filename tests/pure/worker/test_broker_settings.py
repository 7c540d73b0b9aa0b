from __future__ import annotations

import ssl
from pathlib import Path
from unittest.mock import Mock

import pika
import pika.exceptions as amqp
import pytest

from selfheal_worker import dead_letters
from selfheal_worker.broker import (
    BrokerError,
    Delivery,
    Publication,
    address,
    copied_properties,
    explain,
    parameters,
    result_properties,
)
from selfheal_worker.broker.deliveries import Unconfirmed
from selfheal_worker.config import load
from selfheal_worker.retries import DeadLetter


def made(**environ: str) -> list[pika.ConnectionParameters]:
    return parameters(load(environ))


def delivery(body: bytes = b"{}", **properties: object) -> Delivery:
    return Delivery(1, 1, False, "ex", "key", body, pika.BasicProperties(**properties))


def test_a_uri_and_its_parts_mean_the_same() -> None:
    (by_uri,) = made(AMQP_URI="amqp://me:p%40ss@broker:5673/my%2Fhost")
    (by_parts,) = made(
        AMQP_HOST="broker",
        AMQP_PORT="5673",
        AMQP_VHOST="my/host",
        AMQP_USERNAME="me",
        AMQP_PASSWORD="p@ss",
    )
    for one in (by_uri, by_parts):
        assert (one.host, one.port, one.virtual_host) == ("broker", 5673, "my/host")
        assert (one.credentials.username, one.credentials.password) == ("me", "p@ss")
        assert one.heartbeat == 15
        assert address(one) == "amqp://me@broker:5673/my%2Fhost"


def test_several_addresses_and_credentials_apart() -> None:
    found = made(AMQP_URI="amqp://a:x@one/, amqp://b:y@two:1/v", AMQP_USERNAME="me")
    assert [(one.host, one.port, one.virtual_host) for one in found] == [
        ("one", 5672, "/"),
        ("two", 1, "v"),
    ]
    assert {one.credentials.username for one in found} == {"me"}
    assert [one.credentials.password for one in found] == ["x", "y"]
    hosts = made(AMQP_HOST="one,two:7", AMQP_PORT="9")
    assert [(one.host, one.port) for one in hosts] == [("one", 9), ("two", 7)]


def test_files_are_read_each_time(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("old\n")
    settings = load({"AMQP_HOST": "h", "AMQP_USERNAME": "u", "AMQP_PASSWORD_FILE": str(file)})
    assert parameters(settings)[0].credentials.password == "old"
    file.write_text("new\n")
    assert parameters(settings)[0].credentials.password == "new"
    file.unlink()
    with pytest.raises(BrokerError, match="password") as caught:
        parameters(settings)
    assert caught.value.permanent


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"AMQP_URI": "amqp://me@broker/"}, "the user 'me' but no password"),
        ({"AMQP_HOST": " , "}, "AMQP_HOST is empty"),
        ({"AMQP_URI": "amqps://broker/?ssl_options={"}, "cannot be read: bad value"),
        ({"AMQP_URI": "amqp://broker:port/"}, "cannot be read: bad value"),
    ],
)
def test_an_address_that_leads_nowhere_is_reported(environ: dict[str, str], said: str) -> None:
    with pytest.raises(BrokerError, match=said) as caught:
        made(**environ)
    assert caught.value.permanent


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "uri"
    file.write_text("\n")
    with pytest.raises(BrokerError, match="uri is empty"):
        made(AMQP_URI_FILE=str(file))


def test_no_address_shows_its_password() -> None:
    (one,) = made(AMQP_URI="amqp://me:hunter2@broker/")
    for error in (None, OSError("x"), amqp.ProbableAuthenticationError("y"), ssl.SSLError("z")):
        assert "hunter2" not in str(explain(error, one))


@pytest.mark.parametrize(
    ("error", "said", "permanent"),
    [
        (amqp.ProbableAuthenticationError("x"), "AMQP_PASSWORD", True),
        (amqp.ConnectionClosedByBroker(403, "ACCESS_REFUSED"), "AMQP_PASSWORD", True),
        (amqp.ConnectionClosedByBroker(530, "vhost nowhere not found"), "nowhere", True),
        (ssl.SSLError(1, "x"), "AMQP_CA_FILE", True),
        (amqp.AMQPConnectionError(ConnectionRefusedError(111, "Connection refused")), "ref", False),
        (amqp.ConnectionClosedByBroker(320, "CONNECTION_FORCED"), "320", False),
        (amqp.AMQPHeartbeatTimeout("x"), "heartbeat", False),
        (amqp.StreamLostError("x"), "lost", False),
        (amqp.IncompatibleProtocolError("x"), "port", False),
        (amqp.ConnectionOpenAborted("prev_state=TUNE"), "timed out before the connection", False),
        (None, "no reason", False),
    ],
)
def test_what_a_failure_means(error: BaseException | None, said: str, permanent: bool) -> None:
    (one,) = made(AMQP_URI="amqp://me:x@broker/")
    found = explain(error, one)
    assert said in str(found)
    assert "broker" in str(found)
    assert found.permanent is permanent


def test_a_copy_leaves_out_what_would_harm_it() -> None:
    got = delivery(
        user_id="u",
        expiration="5",
        reply_to="r",
        correlation_id="c",
        headers={
            "CC": ["x"],
            "BCC": ["x"],
            "x-death": [],
            "x-first-death-queue": "q",
            "x-opt-z": 1,
            "mine": 1,
            "traceparent": "t",
        },
    )
    copy = copied_properties(got, {"more": 2}, without={"mine"})
    assert copy.headers == {"traceparent": "t", "more": 2}
    assert (copy.user_id, copy.expiration, copy.reply_to) == (None, None, "r")
    assert copy.delivery_mode == 2
    assert copied_properties(got, {}, keep_expiration=True).expiration == "5"
    assert got.properties.headers["mine"] == 1


def test_a_results_properties() -> None:
    got = delivery(correlation_id="c", headers={"tracestate": "s", "mine": 1})
    properties = result_properties(got, "7")
    assert (properties.message_id, properties.correlation_id) == ("7", "c")
    assert properties.headers == {"tracestate": "s"}
    assert properties.content_type == "application/json"
    assert result_properties(delivery(), "7").headers is None


def test_the_story_of_a_dead_letter_keeps_its_beginning() -> None:
    first = dead_letters.retry_headers(delivery(), 1, "TransientError", 0.0)
    later = Delivery(2, 1, False, "", "q.retry", b"{}", pika.BasicProperties(headers=first))
    letter = DeadLetter("retries_exhausted", "BadOutputError", 2)
    headers = dead_letters.headers(later, letter, "d" * 999, 60.0)
    assert headers["x-selfheal-first-time"] == "1970-01-01T00:00:00.000+00:00"
    assert headers["x-selfheal-last-time"] == "1970-01-01T00:01:00.000+00:00"
    assert headers["x-selfheal-original-exchange"] == "ex"
    assert headers["x-selfheal-original-routing-key"] == "key"
    assert headers["x-selfheal-attempts"] == 2
    assert headers["x-selfheal-error-class"] == "BadOutputError"
    assert len(headers["x-selfheal-detail"]) == 500
    assert set(headers) == dead_letters.OWN_HEADERS


def test_a_story_without_attempts_beside_it_is_a_publishers_own() -> None:
    forged = {
        "x-selfheal-first-time": "1999-01-01T00:00:00+00:00",
        "x-selfheal-original-exchange": "theirs",
        "x-selfheal-original-routing-key": "theirs",
    }
    headers = dead_letters.retry_headers(delivery(headers=forged), 1, "TransientError", 0.0)
    assert headers["x-selfheal-first-time"] == "1970-01-01T00:00:00.000+00:00"
    assert headers["x-selfheal-original-exchange"] == "ex"
    assert headers["x-selfheal-original-routing-key"] == "key"


def test_a_story_continues_where_no_attempt_was_counted_yet() -> None:
    first = dead_letters.retry_headers(delivery(), 0, "LimitedError", 0.0)
    later = Delivery(2, 1, False, "", "q.retry", b"{}", pika.BasicProperties(headers=first))
    again = dead_letters.retry_headers(later, 1, "TransientError", 60.0)
    assert again["x-selfheal-first-time"] == "1970-01-01T00:00:00.000+00:00"
    assert again["x-selfheal-original-routing-key"] == "key"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        (
            {"x-selfheal-reason": "forged", "x-death": [{"reason": "delivery_limit"}]},
            "delivery_limit",
        ),
        ({"x-selfheal-reason": "blank_text"}, "blank_text"),
        ({"x-death": [{"reason": "delivery_limit", "routing-keys": ["k"]}]}, "delivery_limit"),
        ({"x-last-death-reason": "expired", "x-death": [{"reason": "other"}]}, "expired"),
        ({"x-death": "rubbish"}, "unknown"),
        ({}, "unknown"),
    ],
)
@pytest.mark.parametrize("body", [b"", b"\xff", b"[1]", b'{"id": true}', b'{"id": "a"}'])
def test_any_dead_letter_can_be_described(
    headers: dict[str, object], reason: str, body: bytes
) -> None:
    said = dead_letters.describe(delivery(body, headers=headers))
    assert said["reason"] == reason
    assert said["id"] == ("a" if b'"a"' in body else None)
    assert said["bytes"] == len(body)


def test_of_two_alike_each_is_returned_by_a_return_of_its_own() -> None:
    waiting, dones = Unconfirmed(), [Mock() for _ in range(3)]
    for done in dones:
        waiting.add(Publication("gone", b"the same", None), done)
    for _ in range(2):
        waiting.returned(pika.spec.Basic.Return(routing_key="gone"), b"the same")
    settled = list(waiting.settled(pika.spec.Basic.Ack(3, multiple=True)))
    assert [(one.done, one.returned) for one in settled] == [
        (dones[0], True),
        (dones[1], True),
        (dones[2], False),
    ]
    assert not waiting


def test_a_confirm_of_several_leaves_the_later_ones() -> None:
    waiting = Unconfirmed()
    first, second, third, fourth, fifth = dones = [Mock() for _ in range(5)]
    for done in dones:
        waiting.add(Publication("q", b"", None), done)
    assert [one.done for one in waiting.settled(pika.spec.Basic.Ack(3))] == [third]
    settled = waiting.settled(pika.spec.Basic.Ack(4, multiple=True))
    assert [one.done for one in settled] == [first, second, fourth]
    assert [one.done for one in waiting.drain()] == [fifth]
