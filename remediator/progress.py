"""Asks pods how their work goes: the only door to them. A pod that does not answer says nothing.

The answer is a JSON object: `in_flight` (a number), `last_progress` (Unix seconds by the pod's
clock) and, where known, `oldest_age` (seconds) and `ready` (false: it rightly waits).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import requests

from remediator.pod_health import Reading

#: An answer is a few hundred bytes; more is not read.
MAX_BYTES = 65536


class NoAnswer(Exception):
    """Nothing can be said of the pod's work; says why."""


class Asker:
    """Asks over plain HTTP, without proxies or redirects. Thread-safe."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout

    def ask(self, address: str, port: int, path: str, now: float) -> Reading:
        """How the work of the pod at `address` goes. Raises NoAnswer."""
        host = f"[{address}]" if ":" in address else address
        with requests.Session() as session:
            session.trust_env = False
            try:
                with session.get(
                    f"http://{host}:{port}{path}",
                    timeout=self.timeout,
                    allow_redirects=False,
                    stream=True,
                    headers={"Accept": "application/json"},
                ) as response:
                    body = _body(response, time.monotonic() + self.timeout)
                    status, headers = response.status_code, dict(response.headers)
            except (requests.RequestException, OSError) as error:
                raise NoAnswer(type(error).__name__) from error
        if status != 200:
            raise NoAnswer(f"HTTP {status}")
        return reading_from(body, headers, now)


def _body(response: requests.Response, ends: float) -> bytes:
    """What came until `ends` (monotonic), or enough of it. Raises NoAnswer when it drips."""
    body = b""
    for chunk in response.iter_content(4096):
        body += chunk
        if len(body) > MAX_BYTES:
            raise NoAnswer(f"more than {MAX_BYTES} bytes")
        if time.monotonic() > ends:
            raise NoAnswer("too slow")
    return body


def reading_from(body: bytes, headers: Mapping[str, str], now: float) -> Reading:
    """The reading in an answer; its Date header is the pod's own clock. Raises NoAnswer."""
    try:
        raw = json.loads(body)
        in_flight, mark = int(raw["in_flight"]), float(raw["last_progress"])
        oldest = raw.get("oldest_age")
        age = None if oldest is None else float(oldest)
    except (ValueError, TypeError, KeyError) as error:
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
            except ValueError:
                break
    return now
