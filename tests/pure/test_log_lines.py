"""Both programs write log lines of one form, so that one rule reads both."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from selfheal_remediator import logs as remediator_logs
from selfheal_worker import logs as worker_logs

FORMATS = [
    (worker_logs.JsonFormatter(), remediator_logs.JsonFormatter()),
    (worker_logs.TextFormatter(), remediator_logs.TextFormatter()),
]


def record(event: str, *, failed: bool = False) -> logging.LogRecord:
    error = None
    if failed:
        try:
            raise ValueError("a\nb")
        except ValueError:
            error = sys.exc_info()
    made = logging.LogRecord("x", logging.WARNING, __file__, 1, "%s", (event,), error)
    made.created, made.msecs = 1_700_000_000.25, 250.0
    return made


@pytest.mark.parametrize(("ours", "theirs"), FORMATS)
@pytest.mark.parametrize("event", ["node a was cordoned", "é", "a\nb", "\x1b[2J", '"', ""])
@pytest.mark.parametrize("failed", [False, True])
def test_a_line_is_the_same_in_both_programs(
    ours: logging.Formatter, theirs: logging.Formatter, event: str, failed: bool
) -> None:
    line = theirs.format(record(event, failed=failed))
    assert line == ours.format(record(event, failed=failed))
    assert len(line.splitlines()) == 1
    assert line.isprintable()


def test_the_fields_of_a_line_come_in_one_order() -> None:
    for form in FORMATS[0]:
        line = json.loads(form.format(record("said", failed=True)))
        assert list(line) == ["time", "level", "event", "exception"]
        assert (line["time"], line["level"]) == ("2023-11-14T22:13:20.250Z", "warning")
