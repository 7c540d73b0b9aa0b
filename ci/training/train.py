"""Trains the built-in model: two regressions, the joining of their answers, and calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from ci.training import corpora, design, regression
from ci.training.bake import bake
from ci.training.corpora import Example
from ci.training.design import Design, forms
from selfheal_worker.builtin import weights
from selfheal_worker.builtin.classifier import EMOTIONS, SENTIMENTS, Classifier
from selfheal_worker.builtin.weights import Table

Floats: TypeAlias = npt.NDArray[np.float64]
VERSION = "1"

# Chosen on the `choose` parts (see the model card), not on what the figures are measured on.
EMOTION_FREEDOM = 1.0
SENTIMENT_FREEDOM = 1.0
# How much a text counts, beside 1 for a comment's emotion or a rated tweet's or review's sentiment.
FEEDBACK_WEIGHT = 4.0
COMMENT_SENTIMENT_WEIGHT = 0.03
_SOURCE_WEIGHT = {"films": 0.5, "editorials": 0.5}
# Of these, and by so many parts of what is learnt from, the sentiments' bias is chosen.
_CHOSEN_ON = ("tweets", "reviews")
_FOLDS = 4
_BIAS_STEPS = np.arange(-1.0, 1.01, 0.1)
# How strongly the two heads are taken to agree.
_AGREEMENT = 0.5

_POLARITY = {
    "Anger": "Negative",
    "Disgust": "Negative",
    "Fear": "Negative",
    "Joy": "Positive",
    "Neutral": "Neutral",
    "Sadness": "Negative",
}


@dataclass(frozen=True, slots=True)
class Corpus:
    """What is learnt from, and what decisions are chosen on."""

    emotion_fit: list[Example]
    emotion_choose: list[Example]
    sentiment_fit: list[Example]
    valences: dict[str, float]
    stems: dict[str, str]


def corpus(train: Path, sdist: Path) -> Corpus:
    """Read and split. What the figures are measured on is not in it."""
    fit, choose = corpora.split(corpora.emotion_texts(train), 0.12)
    own = corpora.weighted(corpora.feedback("choose"), FEEDBACK_WEIGHT)
    rated, _ = corpora.split(corpora.rated_texts(sdist), corpora.RATED_HELD_OUT)
    told = [replace(e, weight=_SOURCE_WEIGHT.get(e.source, 1.0)) for e in rated]
    return Corpus(
        [*fit, *own],
        choose,
        [*told, *polarised(fit), *own],
        corpora.valences(sdist),
        corpora.stems(),
    )


def train(data: Corpus) -> bytes:
    """The bytes of the weights file."""
    texts = dict.fromkeys(e.text for e in [*data.emotion_fit, *data.sentiment_fit])
    columns = Design(texts, data.valences, data.stems)
    seen = dict(zip(texts, range(len(texts)), strict=True))
    every = columns.matrix(list(texts))

    def rows(examples: Sequence[Example]) -> sparse.csr_matrix:
        return every[[seen[e.text] for e in examples]]

    def learn_sentiment(examples: Sequence[Example]) -> tuple[Floats, Floats]:
        return regression.fit(rows(examples), sentiment_targets(examples), SENTIMENT_FREEDOM)

    emotion, emotion_bias = regression.fit(
        rows(data.emotion_fit), emotion_targets(data.emotion_fit), EMOTION_FREEDOM
    )
    sentiment, sentiment_bias = learn_sentiment(data.sentiment_fit)
    emotion_bias = emotion_bias + even_bias(
        columns.matrix([e.text for e in data.emotion_choose]) @ emotion + emotion_bias,
        data.emotion_choose,
    )
    found = np.hstack([emotion, sentiment])
    extra = {form for word in [*data.valences, *data.stems] for form in forms(word)}
    words = {w for w in extra if " " not in w}
    header = {
        "version": VERSION,
        "emotions": EMOTIONS,
        "sentiments": SENTIMENTS,
        "bias": rounded([*emotion_bias, *sentiment_bias]),
        "signals": [rounded(row) for row in found[columns.signals :]],
        "joint": joint(),
        "lean": [0.0] * len(SENTIMENTS),
        "sharpness": 1.0,
        "pair": design.PAIR,
        "piece": design.PIECE,
        "licence": "CC-BY-4.0 (learnt from GoEmotions), MIT (from VADER's lexicon and texts)",
    }
    table = columns.rows(found, extra | {"!" + word for word in words})
    plain = weights.parse(bake(table, header))
    chosen_on = [e for e in data.sentiment_fit if e.source in _CHOSEN_ON]
    unseen = unseen_scores(data.sentiment_fit, chosen_on, rows, learn_sentiment)
    scores = np.hstack([rows(chosen_on) @ emotion + emotion_bias, unseen])
    header["lean"] = rounded(even_sentiments(plain, scores, chosen_on))
    header["sharpness"] = sharpest(Classifier(plain), data.emotion_choose)
    return bake(table, header)


def rounded(values: Sequence[float] | Floats) -> list[float]:
    """As they are written into the header."""
    return [round(float(value), 5) for value in values]


def even_bias(scores: Floats, examples: Sequence[Example]) -> Floats:
    """What to add to the scores so that rare emotions are found as well."""
    single = [row for row, example in enumerate(examples) if len(example.emotions) == 1]
    truth = [examples[row].emotions[0] for row in single]
    scores = scores[single]
    return evenest(truth, len(EMOTIONS), lambda bias: (scores + bias).argmax(axis=1))


def even_sentiments(table: Table, scores: Floats, examples: Sequence[Example]) -> Floats:
    """What the sentiments shall lean to, so that the rarer ones are found as well."""
    truth = [e.sentiment for e in examples if e.sentiment is not None]
    listed = scores.tolist()

    def answers(bias: Floats) -> npt.NDArray[np.int64]:
        leaning = Classifier(replace(table, header={**table.header, "lean": bias.tolist()}))
        return np.array([leaning.decide(one)[1] for one in listed])

    return evenest(truth, len(SENTIMENTS), answers)


def evenest(
    truth: Sequence[int], classes: int, answers: Callable[[Floats], npt.NDArray[np.int64]]
) -> Floats:
    """The bias whose answers have the best macro-F1, by steps of one class after the other."""
    bias = np.zeros(classes)

    def quality(candidate: Floats) -> float:
        counts = np.zeros((classes, classes))
        np.add.at(counts, (np.array(truth), answers(candidate)), 1)
        either = counts.sum(axis=0) + counts.sum(axis=1)
        return float((2 * counts.diagonal() / np.maximum(either, 1)).mean())

    for _ in range(3):
        for step in np.eye(classes):
            ranked = [(quality(bias + step * by), -abs(by), by) for by in _BIAS_STEPS]
            bias += step * max(ranked)[2]
    result: Floats = bias - bias.mean()
    return result


def unseen_scores(
    examples: Sequence[Example],
    wanted: Sequence[Example],
    rows: Callable[[Sequence[Example]], sparse.csr_matrix],
    learn: Callable[[Sequence[Example]], tuple[Floats, Floats]],
) -> Floats:
    """The sentiments' scores of wanted, each by a regression that has not learnt from its group."""
    scores = np.zeros((len(wanted), len(SENTIMENTS)))
    for fold in range(_FOLDS):
        learnt, bias = learn([e for e in examples if corpora.fold(e, _FOLDS) != fold])
        ours = [at for at, e in enumerate(wanted) if corpora.fold(e, _FOLDS) == fold]
        scores[ours] = rows([wanted[at] for at in ours]) @ learnt + bias
    return scores


