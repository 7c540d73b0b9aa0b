from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import requests

from selfheal_remediator.health import MOST_CONNECTIONS, Reply, serve
from selfheal_remediator.threads import supervision


def nothing_wrong() -> str:
    return ""


@pytest.mark.parametrize("dual", [True, False])
def test_it_answers_on_all_addresses(monkeypatch: pytest.MonkeyPatch, dual: bool) -> None:
    """A pod's only address may be of either family, and IPv6 may be off."""
    if dual and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: dual)
    server = serve(0, nothing_wrong, nothing_wrong, lambda: b"")
    try:
        for host in ("127.0.0.1", "[::1]") if dual else ("127.0.0.1",):
            url = f"http://{host}:{server.server_port}/healthz"
            with requests.get(url, timeout=60) as reply:
                assert reply.content == b"ok\n"
    finally:
        server.shutdown()
        server.server_close()


PAGE = Reply(200, "text/html", b"<p>here", {"Cache-Control": "no-store"})


@pytest.fixture
def address() -> Iterator[str]:
    """A server with a page, and a route with nothing behind it."""
    more = {"/page": lambda: PAGE, "/off": lambda: None}
    server = serve(0, nothing_wrong, lambda: "no nodes", lambda: b"metrics", more)
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_route_may_have_headers_or_nothing(address: str) -> None:
    with requests.get(f"{address}/page?x=1", timeout=60) as reply:
        assert (reply.status_code, reply.content) == (200, b"<p>here")
        assert reply.headers["Cache-Control"] == "no-store"
        assert "Set-Cookie" not in reply.headers
    for path in ("/off", "/other", "/page/"):
        with requests.get(f"{address}{path}", timeout=60) as reply:
            assert reply.status_code == 404


def test_a_head_has_no_body(address: str) -> None:
    with requests.Session() as session:
        for path, status, length in (("/page", 200, 7), ("/metrics", 200, 7), ("/readyz", 503, 9)):
            with session.head(f"{address}{path}", timeout=60) as reply:
                assert (reply.status_code, reply.content) == (status, b"")
                assert reply.headers["Content-Length"] == str(length)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_it_only_reads(address: str, method: str) -> None:
    """What such a request brings is not taken for the next one on its connection."""
    body = b"GET /page HTTP/1.1\r\n\r\n"
    with requests.request(method, f"{address}/page", data=body, timeout=60) as reply:
        assert reply.status_code == 501
        assert reply.headers["Connection"] == "close"


def test_slow_clients_do_not_take_the_place_of_a_probe(address: str) -> None:
    """The oldest connection ends for another one; those that follow it stay."""
    place = urlsplit(address)
    slow = [
        socket.create_connection((place.hostname, place.port), 60) for _ in range(MOST_CONNECTIONS)
    ]
    try:
        with requests.get(f"{address}/healthz", timeout=60) as reply:
            assert reply.status_code == 200
        assert slow[0].recv(1) == b""
        slow[1].sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert slow[1].recv(12) == b"HTTP/1.1 200"
    finally:
        for connection in slow:
            connection.close()


def test_a_route_that_raises_is_noticed_and_the_next_request_answered() -> None:
    """A thread of a request must not die unnoticed."""

    def raises() -> Reply:
        raise ValueError("a bug")

    server = serve(0, nothing_wrong, nothing_wrong, lambda: b"", {"/page": raises})
    before = supervision.failures().get("http", 0)
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{address}/page", timeout=60)
        assert supervision.failures()["http"] == before + 1
        with requests.get(f"{address}/healthz", timeout=60) as reply:
            assert reply.status_code == 200
    finally:
        server.shutdown()
        server.server_close()
