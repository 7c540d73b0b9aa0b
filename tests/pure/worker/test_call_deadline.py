"""No step of a call outlasts its deadline, through the real client libraries."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from selfheal_worker.model import errors
from selfheal_worker.model import provider as model
from selfheal_worker.model.errors import ModelError, ModelUnavailableError, TransientError
from selfheal_worker.model.provider import ModelConfig
from tests.support.held_clock import HeldClock
from tests.support.waiting import until

pytest.importorskip("langchain_ollama")
pytest.importorskip("langchain_openai")
pytest.importorskip("langchain")

# A call without its deadline would have this time for each step.
LONG = 600.0
PROVIDERS = ("ollama", "openai", "langchain", "langchain-ollama")
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
Serve = Callable[[socket.socket, threading.Event], None]
Now = Callable[[], float]


@contextmanager
def _serving(serve: Serve, clock: HeldClock | None = None) -> Iterator[tuple[int, threading.Event]]:
    """A server of raw bytes: its port, and the event that ends it. clock: sees who has asked."""
    ended = threading.Event()
    end = threading.Timer(60, ended.set)  # else a call without a deadline would never end
    end.start()

    def accept(listening: socket.socket) -> None:
        while not ended.is_set():
            try:
                connection, _ = listening.accept()
            except TimeoutError:
                continue
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    def one(connection: socket.socket) -> None:
        with connection:
            try:
                if clock is not None:
                    connection.recv(1, socket.MSG_PEEK)
                    clock.asked(connection)
                serve(connection, ended)
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        accepting = threading.Thread(target=accept, args=(listening,), daemon=True)
        accepting.start()
        try:
            yield listening.getsockname()[1], ended
        finally:
            ended.set()
            end.cancel()
            accepting.join()


def _dripping(start: bytes, drop: bytes) -> Serve:
    def serve(connection: socket.socket, ended: threading.Event) -> None:
        connection.recv(65536)
        connection.sendall(start)
        while not ended.wait(0.05):
            connection.sendall(drop)

    return serve


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
DRIPS = {
    "nothing": _dripping(b"", b""),
    "status line": _dripping(b"HTTP/1.1 200 ", b"O"),
    "header": _dripping(b"HTTP/1.1 200 OK\r\nX-A: ", b"a"),
    "headers": _dripping(b"HTTP/1.1 200 OK\r\n", b"X-A: a\r\n"),
    "102": _dripping(b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "103": _dripping(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    "100": _dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "chunk size": _dripping(CHUNKED, b"0"),
    "chunks": _dripping(CHUNKED, b"1\r\n \r\n"),
    "trailers": _dripping(CHUNKED + b"0\r\n", b"X-A: a\r\n"),
    "error's body": _dripping(b"HTTP/1.1 500 Bad\r\nContent-Length: 9999\r\n\r\n", b" "),
}


def _built(provider: str, url: str) -> model.Provider:
    kind, _, name = provider.partition("-")
    config = {"langchain": "openai:m"}.get(kind, "m") if not name else f"{name}:m"
    return model.build(ModelConfig(kind, config, url, "key", deadline=LONG))


def _failed_call(provider: str, url: str, seconds: float, now: Now = time.monotonic) -> ModelError:
    """How a call with so many seconds ends."""
    asked = _built(provider, url)
    try:
        with pytest.raises(ModelError) as raised:
            asked.analyse("text", now() + seconds)
    finally:
        asked.close()
    return raised.value


def _at_once(
    asked: Mapping[str, model.Provider], seconds: float, now: Now = time.monotonic
) -> dict[str, ModelError]:
    """How calls of several models end that are made at the same time."""

    def ask(one: model.Provider) -> ModelError:
        with pytest.raises(ModelError) as raised:
            one.analyse("text", now() + seconds)
        return raised.value

    with ThreadPoolExecutor(len(asked)) as threads:
        ends = {name: threads.submit(ask, one) for name, one in asked.items()}
    for one in asked.values():
        one.close()
    return {name: end.result() for name, end in ends.items()}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_reply_that_comes_in_drops_ends_with_the_call(
    provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HeldClock(monkeypatch, askers=len(DRIPS))
    with ExitStack() as stack:
        served = {
            drip: stack.enter_context(_serving(serve, clock)) for drip, serve in DRIPS.items()
        }
        errors = _at_once(
            {
                drip: _built(provider, f"http://127.0.0.1:{port}")
                for drip, (port, _) in served.items()
            },
            1.0,
            clock,
        )
        assert not any(ended.is_set() for _, ended in served.values())
    for drip, error in errors.items():
        assert isinstance(error, TransientError), drip
        assert "did not answer before the deadline" in str(error), drip


def test_the_request_for_ollamas_digest_ends_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    from selfheal_worker.model.providers import ollama as model_ollama

    def warm_up(url: str) -> str:
        asked = _built("ollama", url)
        with pytest.raises(ModelUnavailableError) as raised:
            asked.warm_up()
        asked.close()
        return str(raised.value)

    monkeypatch.setattr(model_ollama, "_FIRST_LOOK", 1.0)
    with ExitStack() as stack:
        served = {drip: stack.enter_context(_serving(serve)) for drip, serve in DRIPS.items()}
        urls = [f"http://127.0.0.1:{port}" for port, _ in served.values()]
        with ThreadPoolExecutor(len(urls)) as threads:
            said = list(threads.map(warm_up, urls))
        assert not any(ended.is_set() for _, ended in served.values())
    assert said == [f"no answer from {url}" for url in urls]


@pytest.mark.parametrize("size", ["Content-Length: 99999999999", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_reply_without_end_is_broken_off(provider: str, size: str) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"

    def serve(connection: socket.socket, ended: threading.Event) -> None:
        connection.recv(65536)
        connection.sendall(f"HTTP/1.1 200 OK\r\n{size}\r\n\r\n".encode())
        while not ended.is_set():
            connection.sendall(chunk)

    with _serving(serve) as (port, ended):
        error = _failed_call(provider, f"http://127.0.0.1:{port}", 50)
        assert not ended.is_set()
    assert "sent more than 4 MiB" in str(error)


def test_a_list_of_models_without_end_is_broken_off() -> None:
    def serve(connection: socket.socket, ended: threading.Event) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not ended.is_set():
            connection.sendall(b" " * 65536)

    with _serving(serve) as (port, ended):
        asked = _built("ollama", f"http://127.0.0.1:{port}")
        with pytest.raises(TransientError, match="sent more than 4 MiB"):
            asked.warm_up()
        asked.close()
        assert not ended.is_set()


@pytest.mark.parametrize("body", ["[" * 100_000, '{"models": [{"name": "m", "digest": 5}]}', "{}"])
def test_a_server_that_lists_no_models_is_reported_as_not_ollama(body: str) -> None:
    def serve(connection: socket.socket, ended: threading.Event) -> None:
        connection.recv(65536)
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body.encode())
        ended.wait()

    with _serving(serve) as (port, _):
        asked = _built("ollama", f"http://127.0.0.1:{port}")
        with pytest.raises(ModelUnavailableError, match="does not answer like an Ollama server"):
            asked.warm_up()
        asked.close()


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (b"", "no answer from"),
        (b"AMQP\0\0\x09\x01\r\n\r\n", "does not answer like an Ollama server"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nno gzip",
            "does not answer like an Ollama server",
        ),
    ],
    ids=["gone", "other protocol", "not what it says"],
)
def test_a_server_that_goes_is_not_reported_as_another_program(reply: bytes, told: str) -> None:
    def serve(connection: socket.socket, ended: threading.Event) -> None:
        connection.recv(65536)
        connection.sendall(reply)

    with _serving(serve) as (port, _):
        asked = _built("ollama", f"http://127.0.0.1:{port}")
        with pytest.raises(ModelUnavailableError, match=told):
            asked.warm_up()
        asked.close()


def test_a_request_that_the_server_does_not_read_ends_with_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = HeldClock(monkeypatch)

    def serve(connection: socket.socket, ended: threading.Event) -> None:
        while not ended.wait(0.05):
            connection.recv(2048)

    with _serving(serve, clock) as (port, ended):
        asked = _built("openai", f"http://127.0.0.1:{port}")
        with pytest.raises(TransientError, match="did not answer before the deadline"):
            asked.analyse("text " * 3_000_000, clock() + 2)
        asked.close()
        assert not ended.is_set()


@pytest.fixture
def full() -> Iterator[int]:
    """The port of a server whose queue of connections is full: it answers no more of them."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = []
        for _ in range(3):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
            waiting.append(one)
        yield listening.getsockname()[1]
        for one in waiting:
            one.close()


