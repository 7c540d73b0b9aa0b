"""A reply that comes in drops ends with the call's deadline, through the real client libraries."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from selfheal_worker.model import provider as model
from selfheal_worker.model.errors import TransientError
from selfheal_worker.model.provider import ModelConfig

pytest.importorskip("langchain_ollama")
pytest.importorskip("langchain_openai")

# A call without its deadline would have this time for each drop.
LONG = 600.0


@contextmanager
def _trickling() -> Iterator[tuple[str, threading.Event]]:
    """A gateway that sends blanks, to keep its client, until it may end."""
    may_end = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            while not may_end.wait(0.05):
                self.wfile.write(b" ")

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}", may_end
        finally:
            may_end.set()
            listening.shutdown()


@pytest.mark.parametrize("provider", ["ollama", "openai"])
def test_a_reply_in_drops_is_waited_for_until_the_deadline(provider: str) -> None:
    with _trickling() as (url, may_end):
        asked = model.build(ModelConfig(provider, "m", url, deadline=LONG))
        end = threading.Timer(60, may_end.set)  # else a call without a deadline would never end
        end.start()
        with pytest.raises(TransientError, match="did not answer before the deadline"):
            asked.analyse("text", time.monotonic() + 1)
        end.cancel()
        asked.close()
