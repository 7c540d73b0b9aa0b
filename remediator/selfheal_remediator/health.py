"""The HTTP side: /healthz, /readyz, /metrics, and what else `serve` is given. Only reads."""

from __future__ import annotations

import socket
import socketserver
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from selfheal_remediator.threads import supervision
from selfheal_remediator.threads.runtime import REAL

Check = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. kind: its media type."""

    status: int
    kind: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


#: Called in the thread of the request; None = there is nothing here now.
Route = Callable[[], Reply | None]
_NOTHING = Reply(404, "text/plain", b"not found\n")
#: Methods that change something; what they bring is not read.
_REFUSED = Reply(405, "text/plain", b"only GET and HEAD\n", {"Allow": "GET, HEAD"})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Two processes must not silently share a port.
    allow_reuse_port = False
    routes: Mapping[str, Route]

    def __init__(self, port: int) -> None:
        # All addresses, of both families where the machine has them: a pod may have IPv6 alone.
        dual = socket.has_dualstack_ipv6()
        self.address_family = socket.AF_INET6 if dual else socket.AF_INET
        super().__init__(("", port), _Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # Not HTTPServer's: it resolves our host name, and blocks if DNS is unavailable.
        socketserver.TCPServer.server_bind(self)
        self.server_port = self.server_address[1]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10
    server: _Server

    def do_GET(self) -> None:
        route = self.server.routes.get(self.path.partition("?")[0])
        self._send((route() if route else None) or _NOTHING)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        self.close_connection = True
        self._send(_REFUSED)

    do_PUT = do_PATCH = do_DELETE = do_POST  # noqa: N815

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Content-Length", str(len(reply.body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    def log_message(self, format: str, *args: object) -> None:
        """Probes are not worth a line each."""


def serve(
    port: int,
    healthy: Check,
    ready: Check,
    metrics: Callable[[], bytes],
    more: Mapping[str, Route] | None = None,
) -> _Server:
    """Answer in a thread of its own. A check returns what is wrong, empty = nothing.

    more: by their paths. Raises OSError when the port cannot be had.
    """

    def checked(check: Check) -> Route:
        def answer() -> Reply:
            wrong = check()
            return Reply(503 if wrong else 200, "text/plain", f"{wrong or 'ok'}\n".encode())

        return answer

    server = _Server(port)
    server.routes = {
        "/healthz": checked(healthy),
        "/readyz": checked(ready),
        "/metrics": lambda: Reply(200, "text/plain; version=0.0.4; charset=utf-8", metrics()),
        **(more or {}),
    }
    supervision.start("http", server.serve_forever, REAL.event())
    return server
