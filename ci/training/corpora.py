"""The labelled texts: read from where they are, split once and for all.

None of the texts is kept in this repository but our own `feedback_*.tsv`.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from selfheal_worker.builtin.classifier import EMOTIONS, SENTIMENTS

HERE = Path(__file__).parent
POSITIVE, NEGATIVE, NEUTRAL = (SENTIMENTS.index(name) for name in SENTIMENTS)
# Mean ratings run from -4 to 4; beyond half a point the raters took a side.
RATING_THRESHOLD = 0.5
# The share of the rated texts that is only measured on.
RATED_HELD_OUT = 0.3
_RATED = {
    "tweets": "tweets_GroundTruth.txt",
    "reviews": "amazonReviewSnippets_GroundTruth.txt",
    "films": "movieReviewSnippets_GroundTruth.txt",
    "editorials": "nytEditorialSnippets_GroundTruth.txt",
}


@dataclass(frozen=True, slots=True)
class Example:
    """One text. emotions and sentiment are indexes; empty and None where nobody said."""

    text: str
    emotions: tuple[int, ...] = ()
    sentiment: int | None = None
    source: str = ""
    group: str = ""
    """Examples of one group (the sentences of one review) are never split apart."""
    weight: float = 1.0


def emotion_texts(path: Path) -> list[Example]:
    """GoEmotions in the Ekman grouping: lines of text, comma-separated label indexes, id."""
    examples = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            text, labels, key = line.split("\t")
            emotions = tuple(int(label) for label in labels.split(","))
        except ValueError as error:
            raise SystemExit(f"{path}:{number}: not text, labels, id ({error})") from error
        if not all(0 <= label < len(EMOTIONS) for label in emotions):
            raise SystemExit(f"{path}:{number}: a label is not one of 0 to {len(EMOTIONS) - 1}")
        examples.append(Example(text, emotions, source="comments", group=key))
    return examples


def rated_texts(sdist: Path) -> list[Example]:
    """The texts with mean human ratings inside vaderSentiment's source distribution."""
    with tarfile.open(sdist) as outer:
        name = next(n for n in outer.getnames() if n.endswith("hutto_ICWSM_2014.tar.gz"))
        inner = _member(outer, name)
    examples = []
    with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
        for source, file in _RATED.items():
            lines = _member(archive, f"hutto_ICWSM_2014/{file}").decode("utf-8", "replace")
            for line in lines.splitlines():
                key, rating, text = line.split("\t", 2)
                group = f"{source} {key.partition('_')[0]}"
                examples.append(
                    Example(text, sentiment=_side(float(rating)), source=source, group=group)
                )
    return examples


def valences(sdist: Path) -> dict[str, float]:
    """VADER's lexicon: word to mean valence, -4 to 4."""
    with tarfile.open(sdist) as outer:
        name = next(n for n in outer.getnames() if n.endswith("/vader_lexicon.txt"))
        lines = _member(outer, name).decode("utf-8").splitlines()
    return {fields[0]: float(fields[1]) for fields in (line.split("\t") for line in lines)}


def stems() -> dict[str, str]:
    """Our own emotion stems: `stem*`, word or `pair of words` to its kind (see `signals`)."""
    found = {}
    for line in (HERE / "stems.txt").read_text("utf-8").splitlines():
        if not line.startswith("#"):
            kind, _, words = line.partition(": ")
            found.update({word.replace("_", " "): kind for word in words.split()})
    return found


def feedback(part: str) -> list[Example]:
    """Customer feedback: `choose` or `test` are our own, `other` is by somebody who knew neither
    them nor the stems."""
    examples = []
    for line in (HERE / f"feedback_{part}.tsv").read_text("utf-8").splitlines():
        emotion, sentiment, text = line.split("\t")
        examples.append(
            Example(
                text,
                (EMOTIONS.index(emotion),),
                SENTIMENTS.index(sentiment),
                source="feedback",
                group=text,
            )
        )
    return examples


def split(examples: list[Example], held_out: float) -> tuple[list[Example], list[Example]]:
    """Two parts by a hash of the group: the same for everybody, whatever the order."""
    edge = int(held_out * 1000)
    parts: tuple[list[Example], list[Example]] = ([], [])
    for example in examples:
        parts[zlib.crc32(f"split {example.group}".encode()) % 1000 < edge].append(example)
    return parts


def fold(example: Example, folds: int) -> int:
    """Which of so many parts it is in, by its group."""
    return zlib.crc32(f"fold {example.group}".encode()) % folds


def weighted(examples: list[Example], weight: float) -> list[Example]:
    """The same examples, each counting as much as weight says."""
    return [replace(example, weight=weight) for example in examples]


def _side(rating: float) -> int:
    if rating > RATING_THRESHOLD:
        return POSITIVE
    return NEGATIVE if rating < -RATING_THRESHOLD else NEUTRAL


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise SystemExit(f"{name} is not a file in the archive")
    with file:
        return file.read()
