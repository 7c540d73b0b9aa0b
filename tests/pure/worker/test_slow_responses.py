"""A reply that comes in drops ends with the call's deadline, through the real client libraries."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from selfheal_worker.model import provider as model
from selfheal_worker.model.errors import TransientError
from selfheal_worker.model.provider import ModelConfig
from tests.support.held_clock import HeldClock
from tests.support.loopback import Handler, serving

pytest.importorskip("langchain_ollama")
pytest.importorskip("langchain_openai")

# A call without its deadline would have this time for each drop.
LONG = 600.0


@contextmanager
def _trickling(clock: HeldClock) -> Iterator[tuple[str, threading.Event]]:
    """A gateway that sends blanks, to keep its client, until it may end."""
    may_end = threading.Event()

    class Trickling(Handler):
        def do_POST(self) -> None:
            self.body()
            clock.asked(self)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            while not may_end.wait(0.05):
                self.wfile.write(b" ")

    with serving(Trickling) as server:
        try:
            yield server.url, may_end
        finally:
            may_end.set()


@pytest.mark.parametrize("provider", ["ollama", "openai"])
def test_a_reply_in_drops_is_waited_for_until_the_deadline(
    provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HeldClock(monkeypatch)
    with _trickling(clock) as (url, may_end):
        asked = model.build(ModelConfig(provider, "m", url, deadline=LONG))
        end = threading.Timer(60, may_end.set)  # else a call without a deadline would never end
        end.start()
        with pytest.raises(TransientError, match="did not answer before the deadline"):
            asked.analyse("text", clock() + 1)
        assert not may_end.is_set()
        end.cancel()
        asked.close()
