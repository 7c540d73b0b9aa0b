"""TLS to a server through TLS to a proxy, within the call's time."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from selfheal_worker.model.call_network import CallBackend, bind
from tests.support.loopback import Handler, serving


class Bounds:
    """A call with so many seconds left."""

    def __init__(self) -> None:
        self.seconds = 60.0

    def left(self) -> float:
        return self.seconds

    def took(self, size: int) -> None: ...


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The contexts of servers and of a client that trusts them."""
    folder: Path = tmp_path_factory.mktemp("tls")
    made = ["-keyout", str(folder / "key"), "-out", str(folder / "cert"), "-days", "1"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1,DNS:model.example"]
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=x", *made]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "cert", folder / "key")
    return server, ssl.create_default_context(cafile=str(folder / "cert"))


@contextmanager
def _server(context: ssl.SSLContext) -> Iterator[int]:
    """It answers with what it was sent, and ends the connection without a word of TLS."""

    class Echoing(Handler):
        def do_POST(self) -> None:
            data = self.body()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(data)

    with serving(Echoing, context) as server:
        yield server.port


@contextmanager
def _proxy(
    context: ssl.SSLContext, to: int | None, connected: threading.Event | None = None
) -> Iterator[int]:
    """A proxy that speaks TLS; to: the port that it connects to, None: it sends drops instead.

    connected: set when the handshake with the server behind it has begun.
    """
    ended = threading.Event()

    def serve(listening: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            context.wrap_socket(listening.accept()[0], server_side=True) as client,
        ):
            asked = b""
            while not asked.endswith(b"\r\n\r\n"):
                asked += client.recv(65536)
            assert asked.startswith(b"CONNECT model.example:443 ")
            client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            if to is not None:
                _relay(client, to)
                return
            client.recv(65536)  # the handshake's beginning
            if connected is not None:
                connected.set()
            client.sendall(b"\x16\x03\x03\x40\x00")
            while not ended.wait(0.05):
                client.sendall(b"\x02")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        yield listening.getsockname()[1]
        ended.set()


def _relay(client: ssl.SSLSocket, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as server:
        while True:
            come = [client] if client.pending() else select.select([client, server], [], [])[0]
            for one, other in ((client, server), (server, client)):
                if one in come:
                    if not (data := one.recv(65536)):
                        return
                    other.sendall(data)


def _client(proxy: int, bounds: Bounds, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> httpx.Client:
    through = httpx.Proxy(f"https://127.0.0.1:{proxy}", ssl_context=tls[1])
    client = httpx.Client(proxy=through, verify=tls[1], timeout=60, trust_env=False)
    bind(client, CallBackend(bounds))
    return client


@pytest.mark.parametrize("size", [5, 3_000_000])
def test_a_server_is_reached_through_tls_in_tls(
    size: int, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    sent = b"x" * size
    with (
        _server(tls[0]) as port,
        _proxy(tls[0], port) as proxy,
        _client(proxy, Bounds(), tls) as client,
    ):
        reply = client.post("https://model.example/", content=sent)
    assert reply.content == sent


def test_a_handshake_in_drops_behind_a_proxy_ends_with_the_call(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    bounds, connected = Bounds(), threading.Event()

    def end() -> None:
        connected.wait(60)
        bounds.seconds = 0.0

    with _proxy(tls[0], None, connected) as proxy, _client(proxy, bounds, tls) as client:
        threading.Thread(target=end, daemon=True).start()
        with pytest.raises(httpx.ConnectTimeout):
            client.post("https://model.example/", content=b"x")
    assert connected.is_set()


def test_a_certificate_behind_a_proxy_is_checked(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    with _server(tls[0]) as port, _proxy(tls[0], port) as proxy:
        through = httpx.Proxy(f"https://127.0.0.1:{proxy}", ssl_context=tls[1])
        with httpx.Client(
            proxy=through, verify=ssl.create_default_context(), timeout=60, trust_env=False
        ) as client:
            bind(client, CallBackend(Bounds()))
            with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
                client.post("https://model.example/", content=b"x")
