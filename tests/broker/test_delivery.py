"""What goes in comes out: as a result or as a dead letter, once, with its ids."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.broker.release_lines import each_line
from tests.support.worker_process import command, environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.broker.conftest import StartWorker
    from tests.support.fake_ollama import FakeOllama
    from tests.support.rabbit import Vhost

TEXT = "I love this shop, thank you!"


def bodies(number: int, first: int = 0) -> list[bytes]:
    return [
        json.dumps({"id": f"m{n}", "text": f"{TEXT} Order {n}."}).encode()
        for n in range(first, first + number)
    ]


def ids(taken: list[tuple[bytes, Any]]) -> list[str]:
    return sorted(json.loads(body)["id"] for body, _ in taken)


def test_two_hundred_messages_are_answered_once_each(
    vhost: Vhost, start_worker: StartWorker
) -> None:
    worker = start_worker(vhost.uri).ready()
    vhost.publish(bodies(200))
    taken = vhost.take("feedback.results", 200)
    assert ids(taken) == sorted(f"m{n}" for n in range(200))
    worker.until("still in flight", lambda: worker.progress()["in_flight"] == 0)
    assert vhost.count("feedback") == vhost.count("feedback.results") == 0
    assert vhost.count("feedback.dead-letters") == 0
    answered = 'selfheal_worker_messages_total{outcome="answered"}'
    worker.until("not all count as answered", lambda: worker.metric(answered) == 200)
    assert worker.terminate() == 0


@each_line
def test_a_result_carries_ids_trace_and_unknown_fields(
    vhost: Vhost, start_worker: StartWorker
) -> None:
    worker = start_worker(vhost.uri).ready()
    body = {"id": 7, "text": TEXT, "metadata": {"shop": "Köln"}, "sentiment": "mine", "x": [1]}
    vhost.publish(
        [json.dumps(body).encode()],
        message_id="amqp-id",
        correlation_id="c-1",
        timestamp=1_700_000_000,
        headers={"traceparent": "00-ab-cd-01", "tracestate": "k=v", "other": "stays here"},
    )
    ((got, properties),) = vhost.take("feedback.results", 1)
    result = json.loads(got)
    assert result["id"] == 7
    assert result["primary_emotion"] == "Joy"
    assert result["sentiment"] == "Positive"
    assert 0 <= result["confidence_score"] <= 1
    assert all(phrase in TEXT for phrase in result["key_phrases"])
    assert result["model"]["provider"] == "builtin"
    assert result["model"]["version"]
    assert result["degraded"] is False
    assert result["metadata"] == {"shop": "Köln"}
    assert result["extra"] == {"sentiment": "mine", "x": [1]}
    assert result["timings"]["queue_wait"] > 0
    # The result is there before the worker knows it, which counts the message then.
    duration = "selfheal_worker_process_duration_seconds_count"
    worker.until("it is not counted", lambda: worker.metric(duration) == 1)
    assert worker.metric("selfheal_worker_queue_wait_seconds_count") == 1
    assert worker.metric("selfheal_worker_queue_wait_seconds_sum") > 3600
    assert "text" not in result
    assert "id_generated" not in result
    assert properties.message_id == "7"
    assert properties.correlation_id == "c-1"
    assert properties.content_type == "application/json"
    assert properties.headers == {"traceparent": "00-ab-cd-01", "tracestate": "k=v"}


def test_the_id_is_the_bodys_else_the_message_id_else_a_fresh_one(
    vhost: Vhost, start_worker: StartWorker
) -> None:
    start_worker(vhost.uri).ready()
    body = json.dumps({"text": TEXT}).encode()
    vhost.publish([body], message_id="from-amqp")
    assert ids(vhost.take("feedback.results", 1)) == ["from-amqp"]
    vhost.publish([body, body])
    results = [json.loads(one) for one, _ in vhost.take("feedback.results", 2)]
    assert all(result["id_generated"] for result in results)
    assert results[0]["id"] != results[1]["id"]


POISON = [
    (b"", "malformed_json"),
    (b"\xff\xfe\x00garbage", "malformed_json"),
    (b'{"text": "half', "malformed_json"),
    (b'{"text": NaN}', "malformed_json"),
    (b'{"text": "x", "n": ' + b"9" * 5000 + b"}", "malformed_json"),
    (b'["text"]', "not_an_object"),
    (b'"text"', "not_an_object"),
    (b"null", "not_an_object"),
    (b'{"id": 1}', "missing_text"),
    (b'{"text": 5}', "text_not_a_string"),
    (b'{"text": null}', "text_not_a_string"),
    (b'{"text": ""}', "blank_text"),
    (b'{"text": " \\n\\t\\u0000"}', "blank_text"),
    (b'{"text": "' + b"x" * 2000 + b'"}', "text_too_large"),
    (b'{"text": "x", "id": []}', "bad_id"),
    (b'{"text": "x", "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested_too_deep"),
]


@each_line
def test_poison_goes_to_the_dead_letters_in_one_delivery(
    vhost: Vhost, start_worker: StartWorker
) -> None:
    worker = start_worker(vhost.uri, MAX_TEXT_BYTES=1000).ready()
    vhost.publish([body for body, _ in POISON], message_id="p", headers={"mine": "kept"})
    vhost.publish(bodies(1))
    letters = vhost.take("feedback.dead-letters", len(POISON))
    found = dict(letters)
    for body, reason in POISON:
        headers = found[body].headers
        assert headers["x-selfheal-reason"] == reason, body[:40]
        assert headers["x-selfheal-attempts"] == 1
        assert headers["x-selfheal-error-class"]
        assert headers["x-selfheal-first-time"] == headers["x-selfheal-last-time"]
        assert headers["x-selfheal-original-exchange"] == ""
        assert headers["x-selfheal-original-routing-key"] == "feedback"
        assert headers["mine"] == "kept"
        assert "x-death" not in headers
        assert found[body].message_id == "p"
    assert ids(vhost.take("feedback.results", 1)) == ["m0"]
    assert vhost.count("feedback") == 0
    assert worker.get("/healthz")[0] == 200
    log = worker.log.read_text()
    assert "xxxx" not in log
    assert "half" not in log


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"n": 2**62, "d": {"deep": [1, {"x": None}]}, "b": b"\xff"}, id="odd types"),
        pytest.param({"x-selfheal-attempts": "many"}, id="attempts that are no number"),
        pytest.param({"x-selfheal-attempts": -5}, id="attempts below zero"),
        pytest.param({"x-death": "what", "x-selfheal-first-time": 5}, id="records of others"),
        pytest.param({"CC": ["feedback.results"]}, id="a copy to elsewhere"),
    ],
)
def test_no_header_can_stop_a_message(
    vhost: Vhost, start_worker: StartWorker, headers: dict[str, Any]
) -> None:
    command(environment(vhost.uri), "topology")
    vhost.publish([b"poison", *bodies(1)], headers=headers)
    copies = vhost.count("feedback.results")  # what the publisher's own CC put there
    worker = start_worker(vhost.uri).ready()
    vhost.take("feedback.dead-letters", 1)
    assert len(vhost.take("feedback.results", 1 + copies)) == 1 + copies
    assert vhost.count("feedback.results") == 0
    assert worker.get("/healthz")[0] == 200


def test_headers_that_no_client_can_read_do_not_end_the_process(
    vhost: Vhost, start_worker: StartWorker
) -> None:
    """A date of a far future: pika raises in the connection's thread when it decodes one."""
    import struct

    import pika.data

    command(environment(vhost.uri), "topology")
    plain = pika.data.encode_value
    try:
        pika.data.encode_value = lambda pieces, value: (
            pieces.append(b"T" + struct.pack(">Q", 2**62)) or 9
            if isinstance(value, float)
            else plain(pieces, value)
        )
        vhost.publish([b"poison", *bodies(1)], headers={"when": 0.5})
    finally:
        pika.data.encode_value = plain
    start_worker(vhost.uri).ready()
    ((_, properties),) = vhost.take("feedback.dead-letters", 1)
    assert properties.headers["x-selfheal-unreadable-headers"] is True
    assert properties.headers["x-selfheal-reason"] == "malformed_json"
    assert ids(vhost.take("feedback.results", 1)) == ["m0"]


