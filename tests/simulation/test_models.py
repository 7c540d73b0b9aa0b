"""The modelled model servers: the product's own providers ask them, in virtual time."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest

from selfheal_worker.model.call_network import bind
from selfheal_worker.model.errors import ModelError
from selfheal_worker.model.failure_effects import classify
from selfheal_worker.model.providers.chat import explain
from selfheal_worker.task import answer as validated
from selfheal_worker.task import prompt, task_file
from tests.pure.worker.dialects.dialect import KEY
from tests.pure.worker.dialects.mistral import Mistral
from tests.pure.worker.dialects.ollama import Ollama
from tests.pure.worker.dialects.openai_chat import OpenAI
from tests.pure.worker.dialects.vllm import VLLM
from tests.simulation.models import pauses, words
from tests.simulation.models.backend import SimulatedBackend
from tests.simulation.models.conditions import BURNS_ATTEMPTS, DOES, NO_CONNECTION, Condition
from tests.simulation.models.network import Connection, Network
from tests.simulation.models.server import WAYS, ModelServer, Setup
from tests.simulation.models.timers import Heap
from tests.simulation.models.truth import COUNTED, Did, Exchange
from tests.simulation.models.words import Nature

TASK = task_file.load()
DEADLINE = 30.0


class Waiting:
    """An event of a test without threads: to wait is to let virtual time pass."""

    def __init__(self, timers: Heap) -> None:
        self._timers = timers
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def wait(self, timeout: float | None = None) -> bool:
        end = float("inf") if timeout is None else self._timers.now + timeout
        while not self._is_set and self._timers.due() <= end:
            self._timers.step()
        if not self._is_set and timeout is not None:
            self._timers.run(end)
        return self._is_set


class Client:
    """One process that asks a server by httpx, as the providers do."""

    def __init__(self, server: ModelServer, timers: Heap) -> None:
        self._timers = timers
        self._server = server
        self._end = 0.0
        self._received = 0
        network = Network(timers)
        network.add(server)
        self._client = httpx.Client(timeout=None)
        backend = SimulatedBackend(network, "worker-1", self, lambda: Waiting(timers))
        bind(self._client, backend)

    def left(self) -> float:
        return self._end - self._timers.now

    def took(self, size: int) -> None:
        self._received += size
        if self._received > 4 << 20:
            raise RuntimeError("too large")

    def ask(self, text: str, **more: Any) -> httpx.Response:
        """POST a chat request about a text."""
        self._end = self._timers.now + DEADLINE
        roles = {"human": "user", "ai": "assistant", "system": "system"}
        messages = [
            {"role": roles[role], "content": content}
            for role, content in prompt.messages(TASK, text)
        ]
        url = self._server.url.removesuffix(self._server.dialect.base) + self._server.dialect.path
        headers = {"Authorization": f"Bearer {KEY}"}
        reply = self._client.post(
            url, json={"model": "m", "messages": messages} | more, headers=headers
        )
        reply.raise_for_status()
        return reply

    def failure(self, text: str) -> ModelError:
        """What the product makes of the failure of a call."""
        try:
            reply = self.ask(text)
            json.loads(reply.content)["choices"][0]
        except Exception as error:  # noqa: BLE001 as the provider does
            return explain(error, self._server.url, "m")
        raise AssertionError("the call did not fail")


def served(dialect: type = VLLM, **more: Any) -> tuple[ModelServer, Client, Heap]:
    timers = Heap()
    natures = more.pop("natures", {})
    server = ModelServer(Setup("small", "small", dialect, **more), timers, TASK, 1, natures=natures)
    return server, Client(server, timers), timers


def words_of(reply: httpx.Response) -> str:
    body = json.loads(reply.content)
    message = body["message"] if "message" in body else body["choices"][0]["message"]
    if message.get("tool_calls"):
        said = message["tool_calls"][0]["function"]["arguments"]
        return said if isinstance(said, str) else json.dumps(said)
    return str(message["content"])


@pytest.mark.parametrize("dialect", [OpenAI, VLLM, Mistral, Ollama])
@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_an_answer_is_one(dialect: type, way: str) -> None:
    server, client, _ = served(dialect, way=way)
    text = words.numbered(7, "The parcel came late and the lid was broken.")
    found = validated.check(words_of(client.ask(text)), text, TASK)
    expected = words.answer(TASK, text)
    assert found.fields()["primary_emotion"] == expected["primary_emotion"]
    assert [one.did for one in server.exchanges] == [Did.ANSWERED]
    assert server.exchanges[0].text == 7


def test_no_unusable_words_are_an_answer() -> None:
    for said in words.UNUSABLE:
        with pytest.raises(validated.InvalidAnswerError):
            validated.check(said, "text", TASK)


def test_calls_wait_for_a_slot_and_none_for_one_that_was_left() -> None:
    server, _, timers = served(slots=1, queue=1, seconds=(2.0, 2.0))
    network = Network(timers)
    network.add(server)
    sent = [_send(network, number) for number in range(3)]
    timers.run(1.0)
    assert server.busy == 1
    sent[0].close()
    timers.run(1.5)
    assert [one.did for one in server.exchanges] == [None, None, Did.OVERLOADED]
    assert server.exchanges[0].left
    timers.run(10.0)
    assert server.exchanges[1].did is Did.ANSWERED
    assert server.exchanges[1].ended == pytest.approx(3.0, abs=0.1)


def _send(network: Network, number: int) -> Connection:
    made = network.connect("worker-1", "small", 8000)
    assert isinstance(made, Connection)
    text = prompt.fenced(TASK, words.numbered(number, "It works."))
    body = json.dumps({"messages": [{"role": "user", "content": text}]}).encode()
    made.send(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body))
    made.send(body)
    return made


@pytest.mark.parametrize("form", pauses.FORMS)
@pytest.mark.parametrize("status", [429, 503, 529])
def test_the_product_reads_each_form_of_a_pause(form: str, status: int) -> None:
    server, client, _ = served(status=status, form=form, pause=17.0)
    server.become(Condition.OVERLOADED)
    server.unix = time.time  # the product reads the real clock here
    failure = client.failure("It works.")
    assert classify(failure).value == "overloaded"
    asked = getattr(failure, "retry_after", None)
    assert asked == pytest.approx(17.0, abs=1.1)
    (exchange,) = server.exchanges
    assert exchange.pause is not None
    assert exchange.pause <= asked + 0.1


def test_requests_per_minute_are_counted_over_a_minute() -> None:
    server, client, timers = served(per_minute=2, seconds=(0.1, 0.1))
    client.ask("It works.")
    client.ask("It works.")
    assert classify(client.failure("It works.")).value == "overloaded"
    timers.run(61.0)
    client.ask("It works.")
    assert [one.did for one in server.exchanges].count(Did.OVERLOADED) == 1


EXPECTED = {Did.AWAY: {"unavailable"}, Did.OVERLOADED: {"overloaded"}}


@pytest.mark.parametrize("condition", [one for one in Condition if one is not Condition.UP])
def test_what_a_condition_means_is_what_the_product_makes_of_it(condition: Condition) -> None:
    server, client, timers = served(seconds=(0.1, 0.1))
    server.become(condition)
    if condition is Condition.GARBAGE:
        with pytest.raises(validated.InvalidAnswerError):
            validated.check(words_of(client.ask("It works.")), "It works.", TASK)
        assert server.exchanges[0].did is Did.NOT_USABLE
        return
    found = classify(client.failure("It works.")).value
    assert timers.now <= DEADLINE + 0.01
    if condition in NO_CONNECTION:
        assert found in ("unavailable", "failed call")
        assert not server.exchanges
        return
    assert found in EXPECTED.get(DOES[condition], {"failed call", "bad output"})
    assert (DOES[condition] in COUNTED) == (condition in BURNS_ATTEMPTS)


FEW = {1: Nature.FILTERED, 2: Nature.FLAKY, 3: Nature.NEVER_USABLE}


@pytest.mark.parametrize("dialect", [OpenAI, VLLM, Mistral, Ollama])
def test_a_text_has_its_nature(dialect: type) -> None:
    server, client, _ = served(dialect, natures=FEW)
    assert classify(client.failure(words.numbered(1, "x"))).value == "content filtered"
    for number in (2, 2, 3, 3):
        client.ask(words.numbered(number, "x"))
    assert [one.did for one in server.exchanges] == [
        *(Did.FILTERED, Did.NOT_USABLE, Did.ANSWERED, Did.NOT_USABLE, Did.NOT_USABLE),
    ]


@pytest.mark.parametrize("dialect", [OpenAI, VLLM, Mistral, Ollama])
def test_a_text_above_the_context_is_refused_or_cut(dialect: type) -> None:
    long = words.numbered(1, "word " * 2000)
    server, client, _ = served(dialect, context=1500)
    assert classify(client.failure(long)).value == "text too long"
    server.change(truncates=True)
    body = json.loads(client.ask(long).content)
    read = body.get("prompt_eval_count") or body["usage"]["prompt_tokens"]
    assert read == 1500
    assert [one.did for one in server.exchanges] == [Did.TOO_LONG, Did.CUT]


def test_a_model_that_is_loaded_again_takes_its_time() -> None:
    server, client, timers = served(load=9.0, seconds=(0.1, 0.1))
    client.ask("It works.")
    assert timers.now > 9.0
    client.ask("It works.")
    assert timers.now < 10.0
    server.change(digest="fedcba")
    client.ask("It works.")
    assert timers.now > 18.0


def test_the_same_seed_gives_the_same_bytes() -> None:
    def run() -> list[tuple[bytes, float | None]]:
        server, client, _ = served(natures={3: Nature.NEVER_USABLE}, seconds=(0.1, 3.0))
        got = [client.ask(words.numbered(number, "It works.")).content for number in range(6)]
        return list(zip(got, [one.ended for one in server.exchanges], strict=True))

    assert run() == run()


def test_an_exchange_tells_its_story() -> None:
    one = Exchange("small", "worker-1", 0, 1.5, text=7, did=Did.OVERLOADED, ended=2.0)
    assert one.story() == "     1.50 until 2.00 worker-1 asks small (text 7): refused: overloaded"
