"""Whether an answer repeats the instructions. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

#: Characters that a line of a prompt has in common with an answer only on purpose.
LEAST = 40


def repeats(output: Iterable[str], secrets: tuple[str, ...], text: str) -> bool:
    """Whether any piece of `LEAST` characters of a secret is in the output, but not in the text.

    Blanks and letter case make no difference; pieces of a list are read together too.
    """
    parts = [_plain(one) for one in output]
    known = _pieces(secrets) if parts else frozenset()
    if not known:
        return False
    whole = None
    for part in [*parts, " ".join(parts)]:
        for at in range(len(part) - LEAST + 1):
            piece = part[at : at + LEAST]
            if piece in known:
                whole = _plain(text) if whole is None else whole
                if piece not in whole:
                    return True
    return False


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


@lru_cache(maxsize=8)
def _pieces(secrets: Sequence[str]) -> frozenset[str]:
    lines = [_plain(one) for one in secrets]
    return frozenset(line[at : at + LEAST] for line in lines for at in range(len(line) - LEAST + 1))