def test_a_result_that_no_broker_takes_is_a_dead_letter(
    vhost: Vhost, start_worker: StartWorker
) -> None:
    """RabbitMQ 4 takes 16 MiB, and says so by closing the channel. Metadata grows on its way: é is
    six bytes then."""
    worker = start_worker(vhost.uri, MAX_BODY_BYTES=2**24).ready()
    whole = {"id": "m0", "text": "good", "metadata": "é" * 3_000_000}
    vhost.publish([json.dumps(whole, ensure_ascii=False).encode()])
    ((body, properties),) = vhost.take("feedback.dead-letters", 1)
    assert json.loads(body) == whole
    assert properties.headers["x-selfheal-reason"] == "result_too_large"
    vhost.publish(bodies(3, first=1))
    assert ids(vhost.take("feedback.results", 3)) == ["m1", "m2", "m3"]
    assert worker.metric("selfheal_worker_broker_disconnects_total") == 1


@each_line
def test_a_message_of_another_user_can_be_retried_and_dead_lettered(
    vhost: Vhost, start_worker: StartWorker
) -> None:
    """user_id and expiration are not passed on: the broker would refuse the one and delete a dead
    letter by the other."""
    command(environment(vhost.uri), "topology")
    vhost.publish([b"poison"], user_id="selfheal", expiration="60000", reply_to="r")
    start_worker(vhost.uri).ready()
    ((_, properties),) = vhost.take("feedback.dead-letters", 1)
    assert properties.user_id is None
    assert properties.expiration is None
    assert properties.reply_to == "r"


