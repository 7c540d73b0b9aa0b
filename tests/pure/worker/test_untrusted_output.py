"""What publishers write reaches logs and terminals as data."""

from __future__ import annotations

import decimal
import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pika
import pytest

from selfheal_worker import dead_letters, logs
from selfheal_worker.broker import Delivery
from selfheal_worker.cli import dead_letters as letters
from selfheal_worker.cli import publish_results
from selfheal_worker.config import load
from selfheal_worker.task import prompt, task_file

ODD = [
    None,
    True,
    7,
    0.75,
    float("inf"),
    "text",
    "two\nlines",
    b"\xff\x1b[31m",
    decimal.Decimal("1.50"),
    datetime(2026, 1, 2, tzinfo=UTC),
    {"k": [b"\xff", {"d": decimal.Decimal(1)}], b"\xfe": 1},
    [],
    ["a", b"b"],
]


def letter(headers: dict[Any, Any], body: bytes = b'{"id": "7", "text": "x"}') -> Delivery:
    return Delivery(1, 1, False, "", "q", body, pika.BasicProperties(headers=headers))


@pytest.mark.parametrize("value", ODD, ids=repr)
@pytest.mark.parametrize(
    "name",
    [*sorted(dead_letters.OWN_HEADERS), "x-death", "x-last-death-reason", "x-first-death-queue"],
)
def test_headers_of_any_type_are_listed_and_shown(
    name: str, value: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deaths = [{"reason": value, "exchange": value, "routing-keys": value, "time": value}]
    found = letter({name: value if name != "x-death" else deaths})
    waiting = [found]

    class Session:
        def __init__(self, _: object) -> None: ...
        def __enter__(self) -> Session:
            return self

        def __exit__(self, *_: object) -> None: ...
        def count(self, _: str) -> int:
            return 1

        def get(self, _: str) -> Delivery | None:
            return waiting[0]

        def release(self, _: str) -> None: ...

    monkeypatch.setattr(letters, "Session", Session)
    for command in (["list"], ["list", "-o", "json"], ["show"], ["show", "-o", "json"]):
        from selfheal_worker.__main__ import main

        monkeypatch.setenv("AMQP_HOST", "h")
        assert main(["dead-letters", *command]) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out
        if "json" in command:
            json.loads(out)


def test_a_large_dead_letter_is_not_decoded_for_its_id() -> None:
    body = b'{"id": "7", "text": "' + b"x" * (2 * 1024 * 1024) + b'"}'
    assert dead_letters.describe(letter({}, body))["id"] is None


@pytest.mark.parametrize("bad", ["a\nb", "a\r\nb", "\x1b[2J", "a\u2028b", "\u202eb", "\ud800"])
def test_a_line_of_the_log_stays_one(bad: str) -> None:
    record = logging.LogRecord("n", logging.INFO, "p", 1, "%s", ("event",), None)
    record.fields = {"id": bad, "why": "no answer"}
    line = logs.TextFormatter().format(record)
    assert line.isprintable()
    assert line.encode()
    assert line.endswith(" why=no answer")


@pytest.mark.parametrize("form", [logs.TextFormatter(), logs.JsonFormatter()])
@pytest.mark.parametrize(
    "bad", ["a\nb", "a\r\nb", "\x1b[2J", "\x9b2J", "a\u2028b", "\u202eb", "\ud800", "\0", "\x7f"]
)
def test_a_line_stays_one_whatever_a_server_says_in_it(bad: str, form: logging.Formatter) -> None:
    """Its words are in the event, and in what an exception says."""
    try:
        raise ValueError(bad)
    except ValueError:
        said = ("http://h", f"no such model {bad} é")
        record = logging.LogRecord("n", 30, "p", 1, "%s said: %s", said, sys.exc_info())
    line = form.format(record)
    assert line.isprintable()
    assert line.encode()
    assert "http://h said: no such model" in line
    assert "é" in line or "\\u00e9" in line


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        (1_790_000_000, 1_790_000_000.0),
        (1_790_000_000_123, 1_790_000_000.123),
        (1_790_000_000_123_456, 1_790_000_000.123456),
        (1_790_000_000_123_456_789, 1_790_000_000.1234567),
        (0, None),
        (None, None),
        (True, None),
    ],
)
def test_a_timestamp_in_any_unit(stamp: int | None, seconds: float | None) -> None:
    properties = pika.BasicProperties(timestamp=stamp)
    got = Delivery(1, 1, False, "", "q", b"", properties).timestamp
    assert got == (seconds if seconds is None else pytest.approx(seconds))


def test_a_repair_quotes_an_answer_with_lone_surrogates() -> None:
    for role, content in prompt.repair_request(task_file.load(), "text", '{"a": "\ud800"}', "bad"):
        assert content.encode(), role


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"\xff", b"[1]", b"null", b'{"id": 1}', b"[" * 100_000, b'{"id": ' + b"9" * 5000),
        json.dumps(
            {
                "id": 1,
                "primary_emotion": "Joy",
                "sentiment": "Positive",
                "confidence_score": 10**400,
                "key_phrases": [],
            }
        ).encode(),
    ],
    ids=range(8),
)
def test_whatever_is_in_the_results_is_printed(
    body: bytes, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    acked: list[Delivery] = []

    class Session:
        def __init__(self, _: object) -> None: ...

        def __enter__(self) -> Session:
            return self

        def __exit__(self, *_: object) -> None: ...

        def deliveries(self, *_: object) -> Iterator[Delivery | None]:
            yield Delivery(1, 1, False, "", "results", body, pika.BasicProperties())

        def ack(self, delivery: Delivery) -> None:
            acked.append(delivery)

        def stop_deliveries(self) -> None: ...

    monkeypatch.setattr(publish_results, "Session", Session)
    asked = load({"AMQP_HOST": "h"})
    assert publish_results.results(asked, expect=1, timeout=1.0, output="text") == 0
    assert capsysbinary.readouterr().out == body + b"\n"
    assert [delivery.tag for delivery in acked] == [1]
