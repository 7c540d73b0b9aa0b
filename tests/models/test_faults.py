"""A server that answers wrongly, through the real clients: what each fault is taken for."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ci import ollama
from ci.ollama import Server
from selfheal_worker.model import provider as model
from selfheal_worker.model.analysis import Call
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.errors import BadOutputError, ModelError, OverloadedError, TransientError
from selfheal_worker.model.member import Member
from selfheal_worker.model.provider import ModelConfig, Provider
from tests.models.conftest import StartWorker
from tests.support.model_proxy import (
    Fault,
    FaultProxy,
    broken_off,
    faulty,
    garbage,
    refused,
    truncated,
)
from tests.support.rabbit import Vhost

LONG = 300.0
TEXT = "I love it."

FAULTS: dict[str, tuple[Fault, type[ModelError], str]] = {
    "403": (refused(403), TransientError, "refused this text, or the key"),
    "429": (refused(429), OverloadedError, "answered 429"),
    "500": (refused(500), TransientError, "answered 500"),
    "503": (refused(503), OverloadedError, "answered 503"),
    "garbage": (garbage, BadOutputError, "not a chat reply"),
    "truncated": (truncated, BadOutputError, "not a chat reply"),
    "broken off": (broken_off, TransientError, "the call was aborted"),
}

Build = Callable[..., Provider]


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    with faulty(server.url) as started:
        yield started


@pytest.fixture(params=["ollama", "openai"])
def build(request: pytest.FixtureRequest, proxy: FaultProxy) -> Iterator[Build]:
    """Build a provider that asks through the proxy; closed after the test."""
    built: list[Provider] = []

    def make(tokens: int = 16) -> Provider:
        url = proxy.url + ("/v1" if request.param == "openai" else "")
        config = ModelConfig(
            request.param, ollama.MODEL, url, deadline=LONG, max_output_tokens=tokens
        )
        built.append(model.build(config))
        return built[-1]

    yield make
    for one in built:
        one.close()


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_reported_as_what_it_is_and_the_next_call_is_answered(
    build: Build, proxy: FaultProxy, name: str
) -> None:
    fault, kind, said = FAULTS[name]
    provider = build()
    proxy.faults.append(fault)
    with pytest.raises(ModelError, match=said) as caught:
        provider.analyse(TEXT, time.monotonic() + LONG)
    assert type(caught.value) is kind
    assert TEXT not in str(caught.value)
    # The client itself asked once: trying again is the worker's, which counts it.
    assert len(proxy.asked) == 1
    assert provider.analyse(TEXT, time.monotonic() + LONG).usage is not None


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("said", "seconds"), [("7", 7.0), ("0.5", 0.5), ("soon", None), (None, None)]
)
def test_retry_after_is_handed_on(
    build: Build, proxy: FaultProxy, status: int, said: str | None, seconds: float | None
) -> None:
    proxy.faults.append(refused(status, **({"Retry_After": said} if said else {})))
    with pytest.raises(TransientError) as caught:
        build().analyse(TEXT, time.monotonic() + LONG)
    assert caught.value.retry_after == seconds


def test_a_server_that_asks_for_a_pause_gets_it(build: Build, proxy: FaultProxy) -> None:
    chain = Chain([Member(build(tokens=512))], ModelConfig("builtin").task)
    chain.wake(time.monotonic() + LONG)
    before = len(proxy.asked)
    proxy.faults += [refused(429, Retry_After="1"), refused(429, Retry_After="1")]
    chain.ask(TEXT, time.monotonic() + LONG)
    first, second, third, *_ = proxy.asked[before:]
    assert min(second - first, third - second) >= 1


def test_json_that_the_model_could_not_end_is_repaired_once(
    build: Build, proxy: FaultProxy
) -> None:
    calls: list[Call] = []
    chain = Chain([Member(build(tokens=12))], ModelConfig("builtin").task, observe=calls.append)
    chain.wake(time.monotonic() + LONG)
    with pytest.raises(BadOutputError, match="no JSON object"):
        chain.ask(TEXT, time.monotonic() + LONG)
    assert [type(call.error) for call in calls] == [BadOutputError] * 2
    assert [call.usage.output_tokens for call in calls if call.usage] == [12, 12]


def test_a_worker_answers_all_through_every_fault(
    proxy: FaultProxy, vhost: Vhost, start_worker: StartWorker
) -> None:
    env: dict[str, Any] = {
        "MODEL_PROVIDER": "ollama",
        "MODEL_NAME": ollama.MODEL,
        "MODEL_BASE_URL": proxy.url,
    }
    env |= {"MODEL_DEADLINE": LONG, "CONCURRENCY": 2, "RETRY_DELAYS": "1"}
    worker = start_worker(vhost.uri, **env).ready(LONG)
    # One at a time, so that no two faults meet the same message more often than it may be tried.
    numbers = range(len(FAULTS))
    for number, (fault, kind, _) in zip(numbers, FAULTS.values(), strict=True):
        proxy.faults.append(fault)
        vhost.publish([json.dumps({"id": str(number), "text": TEXT}).encode()])
        ((body, _),) = vhost.take("feedback.results", 1, LONG)
        result = json.loads(body)
        attempts = 1 if kind is OverloadedError else 2
        assert (result["id"], result["attempts"]) == (str(number), attempts)
    assert vhost.count("feedback.dead-letters") == 0
    served = worker.get("/metrics")[1]
    count = r'^gen_ai_client_operation_duration_seconds_count\{.*error_type="(\w*)"'
    assert set(re.findall(count, served, re.MULTILINE)) == {"", "TransientError", "BadOutputError"}
