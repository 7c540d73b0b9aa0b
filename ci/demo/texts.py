"""Real feedback with human ratings: the Amazon review snippets of Hutto and Gilbert (2014).

They are inside the source distribution of vaderSentiment 3.3.2 (MIT licence), which pip fetches by
its pinned hash into the user cache; no text of it is kept in this repository.
"""

from dataclasses import dataclass
from pathlib import Path

from ci import pypi
from ci.training import corpora
from ci.versions import pin
from selfheal_worker.builtin.classifier import SENTIMENTS


class TooFewTexts(Exception):
    """More texts were asked for than there are."""


@dataclass(frozen=True)
class Feedback:
    """One text, and what its human raters said of it: Positive, Negative or Neutral."""

    id: str
    text: str
    sentiment: str


def feedback(count: int) -> list[Feedback]:
    """`count` review snippets with ids `review-<number>`.

    First come those that the embedded model has never seen, so that its agreement with the raters
    is an honest figure. Raises TooFewTexts when there are fewer, FetchFailed when the archive
    cannot be had.
    """
    reviews = [
        one
        for one in corpora.rated_texts(_sdist())
        if one.source == "reviews" and one.sentiment is not None
    ]
    learnt_from, held_out = corpora.split(reviews, corpora.RATED_HELD_OUT)
    found = [*held_out, *learnt_from]
    if len(found) < count:
        raise TooFewTexts(f"{count} texts in all were asked for, there are {len(found)}")
    return [
        Feedback(f"review-{number}", one.text.strip(), SENTIMENTS[one.sentiment or 0])
        for number, one in enumerate(found[:count], start=1)
    ]


def _sdist() -> Path:
    version, digest = pin("texts", "vader_sentiment"), pin("texts", "vader_sentiment_sha256")
    return pypi.fetch("vaderSentiment", version, digest)
