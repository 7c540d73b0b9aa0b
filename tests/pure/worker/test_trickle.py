"""A reply that comes in drops ends with the call's deadline, through the real client libraries."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from worker import model
from worker.model import ModelConfig, TransientError

pytest.importorskip("langchain_ollama")
pytest.importorskip("langchain_openai")

import httpx

from worker import model_chat
from worker.model_chat import Http

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


class Stream:
    """A connection; how long each read may take."""

    def __init__(self) -> None:
        self.waits: list[float | None] = []

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self.waits.append(timeout)
        return b" "


def test_each_read_has_what_is_left_of_the_call_whichever_call_has_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(model_chat, "time", clock)
    http = Http(ModelConfig("ollama", "m", deadline=LONG))
    stream = Stream()
    (answered,) = http.settings["event_hooks"]["response"]
    for begun in (100.0, 1000.0):
        http.call.deadline = begun + 20
        answered(httpx.Response(200, extensions={"network_stream": stream}))
        for passed in (0, 15, 21):
            clock.now = begun + passed
            stream.read(1, 20.0)
    assert stream.waits == [20.0, 5.0, 0.01] * 2
