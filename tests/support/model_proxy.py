"""An HTTP proxy before a model server: it damages a few of the real server's answers."""

from __future__ import annotations

import http.client
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.support.loopback import Handler, serving


@dataclass(frozen=True)
class Reply:
    """What goes back to the client. length: what the header claims, None for the truth."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None


#: Makes an answer of one's own out of the server's, which is only asked for when this is called.
Fault = Callable[[Callable[[], Reply]], Reply]


def refused(status: int, **headers: str) -> Fault:
    """The server, or what stands before it, says no."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: Reply(status, b'{"error": "on purpose"}', named)


def garbage(_: Callable[[], Reply]) -> Reply:
    """A page of somebody else, with 200."""
    return Reply(200, b"<html><body>Welcome to the hotel's network</body></html>")


def truncated(real: Callable[[], Reply]) -> Reply:
    """Half of the server's JSON, as if it were the whole."""
    reply = real()
    return Reply(reply.status, reply.body[: len(reply.body) // 2])


def broken_off(real: Callable[[], Reply]) -> Reply:
    """Half of the server's JSON, then the connection ends."""
    reply = real()
    return Reply(reply.status, reply.body[: len(reply.body) // 2], length=len(reply.body))


class FaultProxy:
    """Each question to the model meets the next of `faults`; with none left, nothing is damaged.

    asked: when each question came, by time.monotonic().
    """

    def __init__(self, server: str) -> None:
        self._address = urlsplit(server).netloc
        self.faults: deque[Fault] = deque()
        self.asked: list[float] = []
        self.url = ""

    def answer(self, method: str, path: str, body: bytes, kind: str) -> Reply:
        """The answer to one request."""

        def real() -> Reply:
            connection = http.client.HTTPConnection(self._address, timeout=600)
            try:
                connection.request(method, path, body, {"Content-Type": kind})
                reply = connection.getresponse()
                return Reply(reply.status, reply.read())
            finally:
                connection.close()

        if not path.endswith(("/chat", "/chat/completions")):
            return real()
        self.asked.append(time.monotonic())
        try:
            fault = self.faults.popleft()
        except IndexError:
            return real()
        return fault(real)


def _handler(proxy: FaultProxy) -> type[Handler]:
    class Damaging(Handler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = self.body()
            kind = self.headers.get("Content-Type", "")
            reply = proxy.answer(self.command, self.path, body, kind)
            length = len(reply.body) if reply.length is None else reply.length
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(reply.body)
            self.close_connection = length != len(reply.body)

    return Damaging


@contextmanager
def faulty(server: str) -> Iterator[FaultProxy]:
    """A proxy before the server at that URL; it is gone after the block."""
    proxy = FaultProxy(server)
    with serving(_handler(proxy)) as listening:
        proxy.url = listening.url
        yield proxy
