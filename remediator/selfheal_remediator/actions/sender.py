"""Sends one webhook over HTTP: the only adapter to the servers of webhooks."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from selfheal_remediator.threads.runtime import REAL, Runtime

CONNECT_TIMEOUT = 5.0
#: Of an answer no more is read: its first line is shown to people.
MOST_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Request:
    """One POST. timeout: seconds at most for the whole of it."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    ca_file: str
    timeout: float


@dataclass(frozen=True, slots=True)
class Reply:
    """The server's answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NotSent(Exception):
    """No answer came; the message says why, without the URL."""


Send = Callable[[Request], Reply]


def send(request: Request, runtime: Runtime = REAL) -> Reply:
    """POST it once, with TLS verified, without following redirects. Raises NotSent."""
    limit, over = _Limit(), runtime.event()

    def cut_if_late() -> None:
        if not over.wait(request.timeout):
            limit.cut()

    runtime.start("webhook-timer", cut_if_late)
    try:
        return _post(request, limit)
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        late = f"it took longer than {request.timeout:g}s"
        # Without the cause: its text has the URL.
        raise NotSent(late if limit.passed else _reason(error, request.url)) from None
    finally:
        over.set()


def _post(request: Request, limit: _Limit) -> Reply:
    adapter = _Adapter(limit)
    with requests.Session() as session:
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        with session.post(
            request.url,
            data=request.body,
            headers=dict(request.headers),
            # Of each read; the limit ends it before.
            timeout=(CONNECT_TIMEOUT, request.timeout + CONNECT_TIMEOUT),
            verify=request.ca_file or True,
            allow_redirects=False,
            stream=True,
        ) as response:
            limit.check()  # headers that were cut off look like the end of them
            return Reply(response.status_code, response.headers, _beginning(response))


class _Limit:
    """Ends the connection of a call that takes too long. The timeouts of requests are those of each
    read: a server that sends its headers byte by byte would keep the thread for hours."""

    def __init__(self) -> None:
        self.passed = False
        self._connection: Any = None

    def cut(self) -> None:
        """In the timer's thread."""
        self.passed = True
        sock = getattr(self._connection, "sock", None)
        if sock is not None:
            with suppress(OSError, ValueError):
                sock.shutdown(socket.SHUT_RDWR)

    def on(self, kind: type[Any]) -> type[Any]:
        """The same class of connections, which end by this limit."""
        limit = self

        class Limited(kind):  # type: ignore[misc]
            def connect(self) -> None:
                limit._connection = self
                super().connect()
                limit.check()  # it had no socket before that could be ended

        return Limited

    def check(self) -> None:
        """Raises TimeoutError when it has passed."""
        if self.passed:
            raise TimeoutError


class _Adapter(HTTPAdapter):
    """Its connections end by the limit."""

    def __init__(self, limit: _Limit) -> None:
        super().__init__()
        self._limit = limit

    def get_connection_with_tls_context(self, *args: Any, **more: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **more)
        pool.ConnectionCls = self._limit.on(pool.ConnectionCls)
        return pool


def _beginning(response: requests.Response) -> bytes:
    """One read of the body, which may be long, or never end; of a success none is needed."""
    if response.ok:
        return b""
    with suppress(urllib3.exceptions.HTTPError, OSError, ValueError):
        return bytes(response.raw.read1(MOST_BYTES, decode_content=True))[:MOST_BYTES]
    return b""


def _reason(error: Exception, url: str) -> str:
    """What went wrong: an error's own text often has the whole URL, that of its reason has not."""
    name = type(error).__name__
    reason = getattr(error.args[0], "reason", None) if error.args else None
    text = " ".join(str(reason).split())[:200]
    parts = urlsplit(url)
    secret = (parts.path.strip("/"), parts.query, parts.username, parts.password)
    if reason is None or any(part and part in text for part in secret):
        return name
    return f"{name}: {text}"
