"""Every provider ends a call at its deadline, and answers again once what it asks is repaired."""

from __future__ import annotations

import importlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from selfheal_worker.model import provider as model
from selfheal_worker.model.call_threads import CallThreads
from selfheal_worker.model.errors import ModelError, OverloadedError, TransientError
from selfheal_worker.model.provider import Answer, ModelConfig, Provider
from selfheal_worker.model.providers.chat import Call
from tests.support.held_clock import HeldClock
from tests.support.loopback import Handler, serving

pytest.importorskip("langchain_ollama")
pytest.importorskip("langchain_openai")
pytest.importorskip("langchain")

ANSWER = {
    "primary_emotion": "Joy",
    "sentiment": "Positive",
    "confidence_score": 0.9,
    "key_phrases": [],
}
SAID = json.dumps(ANSWER)
# A call without its deadline would have this time: the test would be ended by `Fault.end`.
LONG = 600.0
PATIENCE = 60.0


class Fault:
    """What is wrong with the server: silent, drip, or nothing; ended lets go of all that wait."""

    def __init__(self, clock: HeldClock) -> None:
        self.kind = ""
        self.ended = threading.Event()
        self.asked = threading.Event()
        self.clock = clock

    def is_met(self) -> None:
        """A call has come as far as this."""
        self.asked.set()
        if self.kind:
            self.clock.asked(self)

    def wait(self, write: Callable[[], object]) -> None:
        """Keep a call waiting until the end, with a drop now and then."""
        self.is_met()
        while not self.ended.wait(0.05):
            if self.kind == "drip":
                write()


def _replies(path: str) -> dict[str, Any]:
    if path.startswith("/api/"):
        message: dict[str, Any] = {"role": "assistant", "content": SAID}
        done = {"done": True, "done_reason": "stop", "prompt_eval_count": 500, "eval_count": 9}
        return {"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": message} | done
    call = {"id": "1", "type": "function", "function": {"name": "emotion", "arguments": SAID}}
    message = {"role": "assistant", "content": SAID, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 500, "completion_tokens": 9, "total_tokens": 509}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m"} | {
        "choices": [choice],
        "usage": usage,
    }


@contextmanager
def _serving(fault: Fault) -> Iterator[str]:
    class Faulty(Handler):
        def do_POST(self) -> None:
            self.body()
            if fault.kind:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                if fault.kind == "drip":
                    self.end_headers()
                fault.wait(lambda: self.wfile.write(b" "))
                return
            self.reply(_replies(self.path))

    with serving(Faulty) as server:
        try:
            yield server.url
        finally:
            fault.ended.set()


