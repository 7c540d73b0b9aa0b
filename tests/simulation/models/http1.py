"""HTTP/1.1 as bytes: requests are read, responses are written. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.pure.worker.dialects.dialect import Reply, Request

_REASONS = {200: "OK", 308: "Permanent Redirect", 400: "Bad Request", 401: "Unauthorized"}


@dataclass(frozen=True)
class Raw:
    """A request as it came: its first line in parts, headers with small letters, its body."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    def read(self) -> Request:
        """The request with its body as JSON; {} where it has none."""
        parts = urlsplit(self.target)
        body = json.loads(self.body) if self.body else {}
        return Request(parts.path, parse_qs(parts.query), self.headers, body)


def take(buffer: bytearray) -> Raw | None:
    """Take the first whole request out of a buffer; None while it is not whole."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    first, *lines = buffer[:end].decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    size = int(headers.get("content-length", 0))
    start = end + 4
    if len(buffer) < start + size:
        return None
    body = bytes(buffer[start : start + size])
    del buffer[: start + size]
    method, target, _ = first.split(" ", 2)
    return Raw(method, target, headers, body)


def response(reply: Reply, *, announced: int | None = None) -> bytes:
    """A reply as bytes; announced: its Content-Length, where that is not true."""
    text = isinstance(reply.body, str)
    body = reply.body.encode() if text else json.dumps(reply.body).encode()
    headers: dict[str, Any] = {
        "Content-Type": "text/plain" if text else "application/json",
        "Content-Length": len(body) if announced is None else announced,
        **reply.headers,
    }
    lines = [f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
