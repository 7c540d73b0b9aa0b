"""Connections of an HTTP client that end with the call that uses them.

httpx's timeouts apply to one connect, one read, one write, and to each address of a name: a server
that sends its headers byte by byte, or endless interim responses, never exceeds them, and they add
up. Here each step has the remaining time of the call, whatever the client sets.
"""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from functools import partial
from typing import Any, NoReturn, Protocol

import httpcore
import httpx

# The minimum time for one of several addresses, while so much time remains.
_LEAST_CONNECT = 1.0
_PIECE = 65536

AddressInfo = tuple[int, int, int, str, Any]
SocketOption = Any


class Bounds(Protocol):
    """Of the call that the calling thread makes."""

    def left(self) -> float:
        """Seconds until its deadline; 0 or less where it has passed."""

    def took(self, size: int) -> None:
        """So many bytes have come. Raises where that is more than an answer may have."""


def bind(client: httpx.Client, backend: httpcore.NetworkBackend) -> None:
    """Have all connections of a client, also those to proxies, made by backend.

    httpx has no parameter for it.
    """
    for transport in (client._transport, *client._mounts.values()):
        pool = getattr(transport, "_pool", None)
        if isinstance(pool, httpcore.ConnectionPool):
            pool._network_backend = backend


class CallBackend(httpcore.NetworkBackend):
    """Connects within the call's time; options are set on each socket."""

    def __init__(self, bounds: Bounds, options: Iterable[SocketOption] = ()) -> None:
        self._bounds = bounds
        self._options = list(options)
        self._lookups = Lookups()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.NetworkStream:
        """Resolve host and try its addresses, all within timeout and the call's time.

        Raises httpcore's ConnectTimeout and ConnectError.
        """
        options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), *self._options]
        options += socket_options or ()
        source = None if local_address is None else (local_address, 0)
        try:
            end = time.monotonic() + _seconds(self._bounds, timeout)
            found = self._lookups.addresses(host, port, end - time.monotonic())
            return CallStream(_first_connected(found, end, source, options), self._bounds)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(str(error)) from error


def _first_connected(
    found: list[AddressInfo],
    end: float,
    source: tuple[str, int] | None,
    options: Iterable[SocketOption],
) -> socket.socket:
    """A connection to the first address that takes one. Raises OSError, and TimeoutError at end.

    An address that does not answer leaves time for those after it.
    """
    last: OSError = OSError("the name has no address")
    for at, address in enumerate(found):
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError("no address answered in time")
        share = max(_LEAST_CONNECT, left / (len(found) - at))
        try:
            return _connected(address, min(left, share), source, options)
        except OSError as error:
            last = error
    raise last


def _connected(
    address: AddressInfo,
    seconds: float,
    source: tuple[str, int] | None,
    options: Iterable[SocketOption],
) -> socket.socket:
    family, kind, protocol, _, where = address
    made = socket.socket(family, kind, protocol)
    try:
        for option in options:
            made.setsockopt(*option)
        if source is not None:
            made.bind(source)
        made.settimeout(seconds)
        made.connect(where)
    except BaseException:
        made.close()
        raise
    return made


