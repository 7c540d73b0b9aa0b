"""A dialect's server on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.pure.worker.dialects.dialect import Dialect, Reply, Request
from tests.support import loopback
from tests.support.loopback import Handler


class Served:
    """What was asked of a server that is up."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.root = ""
        self.requests: list[Request] = []
        self.refused: list[str] = []
        self.ended = threading.Event()
        #: Called when a request is not answered.
        self.is_silent: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """As the user gives it."""
        return self.root + self.dialect.base

    def answer(self, request: Request) -> Reply | None:
        """The reply; None: the server is silent."""
        with self._lock:
            self.requests.append(request)
        refusal = self.dialect.refuses(request)
        if refusal is not None:
            self.refused.append(json.dumps(refusal.body))
            return refusal
        if self.dialect.way == "silent":
            self.is_silent()
            return None
        reply = self.dialect.answers(request)
        if self.dialect.way == "cut off":  # once: the next answer is whole
            self.dialect.way = "plain"
        return reply


@contextmanager
def serving(dialect: Dialect) -> Iterator[Served]:
    """The dialect's server, on loopback."""
    served = Served(dialect)

    class Answering(Handler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            self._answer(json.loads(self.body()))

        def _answer(self, body: Mapping[str, Any]) -> None:
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = served.answer(Request(parts.path, parse_qs(parts.query), headers, body))
            if reply is None:
                served.ended.wait(60)
                return
            if isinstance(reply.body, str):
                text = {"Content-Type": "text/plain", **reply.headers}
                self.reply(reply.body.encode(), reply.status, text)
            else:
                self.reply(reply.body, reply.status, reply.headers)

    with loopback.serving(Answering) as listening:
        served.root = listening.url
        try:
            yield served
        finally:
            served.ended.set()
