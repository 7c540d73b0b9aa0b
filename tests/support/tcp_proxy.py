"""A TCP proxy that breaks the wire: cuts it, stalls it, or leaves it half open."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading


class Proxy:
    """Listens on a port of its own and passes bytes to the target, while it is set to."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._frozen: set[socket.socket] = set()
        self._refusing = False
        self._closed = False
        self._awaited, self._times = b"", 0
        self._released = threading.Event()
        self.held = threading.Event()
        # A fault meets all connections, also one that is being made at this moment.
        self._connecting = threading.Lock()
        self.accepted = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._connecting:
                self.accepted += 1
                self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        if self._refusing:
            _reset(client)
            return
        try:
            server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
        except OSError:
            _reset(client)
            return
        self._pairs.add((client, server))
        threading.Thread(target=self._pump, args=(client, server), daemon=True).start()

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            try:
                selector.register(client, selectors.EVENT_READ, server)
                selector.register(server, selectors.EVENT_READ, client)
                # A poller is not notified of a socket that was closed on this side, by a cut.
                while not self._closed and (client, server) in self._pairs:
                    for key, _ in selector.select(0.05):
                        if key.fileobj in self._frozen:
                            selector.unregister(key.fileobj)
                            continue
                        data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                        if not data:
                            return
                        if key.fileobj is client:
                            self._hold(data)
                        key.data.sendall(data)
            except (OSError, ValueError):
                pass
            finally:
                if not {client, server} & self._frozen:
                    self._pairs.discard((client, server))
                    client.close()
                    server.close()

    def cut(self) -> None:
        """Reset all connections that there are; new ones are welcome."""
        with self._connecting:
            for client, server in list(self._pairs):
                self._pairs.discard((client, server))
                _reset(client)
                _reset(server)
        self._released.set()

    def freeze(self) -> None:
        """Let nothing through any more on the connections that there are, and close none."""
        with self._connecting:
            for client, server in list(self._pairs):
                self._frozen |= {client, server}

    def hold_at(self, sent: bytes, times: int = 1) -> None:
        """Let nothing more through on the connection on which a client sends this for the last of
        so many times, from that on; `held` is set then. Until `release`, or a cut."""
        self._released.clear()
        self._awaited, self._times = sent, times

    def _hold(self, data: bytes) -> None:
        if not self._awaited:
            return
        self._times -= data.count(self._awaited)
        if self._times <= 0:
            self._awaited = b""
            self.held.set()
            self._released.wait()

    def release(self) -> None:
        """Let through what is held, and all that comes."""
        self._released.set()

    def given_up(self) -> bool:
        """Whether all clients have closed the connections that are frozen."""
        clients = [client for client, _ in list(self._pairs) if client in self._frozen]
        return not any(_established(client) for client in clients)

    def refuse(self, refusing: bool = True) -> None:
        """Reset new connections at once, or stop doing so."""
        with self._connecting:
            self._refusing = refusing

    def close(self) -> None:
        self._closed = True
        self._released.set()
        self._listener.close()
        for client, server in list(self._pairs):
            client.close()
            server.close()


def _reset(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.close()


def _established(one: socket.socket) -> bool:
    try:
        return one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 1
    except OSError:
        return False
