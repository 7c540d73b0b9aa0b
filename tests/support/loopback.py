"""An HTTP server on a free port of this machine, until a test ends."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Reads bodies and writes replies; logs nothing."""

    def body(self) -> bytes:
        """The request's body; it must be read before the reply."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def reply(
        self, content: Any = b"", status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """Bytes as they are, anything else as JSON."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        named = {"Content-Length": str(len(data)), **(headers or {})}
        if not isinstance(content, bytes):
            named = {"Content-Type": "application/json", **named}
        self.send_response(status)
        for name, value in named.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing."""


class _Server(ThreadingHTTPServer):
    """Knows its connections, so that they end with it: a client may keep them for its next call."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None) -> None:
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), handler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)

    def process_request(self, request: Any, client_address: Any) -> None:
        # Head and body are two writes: the second would wait 40 ms for the first one's ack.
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client may hang up on what it no longer waits for; anything else is printed."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class LoopbackServer:
    """Answers at `url` from its making until `close`, each request in a thread of its own."""

    def __init__(
        self, handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None
    ) -> None:
        self._http = _Server(handler, tls)
        self.port = self._http.server_port
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"{'http' if tls is None else 'https'}://{self.address}"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop, and end every connection."""
        self._http.shutdown()
        self._http.server_close()
        for connection in tuple(self._http.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(
    handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None
) -> Iterator[LoopbackServer]:
    """A server for the time of the block."""
    server = LoopbackServer(handler, tls)
    try:
        yield server
    finally:
        server.close()
