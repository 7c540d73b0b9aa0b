from __future__ import annotations

import json

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


@pytest.mark.parametrize("name", ["QUEUE_NAME", "DLQ_NAME", "RESULTS_QUEUE"])
@pytest.mark.parametrize("character", ["\x00", "\t", "\n", "\x1f", "\x7f", "\x85", "\x9f"])
@pytest.mark.parametrize("where", ["{}b", "a{}b", "a{}"])
def test_a_queue_has_no_control_characters(name: str, character: str, where: str) -> None:
    value = where.format(character)
    if value.rstrip("\n") != value:
        value += "b"  # a line break at the end is a Secret's, and no part of the name
    with pytest.raises(SettingsError, match=f"^{name}: must have no control characters .got "):
        load({name: value}, broker=False)


@pytest.mark.parametrize(
    ("name", "value", "most"),
    [
        ("QUEUE_NAME", "ü" * 115, 230),
        ("QUEUE_NAME", "日" * 76 + "ab", 230),
        ("QUEUE_NAME", "😀" * 57 + "ab", 230),
        ("DLQ_NAME", "ü" * 127 + "a", 255),
        ("RESULTS_QUEUE", "日" * 85, 255),
        ("AMQP_VHOST", "a" * 255, 255),
        ("AMQP_VHOST", "ü" * 127 + "a", 255),
    ],
)
def test_a_name_is_counted_in_bytes(name: str, value: str, most: int) -> None:
    assert len(value.encode()) == most
    found = load({name: value, "RETRY_DELAYS": "4294967"}, broker=False)
    queues = (found.queue_name, found.dlq_name, found.results_queue, found.delay_queue(4294967))
    assert all(len(one.encode()) <= 255 for one in queues)
    message = f"^{name}: has {most + 1} bytes, at most {most} are allowed"
    with pytest.raises(SettingsError, match=message):
        load({name: value + "a"}, broker=False)


@pytest.mark.parametrize("name", ["QUEUE_NAME", "DLQ_NAME", "RESULTS_QUEUE"])
def test_names_that_the_broker_keeps_for_itself_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name}: must not begin with 'amq\.'"):
        load({name: "amq.work"}, broker=False)
    load({name: "amqp"}, broker=False)


@pytest.mark.parametrize("name", ["DLQ_NAME", "RESULTS_QUEUE"])
@pytest.mark.parametrize("taken", ["q.retry.1s", "q.retry.120s", "q.rights"])
def test_no_other_queue_has_a_name_that_the_worker_uses_itself(name: str, taken: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is {taken}, a name that"):
        load({"QUEUE_NAME": "q", name: taken}, broker=False)
    load({"QUEUE_NAME": "q", name: "q.retry.2s"}, broker=False)


@pytest.mark.parametrize("provider", ["Ollama", "open ai", "-x", "open/ai", "o" + "é"])
def test_providers_have_the_names_that_the_chart_allows(provider: str) -> None:
    with pytest.raises(SettingsError, match=r"^MODEL_PROVIDER: "):
        load({"MODEL_PROVIDER": provider}, broker=False)
    with pytest.raises(SettingsError, match=r"^MODELS: a\.provider: "):
        load({"MODELS": json.dumps({"a": {"provider": provider}})}, broker=False)


@pytest.mark.parametrize(
    "field",
    [
        {"temperature": "0.5"},
        {"temperature": True},
        {"seed": "1"},
        {"seed": True},
        {"maxOutputTokens": "512"},
        {"contextTokens": 512.5},
        {"contextTokens": "4096"},
        {"deadlineSeconds": "30"},
        {"concurrency": "2"},
        {"concurrency": True},
        {"requestsPerMinute": "60"},
        {"version": 2},
        {"name": 3},
    ],
)
def test_fields_of_named_models_have_the_chart_s_types(field: dict[str, object]) -> None:
    (name,) = field
    with pytest.raises(SettingsError, match=f"^MODELS: a.{name}: "):
        load({"MODELS": json.dumps({"a": {"provider": "ollama", **field}})}, broker=False)


def test_whole_numbers_of_named_models_need_no_fraction() -> None:
    models = {"a": {"provider": "builtin", "temperature": 1, "deadlineSeconds": 30, "seed": 7}}
    found = load({"MODELS": json.dumps(models)}, broker=False).models["a"]
    assert (found.temperature, found.deadline_seconds, found.seed) == (1.0, 30.0, 7)


@pytest.mark.parametrize(
    ("environ", "warned"),
    [
        ({}, False),
        ({"MODEL_DEADLINE": "90"}, False),  # the grace is Kubernetes' own default
        ({"SHUTDOWN_GRACE": "60"}, False),
        ({"SHUTDOWN_GRACE": "59"}, True),
        ({"SHUTDOWN_GRACE": "89", "MODEL_DEADLINE": "90"}, True),
    ],
)
def test_a_grace_below_the_deadline_is_reported(environ: dict[str, str], warned: bool) -> None:
    found = load(environ, broker=False).warnings()
    assert [one.startswith("SHUTDOWN_GRACE") for one in found] == [True] * warned


def test_all_conflicts_are_reported_at_once() -> None:
    environ = {"DLQ_NAME": "feedback", "MODEL_ACTIVE": "a", "MODEL_FALLBACK": "b,b"}
    with pytest.raises(SettingsError) as caught:
        load(environ | {"MAX_BODY_BYTES": "1", "AMQP_KEY_FILE": "/k"}, broker=False)
    assert len(str(caught.value).splitlines()) == 7


@pytest.mark.parametrize("provider", ["ollama", "openai", "langchain", "llamacpp"])
@pytest.mark.parametrize("name", [{}, {"name": None}, {"name": ""}])
def test_a_named_model_that_nobody_uses_yet_needs_its_name_too(
    provider: str, name: dict[str, object]
) -> None:
    models = {"later": {"provider": provider, **name}, "own": {"provider": "a-plug-in"}}
    with pytest.raises(SettingsError) as caught:
        load({"MODELS": json.dumps(models)}, broker=False)
    assert str(caught.value) == (
        f"MODELS: later.name is not set; the provider {provider} needs the name of a model"
    )