class Lookups:
    """Names are resolved in threads, because getaddrinfo has no timeout.

    Concurrent lookups of the same name wait for the same thread, so no more threads than names
    wait for a resolver that does not answer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[tuple[str, int], Future[list[AddressInfo]]] = {}

    def addresses(self, host: str, port: int, seconds: float) -> list[AddressInfo]:
        """Raises TimeoutError, and what getaddrinfo raises."""
        if _is_address(host):
            return _addresses(host, port)
        with self._lock:
            lookup = self._running.get((host, port))
            if lookup is None:
                lookup = Future()
                self._begin(host, port, lookup)
                self._running[host, port] = lookup
        if not wait([lookup], max(0.0, seconds)).done:
            raise TimeoutError(f"{host} was not resolved in time")
        return lookup.result()

    def _look_up(self, host: str, port: int, lookup: Future[list[AddressInfo]]) -> None:
        found: list[AddressInfo] = []
        failed: Exception | None = None
        try:
            found = _addresses(host, port)
        except Exception as error:  # noqa: BLE001 raised again in the threads that wait
            failed = error
        with self._lock:  # first: who asks after that has an answer of its own
            del self._running[host, port]
        if failed is None:
            lookup.set_result(found)
        else:
            lookup.set_exception(failed)

    def _begin(self, host: str, port: int, lookup: Future[list[AddressInfo]]) -> None:
        arguments = (host, port, lookup)
        try:
            threading.Thread(
                target=self._look_up, args=arguments, name="resolve", daemon=True
            ).start()
        except RuntimeError as error:  # the machine has no thread to spare
            raise OSError(f"no thread for the name resolution: {error}") from None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _addresses(host: str, port: int) -> list[AddressInfo]:
    return list(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM))


def _seconds(bounds: Bounds, timeout: float | None) -> float:
    """How long a step may take. Raises TimeoutError where no time is left."""
    left = bounds.left()
    if left <= 0:
        raise TimeoutError("no time is left for the call")
    return left if timeout is None else min(left, timeout)


class CallStream(httpcore.NetworkStream):
    """A connection, each of whose steps ends with the call that the calling thread makes."""

    def __init__(self, connected: socket.socket, bounds: Bounds) -> None:
        self._socket = connected
        self._bounds = bounds
        self._tunnelling = False

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has come, b"" at the end. Raises httpcore's ReadTimeout and ReadError.

        ConnectTimeout where a proxy does not answer: nothing has reached the server yet.
        """
        try:
            self._socket.settimeout(_seconds(self._bounds, timeout))
            data = self._socket.recv(max_bytes)
        except TimeoutError as error:
            late = httpcore.ConnectTimeout if self._tunnelling else httpcore.ReadTimeout
            raise late(str(error)) from error
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error
        self._bounds.took(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of buffer. Raises httpcore's WriteTimeout and WriteError."""
        self._tunnelling = self._tunnelling or buffer.startswith(b"CONNECT ")
        rest = memoryview(buffer)
        try:
            while rest:
                self._socket.settimeout(_seconds(self._bounds, timeout))
                rest = rest[self._socket.send(rest[:_PIECE]) :]
        except TimeoutError as error:
            raise httpcore.WriteTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        """Also ends the read of another thread: the system would wait on for a closed socket."""
        with contextlib.suppress(OSError):
            # Not SSLSocket's own, which would have that thread read without TLS.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        self._socket.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """The connection in TLS. Raises httpcore's ConnectTimeout and ConnectError."""
        try:
            if isinstance(self._socket, ssl.SSLSocket):
                return _TlsInTls(self, ssl_context, server_hostname, timeout)
            self._socket.settimeout(_seconds(self._bounds, timeout))
            # Python bounds the whole handshake by the socket's time-out.
            secured = ssl_context.wrap_socket(self._socket, server_hostname=server_hostname)
        except (TimeoutError, httpcore.TimeoutException) as error:
            self._failed(httpcore.ConnectTimeout(str(error)), error)
        except (OSError, httpcore.NetworkError) as error:
            self._failed(httpcore.ConnectError(str(error)), error)
        return CallStream(secured, self._bounds)

    def _failed(self, raised: Exception, cause: Exception) -> NoReturn:
        self.close()
        raise raised from cause

    def get_extra_info(self, info: str) -> Any:
        """What httpcore reads: ssl_object, socket, is_readable, client_addr, server_addr."""
        match info:
            case "ssl_object":
                return self._socket if isinstance(self._socket, ssl.SSLSocket) else None
            case "socket":
                return self._socket
            case "is_readable":
                return _is_readable(self._socket)
            case "client_addr":
                return self._socket.getsockname()
            case "server_addr":
                return self._socket.getpeername()
        return None


def _is_readable(connected: socket.socket) -> bool:
    """Whether something has come, or the connection has ended."""
    if connected.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(connected, select.POLLIN)
    return bool(poll.poll(0))


class _TlsInTls(httpcore.NetworkStream):
    """TLS to a server through TLS to a proxy, which Python's sockets cannot do."""

    def __init__(
        self,
        proxy: CallStream,
        context: ssl.SSLContext,
        hostname: str | None,
        timeout: float | None,
    ) -> None:
        self._proxy = proxy
        self._come = ssl.MemoryBIO()
        self._to_send = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._come, self._to_send, server_hostname=hostname)
        self._run(self._tls.do_handshake, timeout)

    def _run(self, step: Callable[[], Any], timeout: float | None) -> Any:
        """Do a step of TLS, with what it has to send and what it waits for."""
        while True:
            result, waits = None, False
            try:
                result = step()
            except ssl.SSLWantReadError:
                waits = True
            self._proxy.write(self._to_send.read(), timeout)
            if not waits:
                return result
            if data := self._proxy.read(_PIECE, timeout):
                self._come.write(data)
            else:
                self._come.write_eof()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """As `CallStream.read`."""
        try:
            return bytes(self._run(partial(self._tls.read, max_bytes), timeout))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """As `CallStream.write`."""
        rest = memoryview(buffer)
        try:
            while rest:
                sent = self._run(partial(self._tls.write, rest[:_PIECE]), timeout)
                rest = rest[sent:]
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        """Close the connection to the proxy."""
        self._proxy.close()

    def get_extra_info(self, info: str) -> Any:
        """As `CallStream.get_extra_info`; ssl_object is the server's."""
        return self._tls if info == "ssl_object" else self._proxy.get_extra_info(info)