def test_two_workers_share_the_work(vhost: Vhost, start_worker: StartWorker) -> None:
    both = [start_worker(vhost.uri, FAULT_MODEL_DELAY=0.05) for _ in range(2)]
    for worker in both:
        worker.ready()
    vhost.publish(bodies(200))
    assert ids(vhost.take("feedback.results", 200)) == sorted(f"m{n}" for n in range(200))
    for worker in both:
        assert worker.metric('selfheal_worker_messages_total{outcome="answered"}') > 0
    assert vhost.count("feedback.results") == 0


def test_n_messages_are_in_flight_and_no_more(
    vhost: Vhost, start_worker: StartWorker, hang: Path
) -> None:
    worker = start_worker(vhost.uri, CONCURRENCY=3, FAULT_MODEL_HANG_FILE=hang).ready()
    vhost.publish(bodies(9))
    worker.wait_in_flight(3)
    vhost.wait_count("feedback", 6)
    progress = worker.progress()
    assert (progress["in_flight"], progress["concurrency"]) == (3, 3)
    assert progress["last_progress"] > 1_700_000_000
    hang.unlink()
    vhost.take("feedback.results", 9)
    assert worker.progress()["last_progress"] > progress["last_progress"]


def test_ollama_is_asked_with_the_schema_and_its_tokens_are_counted(
    vhost: Vhost, start_worker: StartWorker, model: FakeOllama
) -> None:
    worker = start_worker(vhost.uri, **model.env).ready()
    vhost.publish(bodies(1))
    ((body, _),) = vhost.take("feedback.results", 1)
    result = json.loads(body)
    assert result["model"] == {"provider": "ollama", "name": "tiny:1b", "version": "0123456789ab"}
    assert result["primary_emotion"] == "Joy"
    version = 'model_version="0123456789ab"'
    labels = (
        'gen_ai_operation_name="chat",gen_ai_provider_name="ollama",gen_ai_request_model="tiny:1b"'
    )
    assert (
        worker.metric(
            f'gen_ai_client_token_usage_sum{{{labels},gen_ai_token_type="input",{version}}}'
        )
        == 11
    )
