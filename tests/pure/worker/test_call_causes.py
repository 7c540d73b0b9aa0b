"""A call that is made while another failure is handled fails by what it meets itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("langchain_ollama")
pytest.importorskip("langchain_openai")
pytest.importorskip("langchain")

from selfheal_worker.model import provider as model
from selfheal_worker.model.analysis import PROBE_TEXT
from selfheal_worker.model.causes import causes, with_own_causes
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.errors import ModelError
from selfheal_worker.model.member import Member
from selfheal_worker.model.provider import ModelConfig
from selfheal_worker.task import task_file
from tests.support import loopback
from tests.support.loopback import Handler

TASK = task_file.load()
THEIRS = "their text"
TOO_LONG = (400, {"error": {"message": "m", "code": "context_length_exceeded"}})
FILTERED = (400, {"error": {"message": "m", "code": "content_filter"}})
NO_CAUSE = (422, {"error": {"message": "no"}})
PARAMETER = (400, {"error": {"message": "Unsupported parameter", "param": "temperature"}})
RETRY = {"error": {"details": [{"retryDelay": "3.00s"}]}}

Reply = tuple[int, Any]
#: What our own text meets after a user's was refused.
MEETS: dict[str, Reply | None] = {
    "overloaded, with a pause": (503, RETRY),
    "too many requests": (429, {"error": {"message": "slow down"}}),
    "an error": (500, {"error": {"message": "oops"}}),
    "a gateway's error": (502, {"error": {"message": "bad gateway"}}),
    "a refused key": (401, {"error": {"message": "no key"}}),
    "no model": (404, {"error": {"message": "model 'm' not found", "code": "model_not_found"}}),
    "a closed connection": None,
}


@contextmanager
def serving(answer: Callable[[str], Reply | None]) -> Iterator[str]:
    """A server that answers a request, given as its body, with a status and JSON; None: it closes
    the connection."""

    class Answering(Handler):
        def do_GET(self) -> None:
            self.reply({"models": [{"name": "m:latest", "digest": "0123456789abcdef"}]})

        def do_POST(self) -> None:
            reply = answer(self.body().decode())
            if reply is None:
                self.close_connection = True
            else:
                self.reply(reply[1], reply[0])

    with loopback.serving(Answering) as server:
        yield server.url


def built(provider: str, url: str) -> model.Provider:
    name = "m" if provider in ("openai", "ollama") else provider.partition(" ")[2] + ":m"
    path = "" if "ollama" in provider else "/v1"
    config = ModelConfig(provider.partition(" ")[0], name, f"{url}{path}", "sk-x", deadline=20)
    return model.build(config)


def failed(call: Callable[[], object]) -> ModelError:
    with pytest.raises(ModelError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("refusal", [TOO_LONG, FILTERED, NO_CAUSE], ids=str)
@pytest.mark.parametrize("provider", ["openai", "ollama", "langchain openai", "langchain ollama"])
def test_our_text_after_a_refused_one_fails_by_what_it_meets(provider: str, refusal: Reply) -> None:
    meets: Reply | None = None

    def answer(body: str) -> Reply | None:
        return refusal if THEIRS in body else meets

    def failure(call: Callable[[], object]) -> tuple[type[ModelError], str, float | None]:
        error = failed(call)
        return type(error), str(error), getattr(error, "retry_after", None)

    alone, after = {}, {}
    with serving(answer) as url:
        made = built(provider, url)
        for name, meets in MEETS.items():  # noqa: B007 answer reads it
            alone[name] = failure(lambda: made.analyse(PROBE_TEXT, time.monotonic() + 20))
            chain = Chain([member := Member(made)], TASK)
            member.warm = True
            after[name] = failure(lambda chain=chain: chain.ask(THEIRS, time.monotonic() + 20))  # type: ignore[misc]
    assert after == alone


def test_a_parameter_stays_where_our_text_met_something_else_than_a_refusal() -> None:
    """A user's text was refused for a parameter; the text of ours that tests it got no answer."""
    sent: list[str] = []

    def answer(body: str) -> Reply | None:
        sent.append(body)
        return PARAMETER if THEIRS in body else None

    with serving(answer) as url:
        made = built("openai", url)
        for _ in range(2):
            failed(lambda: made.analyse(THEIRS, time.monotonic() + 20))
    assert [THEIRS in body for body in sent] == [True, False] * 2
    assert all("temperature" in json.loads(body) for body in sent)


def test_what_a_call_raises_keeps_its_own_causes_and_loses_its_callers() -> None:
    def library() -> None:
        try:
            raise OSError("reset")
        except OSError:
            raise ValueError("the call failed") from None

    def caught(call: Callable[[], None]) -> Exception:
        try:
            call()
        except Exception as error:  # noqa: BLE001 all of them are checked
            return error
        raise AssertionError("it raises")

    def while_handling() -> None:
        try:
            raise KeyError("the caller's")
        except KeyError:
            with_own_causes(library)

    assert [type(one) for one in causes(caught(library))] == [ValueError, OSError]
    assert [type(one) for one in causes(caught(while_handling))] == [ValueError, OSError]
