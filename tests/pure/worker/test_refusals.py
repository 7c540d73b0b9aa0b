"""What a model server's refusal means for the message, through the real client libraries."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from selfheal_worker import retries
from selfheal_worker.model import breaker as breakers
from selfheal_worker.model import provider as model
from selfheal_worker.model.breaker import Breaker
from selfheal_worker.model.errors import ModelError, ModelUnavailableError, TransientError
from selfheal_worker.model.provider import ModelConfig
from selfheal_worker.retries import DeadLetter, Requeue, Retry
from tests.support.model_proxy import FaultProxy, faulty, refused

pytest.importorskip("langchain_ollama")
pytest.importorskip("langchain_openai")
ATTEMPTS = 3


@pytest.fixture
def gateway() -> Iterator[FaultProxy]:
    """Answers with `faults` alone: there is no server behind it."""
    with faulty("http://127.0.0.1:9") as started:
        yield started


def _failed_call(provider: str, gateway: FaultProxy, status: int) -> ModelError:
    url = gateway.url + ("/v1" if provider == "openai" else "")
    asked = model.build(ModelConfig(provider, "m", url))
    gateway.faults.append(refused(status))
    with pytest.raises(ModelError) as caught:
        asked.analyse("<script>", time.monotonic() + 60)
    asked.close()
    assert "<script>" not in str(caught.value)
    return caught.value


def _becomes(error: ModelError, attempts: int) -> retries.Decision:
    return retries.decide(
        error, attempts=attempts, max_attempts=ATTEMPTS, delays=(1,), model_away=False
    )


@pytest.mark.parametrize("provider", ["ollama", "openai"])
def test_a_text_that_a_gateway_refuses_ends_in_the_dead_letters(
    provider: str, gateway: FaultProxy
) -> None:
    error = _failed_call(provider, gateway, 403)
    assert type(error) is TransientError
    assert "refused this text, or the key (403)" in str(error)
    assert [_becomes(error, attempts) for attempts in range(ATTEMPTS)] == [
        Retry(1, 1),
        Retry(1, 2),
        DeadLetter("retries_exhausted", "TransientError", 3),
    ]


def test_a_key_that_is_refused_with_403_opens_the_breaker_all_the_same(
    gateway: FaultProxy,
) -> None:
    breaker = Breaker()
    for number in range(1, breakers.THRESHOLD + 1):
        away = isinstance(_failed_call("openai", gateway, 403), ModelUnavailableError)
        breaker = breakers.failed(breaker, 0.0, away=away)
        assert breaker.closed == (number < breakers.THRESHOLD)


@pytest.mark.parametrize("provider", ["ollama", "openai"])
@pytest.mark.parametrize(("status", "said"), [(401, "refused the key"), (404, "pull it there")])
def test_a_missing_key_or_model_is_no_messages_fault(
    provider: str, status: int, said: str, gateway: FaultProxy
) -> None:
    error = _failed_call(provider, gateway, status)
    assert isinstance(error, ModelUnavailableError)
    assert said in str(error)
    assert _becomes(error, ATTEMPTS) == Requeue()


def test_a_server_that_does_not_speak_http_is_away() -> None:
    class Hello(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1024)
            self.request.sendall(b"220 mail.example ESMTP\r\n")
            # To close with something unread would reset the connection before this is read.
            self.request.shutdown(socket.SHUT_WR)
            while self.request.recv(65536):
                pass

    with socketserver.TCPServer(("127.0.0.1", 0), Hello) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
        asked = model.build(
            ModelConfig("ollama", "m", f"http://127.0.0.1:{listening.server_address[1]}")
        )
        with pytest.raises(ModelUnavailableError, match="no answer from http"):
            asked.warm_up()
        asked.close()
        listening.shutdown()
