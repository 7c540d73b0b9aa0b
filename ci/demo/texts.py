"""Real feedback with human ratings: the Amazon review snippets of Hutto and Gilbert (2014).

They are inside the source distribution of vaderSentiment 3.3.2 (MIT licence), which pip fetches by
its pinned hash into the user cache; no text of it is kept in this repository.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ci.versions import cache_root, pin

_ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"
_REVIEWS = "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt"


@dataclass(frozen=True)
class Feedback:
    """One text, and the mean of its human ratings from -4 (negative) to 4 (positive)."""

    id: str
    text: str
    rating: float

    @property
    def sentiment(self) -> str:
        """Positive, Negative or Neutral: the mean rating's sign, Neutral within half a point."""
        if self.rating >= 0.5:
            return "Positive"
        return "Negative" if self.rating <= -0.5 else "Neutral"


def feedback(count: int, prefix: str) -> list[Feedback]:
    """The first `count` review snippets, ids `prefix-<the snippet's own id>`.

    Raises ValueError when there are fewer, CalledProcessError when the archive cannot be had.
    """
    with tarfile.open(_sdist()) as sdist:
        root = sdist.getnames()[0].split("/")[0]
        inner = sdist.extractfile(f"{root}/{_ARCHIVE}")
        if inner is None:
            raise ValueError(f"{_sdist()} has no {_ARCHIVE}")
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as archive:
            reviews = archive.extractfile(_REVIEWS)
            if reviews is None:
                raise ValueError(f"{_ARCHIVE} has no {_REVIEWS}")
            lines = reviews.read().decode("utf-8", errors="replace").splitlines()
    found = [_parse(line, prefix) for line in lines if line.strip()]
    if len(found) < count:
        raise ValueError(f"{count} texts were asked for, {_REVIEWS} has {len(found)}")
    return found[:count]


def _parse(line: str, prefix: str) -> Feedback:
    identity, rating, text = line.split("\t", 2)
    return Feedback(f"{prefix}-{identity}", text.strip(), float(rating))


def _sdist() -> Path:
    version, digest = pin("texts", "vader_sentiment"), pin("texts", "vader_sentiment_sha256")
    folder = cache_root() / "texts" / digest[:16]
    sdist = folder / f"vaderSentiment-{version}.tar.gz"
    if sdist.exists():
        return sdist
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        wanted = Path(temporary) / "requirements.txt"
        wanted.write_text(f"vaderSentiment=={version} --hash=sha256:{digest}\n")
        subprocess.run(
            [
                *[sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"],
                *["--no-binary", ":all:", "--require-hashes", "--dest", temporary],
                *["--requirement", str(wanted)],
            ],
            check=True,
        )
        folder.mkdir(exist_ok=True)
        (Path(temporary) / sdist.name).replace(sdist)
    return sdist
