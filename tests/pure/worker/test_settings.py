from __future__ import annotations

import pytest

from selfheal_worker.config import SettingsError, load

URI = "amqp://user:hunter2@broker:5672/"


def test_the_broker_is_all_that_must_be_set() -> None:
    settings = load({"AMQP_URI": URI})
    assert settings.queue_name == "feedback"
    assert settings.dlq_name == "feedback.dead-letters"
    assert settings.results_queue == "feedback.results"
    assert settings.delay_queue(5) == "feedback.retry.5s"
    assert settings.retry_delays == (1, 5, 30, 120)
    assert load({}, broker=False).model_provider == "builtin"


def test_empty_means_not_set() -> None:
    assert load({"AMQP_URI": URI, "CONCURRENCY": "", "MODEL_NAME": ""}).concurrency == 8


def test_only_what_is_given_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCURRENCY", "99")
    monkeypatch.setenv("AMQP_URI", "")
    assert load({"AMQP_HOST": "h"}).concurrency == 8
    assert load(broker=False).concurrency == 99
    assert load(broker=False).amqp_uri is None


def test_names_follow_the_queue_unless_they_are_set() -> None:
    settings = load({"AMQP_URI": URI, "QUEUE_NAME": "q", "DLQ_NAME": "dead"})
    assert (settings.dlq_name, settings.results_queue) == ("dead", "q.results")


def test_all_errors_are_reported_at_once_with_names_and_what_is_allowed() -> None:
    with pytest.raises(SettingsError) as caught:
        load(
            {
                "CONCURRENCY": "none",
                "LOG_LEVEL": "loud",
                "RETRY_DELAYS": "5,1",
                "HTTP_PORT": "70000",
                "MODEL_BASE_URL": "ftp://x",
            }
        )
    lines = str(caught.value).splitlines()
    assert {line.split(":")[0] for line in lines} == {
        "CONCURRENCY",
        "LOG_LEVEL",
        "RETRY_DELAYS",
        "HTTP_PORT",
        "MODEL_BASE_URL",
        "AMQP_URI",
    }
    text = str(caught.value)
    assert "'debug', 'info', 'warning' or 'error'" in text
    assert "less than or equal to 65535" in text
    assert "(got 'loud')" in text


@pytest.mark.parametrize(
    "environ",
    [
        {"AMQP_URI": "hunter2@broker"},
        {"AMQP_URI": URI, "MODEL_API_KEY": "hunter2", "CONCURRENCY": "0"},
        {"AMQP_HOST": "h", "AMQP_PASSWORD": "hunter2", "AMQP_PORT": "x"},
    ],
)
def test_secrets_are_never_printed(environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load(environ)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(load({"AMQP_URI": URI, "AMQP_PASSWORD": "hunter2"}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RETRY_DELAYS", "1,,2"),
        ("RETRY_DELAYS", "0,5"),
        ("RETRY_DELAYS", "1.5"),
        ("RETRY_DELAYS", "5,5"),
        ("AMQP_URI", "http://x"),
        ("AMQP_URI", "amqp://a,http://b"),
        ("QUEUE_NAME", "a\nb"),
        ("QUEUE_NAME", "x" * 201),
        ("DLQ_NAME", "feedback"),
        ("AMQP_CERT_FILE", "/x"),
        ("MODEL_DEADLINE", "0"),
        ("DELIVERY_LIMIT", "0"),
        ("SHUTDOWN_GRACE", "-1"),
    ],
)
def test_refused(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load({"AMQP_URI": URI, name: value})


@pytest.mark.parametrize(
    ("environ", "most"),
    [
        ({}, 524_288),
        ({"MAX_TEXT_BYTES": "1000"}, 524_288),
        ({"MAX_TEXT_BYTES": "1000000"}, 8_000_000),
        ({"MAX_BODY_BYTES": "70000"}, 70_000),
    ],
)
def test_the_longest_body_follows_the_longest_text(environ: dict[str, str], most: int) -> None:
    assert load(environ, broker=False).max_body_bytes == most


def test_a_body_that_cannot_hold_its_text_is_refused() -> None:
    with pytest.raises(SettingsError, match="MAX_BODY_BYTES must not be below MAX_TEXT_BYTES"):
        load({"MAX_BODY_BYTES": "1000"}, broker=False)


@pytest.mark.parametrize("value", ["0", "-1", "1,nan", "1,4294968", "9999999", "1.5", "1e3", ""])
def test_delays_are_what_the_broker_takes(value: str) -> None:
    if not value:
        assert load({"RETRY_DELAYS": value}, broker=False).retry_delays == (1, 5, 30, 120)
        return
    with pytest.raises(SettingsError, match="RETRY_DELAYS"):
        load({"RETRY_DELAYS": value}, broker=False)
    assert load({"RETRY_DELAYS": "1,4294967"}, broker=False).retry_delays[-1] == 4_294_967


@pytest.mark.parametrize("name", ["RESULTS_MAX_AGE", "DLQ_MAX_AGE"])
def test_ages_are_what_the_broker_takes(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load({name: "4294968"}, broker=False)


@pytest.mark.parametrize(("deadline", "warned"), [("60", 0), ("1200", 0), ("1201", 1), ("3600", 1)])
def test_a_deadline_beyond_the_consumer_timeout_is_reported(deadline: str, warned: int) -> None:
    found = load({"MODEL_DEADLINE": deadline}, broker=False).warnings()
    assert len(found) == warned
    assert all("consumer_timeout" in one for one in found)