class Stranger:
    """A LangChain class that takes no time-out: it waits until its server answers."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault

    def bind_tools(self, *_: object, **__: object) -> Stranger:
        return self

    def invoke(self, _: object) -> Any:
        if self._fault.kind:
            self._fault.wait(lambda: None)
        return SimpleNamespace(content=SAID, tool_calls=[])


def _in_process(fault: Fault, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModelConfig:
    """llama.cpp in this process, whose model reads and writes tokens one by one."""

    class Client:
        n_batch = 64

        def eval(self, tokens: Any) -> None:
            fault.is_met()

    class ChatLlamaCpp:
        def __init__(self, **_: object) -> None:
            self.client = Client()

        def bind(self, **_: object) -> ChatLlamaCpp:
            return self

        def invoke(self, _: object) -> Any:
            self.client.eval([1] * 100)
            while fault.kind and not fault.ended.wait(0.01):
                self.client.eval([1])
            return SimpleNamespace(content=SAID, tool_calls=[], response_metadata={})

    community = ModuleType("langchain_community.chat_models.llamacpp")
    community.ChatLlamaCpp = ChatLlamaCpp  # type: ignore[attr-defined]
    for name in ("llama_cpp", "langchain_community", "langchain_community.chat_models"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "langchain_community.chat_models.llamacpp", community)
    monkeypatch.delitem(sys.modules, "selfheal_worker.model.providers.llamacpp", raising=False)
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF")
    return ModelConfig("llamacpp", str(file), deadline=LONG)


NAMES = [
    "builtin",
    "ollama",
    "openai",
    "langchain:ollama",
    "langchain:openai",
    "langchain",
    "llamacpp",
]


def _built(
    name: str, url: str, fault: Fault, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Provider:
    if name == "llamacpp":
        built = model.build(_in_process(fault, monkeypatch, tmp_path))
        built.warm_up()
        return built
    if name == "langchain":
        module = importlib.import_module("selfheal_worker.model.providers.langchain")
        init_chat_model, stranger = module.init_chat_model, f"stranger:{id(fault)}"

        def init(name: str, **settings: Any) -> Any:
            return Stranger(fault) if name == stranger else init_chat_model(name, **settings)

        monkeypatch.setattr(module, "init_chat_model", init)
        return model.build(ModelConfig("langchain", stranger, deadline=LONG))
    provider, _, kind = name.partition(":")
    base = f"{url}/v1" if "openai" in name else url
    config = {
        "builtin": ModelConfig("builtin"),
        "ollama": ModelConfig("ollama", "m", base, deadline=LONG),
        "openai": ModelConfig("openai", "m", base, deadline=LONG),
        "langchain": ModelConfig("langchain", f"{kind}:m", base, "key", deadline=LONG),
    }
    return model.build(config[provider])


KINDS = ["silent", "drip"]


@dataclass
class Called:
    """A provider, what is wrong with its server, how a call ended, and the next one's answer."""

    built: Provider
    fault: Fault
    error: ModelError | None = None
    ended: bool = False
    answer: Answer | None = None

    def call(self, kind: str) -> None:
        self.fault.asked.clear()
        self.fault.kind = kind
        try:
            self.built.analyse("a text", self.fault.clock() + 2)
        except ModelError as error:
            self.error = error
        if self.error is not None:  # its server may get to it only now
            self.fault.asked.wait(PATIENCE)
        self.ended = self.fault.ended.is_set()
        self.fault.kind = ""
        self.answer = self.built.analyse("a text", self.fault.clock() + PATIENCE)


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Called]:
    """By name and kind. All calls are made at once: they do nothing but wait."""
    made: dict[tuple[str, str], Called] = {}
    with ExitStack() as stack:
        asking = [name for name in NAMES if name != "builtin"]
        patched = stack.enter_context(pytest.MonkeyPatch.context())
        clock = HeldClock(patched, askers=len(asking) * len(KINDS))
        for name, kind in product(NAMES, KINDS):
            fault = Fault(clock)
            # Else a call without a deadline would never end.
            end = threading.Timer(PATIENCE, fault.ended.set)
            end.start()
            stack.callback(end.cancel)
            url = stack.enter_context(_serving(fault))
            monkeypatch = stack.enter_context(pytest.MonkeyPatch.context())
            built = _built(name, url, fault, monkeypatch, tmp_path_factory.mktemp("model"))
            stack.callback(built.close)
            made[name, kind] = Called(built, fault)
        with ThreadPoolExecutor(len(made)) as threads:
            calls = [threads.submit(one.call, kind) for (_, kind), one in made.items()]
        for call in calls:
            call.result()
    return made


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_call_ends_at_its_deadline_and_the_next_one_is_answered(
    name: str, kind: str, called: dict[tuple[str, str], Called]
) -> None:
    one = called[name, kind]
    if name != "builtin":  # it asks nobody
        assert isinstance(one.error, TransientError)
        assert "did not answer before the deadline" in str(one.error)
        assert one.fault.asked.wait(PATIENCE)
        assert not one.ended
    assert isinstance(one.answer, Answer)


def _threads(call: Callable[[Any], Any], most: int = 2) -> tuple[CallThreads, Call]:
    state = Call()
    return CallThreads(call, state, most, "stranger:m"), state


def test_calls_that_were_given_up_are_counted_and_bounded(caplog: Any) -> None:
    may_end = threading.Event()

    def call(_: object) -> str:
        may_end.wait(PATIENCE)
        return "late"

    threads, state = _threads(call)
    for count in (1, 2):
        state.deadline = time.monotonic()
        with pytest.raises(TransientError, match="before the deadline"):
            threads.invoke([])
        assert threads.abandoned == count
        assert f"{count} such calls still run" in caplog.text
    state.deadline = time.monotonic() + PATIENCE
    with pytest.raises(OverloadedError, match="2 calls to stranger:m"):
        threads.invoke([])
    may_end.set()
    for thread in threading.enumerate():
        if thread.name == "model-call":
            thread.join(PATIENCE)
    assert threads.abandoned == 0
    assert threads.invoke([]) == "late"


def test_a_call_in_a_thread_fails_as_without_one_and_keeps_the_pause() -> None:
    state, deadline = Call(), time.monotonic() + PATIENCE

    def call(_: object) -> None:
        assert state.deadline == deadline
        state.pause = 7.0
        raise KeyError("x")

    threads = CallThreads(call, state, 1, "stranger:m")
    state.deadline = deadline
    with pytest.raises(KeyError):
        threads.invoke([])
    assert state.pause == 7.0
    assert threads.abandoned == 0
