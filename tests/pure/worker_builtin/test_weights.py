"""The weights file: what is written is read back, and damage is named."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfheal_worker.builtin import weights
from selfheal_worker.builtin.classifier import FILE, Classifier
from selfheal_worker.builtin.weights import WeightsError

HEADER = {"scale": 2.0, "version": "test"}


def packed(keys: list[str], values: list[list[int]]) -> bytes:
    rows = sorted(zip(map(weights.key_hash, keys), values, strict=True))
    flat = bytes(value % 256 for _, row in rows for value in row)
    return weights.pack(HEADER, [place for place, _ in rows], flat, len(values[0]))


def edited(raw: bytes, **changes: object) -> bytes:
    (length,) = struct.unpack_from("<I", raw, 4)
    header = json.dumps({**json.loads(raw[8 : 8 + length]), **changes}).encode()
    return raw[:4] + struct.pack("<I", len(header)) + header + raw[8 + length :]


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=6),
        st.lists(st.integers(-127, 127), min_size=3, max_size=3).map(
            lambda row: [*row, abs(row[0]) % 25]
        ),
        min_size=1,
        max_size=30,
    )
)
def test_rows_are_read_back(rows: dict[str, list[int]]) -> None:
    table = weights.parse(packed(list(rows), list(rows.values())))
    for key, (first, second, valence, code) in rows.items():
        row = table.row(key)
        assert row is not None
        assert row.weights == pytest.approx(
            [(value / 127) ** 2 * 2 * (1 if value > 0 else -1) for value in (first, second)]
        )
        assert row.valence == pytest.approx(valence / 25)
        assert row.code == code
    assert table.row("a key that nobody wrote") is None


GOOD = packed(["a", "b"], [[1, 2, 0, 0], [3, 4, 5, 6]])


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "wrong magic"),
        (b"PK\x03\x04 something else", "wrong magic"),
        (GOOD[:20], "ends inside its header"),
        (GOOD[:-5], "body is damaged"),
        (GOOD[:8] + b"x" + GOOD[9:], "header is not JSON"),
        (edited(GOOD, format=99), "not of format 1"),
        (edited(GOOD, sha256="0" * 64), "checksum mismatch"),
        (edited(GOOD, rows=7), "bytes of body"),
        (edited(GOOD, scale="much"), "header lacks or garbles"),
        (edited(GOOD, rows="two"), "header lacks or garbles"),
    ],
)
def test_damage_is_named(raw: bytes, said: str) -> None:
    with pytest.raises(WeightsError, match=said):
        weights.parse(raw)


def test_a_changed_byte_of_the_body_is_found() -> None:
    raw = FILE.read_bytes()
    (length,) = struct.unpack_from("<I", raw, 4)
    body = bytearray(zlib.decompress(raw[8 + length :]))
    body[len(body) // 2] ^= 1
    with pytest.raises(WeightsError, match="checksum mismatch"):
        weights.parse(raw[: 8 + length] + zlib.compress(bytes(body)))


def test_the_file_is_named_where_it_cannot_be_read(tmp_path: Path) -> None:
    missing, damaged = tmp_path / "missing.bin", tmp_path / "damaged.bin"
    damaged.write_bytes(b"nothing of the sort")
    with pytest.raises(WeightsError, match=r"missing\.bin.*No such file"):
        weights.read(missing)
    with pytest.raises(WeightsError, match=r"damaged\.bin.*wrong magic"):
        weights.read(damaged)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"emotions": ["Joy"]}, "other labels"),
        ({"signals": []}, "shape"),
        ({"bias": [0.0]}, "shape"),
    ],
)
def test_weights_of_another_model_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(WeightsError, match=said):
        Classifier(weights.parse(edited(FILE.read_bytes(), **changes)))


def test_the_embedded_file_is_small() -> None:
    assert FILE.stat().st_size <= 1_500_000
