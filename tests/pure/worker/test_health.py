from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest
import requests

from selfheal_worker.config import load
from selfheal_worker.health import LOOP_STUCK_AFTER, Server, Status

WELL = Status(
    in_flight=2,
    concurrency=8,
    last_progress=1.5,
    oldest_age=0.1,
    tick_age=0.1,
    hung=0,
    not_ready=(),
    breakers={"model": "closed"},
)


class Source:
    def __init__(self) -> None:
        self.now = WELL

    def status(self) -> Status:
        return self.now

    def exposition(self) -> bytes:
        return b"metric 1\n"


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Server, Source]]:
    """One server for all tests: closing it takes half a second."""
    source = Source()
    made = Server("127.0.0.1", 0, source)
    yield made, source
    made.close()


@pytest.fixture
def source(served: tuple[Server, Source]) -> Source:
    served[1].now = WELL
    return served[1]


@pytest.fixture
def server(served: tuple[Server, Source], source: Source) -> Server:
    return served[0]


def get(server: Server, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    with requests.get(f"http://{host}:{server.port}{path}", timeout=60) as reply:
        return reply.status_code, reply.text


def test_healthy_and_ready(server: Server) -> None:
    assert get(server, "/healthz") == (200, "ok\n")
    assert get(server, "/readyz?verbose") == (200, "ok\n")
    assert get(server, "/metrics") == (200, "metric 1\n")
    code, body = get(server, "/progress")
    assert code == 200
    progress = json.loads(body)
    assert (progress["in_flight"], progress["last_progress"], progress["ready"]) == (2, 1.5, True)
    assert get(server, "/")[0] == 404


def test_not_ready_is_not_unhealthy(server: Server, source: Source) -> None:
    source.now = replace(WELL, not_ready=("the broker is away", "the model is away"))
    assert get(server, "/healthz")[0] == 200
    assert get(server, "/readyz") == (503, "the broker is away\nthe model is away\n")
    assert json.loads(get(server, "/progress")[1])["ready"] is False


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (replace(WELL, tick_age=LOOP_STUCK_AFTER + 1), "has not ticked"),
        (replace(WELL, hung=3), "3 handlers"),
    ],
)
def test_a_stuck_process_is_unhealthy(
    server: Server, source: Source, status: Status, why: str
) -> None:
    source.now = status
    code, body = get(server, "/healthz")
    assert code == 503
    assert why in body


def test_a_port_in_use_is_an_os_error(server: Server, source: Source) -> None:
    with pytest.raises(OSError, match="in use"):
        Server("127.0.0.1", server.port, source)


@pytest.mark.parametrize("dual", [True, False])
def test_without_a_host_it_answers_on_all_addresses(
    source: Source, monkeypatch: pytest.MonkeyPatch, dual: bool
) -> None:
    """A pod's only address may be of either family, and IPv6 may be off."""
    if dual and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: dual)
    server = Server(load({"AMQP_HOST": "broker"}).http_host, 0, source)
    try:
        assert get(server, "/healthz") == (200, "ok\n")
        if dual:
            assert get(server, "/healthz", "[::1]") == (200, "ok\n")
    finally:
        server.close()


def test_an_ipv6_address_is_a_host(source: Source) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    server = Server("::1", 0, source)
    try:
        assert get(server, "/healthz", "[::1]") == (200, "ok\n")
    finally:
        server.close()


def test_a_probe_of_the_model_that_hangs_is_a_process_that_is_stuck(
    server: Server, source: Source
) -> None:
    source.now = replace(WELL, hung_probe=True)
    code, why = get(server, "/healthz")
    assert code == 503
    assert "past its deadline" in why
