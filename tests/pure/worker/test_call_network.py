"""Each step of a connection has what is left of the call that uses it."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import httpcore
import httpx
import pytest

from selfheal_worker.model import call_network
from selfheal_worker.model.call_network import CallBackend, CallStream, Lookups, bind


class Bounds:
    """A call with so many seconds left."""

    def __init__(self, left: float = 60.0) -> None:
        self.seconds = left
        self.size = 0

    def left(self) -> float:
        return self.seconds

    def took(self, size: int) -> None:
        self.size += size


class Recorded(socket.socket):
    """A socket that records the time that each step may take."""

    waits: list[float | None]

    def settimeout(self, value: float | None) -> None:
        self.waits.append(value)
        super().settimeout(value)


@pytest.fixture
def pair() -> Iterator[tuple[Recorded, socket.socket]]:
    left, right = socket.socketpair()
    recorded = Recorded(left.family, left.type, left.proto, left.detach())
    recorded.waits = []
    with recorded, right:
        yield recorded, right


def test_each_step_has_what_is_left_of_the_call_whichever_call_has_the_connection(
    pair: tuple[Recorded, socket.socket],
) -> None:
    ours, theirs = pair
    bounds = Bounds()
    stream = CallStream(ours, bounds)
    theirs.sendall(b"12345")
    for left, timeout in ((20.0, 600.0), (5.0, 20.0), (60.0, 20.0), (7.0, None)):
        bounds.seconds = left
        stream.read(1, timeout)
        stream.write(b"a", timeout)
    assert ours.waits == [20.0, 20.0, 5.0, 5.0, 20.0, 20.0, 7.0, 7.0]
    assert bounds.size == 4


@pytest.mark.parametrize("left", [0.0, -3.0])
def test_no_step_begins_after_the_deadline(
    left: float, pair: tuple[Recorded, socket.socket]
) -> None:
    """A server whose drops come faster than the shortest time-out has its end too."""
    ours, theirs = pair
    theirs.sendall(b"there is more to read")
    stream = CallStream(ours, Bounds(left))
    with pytest.raises(httpcore.ReadTimeout):
        stream.read(1, 600.0)
    with pytest.raises(httpcore.WriteTimeout):
        stream.write(b"a", 600.0)
    with pytest.raises(httpcore.ConnectTimeout):
        stream.start_tls(ssl.create_default_context(), "model.example", 600.0)
    with pytest.raises(httpcore.ConnectTimeout):
        CallBackend(Bounds(left)).connect_tcp("127.0.0.1", 1, 600.0)


def test_closing_ends_the_read_of_another_thread(pair: tuple[Recorded, socket.socket]) -> None:
    ours, _ = pair
    stream = CallStream(ours, Bounds())
    begun = threading.Event()
    read: list[object] = []
    settimeout = ours.settimeout

    def told(value: float | None) -> None:
        settimeout(value)
        begun.set()

    ours.settimeout = told  # type: ignore[method-assign]

    def reads() -> None:
        try:
            read.append(stream.read(1))
        except httpcore.ReadError as error:
            read.append(error)

    reading = threading.Thread(target=reads, daemon=True)
    reading.start()
    assert begun.wait(30)
    stream.close()
    reading.join(30)
    assert not reading.is_alive()
    assert len(read) == 1


def test_threads_that_ask_for_the_same_name_wait_for_one_look_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, may_end = threading.Event(), threading.Event()
    asked: list[str] = []
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))]

    def slow(host: str, *_: object) -> Any:
        asked.append(host)
        begun.set()
        may_end.wait(60)
        return found

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    lookups = Lookups()
    with pytest.raises(TimeoutError):
        lookups.addresses("a.example", 80, 0.0)
    assert begun.wait(30)
    got: list[object] = []
    waiting = [
        threading.Thread(target=lambda: got.append(lookups.addresses("a.example", 80, 30.0)))
        for _ in range(5)
    ]
    for one in waiting:
        one.start()
    with pytest.raises(TimeoutError):
        lookups.addresses("a.example", 80, -1.0)
    assert asked == ["a.example"]
    may_end.set()
    for one in waiting:
        one.join(30)
    assert got == [found] * 5


@pytest.mark.parametrize("fails", [False, True])
def test_a_name_is_looked_up_again_for_the_next_connection(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the thread that looked it up has not ended yet."""
    asked: list[str] = []
    may_end = threading.Event()

    class Slow(Future[Any]):
        """Keeps who has set what comes of it."""

        def set_result(self, result: Any) -> None:
            super().set_result(result)
            may_end.wait(60)

        def set_exception(self, exception: BaseException | None) -> None:
            super().set_exception(exception)
            may_end.wait(60)

    def answers(host: str, *_: object) -> Any:
        asked.append(host)
        if fails:
            raise socket.gaierror("no such name")
        return []

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    monkeypatch.setattr(call_network, "Future", Slow)
    lookups = Lookups()
    for _ in range(2):
        try:
            assert lookups.addresses("a.example", 80, 60.0) == []
        except socket.gaierror:
            assert fails
    may_end.set()
    assert asked == ["a.example"] * 2


@pytest.mark.parametrize("error", [socket.gaierror("no such name"), UnicodeError("label too long")])
def test_a_name_without_an_address_is_no_connection(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Any:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with pytest.raises(httpcore.ConnectError):
        CallBackend(Bounds()).connect_tcp("none.example", 80)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
    with pytest.raises(httpcore.ConnectError):
        CallBackend(Bounds()).connect_tcp("none.example", 80)


def test_all_connections_of_a_client_are_bound_also_those_to_proxies() -> None:
    proxies = {"https://": "http://a.example", "http://": "https://b.example"}
    mounts = {scheme: httpx.HTTPTransport(proxy=url) for scheme, url in proxies.items()}
    asked: list[tuple[str, int]] = []

    class Refusing(httpcore.NetworkBackend):
        def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore.NetworkStream:
            asked.append((host, port))
            raise httpcore.ConnectError

    with httpx.Client(mounts={**mounts, "all://none.example": None}, trust_env=False) as client:
        bind(client, Refusing())
        for url in ("https://c.example", "http://c.example", "http://none.example"):
            with pytest.raises(httpx.ConnectError):
                client.get(url)
    assert asked == [("a.example", 80), ("b.example", 443), ("none.example", 80)]


def test_options_are_set_on_each_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        backend = CallBackend(Bounds(), [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)])
        stream = backend.connect_tcp(*listening.getsockname())
        ours = stream.get_extra_info("socket")
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert stream.get_extra_info("is_readable") is False
        stream.close()
        assert stream.get_extra_info("is_readable") is True
