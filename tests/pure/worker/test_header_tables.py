"""A message's headers are sent on byte for byte as they came."""

from __future__ import annotations

import decimal
import struct
from datetime import UTC, datetime
from typing import Any

import pika
import pika.data
import pytest

from selfheal_worker.broker import Delivery, copied_properties, header_tables


def entry(name: bytes, kind: bytes, content: bytes) -> bytes:
    return bytes([len(name)]) + name + kind + content


def sized(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


ENTRIES = {
    "float": (b"f", struct.pack(">f", 0.75), 0.75),
    "double": (b"d", struct.pack(">d", 1e300), 1e300),
    "minus": (b"d", struct.pack(">d", -0.0), -0.0),
    "byte": (b"b", struct.pack(">b", -5), -5),
    "unsigned byte": (b"B", b"\xff", 255),
    "short": (b"s", struct.pack(">h", -300), -300),
    "unsigned short": (b"u", struct.pack(">H", 60_000), 60_000),
    "int": (b"I", struct.pack(">i", -7), -7),
    "unsigned int": (b"i", struct.pack(">I", 2**32 - 1), 2**32 - 1),
    "long": (b"l", struct.pack(">q", -(2**63)), -(2**63)),
    "decimal": (b"D", struct.pack(">Bi", 2, 1200), decimal.Decimal("12.00")),
    "many places": (b"D", struct.pack(">Bi", 200, 1), decimal.Decimal("1E-200")),
    "date": (b"T", struct.pack(">Q", 0), datetime(1970, 1, 1, tzinfo=UTC)),
    "true": (b"t", b"\x01", True),
    "odd true": (b"t", b"\x07", True),
    "nothing": (b"V", b"", None),
    "text": (b"S", sized("é’".encode()), "é’"),
    "no text": (b"S", sized(b"\xff\xfe"), b"\xff\xfe"),
    "bytes": (b"x", sized(b"\x00\x01"), b"\x00\x01"),
    "array": (b"A", sized(b"f" + struct.pack(">f", 1.5) + b"V"), [1.5, None]),
    "table": (b"F", sized(entry(b"k", b"f", struct.pack(">f", 0.5))), {"k": 0.5}),
    "empty": (b"F", sized(b""), {}),
}


def came(raw: bytes, **more: Any) -> Delivery:
    table, end = header_tables.decode(sized(raw), 0)
    assert end == len(raw) + 4
    properties = pika.BasicProperties(headers=table, **more)
    return Delivery(1, 1, False, "", "feedback", b"{}", properties)


def sent(properties: Any) -> bytes:
    """The headers as the broker gets them, without their length."""
    pieces: list[bytes] = []
    pika.data.encode_table(pieces, properties.headers)
    whole = b"".join(pieces)
    assert int.from_bytes(whole[:4], "big") == len(whole) - 4
    return whole[4:]


@pytest.mark.parametrize(("kind", "content", "value"), ENTRIES.values(), ids=ENTRIES)
def test_each_type_is_read_and_goes_back_as_it_came(
    kind: bytes, content: bytes, value: Any
) -> None:
    raw = entry(b"first", b"S", sized(b"x")) + entry(b"odd", kind, content)
    got = came(raw)
    assert got.headers["odd"] == value
    assert sent(copied_properties(got, {}, keep_expiration=True)) == raw
    ours = sent(copied_properties(got, {"x-selfheal-attempts": 1}))
    assert ours.startswith(raw)
    assert header_tables.decode(sized(ours), 0)[0] == got.headers | {"x-selfheal-attempts": 1}


def test_all_at_once_and_through_pikas_own_frames() -> None:
    raw = b"".join(
        entry(name.encode(), kind, content) for name, (kind, content, _) in ENTRIES.items()
    )
    got = came(raw, delivery_mode=1, priority=3, timestamp=7, app_id="a", message_id="m")
    copy = copied_properties(got, {}, keep_expiration=True)
    encoded = b"".join(copy.encode())
    again = pika.BasicProperties()
    again.decode(encoded)
    ours: Any = got.headers
    assert again.headers.raw == ours.raw
    assert b"".join(again.encode()) == b"".join(got.properties.encode()) == encoded


def test_what_is_dropped_and_what_is_ours_replace_nothing_else() -> None:
    keep = entry(b"share", b"f", struct.pack(">f", 0.25))
    raw = (
        entry(b"CC", b"A", sized(b"V"))
        + keep
        + entry(b"x-death", b"A", sized(b""))
        + entry(b"x-selfheal-attempts", b"l", struct.pack(">q", 1))
        + entry(b"x-opt-y", b"V", b"")
    )
    copy = copied_properties(came(raw), {"x-selfheal-attempts": 2})
    assert sent(copy).startswith(keep)
    assert copy.headers == {"share": 0.25, "x-selfheal-attempts": 2}
    assert sent(copied_properties(came(raw), {}, without={"x-selfheal-attempts"})) == keep


@pytest.mark.parametrize(
    "raw",
    [
        entry(b"n", b"d", struct.pack(">d", float("nan"))),
        entry(b"n", b"f", struct.pack(">f", float("inf"))),
        entry(b"n", b"?", b""),
        entry(b"n", b"S", b"\x00\x00\xff\xffx"),
        entry(b"n", b"A", sized(b"S\x00\x00\x00\x09x")),
        entry(b"n", b"F", sized(entry(b"k", b"?", b""))),
        entry(b"n", b"T", b"\x00"),
        entry(b"n", b"T", struct.pack(">Q", 2**62)),
        entry(b"n", b"T", struct.pack(">Q", 2**63)),
        b"\xffabc",
        entry(b"n", b"A", b"\x00\x00\xff\x00") * 3,
    ],
)
def test_what_cannot_be_read_goes_back_as_it_came_and_is_replaced_in_dead_letters(
    raw: bytes,
) -> None:
    got = came(raw)
    assert got.headers == {header_tables.UNREADABLE_HEADERS: True}
    assert sent(copied_properties(got, {}, keep_expiration=True)) == raw
    letter = copied_properties(got, {"x-selfheal-reason": "x"})
    assert letter.headers == {header_tables.UNREADABLE_HEADERS: True, "x-selfheal-reason": "x"}
    assert header_tables.decode(sized(sent(letter)), 0)[0] == letter.headers


def test_deep_nesting_is_unreadable_and_no_crash() -> None:
    raw = b"V"
    for _ in range(5000):
        raw = b"A" + sized(raw)
    assert came(entry(b"n", raw[:1], raw[1:])).headers == {header_tables.UNREADABLE_HEADERS: True}


def test_headers_that_leave_no_room_for_ours_are_replaced() -> None:
    """A frame above the agreed size would cost the connection, again and again."""
    got = came(entry(b"big", b"S", sized(b"x" * 125_000)))
    letter = copied_properties(got, {"x-selfheal-reason": "x", "x-selfheal-detail": "d" * 500})
    assert len(sent(letter)) < 1000
    assert letter.headers[header_tables.UNREADABLE_HEADERS] is True
    assert len(sent(copied_properties(got, {}, keep_expiration=True))) > 125_000


def test_headers_of_our_own_are_pikas() -> None:
    properties = pika.BasicProperties(headers={"a": 1})
    pieces: list[bytes] = []
    assert pika.data.encode_table(pieces, properties.headers) == len(b"".join(pieces))
