"""Other ways to a real model: OpenAI's protocol, LangChain's, another task, a wire that breaks."""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ci import ollama
from ci.ollama import Server
from selfheal_worker.model import provider as model
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.errors import (
    BadOutputError,
    ModelError,
    ModelUnavailableError,
    TransientError,
)
from selfheal_worker.model.member import Member
from selfheal_worker.model.provider import ModelConfig
from selfheal_worker.task import task_file
from tests.models.conftest import Analyze
from tests.models.hostile import cases
from tests.support.held_clock import HeldClock
from tests.support.tcp_proxy import Proxy

TRIAGE = Path(__file__).parents[2] / "docs" / "examples" / "ticket-triage.yaml"
LONG = 300.0
#: How many of the hostile texts are asked of the small model: each one takes it seconds.
_HOSTILE = 280 if os.environ.get("SELFHEAL_LONG") == "1" else 8


def _answer(config: ModelConfig, text: str) -> dict[str, Any]:
    chain = Chain([Member(model.build(config))], config.task)
    chain.wake(LONG)
    reply = chain.ask(text, time.monotonic() + LONG)
    assert reply.usage is not None
    assert min(reply.usage.input_tokens or 0, reply.usage.output_tokens or 0) > 0
    chain.close()
    return reply.validated.fields()


def test_ollamas_own_openai_protocol(server: Server) -> None:
    config = ModelConfig("openai", ollama.MODEL, f"{server.url}/v1", deadline=LONG)
    assert _answer(config, "I love it.").keys() == config.task.schema["properties"].keys()


# Whatever init_chat_model makes, it has no way to close its connections.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_init_chat_model(server: Server) -> None:
    config = ModelConfig(
        "langchain", f"ollama:{ollama.MODEL}", server.url, deadline=LONG, structured="none",
        options={"format": task_file.load().grammar(), "max_tokens": None, "num_predict": 512,
                 "timeout": None, "max_retries": None},
    )  # fmt: skip
    assert _answer(config, "I love it.")["sentiment"] in ("Positive", "Negative", "Neutral")
    gc.collect()  # what it left open is warned of here, not in a later test


def test_another_task(server: Server, analyze: Analyze) -> None:
    text = "I cannot log in since Monday, please help."
    done = analyze(server.url, text, "-o", "json", TASK_FILE=TRIAGE, MODEL_DEADLINE=LONG)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["task"] == {"name": "ticket-triage", "version": "1"}
    assert said["category"] in ("Delivery", "Billing", "Product", "Account", "Other")
    assert 1 <= said["urgency"] <= 5
    assert all(quote in text for quote in said["quotes"])


def test_hostile_texts(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    config = ModelConfig("ollama", ollama.MODEL, server.url, deadline=LONG)
    chain = Chain([Member(model.build(config))], config.task)
    chain.wake(LONG)
    every = [case for case in cases() if case.ordered]
    some = every[:: len(every) // _HOSTILE][:_HOSTILE]
    obeyed = refused = 0
    for case in some:
        try:
            fields = chain.ask(case.text, time.monotonic() + LONG).validated.fields()
        except BadOutputError:  # its repair was no better: nothing gets through
            refused += 1
            continue
        assert all(phrase in case.text for phrase in fields["key_phrases"])
        assert not any(line in str(fields) for line in config.task.secrets)
        obeyed += fields["primary_emotion"] == case.ordered
    chain.close()
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{ollama.MODEL}: {obeyed} of {len(some)} orders were obeyed, {refused} had no answer"
        )
    assert refused < len(some) / 2


@pytest.fixture
def wire(server: Server) -> Iterator[Proxy]:
    proxy = Proxy(int(server.url.rpartition(":")[2]))
    yield proxy
    proxy.close()


@pytest.mark.parametrize("provider", ["ollama", "openai"])
def test_a_wire_that_stalls_ends_with_the_deadline_and_a_refused_one_is_nobody_there(
    provider: str, wire: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HeldClock(monkeypatch)  # it stands: what comes before the wait takes none of its time
    url = f"http://127.0.0.1:{wire.port}" + ("/v1" if provider == "openai" else "")
    asked = model.build(ModelConfig(provider, ollama.MODEL, url, deadline=LONG))
    with pytest.raises(TransientError, match="before the deadline"):
        asked.analyse("I love it. " * 50, clock() + 0.2)
    wire.refuse()
    wire.cut()
    with pytest.raises(ModelError) as caught:
        asked.analyse("I love it.", time.monotonic() + LONG)
    assert isinstance(caught.value, TransientError | ModelUnavailableError)
    assert not isinstance(caught.value, BadOutputError)
    asked.close()


@pytest.mark.parametrize("provider", ["ollama", "openai"])
def test_a_model_that_is_not_there_is_nobodys_fault(provider: str, server: Server) -> None:
    url = server.url + ("/v1" if provider == "openai" else "")
    asked = model.build(ModelConfig(provider, "nobody:1b", url))
    with pytest.raises(ModelUnavailableError, match="model 'nobody:1b' is not on"):
        asked.analyse("I love it.", time.monotonic() + 60)
    asked.close()
