"""The built-in model: what a text shows, by adding up the weights of its words.

Each token, each pair of neighbours, and for unknown words each piece of the word, has a row of
weights: one for each emotion and one for each sentiment. Their sum over the root of the number of
tokens gives the two heads' scores, which are joined (joy does not go with a negative sentiment)
and calibrated to a probability. All of it is linear, so every phrase's share in the answer is known
exactly: the key phrases are those with the largest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from worker.builtin import features, weights
from worker.builtin.features import Token

EMOTIONS = ("Anger", "Disgust", "Fear", "Joy", "Neutral", "Sadness", "Surprise")
SENTIMENTS = ("Positive", "Negative", "Neutral")
FILE = Path(__file__).with_name("weights.bin")

MAX_PHRASES = 5
_MAX_PHRASE_TOKENS = 4
# Rows of words already seen; natural text is made of few words. Bounded, because texts are not.
_CACHED_WORDS = 8192

Row = tuple[float, ...]


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


class Classifier:
    """The model in memory. `read` may be called by several threads at once."""

    def __init__(self, table: weights.Table) -> None:
        """Raises `weights.WeightsError` where the table is not of this model's shape."""
        header = table.header
        if header.get("emotions") != list(EMOTIONS) or header.get("sentiments") != list(SENTIMENTS):
            raise weights.WeightsError(
                "the weights are for other labels: "
                f"{header.get('emotions')} and {header.get('sentiments')}"
            )
        if table.columns != len(EMOTIONS) + len(SENTIMENTS):
            raise weights.WeightsError(f"the weights have {table.columns} columns")
        self._table = table
        self._words: dict[str, Row] = {}
        self._zero: Row = (0.0,) * table.columns
        try:
            self.version = str(header["version"])
            self._bias: list[float] = header["bias"]
            self._joint: list[list[float]] = header["joint"]
            self._sharpness: list[float] = header["sharpness"]
            self._pair: float = header["pair"]
            self._piece: float = header["piece"]
        except KeyError as error:
            raise weights.WeightsError(f"the header of the weights lacks {error}") from error

    @classmethod
    def load(cls, path: Path = FILE) -> Classifier:
        """The model from its weights file. Raises `weights.WeightsError`."""
        return cls(weights.read(path))

    def read(self, text: str) -> Reading:
        """What text shows. Never raises: any str has an answer."""
        tokens = features.tokens(text)
        parts = self._parts(tokens)
        emotion, sentiment, confidence = self._decide(self._scores(parts, len(tokens)))
        phrases = _phrases(text, tokens, parts, emotion)
        return Reading(EMOTIONS[emotion], SENTIMENTS[sentiment], confidence, phrases)

    def scores(self, text: str) -> list[float]:
        """Both heads' raw scores (emotions, then sentiments), before joining; for evaluation."""
        tokens = features.tokens(text)
        return self._scores(self._parts(tokens), len(tokens))

    def _parts(self, tokens: list[Token]) -> list[tuple[Row, Row]]:
        """Each token's own weights, and those of the pair that it ends; then the last pair."""
        keys = [token.key for token in tokens]
        row, zero = self._table.row, self._zero
        own = [self._word(token) for token in tokens]
        pairs = [row(key) or zero for key in features.pairs(keys)]
        return list(zip([*own, zero], pairs, strict=True))

    def _word(self, token: Token) -> Row:
        key = token.key
        known = self._words.get(key)
        if known is None:
            known = self._table.row(key)
            if known is None:
                known = self._unknown(key.removeprefix("!")) if token.is_word else self._zero
            if len(self._words) >= _CACHED_WORDS:
                self._words.clear()
            self._words[key] = known
        return known

    def _unknown(self, word: str) -> Row:
        """The weights of a word that has none, from its pieces."""
        rows = [row for row in map(self._table.row, features.pieces(word)) if row is not None]
        if not rows:
            return self._zero
        factor = self._piece / math.sqrt(len(rows))
        return tuple([sum(column) * factor for column in zip(*rows, strict=True)])

    def _scores(self, parts: list[tuple[Row, Row]], count: int) -> list[float]:
        factor = 1 / math.sqrt(count + 1)
        own = [sum(column) for column in zip(*(own for own, _ in parts), strict=True)]
        pair = [sum(column) for column in zip(*(pair for _, pair in parts), strict=True)]
        return [
            bias + factor * (a + self._pair * b)
            for bias, a, b in zip(self._bias, own, pair, strict=True)
        ]

    def _decide(self, scores: list[float]) -> tuple[int, int, float]:
        """Emotion and sentiment (their indexes), and the emotion's calibrated probability."""
        emotion_sharpness, sentiment_sharpness, final = self._sharpness
        emotions = [score * emotion_sharpness for score in scores[: len(EMOTIONS)]]
        sentiments = [score * sentiment_sharpness for score in scores[len(EMOTIONS) :]]
        joint = [
            [e + s + agreement for s, agreement in zip(sentiments, row, strict=True)]
            for e, row in zip(emotions, self._joint, strict=True)
        ]
        marginal = [_log_sum(row) for row in joint]
        emotion = max(range(len(marginal)), key=marginal.__getitem__)
        sentiment = max(range(len(SENTIMENTS)), key=joint[emotion].__getitem__)
        calibrated = [value * final for value in marginal]
        confidence = math.exp(calibrated[emotion] - _log_sum(calibrated))
        return emotion, sentiment, min(max(confidence, 0.0), 1.0)


def _log_sum(values: list[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


def _phrases(
    text: str, tokens: list[Token], parts: list[tuple[Row, Row]], emotion: int
) -> tuple[str, ...]:
    """The pieces of text that spoke most for emotion, the weightiest first."""
    shares = _shares(parts, emotion)
    floor = 0.25 * max(shares, default=0.0)
    found: list[tuple[float, int, int]] = []
    at = 0
    while at < len(tokens):
        end, weight = at, 0.0
        while end < len(tokens) and end - at < _MAX_PHRASE_TOKENS:
            if shares[end] <= floor or _apart(text, tokens, at, end):
                break
            weight += shares[end]
            end += 1
        if end > at:
            found.append((weight, tokens[at].start, tokens[end - 1].end))
        at = max(end, at + 1)
    found.sort(key=lambda item: (-item[0], item[1]))
    phrases = dict.fromkeys(text[start:end] for _, start, end in found)
    return tuple([phrase for phrase in phrases if phrase.strip()][:MAX_PHRASES])


def _apart(text: str, tokens: list[Token], first: int, last: int) -> bool:
    """Whether tokens[last] cannot go on the phrase that tokens[first] began."""
    token = tokens[last]
    if token.start == token.end or not any(character.isalnum() for character in token.key):
        return True
    return last > first and text[tokens[last - 1].end : token.start] != " "


def _shares(parts: list[tuple[Row, Row]], emotion: int) -> list[float]:
    """How much each token spoke for emotion, against the mean of the others."""
    count = len(EMOTIONS)

    def share(row: Row) -> float:
        return (row[emotion] * count - sum(row[:count])) / (count - 1)

    pairs = [share(pair) for _, pair in parts]
    # A pair belongs half to each of its two tokens.
    return [share(own) + (pairs[at] + pairs[at + 1]) / 2 for at, (own, _) in enumerate(parts[:-1])]
