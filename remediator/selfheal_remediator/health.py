"""The HTTP side: /healthz, /readyz, /metrics, and what else `serve` is given. Only reads."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

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
#: So many connections are open at once; another one ends the oldest.
MOST_CONNECTIONS = 50


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Two processes must not silently share a port.
    allow_reuse_port = False
    routes: Mapping[str, Route]

    def __init__(self, port: int) -> None:
        # All addresses, of both families where the machine has them: a pod may have IPv6 alone.
        dual = socket.has_dualstack_ipv6()
        self.address_family = socket.AF_INET6 if dual else socket.AF_INET
        self._lock = REAL.lock()
        #: The connections, the oldest first.
        self._open: dict[Any, None] = {}
        super().__init__(("", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Slow clients, or many, take neither the memory nor the place of a probe."""
        with self._lock:
            self._open[request] = None
            if len(self._open) > MOST_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                with contextlib.suppress(OSError):  # its client has gone
                    oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """The connection ends."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """A client that goes away is nobody's fault."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            supervision.failed("http", error, "the request is not answered")

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

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Content-Length", str(len(reply.body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
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
