"""Which model gave an answer: found again with each, and held to the version that is pinned."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from selfheal_worker.model import provider as model
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.errors import ModelUnavailableError
from selfheal_worker.model.member import Member
from selfheal_worker.model.provider import Answer, ModelConfig, Origin
from selfheal_worker.runtime import REAL
from selfheal_worker.task import task_file
from tests.support.loopback import Handler, serving

pytest.importorskip("langchain_ollama")
pytest.importorskip("langchain_openai")

from selfheal_worker.model.providers import ollama

GOOD = {
    "primary_emotion": "Joy",
    "sentiment": "Positive",
    "confidence_score": 0.9,
    "key_phrases": [],
}
FIRST, SECOND = "1111111111111111", "2222222222222222"


class Server:
    """Speaks as Ollama and as OpenAI do; what it reports can be changed."""

    def __init__(self) -> None:
        self.digest = FIRST
        self.there = True
        self.reported: dict[str, Any] = {"model": "m"}
        self.looks = 0
        self.url = ""
        self.before_tags: Callable[[], object] = int

    def content(self, path: str) -> Any:
        message = {"role": "assistant", "content": json.dumps(GOOD)}
        if path == "/api/tags":
            self.looks += 1
            self.before_tags()
            return {"models": [{"name": "m:latest", "digest": self.digest}] if self.there else []}
        if path.startswith("/api"):
            ended = {"done": True, "done_reason": "stop", "created_at": "2026-01-01T00:00:00Z"}
            return {"model": "m", "message": message, **ended}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        made = {"id": "1", "object": "chat.completion", "created": 1, "choices": [choice]}
        return made | self.reported


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()

    class Answering(Handler):
        def do_GET(self) -> None:
            self.reply(made.content(self.path))

        def do_POST(self) -> None:
            self.body()
            self.do_GET()

    with serving(Answering) as listening:
        made.url = listening.url
        yield made


class Later:
    """A clock that goes by itself, and further when asked to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        monkeypatch.setattr(REAL, "monotonic", self)

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


def _chain(server: Server, provider: str, version: str = "") -> Chain:
    url = server.url if provider == "ollama" else f"{server.url}/v1"
    built = model.build(ModelConfig(provider, "m", url, "key", deadline=60))
    chain = Chain([Member(built, version=version, key="triage")], task_file.load())
    chain.wake(60)
    return chain


def _origin(chain: Chain) -> Origin:
    return chain.ask("text", time.monotonic() + 3600).origin


def test_a_model_that_was_pulled_again_has_its_new_digest_in_results(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Later(monkeypatch)
    chain = _chain(server, "ollama")
    assert _origin(chain).version == FIRST[:12]
    server.digest = SECOND
    clock.ahead += 10
    assert _origin(chain).version == SECOND[:12]
    assert chain.active.version == SECOND[:12]


class _WatchedLock:
    """A lock; found_taken is set when somebody wants it that another has."""

    found_taken = threading.Event()

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._lock.acquire(blocking=False):
            return True
        self.found_taken.set()
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def test_calls_at_the_same_time_have_the_new_digest_all(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Later(monkeypatch)
    with monkeypatch.context() as patched:
        patched.setattr(REAL, "lock", _WatchedLock)
        built = model.build(ModelConfig("ollama", "m", server.url, "key", deadline=60))
    built.warm_up()
    _WatchedLock.found_taken.clear()
    server.digest = SECOND
    clock.ahead += 10
    looking, answers = threading.Event(), queue.SimpleQueue[str | None]()

    def analyse() -> None:
        answers.put(built.analyse("text", clock() + 60).version)

    def look() -> None:
        looking.set()
        assert _WatchedLock.found_taken.wait(60)

    server.before_tags = look
    threads = [threading.Thread(target=analyse) for _ in range(2)]
    threads[0].start()
    assert looking.wait(60)
    threads[1].start()
    for thread in threads:
        thread.join(60)
    assert [answers.get(timeout=60) for _ in threads] == [SECOND[:12]] * 2


def test_the_digest_is_not_looked_up_for_each_call(server: Server) -> None:
    chain = _chain(server, "ollama")
    looked = server.looks
    begun = time.monotonic()
    for _ in range(20):
        _origin(chain)
    assert server.looks - looked <= 1 + (time.monotonic() - begun) / ollama.FRESH


def test_a_server_that_does_not_say_keeps_its_models_version(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Later(monkeypatch)
    chain = _chain(server, "ollama")
    server.there = False
    clock.ahead += 10
    assert _origin(chain).version == FIRST[:12]


def test_a_pinned_digest_is_checked_after_the_model_was_pulled_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Later(monkeypatch)
    chain = _chain(server, "ollama", FIRST[:8])
    assert _origin(chain).version == FIRST[:12]
    server.digest = SECOND
    clock.ahead += 10
    wanted = r"models\.triage\.version is 11111111, but the model has 222222222222"
    with pytest.raises(ModelUnavailableError, match=wanted):
        _origin(chain)
    with pytest.raises(ModelUnavailableError, match=wanted):
        chain.wake(60)
    server.digest = FIRST
    chain.wake(60)
    assert _origin(chain).version == FIRST[:12]


def test_what_a_compatible_server_reports_is_of_each_answer(server: Server) -> None:
    chain = _chain(server, "openai")
    assert _origin(chain).described() == {"provider": "openai", "name": "m", "version": ""}
    server.reported = {"model": "m-2026-01-31", "system_fingerprint": "fp_1"}
    assert _origin(chain).described() == {
        "provider": "openai",
        "name": "m",
        "version": "m-2026-01-31",
        "system_fingerprint": "fp_1",
    }
    server.reported = {"model": "m-2026-02-28", "system_fingerprint": "fp_2"}
    origin = _origin(chain)
    assert (origin.version, origin.fingerprint) == ("m-2026-02-28", "fp_2")
    server.reported = {"model": "m"}
    assert _origin(chain).version == ""


def test_a_pinned_name_is_checked_with_each_answer(server: Server) -> None:
    server.reported = {"model": "m-2026-01-31"}
    chain = _chain(server, "openai", "m-2026-01")
    assert _origin(chain).version == "m-2026-01-31"
    server.reported = {"model": "m-2026-02-28"}
    with pytest.raises(ModelUnavailableError, match=r"is m-2026-01, but the model has m-2026-02"):
        _origin(chain)


def test_each_answer_keeps_the_version_that_it_was_given_with() -> None:
    """Another thread's answer may have come from another version meanwhile."""

    class Two:
        name, model, version = "test", "m", "new"

        def warm_up(self) -> None: ...

        def close(self) -> None: ...

        def analyse(self, text: str, deadline: float) -> Answer:
            return Answer(GOOD, version="old")

    assert Chain([Member(Two())], task_file.load()).ask("t", time.monotonic() + 60).origin == (
        Origin("test", "m", "old")
    )


def test_a_fingerprint_makes_no_series_of_its_own(server: Server) -> None:
    from selfheal_worker.model.analysis import Call

    server.reported = {"model": "m-1", "system_fingerprint": "fp_1"}
    calls: list[Call] = []
    built = model.build(ModelConfig("openai", "m", f"{server.url}/v1", "key", deadline=60))
    chain = Chain([Member(built)], task_file.load(), observe=calls.append)
    for number in range(3):
        server.reported["system_fingerprint"] = f"fp_{number}"
        _origin(chain)
    assert {call.origin for call in calls} == {Origin("openai", "m", "m-1")}