def sharpest(classifier: Classifier, examples: Sequence[Example]) -> float:
    """The power to raise probabilities to, so that they say how often the answer is right."""
    single = [e for e in examples if len(e.emotions) == 1]
    logs = np.log(np.array([classifier.by_emotion(e.text) for e in single]))
    truth = [e.emotions[0] for e in single]

    def surprise(power: float) -> float:
        raised = regression.softmax(logs * power)
        return float(-np.log(raised[np.arange(len(truth)), truth]).mean())

    return round(float(min(np.arange(0.4, 1.6, 0.02), key=surprise)), 2)


def joint() -> list[list[float]]:
    """How well each emotion goes with each sentiment, as logarithms."""
    table = np.full((len(EMOTIONS), len(SENTIMENTS)), -2.0)
    for row, emotion in enumerate(EMOTIONS):
        polarity = _POLARITY.get(emotion)
        if polarity is None:
            table[row] = -0.5
            continue
        table[row, SENTIMENTS.index(polarity)] = 0.0
        if polarity != "Neutral":
            table[row, corpora.NEUTRAL] = -1.0
            table[row, corpora.POSITIVE + corpora.NEGATIVE - SENTIMENTS.index(polarity)] = -4.0
    return [[float(value) * _AGREEMENT for value in row] for row in table]


def polarised(examples: Sequence[Example]) -> list[Example]:
    """Examples whose emotions all have one polarity, with it as their sentiment."""
    found = []
    for example in examples:
        sides = {_POLARITY.get(EMOTIONS[e]) for e in example.emotions}
        side = sides.pop() if len(sides) == 1 else None
        if side is not None:
            found.append(
                Example(
                    example.text,
                    example.emotions,
                    SENTIMENTS.index(side),
                    example.source,
                    example.group,
                    COMMENT_SENTIMENT_WEIGHT,
                )
            )
    return found


def emotion_targets(examples: Sequence[Example]) -> Floats:
    """A text with several emotions counts in equal parts for each."""
    targets = np.zeros((len(examples), len(EMOTIONS)))
    for row, example in enumerate(examples):
        targets[row, list(example.emotions)] = example.weight / len(example.emotions)
    return targets


def sentiment_targets(examples: Sequence[Example]) -> Floats:
    """One side for each text."""
    targets = np.zeros((len(examples), len(SENTIMENTS)))
    for row, example in enumerate(examples):
        targets[row, example.sentiment] = example.weight
    return targets
