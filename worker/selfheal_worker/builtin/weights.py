"""The file of the built-in model's weights: how it is laid out, checked and read.

    b"SHLM"            magic
    uint32 LE          length of the header in bytes
    header             JSON, UTF-8: format, version, rows, columns, scale, sha256 of the body, …
    body               zlib: row hashes, then the values

A row belongs to a key (see `features`) and is found by the CRC-32 of the key's UTF-8. The body
holds the sorted hashes as differences (uint32 LE, byte planes), then the values column by column,
one signed byte each. The last two columns are the key's valence (in steps of 1/25) and its stem's
code (see `signals`); in the others v is decoded as ``sign(v) * (|v| / 127) ** 2 * scale``, which is
fine-grained where most weights are.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
import zlib
from array import array
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

MAGIC = b"SHLM"
FORMAT = 1
VALENCE_STEP = 1 / 25
_MAX_HEADER = 1 << 20
_SIGNED = [byte - 256 if byte > 127 else byte for byte in range(256)]
_VALENCES = [value * VALENCE_STEP for value in _SIGNED]
# Hashes of 32 bits by their first 12.
_BEGINNINGS = 1 << 12
_REST = 20


class WeightsError(Exception):
    """The weights file is missing, damaged, or of another format: which, and why."""


class Row(NamedTuple):
    """What is known of a key. code is 0 where no stem fits."""

    weights: tuple[float, ...]
    valence: float
    code: int


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of weights by key. Read only, so that threads may share it."""

    header: dict[str, Any]
    hashes: array[int]
    values: bytes
    columns: int
    decode: tuple[float, ...]
    # Where the hashes of each beginning start: one of them is searched, not all.
    _starts: list[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        starts = [bisect_left(self.hashes, at << _REST) for at in range(_BEGINNINGS)]
        object.__setattr__(self, "_starts", [*starts, len(self.hashes)])

    def row(self, key: str) -> Row | None:
        """The weights of key, or None where it is unknown."""
        wanted = key_hash(key)
        first, last = self._starts[wanted >> _REST], self._starts[(wanted >> _REST) + 1]
        at = bisect_left(self.hashes, wanted, first, last)
        if at == last or self.hashes[at] != wanted:
            return None
        coded = self.values[at * self.columns : (at + 1) * self.columns]
        decoded = tuple(map(self.decode.__getitem__, coded[:-2]))
        return Row(decoded, _VALENCES[coded[-2]], coded[-1])


def key_hash(key: str) -> int:
    """The hash by which a row is found."""
    return zlib.crc32(key.encode("utf-8", "surrogatepass"))


def pack(header: dict[str, Any], hashes: list[int], values: bytes, columns: int) -> bytes:
    """The file's bytes. hashes are sorted and unique; values row by row, two's complement."""
    steps = [hashes[0], *(b - a for a, b in pairwise(hashes))]
    flat = struct.pack(f"<{len(steps)}I", *steps)
    body = b"".join([*(flat[plane::4] for plane in range(4)), *_planes(values, columns)])
    full = {
        **header,
        "format": FORMAT,
        "rows": len(hashes),
        "columns": columns,
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    encoded = json.dumps(full, sort_keys=True, separators=(",", ":")).encode()
    return MAGIC + struct.pack("<I", len(encoded)) + encoded + zlib.compress(body, 9)


def _planes(values: bytes, columns: int) -> list[bytes]:
    return [values[column::columns] for column in range(columns)]


def read(path: Path) -> Table:
    """Read and check a weights file. Raises `WeightsError`."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read the model's weights {path}: {error.strerror}") from error
    try:
        return parse(raw)
    except WeightsError as error:
        raise WeightsError(f"the model's weights {path} cannot be used: {error}") from error


def parse(raw: bytes) -> Table:
    """The table in a file's bytes. Raises `WeightsError`."""
    header, start = _header(raw)
    try:
        rows, columns = int(header["rows"]), int(header["columns"])
        scale = float(header["scale"])
        expected = header["sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"the header lacks or garbles {error}") from error
    try:
        body = zlib.decompress(raw[start:])
    except zlib.error as error:
        raise WeightsError(f"the body is damaged ({error})") from error
    found = hashlib.sha256(body).hexdigest()
    if found != expected:
        raise WeightsError(f"checksum mismatch: the body has {found}, the header says {expected}")
    if len(body) != rows * (4 + columns):
        raise WeightsError(f"{len(body)} bytes of body, {rows * (4 + columns)} expected")
    steps = bytearray(rows * 4)
    for plane in range(4):
        steps[plane::4] = body[plane * rows : (plane + 1) * rows]
    differences = array("I", bytes(steps))
    if sys.byteorder == "big":
        differences.byteswap()
    values = bytearray(rows * columns)
    for column in range(columns):
        values[column::columns] = body[(4 + column) * rows : (5 + column) * rows]
    return Table(
        header, array("I", accumulate(differences)), bytes(values), columns, _decoding(scale)
    )


def _header(raw: bytes) -> tuple[dict[str, Any], int]:
    """The header, and where the body begins."""
    if raw[:4] != MAGIC or len(raw) < 8:
        raise WeightsError("it is not a weights file (wrong magic)")
    (length,) = struct.unpack_from("<I", raw, 4)
    if length > _MAX_HEADER or 8 + length > len(raw):
        raise WeightsError("it ends inside its header")
    try:
        header = json.loads(raw[8 : 8 + length])
    except ValueError as error:
        raise WeightsError(f"the header is not JSON ({error})") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise WeightsError(f"it is not of format {FORMAT}, which this version reads")
    return header, 8 + length


def _decoding(scale: float) -> tuple[float, ...]:
    """The value of each unsigned byte."""
    return tuple([(1 if v > 0 else -1) * (v / 127) ** 2 * scale for v in _SIGNED])
