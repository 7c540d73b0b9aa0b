"""Each provider with each server: a valid answer or a named reason, in time and without more calls.

The servers are fakes on loopback, as strict as the real ones; each names its sources.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("langchain_ollama")
pytest.importorskip("langchain_openai")
pytest.importorskip("langchain")

from selfheal_worker.model import provider as model
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.errors import (
    ModelError,
    OverloadedError,
    RefusedTextError,
    TransientError,
)
from selfheal_worker.model.member import Member
from selfheal_worker.model.provider import Provider
from selfheal_worker.task import task_file
from tests.pure.worker.dialects.dialect import (
    ANSWER,
    ANSWERS,
    PAUSES,
    REFUSALS,
    TEXT,
    Dialect,
    Reply,
    Request,
)
from tests.pure.worker.dialects.litellm import LiteLLM
from tests.pure.worker.dialects.mistral import Mistral
from tests.pure.worker.dialects.openai_chat import OpenAI, Reasoning
from tests.pure.worker.dialects.openrouter import OpenRouter
from tests.pure.worker.dialects.server import Served, serving
from tests.pure.worker.dialects.table import PAIRS, Pair, sent, table
from tests.support.held_clock import HeldClock
from tests.support.waiting import until

PAGE = Path(__file__).parents[4] / "docs" / "providers.md"
TASK = task_file.load()
LONG = 60.0

every_pair = pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.id)


@contextmanager
def _warm(pair: Pair, **more: Any) -> Iterator[tuple[Provider, Served]]:
    """A provider that knows what its server takes, and the server, whose requests are forgotten."""
    with serving(pair.dialect()) as served:
        built = model.build(pair.config(served, **more))
        built.warm_up()
        served.requests.clear()
        served.refused.clear()
        yield built, served
        built.close()


def _calls(served: Served) -> list[Request]:
    return [one for one in served.requests if one.path != "/api/tags"]


@every_pair
def test_what_is_sent_is_what_the_server_takes(pair: Pair) -> None:
    with _warm(pair) as (built, served):
        built.analyse(TEXT, time.monotonic() + LONG)
        (call,) = _calls(served)
        assert sent(call.body) == (pair.limit, pair.seed, pair.temperature, pair.shape)
        assert call.path == pair.dialect.path


@every_pair
def test_a_warm_up_costs_one_call_for_each_refusal_and_one_answer(pair: Pair) -> None:
    with serving(pair.dialect()) as served:
        built = model.build(pair.config(served))
        built.warm_up()
        assert len(_calls(served)) == len(served.refused) + 1
        built.warm_up()
        built.close()
        assert len(_calls(served)) == len(served.refused) + 2


@every_pair
def test_each_form_of_an_answer_is_read_with_one_call(pair: Pair) -> None:
    with _warm(pair) as (built, served):
        chain = Chain([Member(built)], TASK)
        chain.wake(LONG)
        for way in ANSWERS:
            served.requests.clear()
            served.dialect.way = way
            reply = chain.ask(TEXT, time.monotonic() + LONG)
            assert reply.validated.fields() == ANSWER, way
            assert len(_calls(served)) == 1, way


@every_pair
def test_an_answer_that_is_cut_off_is_repaired_with_one_more_call(pair: Pair) -> None:
    with _warm(pair) as (built, served):
        chain = Chain([Member(built)], TASK)
        chain.wake(LONG)
        served.requests.clear()
        served.dialect.way = "cut off"
        assert chain.ask(TEXT, time.monotonic() + LONG).validated.fields() == ANSWER
        assert len(_calls(served)) == 2


@every_pair
def test_a_refused_text_has_its_reason_and_costs_one_call(pair: Pair) -> None:
    with _warm(pair) as (built, served):
        for way, reason in REFUSALS.items():
            if pair.dialect.path == "/api/chat" and way in ("filtered answer", "declined"):
                continue  # Ollama has no such answers
            served.requests.clear()
            served.dialect.way = way
            with pytest.raises(RefusedTextError) as caught:
                built.analyse(TEXT, time.monotonic() + LONG)
            assert caught.value.reason == reason, way
            assert TEXT not in str(caught.value)
            assert len(_calls(served)) == 1, way


@every_pair
def test_an_overload_is_the_servers_state_with_the_pause_that_it_asks_for(pair: Pair) -> None:
    with _warm(pair) as (built, served):
        for way, (_, pause) in PAUSES.items():
            served.requests.clear()
            served.dialect.way = way
            with pytest.raises(OverloadedError) as caught:
                built.analyse(TEXT, time.monotonic() + LONG)
            assert caught.value.retry_after == (None if pause is None else pytest.approx(pause))
            assert len(_calls(served)) == 1, way


@dataclass(frozen=True)
class Silence:
    """How a call ended whose server was silent; calls: how many; ended: it was let go."""

    error: ModelError | None
    calls: int
    ended: bool


def _silence(warm: tuple[Provider, Served], clock: HeldClock) -> Silence:
    built, served = warm
    served.dialect.way, error = "silent", None
    served.is_silent = partial(clock.asked, served)
    try:
        built.analyse(TEXT, clock() + 2)
    except ModelError as raised:
        error = raised
    until("it was asked", lambda: _calls(served))
    return Silence(error, len(_calls(served)), served.ended.is_set())


@pytest.fixture(scope="module")
def silences() -> dict[str, Silence]:
    """By pair. All calls are made at once: they do nothing but wait."""
    with ExitStack() as stack, ThreadPoolExecutor(len(PAIRS)) as threads:
        patched = stack.enter_context(pytest.MonkeyPatch.context())
        clock = HeldClock(patched, askers=len(PAIRS))
        warm = [stack.enter_context(_warm(pair)) for pair in PAIRS]
        ends = threads.map(partial(_silence, clock=clock), warm)
        return dict(zip((pair.id for pair in PAIRS), ends, strict=True))


@every_pair
def test_a_silent_server_is_waited_for_until_the_deadline(
    pair: Pair, silences: dict[str, Silence]
) -> None:
    silence = silences[pair.id]
    assert isinstance(silence.error, TransientError)
    assert "did not answer before the deadline" in str(silence.error)
    assert not silence.ended
    assert silence.calls == 1


def test_the_page_has_the_table() -> None:
    assert table() in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("dialect", "options", "gone"),
    [
        (Reasoning, {"top_p": 0.9}, {"top_p"}),
        (Reasoning, {"top_p": 0.9, "frequency_penalty": 0.5}, {"top_p", "frequency_penalty"}),
        (Reasoning, {"temperature": 0.7, "max_tokens": 99}, {"temperature", "max_tokens"}),
        (LiteLLM, {"frequency_penalty": 0.5}, {"frequency_penalty"}),
        (LiteLLM, {"seed": 5}, {"seed", "random_seed"}),
        (OpenAI, {"extra_body": {"top_k": 4}}, {"top_k"}),
        (Mistral, {"extra_body": {"top_k": 4, "min_p": 0.1}}, {"top_k", "min_p"}),
        (Mistral, {"logit_bias": {"5": 1}}, {"logit_bias"}),
    ],
)
def test_an_option_that_the_server_refuses_is_left_out_and_reported(
    dialect: type[Dialect], options: dict[str, Any], gone: set[str], caplog: Any
) -> None:
    pair = Pair("openai", dialect, "")
    with caplog.at_level(logging.WARNING), _warm(pair, options=options) as (built, served):
        built.analyse(TEXT, time.monotonic() + LONG)
        (call,) = _calls(served)
    assert not gone & set(call.body)
    for name in gone & set(options) - {"temperature", "max_tokens", "seed"}:
        assert f"refuses the parameter {name} of MODEL_OPTIONS" in caplog.text
    if "max_tokens" in options:
        assert call.body["max_completion_tokens"] == 99  # renamed, with the user's value


def test_an_error_in_a_reply_counts_as_the_status_that_it_names() -> None:
    with _warm(Pair("openai", OpenRouter, "")) as (built, served):
        served.dialect.way = "error in a reply"
        with pytest.raises(OverloadedError, match="answered 503"):
            built.analyse(TEXT, time.monotonic() + LONG)


class Closed(Dialect):
    """Refuses all, for a reason that no parameter helps against; quotes the text."""

    def refuses(self, request: Request) -> Reply | None:
        return self.error(400, f"The model m is not enabled here. {json.dumps(request.body)}")


@pytest.mark.parametrize("provider", ["openai", "langchain openai:MODEL"])
def test_a_failed_warm_up_quotes_the_server_and_a_text_is_never_quoted(
    provider: str, caplog: pytest.LogCaptureFixture
) -> None:
    pair = Pair(provider, Closed, "")
    with serving(Closed()) as served, caplog.at_level(logging.INFO):
        built = model.build(pair.config(served))
        with pytest.raises(ModelError):
            built.warm_up()
        (quoted,) = [one for one in caplog.records if "warm-up text" in one.getMessage()]
        assert "The model m is not enabled here" in str(vars(quoted))
        with pytest.raises(ModelError) as caught:
            built.analyse(TEXT, time.monotonic() + LONG)
        built.close()
    assert "not enabled" not in str(caught.value)
    assert not [one for one in caplog.records if TEXT in str(vars(one))]


@pytest.mark.parametrize("name", ["max_tokens", "temperature"])
def test_a_strangers_class_is_negotiated_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class of LangChain that has its own client, and its own error with a status."""
    from selfheal_worker.model.providers import langchain

    made: list[dict[str, Any]] = []

    class RefusedError(Exception):
        status_code = 400
        body = json.dumps({"error": {"message": f"`{name}` is not supported"}})

    class Stranger:
        def __init__(self, settings: dict[str, Any]) -> None:
            self.settings = settings

        def bind_tools(self, *_: object, **__: object) -> Stranger:
            return self

        def invoke(self, _: object) -> Any:
            if name in self.settings:
                raise RefusedError
            return SimpleNamespace(content=json.dumps(ANSWER), tool_calls=[])

    def init(_: str, **settings: Any) -> Stranger:
        made.append(settings)
        return Stranger(settings)

    monkeypatch.setattr(langchain, "init_chat_model", init)
    built = model.build(model.ModelConfig("langchain", "stranger:m"))
    built.warm_up()
    assert len(made) == 2
    assert name in made[0]
    assert name not in made[1]
    built.close()
