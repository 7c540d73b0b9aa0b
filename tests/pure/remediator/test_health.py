from __future__ import annotations

import socket

import pytest
import requests

from selfheal_remediator.health import serve


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
