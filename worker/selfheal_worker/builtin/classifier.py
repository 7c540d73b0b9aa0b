"""The built-in model: a sum of the weights of a text's words.

Each token, each pair of adjacent tokens, and for unknown words each n-gram of the word, has a row
of weights: one for each emotion and one for each sentiment. Their sum over the root of the number
of tokens, and the text's `signals`, give the two heads' scores, which are combined (joy excludes a
negative sentiment) and calibrated to a probability. It is nearly linear, so a phrase's share in
the answer is known: the key phrases are those with the largest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from operator import mul
from pathlib import Path
from typing import NamedTuple

from selfheal_worker.builtin import features, weights
from selfheal_worker.builtin.features import Token
from selfheal_worker.builtin.signals import COUNT, GENERAL, KINDS, signals
from selfheal_worker.builtin.weights import Row

EMOTIONS = ("Anger", "Disgust", "Fear", "Joy", "Neutral", "Sadness", "Surprise")
SENTIMENTS = ("Positive", "Negative", "Neutral")
FILE = Path(__file__).with_name("weights.bin")

MAX_PHRASES = 5
_MAX_PHRASE_TOKENS = 4
# What a stem of the answer's emotion adds to a token's share, so that it is among the phrases.
_STEM_SHARE = 1.0
# Rows of words, and of known pairs, that were looked up before; natural text is made of few.
_CACHED_WORDS = 16384
_CACHED_PAIRS = 16384
# With less than this share of known words, a text is in another language or is not a text.
_READABLE = 0.3

# The codes of each emotion's stems.
_STEMS = tuple(
    frozenset(
        code
        for code, kind in enumerate(KINDS, 1)
        if kind.rstrip("+") == emotion and emotion != "Neutral"
    )
    for emotion in EMOTIONS
)

# What cannot go together, whatever the scores say.
_FORBIDDEN = {
    "Joy": "Negative",
    "Anger": "Positive",
    "Disgust": "Positive",
    "Fear": "Positive",
    "Sadness": "Positive",
}
_ALLOWED = tuple(
    tuple(at for at, name in enumerate(SENTIMENTS) if name != _FORBIDDEN.get(emotion))
    for emotion in EMOTIONS
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the model says about one text.

    confidence is the calibrated probability that emotion is right, 0 to 1; phrases are pieces of
    the text as they stand there, the weightiest first.
    """

    emotion: str
    sentiment: str
    confidence: float
    phrases: tuple[str, ...]


class _Row(NamedTuple):
    """A row of the table, with the sum of its weights for emotions."""

    weights: tuple[float, ...]
    valence: float
    code: int
    total: float


class _Word(NamedTuple):
    """What is known of a token. bare: as it stands in pairs."""

    row: _Row
    bare: str
    known: bool
    """It has a row of its own."""
    negates: bool
    empty: bool

    @property
    def tells(self) -> bool:
        """Whether it can be a phrase."""
        return not (self.empty or self.negates)


class _Parts(NamedTuple):
    """What is known of a text's tokens; of its pairs there is one more."""

    words: list[_Word]
    own: list[_Row]
    pairs: list[_Row]
    stated: list[bool]
    """Which tokens can say anything by themselves: words, emojis, emoticons."""

    @property
    def readable(self) -> float:
        """The share of the words and pictograms that have their own row."""
        known = [word.known for word, stated in zip(self.words, self.stated, strict=True) if stated]
        return sum(known) / max(len(known), 1)


_SILENT = _Row((0.0,) * (len(EMOTIONS) + len(SENTIMENTS)), 0.0, 0, 0.0)


