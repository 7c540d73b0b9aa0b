"""What a server reports beside an answer is a count, or unknown."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_worker.metrics import Metrics
from selfheal_worker.model import context
from selfheal_worker.model import provider as model
from selfheal_worker.model.provider import Answer, ModelConfig, Origin, Usage
from selfheal_worker.model.token_counts import token_count, without_bad_counts
from tests.support.loopback import Handler, serving

SAID = {
    "primary_emotion": "Joy",
    "sentiment": "Positive",
    "confidence_score": 0.9,
    "key_phrases": [],
}
#: As they stand in JSON.
UNKNOWN = [
    *("-1", "-0.5", "NaN", "Infinity", "-Infinity", "1e400", "1.5", "9" * 30, "9" * 5000),
    *('"many"', '"12"', '""', "true", "false", "[]", "[1]", "{}", '{"a": 1}', "null"),
]


@pytest.mark.parametrize("reported", [0, 1, 5.0, 128_000, 10**8])
def test_a_count_is_a_whole_number_that_a_call_can_take(reported: float) -> None:
    assert token_count(reported) == reported
    assert isinstance(token_count(reported), int)


@pytest.mark.parametrize(
    "reported",
    [-1, 1.5, float("nan"), float("inf"), -float("inf"), 10**8 + 1, 10**400, True, "5", None, [1]],
)
def test_what_is_no_count_is_unknown(reported: Any) -> None:
    assert token_count(reported) is None
    assert Answer("", Usage(reported, 5)).usage is None
    assert Answer("", Usage(5, reported)).usage == Usage(5, None)


def test_the_tokens_of_several_calls_are_unknown_where_those_of_one_are() -> None:
    assert Usage(1, 2) + Usage(3, 4) == Usage(4, 6)
    assert Usage(1, None) + Usage(3, 4) == Usage(4, None)
    assert Usage(1, 2) + Usage(3, None) == Usage(4, None)


def test_a_server_that_says_less_than_nothing_does_not_say() -> None:
    assert not context.was_cut("word " * 600, -1)


def _replied(path: str, reported: str) -> bytes:
    content = json.dumps(SAID)
    if path.startswith("/api/"):
        message = {"role": "assistant", "content": content}
        counts = ["prompt_eval_count", "eval_count", "total_duration", "load_duration"]
        counts += ["prompt_eval_duration", "eval_duration"]
        body: dict[str, Any] = {"model": "m", "message": message, "done": True} | dict.fromkeys(
            [*counts, "created_at", "done_reason"], "@@"
        )
    else:
        choice = {"index": 0, "message": {"role": "assistant", "content": content}}
        cached = {"cached_tokens": "@@", "audio_tokens": "@@"}
        tokens = dict.fromkeys(["prompt_tokens", "completion_tokens", "total_tokens"], "@@")
        usage = tokens | {"prompt_tokens_details": cached, "completion_tokens_details": "@@"}
        body = {"id": "1", "created": "@@", "model": "m", "usage": usage}
        body |= {"choices": [choice | {"finish_reason": "stop"}]}
    return json.dumps(body).replace('"@@"', reported).encode()


@contextmanager
def _reporting(reported: list[str]) -> Iterator[str]:
    """A server whose answers have the last of reported for each number beside the answer."""

    class Answering(Handler):
        def do_POST(self) -> None:
            self.body()
            kind = {"Content-Type": "application/json; charset=utf-8"}
            self.reply(_replied(self.path, reported[-1]), headers=kind)

    with serving(Answering) as server:
        yield server.url


@pytest.mark.parametrize(
    ("provider", "name"),
    [("openai", "m"), ("ollama", "m"), ("langchain", "openai:m"), ("langchain", "ollama:m")],
)
def test_an_answer_counts_whatever_numbers_come_with_it(provider: str, name: str) -> None:
    pytest.importorskip("langchain_ollama")
    pytest.importorskip("langchain_openai")
    pytest.importorskip("langchain")
    reported: list[str] = []
    with _reporting(reported) as url:
        asked = model.build(ModelConfig(provider, name, url, "key"))
        for one in UNKNOWN:
            reported.append(one)
            answer = asked.analyse("text", time.monotonic() + 60)
            content = answer.content
            assert (json.loads(content) if isinstance(content, str) else content) == SAID, one
            assert answer.usage is None, one
        asked.close()


@pytest.mark.parametrize("reported", UNKNOWN)
def test_the_usage_itself_may_be_anything(reported: str) -> None:
    cleaned = without_bad_counts(b'{"choices": [], "usage": ' + reported.encode() + b"}")
    usage = json.loads(cleaned).get("usage")
    assert usage is None or isinstance(usage, dict)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"no JSON",
        b"[" * 100_000,
        b"[1]",
        b"5",
        b'{"usage": {"prompt_tokens": 5, "cost": 0.01, "is_byok": false}, "model": "m"}',
        b'{"usage": null, "prompt_eval_count": null, "x": NaN}',
        b'{"prompt_eval_count": 5, "total_duration": 60000000000, "done_reason": "stop"}',
    ],
)
def test_a_reply_without_bad_counts_stays_as_it_is(reply: bytes) -> None:
    assert without_bad_counts(reply) == reply


def test_only_what_is_no_count_is_taken_from_a_reply() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": -1, "cost": -1, "prompt_tokens_details": 7}
    reply = json.dumps({"usage": usage, "eval_count": 1.5, "seed": -1}).encode()
    assert json.loads(without_bad_counts(reply)) == {
        "usage": {"prompt_tokens": 5, "cost": -1},
        "seed": -1,
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["usage", "prompt_tokens", "x_tokens_details", "eval_count", "model"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(JSON)
def test_any_json_is_cleaned_once(body: Any) -> None:
    cleaned = without_bad_counts(json.dumps(body).encode())
    assert without_bad_counts(cleaned) == cleaned


def test_unknown_tokens_are_not_counted_as_none() -> None:
    metrics = Metrics()
    metrics.model.called(Origin("openai", "m", ""), 0.1, None, Usage(5, None))
    shown = metrics.exposition().decode()
    lines = [line for line in shown.splitlines() if line.startswith("gen_ai_client_token_usage")]
    assert any('gen_ai_token_type="input"' in line for line in lines)
    assert not any('gen_ai_token_type="output"' in line for line in lines)
