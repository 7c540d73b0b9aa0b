"""Decodes many objects of the API: one that cannot be read does not take the others with it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from selfheal_remediator.failures import Malformed
from selfheal_remediator.kube.json_values import timestamp

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unread:
    """An object that cannot be read. uid, namespace, name: as far as they can be, else empty."""

    uid: str
    namespace: str
    name: str
    problem: str

    @classmethod
    def of(cls, raw: object, failure: Malformed) -> Unread:
        """The object that `failure` is about, as far as it can be identified."""
        uid, namespace, name = (text_at(raw, key) for key in ("uid", "namespace", "name"))
        return cls(uid, namespace, name, failure.message)

    @property
    def id(self) -> str:
        """`namespace/name`, for people."""
        named = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return named or self.uid or "without a name"

    @property
    def key(self) -> str:
        """The same while it is the same object."""
        return self.uid or self.id

    def __str__(self) -> str:
        return f"{self.id}: {self.problem}; it is left out until it can be read"


def text_at(raw: Any, key: str) -> str:
    """What an object's metadata says there, empty = nothing, or it cannot be read."""
    meta = raw.get("metadata") if isinstance(raw, dict) else None
    value = meta.get(key) if isinstance(meta, dict) else None
    return value if isinstance(value, str) else ""


def decode_each(raws: Iterable[Any], decode: Callable[[Any], T], unread: list[Unread]) -> list[T]:
    """Those that can be read; the others are added to `unread`."""
    found = []
    for raw in raws:
        try:
            found.append(decode(raw))
        except Malformed as failure:
            unread.append(Unread.of(raw, failure))
    return found


def moment(text: str) -> float | None:
    """Seconds since the epoch from an RFC 3339 time, None = absent, or it cannot be read."""
    try:
        return timestamp(text)
    except (ValueError, OverflowError):
        return None


def moment_at(raw: object, key: str) -> float | None:
    """The time in an object's metadata, None = absent, or it cannot be read."""
    return moment(text_at(raw, key))


class UnreadObjects:
    """The objects of a collection that cannot be read; each is new until it can be read again."""

    def __init__(self) -> None:
        self._items: dict[str, Unread] = {}

    def __len__(self) -> int:
        return len(self._items)

    @property
    def uids(self) -> set[str]:
        """Of those that say it."""
        return {item.uid for item in self._items.values()}

    def replace(self, unread: Iterable[Unread]) -> list[Unread]:
        """Those of a complete read; returns the new ones."""
        before, self._items = self._items, {item.key: item for item in unread}
        return [item for key, item in self._items.items() if key not in before]

    def add(self, unread: Unread) -> bool:
        """One more; returns whether it is new."""
        new = unread.key not in self._items
        self._items[unread.key] = unread
        return new

    def discard(self, uid: str) -> None:
        """It can be read, or is gone."""
        self._items.pop(uid, None)

    def log(self, log: logging.Logger, what: str, unread: Iterable[Unread]) -> None:
        """Take those of a complete read, and log the new ones."""
        for item in self.replace(unread):
            log.warning("%s %s", what, item)
