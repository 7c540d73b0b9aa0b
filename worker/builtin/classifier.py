"""The built-in model: what a text shows, by adding up what its words weigh.

Each token, each pair of neighbours, and for unknown words each piece of the word, has a row of
weights: one for each emotion and one for each sentiment. Their sum over the root of the number of
tokens, and the text's `signals`, give the two heads' scores, which are joined (joy does not go with
a negative sentiment) and calibrated to a probability. It is nearly linear, so a phrase's share in
the answer is known: the key phrases are those with the largest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from worker.builtin import features, weights
from worker.builtin.features import Token
from worker.builtin.signals import COUNT, KINDS, NEGATED, signals
from worker.builtin.weights import Row

EMOTIONS = ("Anger", "Disgust", "Fear", "Joy", "Neutral", "Sadness", "Surprise")
SENTIMENTS = ("Positive", "Negative", "Neutral")
FILE = Path(__file__).with_name("weights.bin")

MAX_PHRASES = 5
_MAX_PHRASE_TOKENS = 4
# What a stem of the answer's emotion adds to a token's share, so that it is among the phrases.
_STEM_SHARE = 1.0
_NEUTRAL = EMOTIONS.index("Neutral")
# Rows of words already seen; natural text is made of few words. Bounded, because texts are not.
_CACHED_WORDS = 8192
# With less than this share of its words known, a text is in another language or is none.
_READABLE = 0.3

# What cannot go together, whatever the scores say.
_FORBIDDEN = {
    "Joy": "Negative",
    "Anger": "Positive",
    "Disgust": "Positive",
    "Fear": "Positive",
    "Sadness": "Positive",
}


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


@dataclass(frozen=True, slots=True)
class _Parts:
    """The rows of a text: of its tokens, and of its pairs (one more)."""

    own: list[Row]
    pairs: list[Row]
    known: int
    """How many of the words and pictures have a row of their own."""


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
            self._joint: list[list[float]] = header["joint"]
            self._sharpness: float = header["sharpness"]
            self._pair: float = header["pair"]
            self._piece: float = header["piece"]
        except KeyError as error:
            raise weights.WeightsError(f"the header of the weights lacks {error}") from error
        shape = (table.columns - 2, len(self._bias), len(self._signals))
        if shape != (size, size, COUNT):
            raise weights.WeightsError(
                f"the weights have the shape {shape}, not {size, size, COUNT}"
            )
        self._table = table
        self._zero = Row((0.0,) * size, 0.0, 0)
        # Of each word seen: its row, and whether it is one of the file's.
        self._seen: dict[str, tuple[Row, bool]] = {}

    @classmethod
    def load(cls, path: Path = FILE) -> Classifier:
        """The model from its weights file. Raises `weights.WeightsError`."""
        return cls(weights.read(path))

    def read(self, text: str) -> Reading:
        """What text shows. Never raises: any str has an answer."""
        tokens = features.tokens(text)
        parts = self._parts(tokens)
        readable = parts.known / max(sum(map(_says, tokens)), 1)
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
        logs = [_log_sum(row) for row in self._join(self.scores(text))]
        return [math.exp(value - _log_sum(logs)) for value in logs]

    def decide(self, scores: list[float]) -> tuple[int, int, float]:
        """Emotion and sentiment (their indexes), and the emotion's calibrated probability."""
        joint = self._join(scores)
        by_emotion = [_log_sum(row) for row in joint]
        by_sentiment = [_log_sum(column) for column in zip(*joint, strict=True)]
        emotion = max(range(len(by_emotion)), key=by_emotion.__getitem__)
        forbidden = _FORBIDDEN.get(EMOTIONS[emotion])
        allowed = [at for at, name in enumerate(SENTIMENTS) if name != forbidden]
        sentiment = max(allowed, key=by_sentiment.__getitem__)
        calibrated = [value * self._sharpness for value in by_emotion]
        return emotion, sentiment, math.exp(calibrated[emotion] - _log_sum(calibrated))

    def _join(self, scores: list[float]) -> list[list[float]]:
        """The score of each emotion (row) together with each sentiment (column)."""
        emotions, sentiments = scores[: len(EMOTIONS)], scores[len(EMOTIONS) :]
        return [
            [e + s + agreement for s, agreement in zip(sentiments, row, strict=True)]
            for e, row in zip(emotions, self._joint, strict=True)
        ]

    def _parts(self, tokens: list[Token]) -> _Parts:
        row, zero = self._table.row, self._zero
        words = [self._word(token) for token in tokens]
        pairs = [row(key) or zero for key in features.pairs([token.key for token in tokens])]
        known = sum(known and _says(token) for (_, known), token in zip(words, tokens, strict=True))
        return _Parts([own for own, _ in words], pairs, known)

    def _word(self, token: Token) -> tuple[Row, bool]:
        key = token.key
        seen = self._seen.get(key)
        if seen is None:
            bare = key.removeprefix("!") or key
            row = self._table.row(key) or self._table.row(bare)
            seen = (row, True) if row else (self._unknown(token, bare), False)
            if len(self._seen) >= _CACHED_WORDS:
                self._seen.clear()
            self._seen[key] = seen
        return seen

    def _unknown(self, token: Token, word: str) -> Row:
        """The weights of a word that has none, from its pieces."""
        if not token.is_word:
            return self._zero
        rows = [row.weights for row in map(self._table.row, features.pieces(word)) if row]
        if not rows:
            return self._zero
        factor = self._piece / math.sqrt(len(rows))
        summed = [sum(column) * factor for column in zip(*rows, strict=True)]
        return Row(tuple(summed), 0.0, 0)

    def _scores(self, parts: _Parts, count: int) -> list[float]:
        factor = 1 / math.sqrt(count + 1)
        own = [sum(column) for column in zip(*(r.weights for r in parts.own), strict=True)]
        pairs = [sum(column) for column in zip(*(r.weights for r in parts.pairs), strict=True)]
        rows = [*parts.own, *parts.pairs]
        found = signals([r.valence for r in rows], [r.code for r in rows], count)
        scores = [
            bias + factor * (a + self._pair * b)
            for bias, a, b in zip(self._bias, own or self._zero.weights, pairs, strict=True)
        ]
        for value, coefficients in zip(found, self._signals, strict=True):
            if value:
                scores = [s + value * c for s, c in zip(scores, coefficients, strict=True)]
        return scores


