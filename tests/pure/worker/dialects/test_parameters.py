"""Servers that refuse a parameter: it is renamed or left out, and no text is blamed for it."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from selfheal_worker.model import provider
from selfheal_worker.model.errors import ModelError
from selfheal_worker.model.provider import ModelConfig
from tests.support import loopback
from tests.support.loopback import Handler

pytest.importorskip("langchain_openai")

Refusal = tuple[int, Any] | None
Dialect = Callable[[dict[str, Any]], Refusal]
ANSWER = {
    "primary_emotion": "Joy",
    "sentiment": "Positive",
    "confidence_score": 0.9,
    "key_phrases": [],
}


def _openai_error(name: str, said: str, code: str) -> Refusal:
    error = {"message": said, "type": "invalid_request_error", "param": name, "code": code}
    return 400, {"error": error}


def reasoning(body: dict[str, Any]) -> Refusal:
    """https://platform.openai.com/docs/guides/reasoning"""
    if "max_tokens" in body:
        said = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        return _openai_error("max_tokens", said, "unsupported_parameter")
    if "temperature" in body:
        said = "Unsupported value: 'temperature' does not support 0.0 with this model."
        return _openai_error("temperature", said, "unsupported_value")
    return None


def azure(body: dict[str, Any]) -> Refusal:
    """https://learn.microsoft.com/azure/ai-services/openai/reference"""
    for name in ("max_completion_tokens", "seed", "random_seed"):
        if name in body:
            said = f"Unrecognized request argument supplied: {name}"
            return 400, {"error": {"message": said, "param": None, "code": None}}
    return None


def mistral(body: dict[str, Any]) -> Refusal:
    """https://docs.mistral.ai/api/ : each unknown field is a 422."""
    known = {"model", "messages", "temperature", "max_tokens", "random_seed", "response_format"}
    extra = sorted(set(body) - known - {"stream"})
    detail = [
        {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"}
        for name in extra
    ]
    return (422, {"detail": detail}) if extra else None


def litellm(body: dict[str, Any]) -> Refusal:
    """https://docs.litellm.ai/docs/completion/drop_params"""
    if "seed" in body:
        said = (
            "litellm.UnsupportedParamsError: gemini does not support parameters: ['seed'], "
            "for model=m. To drop these, set `litellm.drop_params=True`"
        )
        return 400, {"error": {"message": said, "type": "None", "param": None, "code": "400"}}
    return None


def no_schema(body: dict[str, Any]) -> Refusal:
    """A model without structured outputs; JSON mode alone."""
    if body.get("response_format", {}).get("type") == "json_schema":
        said = "Invalid parameter: 'response_format' of type 'json_schema' is not supported"
        return _openai_error("response_format", said, "unsupported_value")
    return None


def no_shape(body: dict[str, Any]) -> Refusal:
    if "response_format" in body:
        return 422, "Failed to deserialize: unknown variant in response_format"
    return None


def lenient(body: dict[str, Any]) -> Refusal:
    return None


@contextmanager
def serving(dialect: Dialect) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    asked: list[dict[str, Any]] = []

    class Answering(Handler):
        def do_POST(self) -> None:
            body = json.loads(self.body())
            asked.append(body)
            refused = dialect(body)
            message = {"role": "assistant", "content": json.dumps(ANSWER)}
            reply = {
                "id": "1",
                "object": "chat.completion",
                "created": 1,
                "model": "m",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            }
            status, said = refused or (200, reply)
            self.reply(said, status)

    with loopback.serving(Answering) as server:
        yield f"{server.url}/v1", asked


@pytest.mark.parametrize(
    ("dialect", "limit", "seed", "temperature", "shape"),
    [
        (lenient, "max_tokens", "seed", True, "json_schema"),
        (reasoning, "max_completion_tokens", "seed", False, "json_schema"),
        (azure, "max_tokens", None, True, "json_schema"),
        (mistral, "max_tokens", "random_seed", True, "json_schema"),
        (litellm, "max_tokens", "random_seed", True, "json_schema"),
        (no_schema, "max_tokens", "seed", True, "json_object"),
        (no_shape, "max_tokens", "seed", True, None),
    ],
)
def test_a_refused_parameter_is_renamed_or_left_out(
    dialect: Dialect, limit: str, seed: str | None, temperature: bool, shape: str | None
) -> None:
    with serving(dialect) as (url, asked):
        chat = provider.build(ModelConfig("openai", "m", url))
        chat.warm_up()
        asked.clear()
        answer = chat.analyse("a text", time.monotonic() + 60)
        chat.close()
    assert json.loads(str(answer.content)) == ANSWER
    (sent,) = asked  # what was found is kept: one call for one text
    names = {"max_tokens", "max_completion_tokens", "seed", "random_seed"} & set(sent)
    assert names == {limit, seed} - {None}
    assert ("temperature" in sent) == temperature
    assert sent.get("response_format", {}).get("type") == shape


def test_a_server_that_becomes_strict_later_costs_the_text_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    strict = threading.Event()

    def upgraded(body: dict[str, Any]) -> Refusal:
        return mistral(body) if strict.is_set() else None

    with serving(upgraded) as (url, _), caplog.at_level(logging.WARNING):
        chat = provider.build(ModelConfig("openai", "m", url))
        chat.warm_up()
        strict.set()
        chat.analyse("my secret text", time.monotonic() + 60)
        chat.close()
    assert "my secret text" not in caplog.text


def test_a_text_that_a_refusal_quotes_changes_no_parameter() -> None:
    def moderated(body: dict[str, Any]) -> Refusal:
        said = str(body["messages"][-1]["content"])
        return (400, {"error": {"message": f"bad: {said}"}}) if "unsupported" in said else None

    with serving(moderated) as (url, asked):
        chat = provider.build(ModelConfig("openai", "m", url))
        with pytest.raises(ModelError):
            chat.analyse("unsupported parameter: temperature", time.monotonic() + 60)
        chat.analyse("a good text", time.monotonic() + 60)
        chat.close()
    assert "temperature" in asked[-1]


def test_a_context_that_is_too_short_changes_no_parameter() -> None:
    def short(body: dict[str, Any]) -> Refusal:
        said = "maximum context length is 10 tokens; max_tokens 512 is not supported"
        return 400, {"error": {"message": said, "code": "context_length_exceeded"}}

    with serving(short) as (url, asked):
        chat = provider.build(ModelConfig("openai", "m", url))
        with pytest.raises(ModelError):
            chat.analyse("a text", time.monotonic() + 60)
        chat.close()
    assert len(asked) == 1
