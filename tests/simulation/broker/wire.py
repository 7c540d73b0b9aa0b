"""A TCP connection in memory: bytes take time, may never come, and may end with a reset."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from tests.simulation.scheduler import Simulation

#: Seconds from one end to the other, at least and at most.
SHORTEST, LONGEST = 0.0001, 0.003


def _nothing() -> None:
    """Nobody listens yet."""


class Wire:
    """One connection. The client's side is for the thread of the client's loop, the server's for
    callbacks of the simulation. client_wakes: called in the scheduler when something came.

    ended_for_client: "closed" or an error once the client has seen the end of it.
    """

    def __init__(self, simulation: Simulation, name: str) -> None:
        self.name = name
        self.client_wakes: Callable[[], None] = _nothing
        self.server_reads: Callable[[bytes], None] = lambda _: None
        self.server_ended: Callable[[], None] = _nothing
        self.ended_for_client: OSError | Literal["closed"] | None = None
        self.unread_by_server = 0
        self._simulation = simulation
        self._to_client = bytearray()
        self._held: list[bytes] = []
        self._reading = True
        self._dead = False
        self._ended = False
        self._last = {"client": 0.0, "server": 0.0}

    # -- the client's side

    def send_to_server(self, data: bytes) -> None:
        """Bytes on their way to the server."""
        self.unread_by_server += len(data)
        self._arrive("server", partial(self._come_to_server, data))

    def read_by_client(self) -> bytes:
        """What has come."""
        data = bytes(self._to_client)
        self._to_client.clear()
        return data

    def close_by_client(self) -> None:
        """The client ends it, or its system does that for a process that is gone."""
        self.ended_for_client = self.ended_for_client or "closed"
        self._arrive("server", self._end_for_server)

    # -- the server's side

    def send_to_client(self, data: bytes) -> None:
        """Bytes on their way to the client."""
        self._arrive("client", partial(self._come_to_client, data))

    def end_by_server(self, error: OSError | None = None) -> None:
        """The server closes it, or it is reset (with an error)."""
        self._ended = True
        self._arrive("client", partial(self._end_for_client, error))

    def hold_reading(self, *, reading: bool) -> None:
        """Have the server read nothing, or again."""
        self._reading = reading
        if reading:
            held, self._held = self._held, []
            for data in held:
                self._come_to_server(data)

    # -- faults

    def die_silently(self) -> None:
        """Nothing arrives any more, and neither end hears of it."""
        self._dead = True

    def reset(self) -> None:
        """Both ends see a reset."""
        self.end_by_server(ConnectionResetError(104, "Connection reset by peer"))
        self.server_ended()

    # -- arrivals

    def _arrive(self, side: str, callback: Callable[[], None]) -> None:
        """In the order of sending, after some time."""
        simulation = self._simulation
        takes = SHORTEST + simulation.random.random() * (LONGEST - SHORTEST)
        self._last[side] = max(self._last[side], simulation.now + takes)
        simulation.at(self._last[side], partial(self._unless_dead, callback))

    def _unless_dead(self, callback: Callable[[], None]) -> None:
        if not self._dead:
            callback()

    def _come_to_server(self, data: bytes) -> None:
        if self._ended:
            return
        if not self._reading:
            self._held.append(data)
            return
        self.unread_by_server -= len(data)
        self.server_reads(data)

    def _end_for_server(self) -> None:
        if not self._ended:
            self._ended = True
            self.server_ended()

    def _come_to_client(self, data: bytes) -> None:
        if self.ended_for_client is None:
            self._to_client += data
            self.client_wakes()

    def _end_for_client(self, error: OSError | None) -> None:
        if self.ended_for_client is None:
            self.ended_for_client = error or "closed"
            self.client_wakes()
