"""From rows of weights to the bytes of the weights file."""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from selfheal_worker.builtin import weights

Floats: TypeAlias = npt.NDArray[np.float64]
# Rarely a weight is larger; it is cut, so that the others keep their digits.
_SCALE_QUANTILE = 0.99999


def bake(rows: dict[str, Floats], header: dict[str, Any]) -> bytes:
    """The file. Rows that round to nothing are left out."""
    keys = sorted(rows)
    table = np.array([rows[key] for key in keys])
    scale = float(np.quantile(np.abs(table[:, :-2]), _SCALE_QUANTILE))
    coded = np.sign(table) * np.rint(127 * np.sqrt(np.minimum(np.abs(table) / scale, 1)))
    coded[:, -2] = np.rint(table[:, -2] / weights.VALENCE_STEP)
    coded[:, -1] = table[:, -1]
    by_hash: dict[int, npt.NDArray[np.int8]] = {}
    for key, row in zip(keys, coded.astype(np.int8), strict=True):
        place = weights.key_hash(key)
        # Two keys with one hash: the one with more to say stays.
        if row.any() and (place not in by_hash or _size(row) > _size(by_hash[place])):
            by_hash[place] = row
    hashes = sorted(by_hash)
    values = np.array([by_hash[place] for place in hashes]).tobytes()
    # The header decides as well: biases, how the two heads are joined.
    digest = hashlib.sha256(values + json.dumps(header, sort_keys=True).encode()).hexdigest()
    full = {**header, "scale": scale, "version": f"{header['version']}+{digest[:8]}"}
    return weights.pack(full, hashes, values, table.shape[1])


def _size(row: npt.NDArray[np.int8]) -> int:
    return int(np.abs(row.astype(np.int64)).sum())
