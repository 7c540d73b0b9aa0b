"""The network of an HTTP client in a simulated process: bytes to and from modelled servers.

It raises what `model/call_network.py` raises, and waits by an event that the process's runtime
makes, so that only virtual time passes.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import httpcore

from tests.simulation.models.conditions import Condition
from tests.simulation.models.network import Connection, Failure, Network


class Event(Protocol):
    """As threading's."""

    def set(self) -> None:
        """Wake who waits."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set; False when the time is up."""


class Bounds(Protocol):
    """Of the call that the calling thread makes."""

    def left(self) -> float:
        """Seconds until its deadline."""

    def took(self, size: int) -> None:
        """So many bytes have come."""


class SimulatedBackend(httpcore.NetworkBackend):
    """Connects a client to the servers of a `Network`. client: the name of its process; event:
    makes an event of the runtime."""

    def __init__(
        self, network: Network, client: str, bounds: Bounds, event: Callable[[], Event]
    ) -> None:
        self._network = network
        self._client = client
        self._bounds = bounds
        self._event = event

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Raises httpcore's ConnectTimeout and ConnectError."""
        seconds = _seconds(self._bounds, timeout, httpcore.ConnectTimeout)
        made = self._network.connect(self._client, host, port)
        if isinstance(made, Failure):
            if made.why in (Condition.UNTRUSTED, Condition.NO_TLS):
                return _NoTls(made.why)
            late = made.after is None or made.after > seconds
            self._event().wait(seconds if made.after is None else min(seconds, made.after))
            if late:
                raise httpcore.ConnectTimeout("no address answered in time")
            _raise(made.why)
        assert isinstance(made, Connection)
        return _Stream(made, self._bounds, self._event)


class _Stream(httpcore.NetworkStream):
    def __init__(self, connection: Connection, bounds: Bounds, event: Callable[[], Event]) -> None:
        self._connection = connection
        self._bounds = bounds
        self._event = event

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has come, b"" at the end. Raises httpcore's ReadTimeout and ReadError."""
        one = self._connection
        while not one.received and not one.ended and not one.closed:
            seconds = _seconds(self._bounds, timeout, httpcore.ReadTimeout)
            came = self._event()
            one.wake = came.set
            if not came.wait(seconds):
                raise httpcore.ReadTimeout("timed out")
        if one.received:
            data = bytes(one.received[:max_bytes])
            del one.received[:max_bytes]
            self._bounds.took(len(data))
            return data
        if one.ended == "closed":
            return b""
        raise httpcore.ReadError("the connection was reset")

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Raises httpcore's WriteTimeout and WriteError."""
        _seconds(self._bounds, timeout, httpcore.WriteTimeout)
        try:
            self._connection.send(buffer)
        except ConnectionResetError as error:
            raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        """Also ends the read of another thread."""
        self._connection.close()
        self._connection.wake()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """The bytes are the same."""
        return self

    def get_extra_info(self, info: str) -> Any:
        """What httpcore reads."""
        one = self._connection
        return bool(one.received or one.ended or one.closed) if info == "is_readable" else None


class _NoTls(httpcore.NetworkStream):
    """A server that can be reached, and with which TLS fails."""

    def __init__(self, why: Condition) -> None:
        self._why = why

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Where the client uses no TLS, this server closes the connection."""
        return b""

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Into the void."""

    def close(self) -> None:
        """Nothing is open."""

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """Raises httpcore's ConnectError from what Python's ssl raises."""
        if self._why is Condition.UNTRUSTED:
            error: ssl.SSLError = ssl.SSLCertVerificationError(1, "certificate verify failed")
            error.verify_message = "self-signed certificate"  # type: ignore[attr-defined]
        else:
            error = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
        raise httpcore.ConnectError(str(error)) from error

    def get_extra_info(self, info: str) -> Any:
        """What httpcore reads."""
        return False if info == "is_readable" else None


def _seconds(bounds: Bounds, timeout: float | None, late: type[httpcore.TimeoutException]) -> float:
    left = bounds.left()
    if left <= 0:
        raise late("no time is left for the call")
    return left if timeout is None else min(left, timeout)


def _raise(why: Condition) -> None:
    if why is Condition.UNRESOLVED:
        error: OSError = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    else:
        error = ConnectionRefusedError(111, "Connection refused")
    raise httpcore.ConnectError(str(error)) from error
