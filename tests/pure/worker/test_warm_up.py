"""How long a chat model's server may take to load the model, before and after its first answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from selfheal_worker.model.errors import ModelError
from selfheal_worker.model.provider import ModelConfig

pytest.importorskip("httpx")

import httpx

from selfheal_worker.model.providers.chat import Chat, Http
from selfheal_worker.runtime import REAL


class Server:
    """Says how long each request would have been waited for."""

    def __init__(self, config: ModelConfig) -> None:
        self.http = Http(config)
        self.there = True
        self.waited: list[float] = []
        self.wait: Callable[[float], None] = lambda seconds: None

    def invoke(self, _: Any) -> Any:
        request = httpx.Request("POST", "http://model")
        for hook in self.http.settings["event_hooks"]["request"]:
            hook(request)
        self.waited.append(request.extensions["timeout"]["read"])
        if not self.there:
            self.wait(self.waited[-1])
            raise httpx.ConnectError("refused")
        return SimpleNamespace(content=json.dumps({}), tool_calls=[])


@pytest.mark.parametrize(
    ("deadline", "first"),
    [(20.0, 600.0), (1800.0, 1800.0)],
    ids=["short calls", "long calls"],
)
def test_the_first_warm_up_may_take_long_the_later_ones_and_messages_a_deadline(
    deadline: float, first: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(REAL, "monotonic", lambda: now)
    config = ModelConfig("ollama", "m", deadline=deadline)
    server = Server(config)
    chat = Chat("ollama", "m", config, server, "http://model", server.http)
    server.there = False
    with pytest.raises(ModelError):
        chat.warm_up()
    server.there = True
    chat.warm_up()
    chat.warm_up()
    chat.analyse("text", now + deadline)
    assert server.waited == [first, first, deadline, deadline]


def test_a_model_that_its_server_must_load_again_has_the_time_of_a_first_load() -> None:
    """A server that gives a load up with its client would begin it again for ever."""
    config = ModelConfig("ollama", "m", deadline=20.0)
    server = Server(config)
    chat = Chat("ollama", "m", config, server, "http://model", server.http)
    chat.warm_up()
    server.there = False
    for _ in range(2):
        with pytest.raises(ModelError):
            chat.warm_up()
    server.there = True
    chat.warm_up()
    chat.warm_up()
    assert [round(seconds) for seconds in server.waited] == [600, 20, 120, 120, 20]


@pytest.mark.parametrize("deadline", [20.0, 300.0])
def test_a_load_that_ran_out_of_time_has_twice_as_long_the_next_time(
    deadline: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that lost the request does not keep the worker from asking again for ten minutes."""
    now = 1000.0
    monkeypatch.setattr(REAL, "monotonic", lambda: now)
    config = ModelConfig("ollama", "m", deadline=deadline)
    server = Server(config)
    chat = Chat("ollama", "m", config, server, "http://model", server.http)

    def fail(*, late: bool) -> None:
        nonlocal now
        server.there = False

        def pass_time(seconds: float) -> None:
            nonlocal now
            now += seconds if late else 0.0

        server.wait = pass_time
        with pytest.raises(ModelError):
            chat.warm_up()
        server.there = True

    chat.warm_up()
    fail(late=True)  # it was loaded
    for _ in range(4):
        fail(late=True)
    fail(late=False)
    fail(late=True)
    chat.warm_up()
    fail(late=True)
    chat.warm_up()
    first = max(120.0, deadline)
    longer = [max(seconds, deadline) for seconds in (240.0, 480.0, 600.0)]
    after_an_answer = [deadline, first]
    expected = [600.0, deadline, first, *longer, 600.0, first, longer[0], *after_an_answer]
    assert server.waited == expected


def test_a_model_that_takes_long_to_load_has_three_times_as_long_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(REAL, "monotonic", lambda: now)
    config = ModelConfig("ollama", "m", deadline=20.0)
    server = Server(config)
    chat = Chat("ollama", "m", config, server, "http://model", server.http)
    answered = server.invoke

    def slowly(asked: Any) -> Any:
        nonlocal now
        now += 100.0
        return answered(asked)

    monkeypatch.setattr(server, "invoke", slowly)
    chat.warm_up()
    server.there = False
    with pytest.raises(ModelError):
        chat.warm_up()
    server.there = True
    chat.warm_up()
    assert [round(seconds) for seconds in server.waited[:1] + server.waited[-1:]] == [500, 200]
