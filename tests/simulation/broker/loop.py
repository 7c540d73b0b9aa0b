"""The client's side of a simulated connection to the broker: an I/O loop for pika.

pika's own code connects, speaks AMQP and sends heartbeats on it; only sockets and time are
simulated. All of it runs in the thread of the simulated process that calls `start`.
"""

from __future__ import annotations

import heapq
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any, Protocol

from pika.adapters.utils import nbio_interface

from tests.simulation.broker.wire import Wire
from tests.simulation.process import Process

Callback = Callable[[], Any]
#: Bytes that a socket takes before the other side has read them.
SOCKET_BUFFER = 256 * 1024


class Endpoint(Protocol):
    """The broker's machine, as the network shows it."""

    def connect(self, process: Process) -> Wire | OSError | None:
        """A new connection, why there is none, or None where nothing answers."""


class Handle(nbio_interface.AbstractTimerReference, nbio_interface.AbstractIOReference):  # type: ignore[misc]
    """A callback that can be cancelled."""

    def __init__(self, callback: Callback) -> None:
        self.callback: Callback | None = callback

    def cancel(self) -> bool:
        """Whether it was still to come."""
        pending, self.callback = self.callback is not None, None
        return pending

    def run(self) -> None:
        """Call it, unless it was cancelled."""
        callback, self.callback = self.callback, None
        if callback is not None:
            callback()


class Loop(nbio_interface.AbstractIOServices):  # type: ignore[misc]  # pika has no types
    """pika's native loop and its adapter in one."""

    def __init__(self, process: Process, endpoint: Endpoint) -> None:
        self._process = process
        self._endpoint = endpoint
        self._wake = process.event()
        self._callbacks: deque[Callback] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._numbers = count()
        self._stopped = False
        self._wires: dict[int, Wire] = {}

    # -- as IOLoop

    def start(self) -> None:
        """Run until `stop`. Raises what a callback raises."""
        self._stopped = False
        while not self._stopped:
            for _ in range(len(self._callbacks)):
                self._callbacks.popleft()()
            now = self._process.monotonic()
            due = []
            while self._timers and self._timers[0][0] <= now:
                due.append(heapq.heappop(self._timers)[2])
            for handle in due:
                handle.run()
            if not self._stopped and not self._callbacks:
                left = self._timers[0][0] - self._process.monotonic() if self._timers else None
                self._wake.wait(None if left is None else max(0.0, left))
                self._wake.clear()

    run = start

    def stop(self) -> None:
        """Have `start` return."""
        self._stopped = True
        self._wake.set()

    def close(self) -> None:
        """The end of the loop."""
        self._callbacks.clear()
        self._timers.clear()

    def call_later(self, delay: float, callback: Callback) -> Handle:
        """Call it in so many seconds."""
        handle = Handle(callback)
        due = self._process.monotonic() + delay
        heapq.heappush(self._timers, (due, next(self._numbers), handle))
        return handle

    def add_callback_threadsafe(self, callback: Callback) -> None:
        """Call it soon. From any thread, and from the world."""
        self._callbacks.append(callback)
        self._wake.set()

    # -- as AbstractIOServices

    def get_native_ioloop(self) -> Loop:
        """Itself."""
        return self

    def getaddrinfo(
        self, host: str, port: int, on_done: Callable[[Any], None], **_: Any
    ) -> nbio_interface.AbstractIOReference:
        """One address, the same for all names."""
        found = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("192.0.2.1", port))
        return self._soon(partial(on_done, [found]))

    def connect_socket(
        self, sock: socket.socket, resolved_addr: Any, on_done: Callable[[Any], None]
    ) -> nbio_interface.AbstractIOReference:
        """A wire in place of the socket, which is never connected."""
        sock.close()
        handle = Handle(partial(self._connect, id(sock), on_done))
        self._process.simulation.after(0.001, partial(self.add_callback_threadsafe, handle.run))
        return handle

    def _connect(self, key: int, on_done: Callable[[Any], None]) -> None:
        made = self._endpoint.connect(self._process)
        if made is None:
            return  # pika's own time-out ends it
        if isinstance(made, OSError):
            on_done(made)
            return
        self._wires[key] = made
        on_done(None)

    def create_streaming_connection(
        self,
        protocol_factory: Callable[[], Any],
        sock: socket.socket,
        on_done: Callable[[Any], None],
        ssl_context: Any = None,
        server_hostname: str | None = None,
    ) -> nbio_interface.AbstractIOReference:
        """Link a transport and pika's protocol; TLS changes nothing."""
        return self._soon(partial(self._link, self._wires.pop(id(sock)), protocol_factory, on_done))

    def _link(
        self, wire: Wire, protocol_factory: Callable[[], Any], on_done: Callable[[Any], None]
    ) -> None:
        protocol = protocol_factory()
        transport = Transport(self, wire, protocol)
        protocol.connection_made(transport)
        on_done((transport, protocol))

    def _soon(self, callback: Callback) -> Handle:
        handle = Handle(callback)
        self.add_callback_threadsafe(handle.run)
        return handle


class Transport(nbio_interface.AbstractStreamTransport):  # type: ignore[misc]
    """One connection's bytes, between pika and a wire."""

    def __init__(self, loop: Loop, wire: Wire, protocol: Any) -> None:
        self._loop = loop
        self._wire = wire
        self._protocol = protocol
        self._sock = self  # which is closed after a failure of the loop
        self._ended = False
        self._reading = False
        wire.client_wakes = partial(loop.add_callback_threadsafe, self._read)
        wire.client_wakes()

    def write(self, data: bytes) -> None:
        """Send."""
        if not self._ended:
            self._wire.send_to_server(data)

    def get_write_buffer_size(self) -> int:
        """Bytes that the system has not taken."""
        return max(0, self._wire.unread_by_server - SOCKET_BUFFER)

    def get_protocol(self) -> Any:
        """pika's."""
        return self._protocol

    def abort(self) -> None:
        """Close it; pika hears of that in the next turn of the loop."""
        self.close()
        self._loop.add_callback_threadsafe(partial(self._end, None))

    def close(self) -> None:
        """Close the socket."""
        self._wire.close_by_client()

    def _read(self) -> None:
        while not self._ended and (data := self._wire.read_by_client()):
            self._protocol.data_received(data)
        if not self._ended and self._wire.ended_for_client is not None:
            if isinstance(self._wire.ended_for_client, OSError):
                self._end(self._wire.ended_for_client)
            elif not self._protocol.eof_received():
                self.close()
                self._end(None)

    def _end(self, error: OSError | None) -> None:
        if not self._ended:
            self._ended = True
            self._protocol.connection_lost(error)
