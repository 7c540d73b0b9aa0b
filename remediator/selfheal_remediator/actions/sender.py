"""Sends one webhook over HTTP: the only adapter to the servers of webhooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
import urllib3

CONNECT_TIMEOUT = 5.0
#: Of an answer no more is read: its first line is shown to people.
MOST_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Request:
    """One POST. timeout: seconds at most for which the server may be silent."""

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


def send(request: Request) -> Reply:
    """POST it once, with TLS verified, without following redirects. Raises NotSent."""
    try:
        with (
            requests.Session() as session,
            session.post(
                request.url,
                data=request.body,
                headers=dict(request.headers),
                timeout=(CONNECT_TIMEOUT, request.timeout),
                verify=request.ca_file or True,
                allow_redirects=False,
                stream=True,
            ) as response,
        ):
            return Reply(response.status_code, response.headers, _beginning(response))
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        # Without the cause: its text has the URL.
        raise NotSent(_reason(error, request.url)) from None


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