def _says(token: Token) -> bool:
    """Whether a token can say anything by itself: a word, an emoji, an emoticon."""
    return token.is_word or token.is_picture


def _log_sum(values: list[float] | tuple[float, ...]) -> float:
    top = max(values)
    return top + math.log(sum([math.exp(value - top) for value in values]))


def _phrases(text: str, tokens: list[Token], parts: _Parts, emotion: int) -> tuple[str, ...]:
    """The pieces of text that spoke most for emotion, the weightiest first."""
    shares = _shares(parts, emotion)
    floor = 0.2 * max(shares, default=0.0)
    found: list[tuple[float, int, int]] = []
    at = 0
    while at < len(tokens):
        end = at
        while end < len(tokens) and end - at < _MAX_PHRASE_TOKENS:
            if shares[end] <= floor or _apart(text, tokens, at, end):
                break
            end += 1
        first, last = _telling(text, tokens, at, end)
        if last > first:
            weight = sum(shares[first:last])
            found.append((weight, tokens[first].start, tokens[last - 1].end))
        at = max(end, last, at + 1)
    found.sort(key=lambda item: (-item[0], item[1]))
    phrases = dict.fromkeys(text[start:end] for _, start, end in found)
    return tuple(phrases)[:MAX_PHRASES]


def _telling(text: str, tokens: list[Token], first: int, last: int) -> tuple[int, int]:
    """The part of tokens[first:last] without empty words at its ends.

    A negation is no phrase alone: it takes on the words that it negates, up to the first that says
    something.
    """
    while first < last and tokens[first].key.removeprefix("!") in features.EMPTY:
        first += 1
    while first < last and tokens[last - 1].key.removeprefix("!") in features.EMPTY:
        last -= 1
    while first < last < len(tokens) and last - first < _MAX_PHRASE_TOKENS:
        before = tokens[last - 1].key.removeprefix("!")
        if not (features.negates(before) or (last - first > 1 and before in features.EMPTY)):
            break
        if _apart(text, tokens, first, last):
            break
        last += 1
    said = {token.key.removeprefix("!") for token in tokens[first:last]}
    if all(word in features.EMPTY or features.negates(word) for word in said):
        return first, first
    return first, last


def _apart(text: str, tokens: list[Token], first: int, last: int) -> bool:
    """Whether tokens[last] cannot go on the phrase that tokens[first] began."""
    token = tokens[last]
    if token.start == token.end or not _says(token):
        return True
    return last > first and text[tokens[last - 1].end : token.start] != " "


def _shares(parts: _Parts, emotion: int) -> list[float]:
    """How much each token spoke for emotion, against the mean of the others."""
    count = len(EMOTIONS)

    def share(row: Row) -> float:
        against = (row.weights[emotion] * count - sum(row.weights[:count])) / (count - 1)
        return against + (_STEM_SHARE if emotion != _NEUTRAL and _speaks_for(row, emotion) else 0)

    pairs = [share(pair) for pair in parts.pairs]
    # A pair belongs half to each of its two tokens.
    return [share(own) + (pairs[at] + pairs[at + 1]) / 2 for at, own in enumerate(parts.own)]


def _speaks_for(row: Row, emotion: int) -> bool:
    return 0 < row.code <= NEGATED and KINDS[row.code - 1].rstrip("+") == EMOTIONS[emotion]
