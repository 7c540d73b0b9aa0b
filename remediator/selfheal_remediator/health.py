"""The HTTP side: /healthz, /readyz, /metrics."""

from __future__ import annotations

import socket
import socketserver
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from selfheal_remediator.threads import supervision
from selfheal_remediator.threads.runtime import REAL

Check = Callable[[], str]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Two processes must not silently share a port.
    allow_reuse_port = False
    routes: dict[str, Callable[[], tuple[int, str, bytes]]]

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
        status, kind, body = route() if route else (404, "text/plain", b"not found\n")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Probes are not worth a line each."""


def serve(port: int, healthy: Check, ready: Check, metrics: Callable[[], bytes]) -> _Server:
    """Answer in a thread of its own. A check returns what is wrong, empty = nothing.

    Raises OSError when the port cannot be had.
    """

    def checked(check: Check) -> Callable[[], tuple[int, str, bytes]]:
        def answer() -> tuple[int, str, bytes]:
            wrong = check()
            return (503 if wrong else 200), "text/plain", f"{wrong or 'ok'}\n".encode()

        return answer

    server = _Server(port)
    server.routes = {
        "/healthz": checked(healthy),
        "/readyz": checked(ready),
        "/metrics": lambda: (200, "text/plain; version=0.0.4; charset=utf-8", metrics()),
    }
    supervision.start("http", server.serve_forever, REAL.event())
    return server
