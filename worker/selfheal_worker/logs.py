"""Log lines: JSON for machines, text for people. Ids and sizes only, never texts."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

LOGGER = logging.getLogger("selfheal.worker")


def set_up(level: str, form: str) -> None:
    """Send our lines to stderr. pika's own are left out: it logs an error for each refused try."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(level.upper())
    LOGGER.propagate = False


def say(level: int, event: str, **fields: Any) -> None:
    """Write one line: what happened, and its ids and numbers."""
    if LOGGER.isEnabledFor(level):
        LOGGER.log(level, "%s", event, extra={"fields": fields})


def printable(value: object) -> str:
    """A value on one line of text: one with control characters is quoted as in JSON.

    Else a newline in an id would write a line of its own, and an escape sequence to a terminal.
    """
    text = str(value)
    return text if text.isprintable() else json.dumps(text)


def escaped(text: str) -> str:
    """Text on one line, control characters escaped as in JSON: a server's text may have some."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def _time(record: logging.LogRecord) -> str:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{stamp}.{int(record.msecs):03d}Z"


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """Time, level, event and fields as words."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {k}={printable(v)}" for k, v in getattr(record, "fields", {}).items())
        event = escaped(record.getMessage())
        line = f"{_time(record)} {record.levelname.lower():7} {event}{fields}"
        if record.exc_info:
            line += f" exception={printable(self.formatException(record.exc_info))}"
        return line
