"""Connections between workers and model servers, in virtual time: bytes there, bytes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tests.simulation.models.conditions import Condition
from tests.simulation.models.timers import Timers

#: Seconds from one end to the other.
LATENCY = 0.001


@dataclass(frozen=True)
class Failure:
    """No connection: why, and after how many seconds that shows; None: never."""

    why: Condition
    after: float | None


class Listener(Protocol):
    """A server."""

    @property
    def host(self) -> str:
        """Its name."""

    @property
    def port(self) -> int:
        """Its port."""

    def refuses(self) -> Failure | None:
        """Why it makes no connection now, if so."""

    def came(self, connection: Connection) -> None:
        """Bytes have come over a connection; they are in its `sent`."""

    def gone(self, connection: Connection) -> None:
        """The client has closed it."""


def _nobody() -> None:
    """Nobody waits."""


class Connection:
    """One connection. The client calls `send` and `close` and reads `received` and `ended`; the
    server takes from `sent` and calls `deliver` and `end`.

    wake is called whenever something has changed for the client; it is the client's to set.
    """

    def __init__(self, timers: Timers, client: str, server: Listener) -> None:
        self._timers = timers
        self._server = server
        self.client = client
        self.sent = bytearray()
        self.received = bytearray()
        #: "closed" or "reset" once the server has ended it.
        self.ended = ""
        self.closed = False
        self.wake: Callable[[], None] = _nobody

    def send(self, data: bytes) -> None:
        """Raises ConnectionResetError where the server has ended it."""
        if self.ended == "reset" or self.closed:
            raise ConnectionResetError("the connection was reset")
        self._timers.after(LATENCY, lambda: self._arrive(data))

    def close(self) -> None:
        """The client ends it."""
        if not self.closed:
            self.closed = True
            self._timers.after(LATENCY, lambda: self._server.gone(self))

    def deliver(self, data: bytes) -> None:
        """The server sends."""
        self._timers.after(LATENCY, lambda: self._take(data))

    def end(self, how: str) -> None:
        """The server ends it: "closed" or "reset"."""
        self._timers.after(LATENCY, lambda: self._ended(how))

    def _arrive(self, data: bytes) -> None:
        if not self.ended and not self.closed:
            self.sent += data
            self._server.came(self)

    def _take(self, data: bytes) -> None:
        if not self.ended and not self.closed:
            self.received += data
            self.wake()

    def _ended(self, how: str) -> None:
        if not self.ended:
            self.ended = how
            self.wake()


class Network:
    """All servers, by name and port."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._servers: dict[tuple[str, int], Listener] = {}
        self._connections: list[Connection] = []

    def add(self, server: Listener) -> None:
        """Have it listen."""
        self._servers[server.host, server.port] = server

    def connect(self, client: str, host: str, port: int) -> Connection | Failure:
        """What a client's connect comes to; the caller waits as many seconds as a failure says."""
        server = self._servers.get((host, port))
        if server is None:
            return Failure(Condition.UNRESOLVED, LATENCY)
        if (failure := server.refuses()) is not None:
            return failure
        made = Connection(self._timers, client, server)
        self._connections.append(made)
        return made

    def drop(self, client: str) -> None:
        """The client's process is gone: its system ends all of its connections."""
        mine = [one for one in self._connections if one.client == client]
        self._connections = [one for one in self._connections if one.client != client]
        for one in mine:
            one.close()
