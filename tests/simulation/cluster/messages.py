"""What goes between a program and the modelled API server, and what the model needs of time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

Json = dict[str, Any]
#: Unix time at which virtual time is 0, where nothing else is said: 2026-01-01T00:00:00Z.
EPOCH = 1_767_225_600.0


class Simulation(Protocol):
    """The part of the scheduler that the model needs; callbacks never block."""

    random: Random

    @property
    def now(self) -> float:
        """Virtual seconds."""

    def at(self, time: float, callback: Callable[[], None], /) -> object:
        """Call it at this virtual time."""

    def after(self, seconds: float, callback: Callable[[], None], /) -> object:
        """Call it so many virtual seconds from now."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. at: virtual seconds; process: who sends it."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    at: float = 0.0
    process: str = ""

    @classmethod
    def to(cls, method: str, url: str, **more: Any) -> Request:
        """From a URL, or its path with the query."""
        parts = urlsplit(url)
        return cls(method, unquote(parts.path), dict(parse_qsl(parts.query)), **more)

    def header(self, name: str) -> str:
        """A header in any spelling; empty = it has none."""
        wanted = name.lower()
        return next((v for k, v in self.headers.items() if k.lower() == wanted), "")

    @property
    def watches(self) -> bool:
        """Whether it asks for a stream of events."""
        return self.method == "GET" and self.query.get("watch", "") in ("true", "1")


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP answer with its whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Json:
        """The body as an object."""
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value


class Stream(Protocol):
    """An answer whose body comes in chunks: a watch."""

    status: int
    headers: Mapping[str, str]

    @property
    def ended(self) -> bool:
        """Whether no chunk follows those that are waiting."""

    @property
    def broken(self) -> bool:
        """Whether it ended by a reset connection: what is waiting is lost."""

    def next_chunk(self) -> bytes | None:
        """The next waiting chunk; None = none is waiting now."""

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Call it whenever a chunk has come, or the stream has ended."""

    def close(self) -> None:
        """The client hangs up."""


Answer = Response | Stream


class Server(Protocol):
    """Whatever answers requests: the API server, or what stands before it."""

    def handle(self, request: Request) -> Answer:
        """Answer it now."""


def stamp(unix: float) -> str:
    """A metav1.Time."""
    return datetime.fromtimestamp(int(unix), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_stamp(unix: float) -> str:
    """A metav1.MicroTime."""
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def unix(text: object) -> float:
    """Unix seconds of a metav1.Time or MicroTime."""
    return datetime.fromisoformat(str(text)).timestamp()


def clone(value: Any) -> Any:
    """A deep copy of JSON."""
    if isinstance(value, dict):
        return {
            key: clone(item) if isinstance(item, dict | list) else item
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [clone(item) if isinstance(item, dict | list) else item for item in value]
    return value
