"""AMQP headers as bytes: what is sent on is what came.

pika reads a float as a whole number, writes every number as 64 bits, and every string as UTF-8. A
message that is sent on must not change by that, so each entry's own bytes are kept.
"""

from __future__ import annotations

import decimal
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from pika.data import decode_short_string
from pika.data import encode_table as _pika_encode

from selfheal_worker.broker import pika_patches

#: Stands for headers that cannot be read, and for those that had no room beside ours.
UNREADABLE_HEADERS = "x-selfheal-unreadable-headers"
# Headers are sent in one frame, of 128 KiB unless the broker says less.
_MOST_BYTES = 120_000
_NUMBERS = {
    b"b": ">b",
    b"B": ">B",
    b"s": ">h",
    b"U": ">h",
    b"u": ">H",
    b"I": ">i",
    b"i": ">I",
    b"l": ">q",
    b"L": ">q",
    b"f": ">f",
    b"d": ">d",
}
_Entry = tuple[Any, bytes]


class Table(dict[Any, Any]):
    """Headers with the bytes that entries came in; unreadable: all bytes, if they cannot be read.

    An entry without bytes is one of ours, and is encoded by pika.
    """

    def __init__(
        self,
        values: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = (),
        raw: Iterable[_Entry] = (),
        unreadable: bytes = b"",
    ) -> None:
        super().__init__(values)
        self.raw = tuple(raw)
        self.unreadable = unreadable


def copied(
    headers: Mapping[Any, Any], dropped: Callable[[str], bool], more: Mapping[str, Any]
) -> Table | None:
    """Headers for sending a message on: those that came but for the dropped, and some more."""
    if isinstance(headers, Table) and headers.unreadable:
        if not more:  # back to where the broker had it
            return Table(headers, unreadable=headers.unreadable)
        # The broker reads the headers of what it dead-letters itself, and could not.
        return Table({UNREADABLE_HEADERS: True, **more})
    kept = {
        name: value
        for name, value in headers.items()
        if name not in more and not dropped(str(name))
    }
    raw = [(name, entry) for name, entry in getattr(headers, "raw", ()) if name in kept]
    if more and sum(len(entry) for _, entry in raw) + _size(more) > _MOST_BYTES:
        return Table({UNREADABLE_HEADERS: True, **more})
    return Table(kept | dict(more), raw) if kept or more else None


def _size(more: Mapping[str, Any]) -> int:
    return sum(
        len(name) + len(str(value).encode(errors="replace")) + 16 for name, value in more.items()
    )


def decode(encoded: bytes, offset: int) -> tuple[Table, int]:
    """A table at offset, and where it ends. Never raises for what a publisher may have written."""
    size = int.from_bytes(encoded[offset : offset + 4], "big")
    begin = offset + 4
    end = begin + size
    values: dict[Any, Any] = {}
    raw: list[_Entry] = []
    try:
        at = begin
        while at < end:
            name, value_at = decode_short_string(encoded, at)
            values[name], after = _value(encoded, value_at)
            raw.append((name, encoded[at:after]))
            at = after
        if at != end:
            raise ValueError("an entry is longer than its table")
    except Exception:  # noqa: BLE001 whatever is wrong inside the table, its length is known
        return Table({UNREADABLE_HEADERS: True}, unreadable=encoded[begin:end]), end
    return Table(values, raw), end


def _value(encoded: bytes, offset: int) -> tuple[Any, int]:
    """Raises where the broker or other clients could not read it either."""
    kind, at = encoded[offset : offset + 1], offset + 1
    if (number := _NUMBERS.get(kind)) is not None:
        value = struct.unpack_from(number, encoded, at)[0]
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("a number that is not finite")
        return value, at + struct.calcsize(number)
    if kind in _FIXED:
        size, read = _FIXED[kind]
        if at + size > len(encoded):
            raise ValueError("a value is longer than its table")
        return read(encoded[at : at + size]), at + size
    return _sized(kind, encoded, at)


def _sized(kind: bytes, encoded: bytes, at: int) -> tuple[Any, int]:
    """A value that begins with its length."""
    begin = at + 4
    end = begin + struct.unpack_from(">I", encoded, at)[0]
    if end > len(encoded):
        raise ValueError("a value is longer than its table")
    match kind:
        case b"S":
            return _text(encoded[begin:end]), end
        case b"x":
            return encoded[begin:end], end
        case b"A":
            return _array(encoded, begin, end), end
        case b"F":
            table, end = decode(encoded, at)
            if table.unreadable:
                raise ValueError("a table in the table cannot be read")
            return dict(table), end
    raise ValueError(f"unknown type {kind!r}")


def _array(encoded: bytes, at: int, end: int) -> list[Any]:
    found = []
    while at < end:
        value, at = _value(encoded, at)
        found.append(value)
    if at != end:
        raise ValueError("an item is longer than its array")
    return found


def _text(content: bytes) -> str | bytes:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content


def _nothing(_: bytes) -> None:
    """The value of a field without one."""


def _date(content: bytes) -> datetime:
    """Raises for a date out of range: other clients could not read the dead letter either."""
    return datetime.fromtimestamp(int.from_bytes(content, "big"), UTC)


def _decimal(content: bytes) -> decimal.Decimal:
    places, digits = struct.unpack(">Bi", content)
    return decimal.Decimal(digits).scaleb(-places)


_FIXED: Mapping[bytes, tuple[int, Callable[[bytes], Any]]] = {
    b"t": (1, any),
    b"V": (0, _nothing),
    b"D": (5, _decimal),
    b"T": (8, _date),
}


def encode(pieces: list[bytes], table: Mapping[Any, Any] | None) -> int:
    """As pika's own: add an encoded table to the pieces, and say how many bytes it has."""
    if not isinstance(table, Table):
        size: int = _pika_encode(pieces, table)
        return size
    came = b"".join(entry for _, entry in table.raw)
    if table.unreadable:
        content = table.unreadable
    else:
        ours: list[bytes] = []
        names = {name for name, _ in table.raw}
        _pika_encode(ours, {name: value for name, value in table.items() if name not in names})
        content = came + b"".join(ours)[4:]
    pieces.append(struct.pack(">I", len(content)) + content)
    return 4 + len(content)


pika_patches.use_tables(encode, decode)