class Classifier:
    """The model in memory. `read` may be called by several threads at once."""

    def __init__(self, table: weights.Table) -> None:
        """Raises `weights.WeightsError` where the table is not of this model's shape."""
        header, size = table.header, len(EMOTIONS) + len(SENTIMENTS)
        if header.get("emotions") != list(EMOTIONS) or header.get("sentiments") != list(SENTIMENTS):
            raise weights.WeightsError(
                "the weights are for other labels: "
                f"{header.get('emotions')} and {header.get('sentiments')}"
            )
        try:
            self.version = str(header["version"])
            self._bias: list[float] = header["bias"]
            self._signals: list[list[float]] = header["signals"]
            joint: list[list[float]] = header["joint"]
            lean: list[float] = header["lean"]
            self._sharpness: float = header["sharpness"]
            self._pair_weight: float = header["pair"]
            self._piece: float = header["piece"]
        except KeyError as error:
            raise weights.WeightsError(f"the header of the weights lacks {error}") from error
        shape = (table.columns - 2, len(self._bias), len(self._signals))
        if shape != (size, size, COUNT):
            raise weights.WeightsError(
                f"the weights have the shape {shape}, not {size, size, COUNT}"
            )
        self._table = table
        # How well they go together: by emotion, and by sentiment. What the sentiments lean to has
        # no say in the emotion.
        self._by_emotion = [[math.exp(value) for value in row] for row in joint]
        self._by_sentiment = [
            [math.exp(value + towards) for value in column]
            for column, towards in zip(zip(*joint, strict=True), lean, strict=True)
        ]
        self._seen: dict[str, _Word] = {}
        self._seen_pairs: dict[str, _Row] = {}

    @classmethod
    def load(cls, path: Path = FILE) -> Classifier:
        """The model from its weights file. Raises `weights.WeightsError`."""
        return cls(weights.read(path))

    @property
    def remembered(self) -> tuple[int, int]:
        """How many words, and pairs of words, need not be looked up again."""
        return len(self._seen), len(self._seen_pairs)

    def read(self, text: str) -> Reading:
        """What text shows. Never raises: any str has an answer."""
        tokens = features.tokens(text)
        parts = self._parts(tokens)
        readable = parts.readable
        if readable < _READABLE:
            return Reading("Neutral", "Neutral", 1 / len(EMOTIONS), ())
        emotion, sentiment, confidence = self.decide(self._scores(parts, len(tokens)))
        # Of what it cannot read, it knows no more than chance.
        confidence = readable * confidence + (1 - readable) / len(EMOTIONS)
        phrases = _phrases(text, tokens, parts, emotion)
        return Reading(EMOTIONS[emotion], SENTIMENTS[sentiment], min(confidence, 1.0), phrases)

    def scores(self, text: str) -> list[float]:
        """Both heads' scores (emotions, then sentiments), before they are joined."""
        tokens = features.tokens(text)
        return self._scores(self._parts(tokens), len(tokens))

    def by_emotion(self, text: str) -> list[float]:
        """The probability of each emotion before it is calibrated; for training."""
        by_emotion, _ = self._join(self.scores(text))
        return [value / sum(by_emotion) for value in by_emotion]

    def decide(self, scores: list[float]) -> tuple[int, int, float]:
        """Emotion and sentiment (their indexes), and the emotion's calibrated probability."""
        by_emotion, by_sentiment = self._join(scores)
        emotion = by_emotion.index(max(by_emotion))
        sentiment = max(_ALLOWED[emotion], key=by_sentiment.__getitem__)
        calibrated = [value**self._sharpness for value in by_emotion]
        return emotion, sentiment, calibrated[emotion] / sum(calibrated)

    def _join(self, scores: list[float]) -> tuple[list[float], list[float]]:
        """How likely each emotion and each sentiment is, together; not yet of sum 1."""
        size = len(EMOTIONS)
        first, second = max(scores[:size]), max(scores[size:])
        emotions = [math.exp(score - first) for score in scores[:size]]
        sentiments = [math.exp(score - second) for score in scores[size:]]
        by_emotion = zip(emotions, self._by_emotion, strict=True)
        by_sentiment = zip(sentiments, self._by_sentiment, strict=True)
        return (
            [value * sum(map(mul, sentiments, fit)) for value, fit in by_emotion],
            [value * sum(map(mul, emotions, fit)) for value, fit in by_sentiment],
        )

    def _parts(self, tokens: list[Token]) -> _Parts:
        seen, seen_pairs = self._seen, self._seen_pairs
        words = [seen.get(token.key) or self._word(token) for token in tokens]
        keys = features.neighbours([word.bare for word in words])
        return _Parts(
            words,
            [word.row for word in words],
            [seen_pairs.get(key) or self._pair(key) for key in keys],
            [is_word or is_picture for _, _, _, is_word, is_picture in tokens],
        )

    def _word(self, token: Token) -> _Word:
        key = token.key
        bare = key.removeprefix("!") or key
        row = self._table.row(key) or self._table.row(bare)
        read = row or self._unknown(token, bare)
        word = _Word(
            _weighed(read) if read else _SILENT,
            features.bare(key),
            row is not None,
            features.negates(bare),
            bare in features.EMPTY,
        )
        if len(self._seen) >= _CACHED_WORDS:
            self._seen.clear()
        self._seen[key] = word
        return word

    def _pair(self, key: str) -> _Row:
        found = self._table.row(key)
        if found is None:
            return _SILENT
        row = _weighed(found)
        if len(self._seen_pairs) >= _CACHED_PAIRS:
            self._seen_pairs.clear()
        self._seen_pairs[key] = row
        return row

    def _unknown(self, token: Token, word: str) -> Row | None:
        """The weights of a word that has none, from its pieces."""
        if not token.is_word:
            return None
        rows = [row.weights for row in map(self._table.row, features.pieces(word)) if row]
        if not rows:
            return None
        factor = self._piece / math.sqrt(len(rows))
        summed = [sum(column) * factor for column in zip(*rows, strict=True)]
        return Row(tuple(summed), 0.0, 0)

    def _scores(self, parts: _Parts, count: int) -> list[float]:
        factor = 1 / math.sqrt(count + 1)
        spoken = [row for row in parts.pairs if row is not _SILENT]
        own = map(sum, zip(*[row.weights for row in [_SILENT, *parts.own]], strict=True))
        pairs = map(sum, zip(*[row.weights for row in [_SILENT, *spoken]], strict=True))
        scores = [
            bias + factor * (a + self._pair_weight * b)
            for bias, a, b in zip(self._bias, own, pairs, strict=True)
        ]
        rows = [*parts.own, *spoken]
        valences = [row.valence for row in rows if row.valence]
        codes = [row.code for row in rows if row.code]
        found = signals(valences, codes, count)
        # Written out, because every text has them.
        a, b, c, d, e, f = found[:GENERAL]
        scores = [
            score + a * p + b * q + c * r + d * s + e * t + f * u
            for score, p, q, r, s, t, u in zip(scores, *self._signals[:GENERAL], strict=True)
        ]
        if codes:
            counted = zip(found[GENERAL:], self._signals[GENERAL:], strict=True)
            for value, coefficients in counted:
                if value:
                    scores = [s + value * c for s, c in zip(scores, coefficients, strict=True)]
        return scores


