"""Measures the shipped weights, read back from their file, on texts that no choice was made on."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ci.training import corpora
from ci.training.corpora import Example
from selfheal_worker.builtin.classifier import EMOTIONS, SENTIMENTS, Classifier, Reading

_BINS = 15


@dataclass(frozen=True, slots=True)
class Scores:
    """Shares of 1. f1 is by label, in the labels' order; error is the calibration error."""

    count: int
    accuracy: float
    macro_f1: float
    f1: tuple[float, ...]
    balanced_f1: float = 0.0
    error: float = 0.0


def confusion(pairs: Sequence[tuple[int, int]], size: int) -> list[list[int]]:
    """Counts by truth (row) and answer (column)."""
    table = [[0] * size for _ in range(size)]
    for truth, answer in pairs:
        table[truth][answer] += 1
    return table


def f1_by_label(table: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """F1 of each label from a confusion table."""
    size = range(len(table))
    right = [table[i][i] for i in size]
    said = [sum(table[r][i] for r in size) for i in size]
    true = [sum(table[i]) for i in size]
    return tuple(2 * right[i] / (said[i] + true[i]) if said[i] + true[i] else 0.0 for i in size)


def balanced(table: Sequence[Sequence[int]]) -> list[list[float]]:
    """The same table as if each true label had been seen equally often."""
    return [[cell / max(sum(row), 1) for cell in row] for row in table]


def calibration_error(outcomes: Sequence[tuple[float, bool]]) -> float:
    """Expected calibration error over bins of equal width."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(_BINS)]
    for confidence, right in outcomes:
        bins[min(int(confidence * _BINS), _BINS - 1)].append((confidence, right))
    gaps = [abs(sum(c for c, _ in part) - sum(r for _, r in part)) for part in bins]
    return sum(gaps) / max(len(outcomes), 1)


def emotion_scores(read: Callable[[str], Reading], examples: Sequence[Example]) -> Scores:
    """How well emotions are found. Accuracy: any label of a text; F1: of texts with one label."""
    readings = [read(example.text) for example in examples]
    answers = [EMOTIONS.index(reading.emotion) for reading in readings]
    right = [a in e.emotions for a, e in zip(answers, examples, strict=True)]
    single = [
        (e.emotions[0], a) for a, e in zip(answers, examples, strict=True) if len(e.emotions) == 1
    ]
    table = confusion(single, len(EMOTIONS))
    f1 = f1_by_label(table)
    even = f1_by_label(balanced(table))
    outcomes = [(reading.confidence, ok) for reading, ok in zip(readings, right, strict=True)]
    return Scores(
        len(examples),
        sum(right) / len(right),
        sum(f1) / len(f1),
        f1,
        sum(even) / len(even),
        calibration_error(outcomes),
    )


def sentiment_scores(sentiment: Callable[[str], str], examples: Sequence[Example]) -> Scores:
    """How well sentiments are found."""
    pairs = [
        (e.sentiment, SENTIMENTS.index(sentiment(e.text)))
        for e in examples
        if e.sentiment is not None
    ]
    f1 = f1_by_label(confusion(pairs, len(SENTIMENTS)))
    right = sum(truth == answer for truth, answer in pairs)
    return Scores(len(pairs), right / len(pairs), sum(f1) / len(f1), f1)


def peer() -> Callable[[str], str] | None:
    """VADER with its usual thresholds, where it is installed."""
    try:
        module = importlib.import_module("vaderSentiment.vaderSentiment")
    except ModuleNotFoundError:
        return None
    polarity = module.SentimentIntensityAnalyzer().polarity_scores

    def sentiment(text: str) -> str:
        compound = polarity(text)["compound"]
        return "Positive" if compound >= 0.05 else "Negative" if compound <= -0.05 else "Neutral"

    return sentiment


def speed(read: Callable[[str], Reading], texts: Sequence[str]) -> tuple[float, float]:
    """Texts a second of CPU time in this thread: the first time they are read, and the second."""
    taken = []
    for _ in range(2):
        begun = time.thread_time()
        for text in texts:
            read(text)
        taken.append(len(texts) / (time.thread_time() - begun))
    return taken[0], taken[1]


def report(classifier: Classifier, dev: Path, sdist: Path, part: str = "test") -> list[str]:
    """The lines of the model card's tables."""
    comments = corpora.emotion_texts(dev)
    fresh, again = speed(classifier.read, [example.text for example in comments])
    lines = [
        f"weights {classifier.version}; {fresh:,.0f} comments a second of CPU time, "
        f"read again {again:,.0f}",
        "",
        "| emotions | texts | accuracy | macro-F1 | balanced mix | calibration error | "
        + " | ".join(EMOTIONS)
        + " |",
        "|---" * (6 + len(EMOTIONS)) + "|",
    ]
    own, other = corpora.feedback(part), corpora.feedback("other")
    for name, examples in (
        ("GoEmotions dev", comments),
        ("own feedback", own),
        ("another's feedback", other),
    ):
        s = emotion_scores(classifier.read, examples)
        figures = [s.accuracy, s.macro_f1, s.balanced_f1, s.error, *s.f1]
        lines.append(f"| {name} | {s.count} | " + " | ".join(f"{f:.3f}" for f in figures) + " |")
    lines += [
        "",
        "| sentiment | texts | who | accuracy | macro-F1 | " + " | ".join(SENTIMENTS) + " |",
        "|---" * (5 + len(SENTIMENTS)) + "|",
    ]
    _, rated = corpora.split(corpora.rated_texts(sdist), corpora.RATED_HELD_OUT)
    parts = {
        name: [e for e in rated if e.source == name]
        for name in ("tweets", "reviews", "films", "editorials")
    }
    parts["tweets and reviews"] = parts["tweets"] + parts["reviews"]
    parts["own feedback"], parts["another's feedback"] = own, other
    vader = peer()
    for name, examples in parts.items():
        for who, sentiment in (
            ("builtin", lambda t: classifier.read(t).sentiment),
            ("VADER", vader),
        ):
            if sentiment is not None:
                s = sentiment_scores(sentiment, examples)
                figures = [s.accuracy, s.macro_f1, *s.f1]
                shown = " | ".join(f"{f:.3f}" for f in figures)
                lines.append(f"| {name} | {s.count} | {who} | {shown} |")
    return lines
