"""Signals of a text's emotion words: a few numbers that do not shrink with its length.

The weights of words are averaged over a text, so one clear word in a long complaint would have no
effect. Each row of the weights file therefore also has the word's valence and a code of the emotion
stem that it belongs to. Here they are counted, and saturate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

# "Joy+" are words that hardly ever mean anything else, "Joy" are those that often go with it.
KINDS = tuple(
    emotion + strength
    for emotion in ("Anger", "Disgust", "Fear", "Joy", "Sadness", "Surprise")
    for strength in ("+", "")
)
# A negated word's code follows those of the plain ones. 0 is none.
NEGATED = len(KINDS)
# The first ones are there in every text, the others where a stem is.
GENERAL = 6
COUNT = GENERAL + 2 * len(KINDS) + len(KINDS) // 2

_VADER_ALPHA = 15.0  # as in VADER's `normalize`
_HALF = 4.0  # the sum of valences that counts half
_LONG = 40  # tokens
_NONE = [0.0] * (2 * len(KINDS) + len(KINDS) // 2)


def signals(valences: Iterable[float], codes: Iterable[int], count: int) -> list[float]:
    """`COUNT` numbers from the rows of a text of count tokens; all are 0 when there is nothing."""
    up = down = 0.0
    for valence in valences:
        if valence > 0:
            up += valence
        else:
            down -= valence
    total = up - down
    compound = total / math.sqrt(total * total + _VADER_ALPHA)
    pleasant, unpleasant = up / (up + _HALF), down / (down + _HALF)
    plain = [
        compound,
        abs(compound),
        pleasant,
        unpleasant,
        pleasant * unpleasant,
        min(count, _LONG) / _LONG,
    ]
    return plain + _counted([code for code in codes if code])


def _counted(codes: list[int]) -> list[float]:
    """Each stem's share in what the stems say."""
    if not codes:
        return _NONE
    hits = [0] * (2 * len(KINDS))
    for code in codes:
        hits[code - 1] += 1
    kinds = [hits[at] + hits[at + 1] for at in range(0, len(KINDS), 2)]
    every = sum(kinds) + 1
    return [*[1.5 * hit / (hit + 1) for hit in hits], *[hit / every for hit in kinds]]