@pytest.mark.parametrize("provider", ["ollama", "openai"])
def test_many_dead_addresses_have_the_time_of_one(
    provider: str, full: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = socket.getaddrinfo("127.0.0.1", full, 0, socket.SOCK_STREAM)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found * 500)
    tried: list[float] = []
    connect = socket.socket.connect
    clock = HeldClock(monkeypatch)

    class Counted(socket.socket):
        def connect(self, address: Any) -> None:
            clock.asked("the first address")
            tried.append(self.gettimeout() or LONG)
            connect(self, address)

    monkeypatch.setattr(socket, "socket", Counted)
    error = _failed_call(provider, f"http://many.example:{full}", 2.0, clock)
    assert isinstance(error, ModelUnavailableError)
    assert "no answer from" in str(error)
    assert len(tried) <= 3, "more than 2 seconds of connecting"


def test_a_dead_address_leaves_time_for_the_next(
    full: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(connection: socket.socket, ended: threading.Event) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 429 Wait\r\nContent-Length: 0\r\n\r\n")

    with _serving(serve) as (port, _):
        both = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", one)) for one in (full, port)
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
        error = _failed_call("openai", f"http://two.example:{port}", 20.0)
    assert isinstance(error, errors.OverloadedError)


@pytest.mark.parametrize("provider", ["ollama", "openai"])
def test_a_resolver_that_does_not_answer_ends_with_the_call(
    provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = threading.Event()
    looked_up: list[str] = []

    def slow(host: str, *_: object, **__: object) -> Any:
        looked_up.append(host)
        may_end.wait(60)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    clock = HeldClock(monkeypatch)  # it stands: each call waits for its whole time
    asked = _built(provider, "http://slow.example")
    for _ in range(3):
        with pytest.raises(ModelUnavailableError, match="no answer from"):
            asked.analyse("text", clock() + 0.3)
    assert not may_end.is_set()
    until("the thread looks the name up", lambda: looked_up)
    assert looked_up == ["slow.example"], "a thread for each call"
    may_end.set()
    asked.close()


TLS_RECORD = b"\x16\x03\x03\x40\x00"


@pytest.mark.parametrize("first", [b"", TLS_RECORD], ids=["silent", "drops"])
def test_a_handshake_in_tls_ends_with_the_call(
    first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HeldClock(monkeypatch, askers=len(PROVIDERS))
    with _serving(_dripping(first, b"\x02" if first else b""), clock) as (port, ended):
        asked = {one: _built(one, f"https://127.0.0.1:{port}") for one in PROVIDERS}
        errors = _at_once(asked, 1.0, clock)
        assert not ended.is_set()
    assert all(isinstance(error, ModelUnavailableError) for error in errors.values()), errors


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("drip", ["nothing", "header", "102"])
def test_a_proxy_that_does_not_answer_ends_with_the_call(
    drip: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    clock = HeldClock(monkeypatch, askers=len(PROVIDERS))
    with _serving(DRIPS[drip], clock) as (port, ended):
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://127.0.0.1:{port}")
        asked = {one: _built(one, f"{scheme}://model.example") for one in PROVIDERS}
        errors = _at_once(asked, 1.0, clock)
        assert not ended.is_set()
    for one, error in errors.items():
        if scheme == "https":  # the request has not been sent
            assert isinstance(error, ModelUnavailableError), one
        else:
            assert isinstance(error, TransientError), one
            assert "did not answer before the deadline" in str(error), one


@pytest.mark.parametrize("status", ["403 No", "407 Who", "502 Bad", "503 Busy"])
def test_a_proxy_that_makes_no_connection_is_no_fault_of_the_message(
    status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(connection: socket.socket, ended: threading.Event) -> None:
        connection.recv(65536)
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with _serving(serve) as (port, _):
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        asked = {one: _built(one, "https://model.example") for one in PROVIDERS}
        errors = _at_once(asked, 30.0)
    for one, error in errors.items():
        assert isinstance(error, ModelUnavailableError), one


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_reply_that_is_longer_than_any_answer_is_no_answer(provider: str) -> None:
    """It is not looked through for JSON, which would take seconds."""
    talk = '{\\"' * (1 << 20)
    message = f'{{"role": "assistant", "content": "{talk}"}}'
    ollama = f'{{"model": "m", "message": {message}, "done": true, "done_reason": "stop"}}'
    choice = f'{{"index": 0, "finish_reason": "stop", "message": {message}}}'
    openai = f'{{"id": "1", "object": "chat.completion", "model": "m", "choices": [{choice}]}}'

    def serve(connection: socket.socket, ended: threading.Event) -> None:
        body = (ollama if connection.recv(65536).startswith(b"POST /api/") else openai).encode()
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        ended.wait()

    with _serving(serve) as (port, _):
        error = _failed_call(provider, f"http://127.0.0.1:{port}", 50)
    assert isinstance(error, errors.BadOutputError)
    assert "more than any valid answer" in str(error)


@pytest.mark.parametrize("status", ["200 OK", "500 Bad"])
def test_a_reply_that_unpacks_without_end_is_broken_off(status: str) -> None:
    packed = gzip.compress(b" " * (64 << 20))

    def serve(connection: socket.socket, ended: threading.Event) -> None:
        connection.recv(65536)
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
            f"Content-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
        )
        connection.sendall(head.encode() + packed)
        ended.wait()

    with _serving(serve) as (port, ended):
        asked = {one: _built(one, f"http://127.0.0.1:{port}") for one in PROVIDERS}
        errors = _at_once(asked, 50.0)
        assert not ended.is_set()
    for one, error in errors.items():
        assert "sent more than 4 MiB" in str(error), one
