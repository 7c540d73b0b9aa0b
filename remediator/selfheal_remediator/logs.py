"""Log lines: JSON for machines, text for people. The worker's have the same form."""

from __future__ import annotations

import json
import logging
import time


def set_up(level: str, form: str) -> None:
    """Send all lines to stderr. Of urllib3 only errors: it warns of each retry."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("urllib3").setLevel(logging.ERROR)


def _time(record: logging.LogRecord) -> str:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{stamp}.{int(record.msecs):03d}Z"


def _on_one_line(text: str) -> str:
    """Control characters escaped as in JSON: what an API server says must not forge a line."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


class JsonFormatter(logging.Formatter):
    """time, level, event, and exception where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """The same for people."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        event = _on_one_line(record.getMessage())
        line = f"{_time(record)} {record.levelname.lower():7} {event}"
        if record.exc_info:
            line += f" exception={json.dumps(self.formatException(record.exc_info))}"
        return line