def _weighed(row: Row) -> _Row:
    return _Row(*row, sum(row.weights[: len(EMOTIONS)]))


def _phrases(text: str, tokens: list[Token], parts: _Parts, emotion: int) -> tuple[str, ...]:
    """The pieces of text that spoke most for emotion, the weightiest first."""
    shares = _shares(parts, emotion)
    floor = 0.2 * max(shares, default=0.0)
    found: list[tuple[float, int, int]] = []
    at = 0
    while at < len(tokens):
        if shares[at] <= floor or not parts.stated[at]:
            at += 1
            continue
        end = at + 1
        while end < len(tokens) and end - at < _MAX_PHRASE_TOKENS:
            if shares[end] <= floor or _apart(text, tokens, parts, end):
                break
            end += 1
        first, last = _telling(text, tokens, parts, at, end)
        if last > first:
            weight = sum(shares[first:last])
            found.append((weight, tokens[first].start, tokens[last - 1].end))
        at = max(end, last)
    found.sort(key=lambda item: (-item[0], item[1]))
    phrases = dict.fromkeys(text[start:end] for _, start, end in found)
    return tuple(phrases)[:MAX_PHRASES]


def _telling(
    text: str, tokens: list[Token], parts: _Parts, first: int, last: int
) -> tuple[int, int]:
    """The part of tokens[first:last] without empty words at its ends.

    A negation is no phrase alone: it takes on the words that it negates, up to the first that says
    something.
    """
    words = parts.words
    while first < last and words[first].empty:
        first += 1
    while first < last and words[last - 1].empty:
        last -= 1
    while first < last < len(tokens) and last - first < _MAX_PHRASE_TOKENS:
        before = words[last - 1]
        if not (before.negates or (last - first > 1 and before.empty)):
            break
        if _apart(text, tokens, parts, last):
            break
        last += 1
    if any(word.tells for word in words[first:last]):
        return first, last
    return first, first


def _apart(text: str, tokens: list[Token], parts: _Parts, last: int) -> bool:
    """Whether tokens[last] cannot continue the phrase that ends before it."""
    return not parts.stated[last] or text[tokens[last - 1].end : tokens[last].start] != " "


def _shares(parts: _Parts, emotion: int) -> list[float]:
    """How much each token spoke for emotion, against the mean of the others."""
    size, stems = len(EMOTIONS), _STEMS[emotion]
    own, pairs = (
        [
            (weights[emotion] * size - total) / (size - 1) + (_STEM_SHARE if code in stems else 0)
            for weights, _, code, total in rows
        ]
        for rows in (parts.own, parts.pairs)
    )
    # A pair belongs half to each of its two tokens.
    return [
        share + (before + after) / 2
        for share, (before, after) in zip(own, pairwise(pairs), strict=True)
    ]
