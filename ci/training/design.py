"""From texts to the matrix that is regressed on, and from its weights to the rows of the file.

A word's row in the file is the sum of all that is known of the word: its own weight, those of its
pieces, of its valence and of the stems it begins with. So the model at run time only looks up.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from selfheal_worker.builtin import features
from selfheal_worker.builtin.signals import COUNT, KINDS, NEGATED, signals

PAIR = 0.7
PIECE = 0.4
_BARE_OF_NEGATED = 0.5
_NEGATED_VALENCE = -0.74  # as in VADER
_MIN_WORD, _MIN_PAIR, _MIN_PIECE = 2, 3, 8

Floats: TypeAlias = npt.NDArray[np.float64]


# Forms that a stem is also written out in, for words that no training text has.
_ENDINGS = (
    "",
    "s",
    "d",
    "e",
    "es",
    "ed",
    "er",
    "ing",
    "ion",
    "ly",
    "y",
    "ness",
    "ment",
    "able",
    "ful",
)


def forms(stem: str) -> list[str]:
    """The words that a stem stands for, as far as they can be guessed."""
    if not stem.endswith("*"):
        return [stem]
    return [stem[:-1] + ending for ending in _ENDINGS]


class Design:
    """The columns: words, pairs, pieces, what lexicons say of words, and the signals."""

    def __init__(
        self, texts: Iterable[str], valences: dict[str, float], stems: dict[str, str]
    ) -> None:
        self._valences = valences
        self._stems = stems
        keys: Counter[str] = Counter()
        pieces: Counter[str] = Counter()
        for text in texts:
            tokens = features.tokens(text)
            own = [token.key for token in tokens]
            keys.update(set(own) | set(features.pairs(own)))
            pieces.update(
                {
                    piece
                    for token in tokens
                    if token.is_word
                    for piece in features.pieces(token.key.removeprefix("!"))
                }
            )
        self.pairs = sorted(k for k, n in keys.items() if " " in k and n >= _MIN_PAIR)
        self.words = sorted(k for k, n in keys.items() if " " not in k and n >= _MIN_WORD)
        self.pieces = sorted(k for k, n in pieces.items() if n >= _MIN_PIECE)
        self.column: dict[str, int] = {}
        for key in [*self.words, *self.pairs, *self.pieces]:
            self.column[key] = len(self.column)
        for sign in ("", "!"):
            for kind in ("up", "down", *KINDS):
                self.column[f"@{sign}{kind}"] = len(self.column)
        self.signals = len(self.column)
        self._known: dict[str, list[tuple[int, float]]] = {}

    def word(self, key: str) -> list[tuple[int, float]]:
        """The columns that a token (maybe a negated word: `!word`) touches, and how much."""
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._touched(key)
        return found

    def _touched(self, key: str) -> list[tuple[int, float]]:
        bare = key.removeprefix("!")
        sign = "!" if key != bare else ""
        touched = [(self.column[key], 1.0)] if key in self.column else []
        if sign and bare in self.column:
            touched.append((self.column[bare], _BARE_OF_NEGATED))
        spelt = features.pieces(bare) if bare[:1].isalpha() else []
        pieces = [self.column[p] for p in spelt if p in self.column]
        touched += [(piece, PIECE / math.sqrt(len(pieces))) for piece in pieces]
        valence = self._valences.get(bare, 0.0)
        if valence:
            kind = "up" if valence > 0 else "down"
            touched.append((self.column[f"@{sign}{kind}"], abs(valence) / 2))
        stem = self._stem(bare)
        if stem:
            touched.append((self.column[f"@{sign}{stem}"], 1.0))
        return touched

    def meaning(self, key: str) -> tuple[float, int]:
        """The valence of a word or pair, and its stem's code (see `signals`)."""
        bare = key.removeprefix("!")
        stem = self._stem(bare)
        code = KINDS.index(stem) + 1 if stem else 0
        valence = self._valences.get(bare, 0.0)
        if bare == key:
            return valence, code
        return _NEGATED_VALENCE * valence, code + NEGATED if code else 0

    def _stem(self, word: str) -> str | None:
        """What our own stems say of a word: the longest that it begins with decides."""
        exact = self._stems.get(word)
        if exact or " " in word:
            return exact
        for size in range(len(word), 2, -1):
            kind = self._stems.get(word[:size] + "*")
            if kind:
                return kind
        return None

    def matrix(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """One row a text."""
        rows: list[int] = []
        columns: list[int] = []
        values: list[float] = []
        for row, text in enumerate(texts):
            touched = self._text(text)
            rows += [row] * len(touched)
            columns += touched.keys()
            values += touched.values()
        shape = (len(texts), self.signals + COUNT)
        return sparse.csr_matrix((np.array(values), (rows, columns)), shape=shape)

    def _text(self, text: str) -> dict[int, float]:
        tokens = features.tokens(text)
        pairs = features.pairs([token.key for token in tokens])
        factor = 1 / math.sqrt(len(tokens) + 1)
        touched: defaultdict[int, float] = defaultdict(float)
        for token in tokens:
            for column, value in self.word(token.key):
                touched[column] += value * factor
        for pair in pairs:
            if pair in self.column:
                touched[self.column[pair]] += PAIR * factor
        meanings = [self.meaning(key) for key in [*(t.key for t in tokens), *pairs]]
        found = signals((v for v, _ in meanings), (c for _, c in meanings), len(tokens))
        for at, value in enumerate(found):
            touched[self.signals + at] = value
        return touched

    def rows(self, weights: Floats, more: Iterable[str]) -> dict[str, Floats]:
        """The rows by key, as the classifier looks them up: weights, valence, code."""
        rows: dict[str, Floats] = {}
        for key in {*self.words, *self.pairs, *self.pieces, *more}:
            if key in self.column and (key.startswith("#") or " " in key):
                row = weights[self.column[key]]
            else:
                row = np.zeros(weights.shape[1])
                for column, value in self.word(key) if " " not in key else ():
                    row = row + value * weights[column]
            meaning = (0.0, 0) if key.startswith("#") else self.meaning(key)
            rows[key] = np.array([*row, *meaning])
        return rows
