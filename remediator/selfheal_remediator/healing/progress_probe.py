"""Probes pods for progress: the only adapter to them. A pod without an answer is no evidence.

The answer is a JSON object: `in_flight` (a number), `last_progress` (Unix seconds by the pod's
clock) and, if known, `oldest_age` (seconds) and `ready` (false: it waits for a dependency).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import socket
import threading
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from selfheal_remediator.healing.pod_health import Reading

#: An answer is a few hundred bytes; more is not read.
MAX_BYTES = 65536


class NoAnswer(Exception):
    """The pod's progress is unknown; the message gives the reason."""


#: GET of (address, port, path, timeout): the status, the headers, and of the body as much as is
#: read. Raises NoAnswer. Thread-safe.
Fetch = Callable[[str, int, str, float], tuple[int, dict[str, str], bytes]]


def fetch(address: str, port: int, path: str, timeout: float) -> tuple[int, dict[str, str], bytes]:
    """Over plain HTTP, without proxies or redirects; see Fetch.

    The whole answer has to arrive within the timeout: a pod that sends it byte by byte would
    otherwise block a thread, and with it the probes of all others.
    """
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    late = threading.Event()
    try:
        connection.connect()
        timer = threading.Timer(timeout, _cut, (connection.sock, late))
        timer.daemon = True
        timer.start()
        try:
            answer = _get(connection, path)
        finally:
            timer.cancel()
    except (http.client.HTTPException, OSError, ValueError) as error:
        # A read, of which each may take as long, can end before the timer is heard of.
        slow = late.is_set() or isinstance(error, TimeoutError)
        raise NoAnswer("too slow" if slow else type(error).__name__) from error
    finally:
        connection.close()
    if late.is_set():
        raise NoAnswer("too slow")
    return answer


class ProgressProbe:
    """What a pod says of its progress. Thread-safe."""

    def __init__(self, timeout: float, fetch: Fetch = fetch) -> None:
        self.timeout, self._fetch = timeout, fetch

    def probe(self, address: str, port: int, path: str, now: float) -> Reading:
        """The progress of the pod at `address`. Raises NoAnswer."""
        status, headers, body = self._fetch(address, port, path, self.timeout)
        if status != 200:
            raise NoAnswer(f"HTTP {status}")
        if len(body) > MAX_BYTES:
            raise NoAnswer(f"more than {MAX_BYTES} bytes")
        return reading_from(body, headers, now)


def _cut(sock: socket.socket, late: threading.Event) -> None:
    """In the timer's thread: end what takes too long."""
    late.set()
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _get(connection: http.client.HTTPConnection, path: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers, and of the body as much as is read."""
    headers = {"Accept": "application/json", "Accept-Encoding": "identity", "Connection": "close"}
    connection.request("GET", quote(path, safe="/?&=%:@!$'()*+,;~-._"), headers=headers)
    response = connection.getresponse()
    return response.status, dict(response.headers.items()), response.read(MAX_BYTES + 1)


def reading_from(body: bytes, headers: Mapping[str, str], now: float) -> Reading:
    """The reading in an answer; its Date header is the pod's own clock. Raises NoAnswer."""
    try:
        raw = json.loads(body)
        in_flight, mark = int(raw["in_flight"]), float(raw["last_progress"])
        oldest = raw.get("oldest_age")
        age = None if oldest is None else float(oldest)
        if not (math.isfinite(mark) and math.isfinite(age or 0.0)):
            raise ValueError("no number of seconds")
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise NoAnswer(f"not an answer about progress: {error!r}") from error
    return Reading(
        in_flight=in_flight,
        idle=max(0.0, _clock(headers, now) - mark),
        mark=mark,
        oldest=age,
        waits=raw.get("ready") is False,
    )


def _clock(headers: Mapping[str, str], now: float) -> float:
    for name, value in headers.items():
        if name.lower() == "date":
            try:
                return parsedate_to_datetime(value).timestamp()
            except (ValueError, TypeError, OverflowError):
                break
    return now
