"""An Ollama server as far as its HTTP API goes; a test says how each call ends."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from tests.support import ollama_in_pod
from tests.support.rabbit import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable

GOOD = json.dumps(ollama_in_pod.GOOD)


@dataclass
class Reply:
    """status and content of one call, after delay seconds; retry_after: the server's wish, error:
    what it says of a call that it refuses."""

    content: str = GOOD
    status: int = 200
    delay: float = 0.0
    retry_after: str = ""
    error: str = "as set"


class FakeOllama:
    """Counts the calls by text; `decide` says how a call about a text ends."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        (self.port,) = free_ports(1)
        self.decide: Callable[[str], Reply] = lambda text: Reply()
        self.calls: Counter[str] = Counter()
        self._server: ThreadingHTTPServer | None = None

    @property
    def env(self) -> dict[str, Any]:
        return {
            "MODEL_PROVIDER": "ollama",
            "MODEL_NAME": "tiny:1b",
            "MODEL_BASE_URL": f"http://{self.host}:{self.port}",
            "MODEL_DEADLINE": 5,
        }

    def start(self) -> FakeOllama:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body are two writes: the second would wait some 40 ms for the client's ACK.
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                self.reply(200, ollama_in_pod.MODELS)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fenced = [m["content"] for m in body["messages"] if m["content"][:5] == "-----"]
                text = fenced[-1].split("\n", 1)[1].rsplit("\n", 1)[0]
                fake.calls[text] += 1
                reply = fake.decide(text)
                time.sleep(reply.delay)
                if reply.status != 200:
                    self.reply(reply.status, {"error": reply.error}, reply.retry_after)
                    return
                self.reply(200, ollama_in_pod.chat(reply.content, body["model"]))

            def reply(self, status: int, content: Any, retry_after: str = "") -> None:
                body = json.dumps(content).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(body)))
                    self.send_header("Retry-After", retry_after)
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True  # the caller did not wait

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 128

            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                self.open: set[Any] = set()

            def process_request(self, request: Any, client_address: Any) -> None:
                self.open.add(request)
                super().process_request(request, client_address)

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # the other side went away, or this server was stopped

        self._server = Server((self.host, self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Gone: nobody listens, and the open connections are cut."""
        import contextlib
        import socket

        if self._server is not None:
            server, self._server = self._server, None
            server.shutdown()
            server.server_close()
            for one in server.open:  # type: ignore[attr-defined]
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
