"""The HTTP side: /healthz, /readyz, /progress and /metrics, answered from a thread of its own."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol

LOOP_STUCK_AFTER = 15.0


@dataclass(frozen=True, slots=True)
class Status:
    """The worker's state at one moment. Ages in seconds, last_progress in Unix seconds.

    not_ready: why it does not consume, empty if it is ready.
    """

    in_flight: int
    concurrency: int
    last_progress: float
    oldest_age: float
    tick_age: float
    hung: int
    not_ready: tuple[str, ...]
    hung_probe: bool = False
    breakers: dict[str, str] = field(default_factory=dict)

    def unhealthy(self) -> list[str]:
        """Why this process is stuck (broker and model server have no say); empty if it is not."""
        reasons = []
        if self.tick_age > LOOP_STUCK_AFTER:
            reasons.append(f"the loop has not ticked for {self.tick_age:.0f} s")
        if self.hung:
            reasons.append(f"{self.hung} handlers are past their deadline")
        if self.hung_probe:
            reasons.append("the probe of the unavailable model is past its deadline")
        return reasons


class Source(Protocol):
    """Where the answers come from; called from the server's threads."""

    def status(self) -> Status:
        """The worker's state now."""

    def exposition(self) -> bytes:
        """The metrics' text."""


class _HTTPServer(ThreadingHTTPServer):
    """Without a host it listens on all addresses, of both families where the machine has them."""

    daemon_threads = True

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        ipv6 = ":" in host or (not host and socket.has_dualstack_ipv6())
        self.address_family = socket.AF_INET6 if ipv6 else socket.AF_INET
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # Not HTTPServer's: it resolves our host name, and blocks if DNS is unavailable.
        socketserver.TCPServer.server_bind(self)


class Server:
    """The HTTP server; no host is all addresses. Raises OSError when the port cannot be had."""

    def __init__(self, host: str, port: int, source: Source) -> None:
        class Handler(_Handler):
            pass

        Handler.source = source
        self._server = _HTTPServer(host, port, Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.5}, daemon=True
        )
        self._thread.name = "health"
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    source: Source
    protocol_version = "HTTP/1.1"
    timeout = 10

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._send(200, self.source.exposition(), "text/plain; version=0.0.4; charset=utf-8")
            return
        status = self.source.status()
        if path == "/healthz":
            self._send_health(status.unhealthy())
        elif path == "/readyz":
            self._send_health(list(status.not_ready))
        elif path == "/progress":
            body = asdict(status) | {"ready": not status.not_ready}
            self._send(200, json.dumps(body).encode() + b"\n", "application/json")
        else:
            self._send(404, b"try /healthz /readyz /progress /metrics\n", "text/plain")

    def _send_health(self, reasons: list[str]) -> None:
        body = "\n".join(reasons or ["ok"]) + "\n"
        self._send(503 if reasons else 200, body.encode(), "text/plain; charset=utf-8")

    def _send(self, code: int, body: bytes, content_type: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Probes each few seconds are not worth a line."""
