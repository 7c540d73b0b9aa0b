"""From a text to the keys of the weights that it calls up.

The same code reads the texts when the model is trained (`ci/training`) and when it runs, so that
the two can never disagree. Only the standard library is used, and any str is accepted.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

# A text of 64 KiB can hold 30,000 tokens. Its beginning and its end, where people say what they
# want, decide; reading all of it would take a second of CPU.
MAX_TOKENS = 1000
# Longer words are identifiers, encoded blobs, or languages written without spaces.
MAX_WORD = 24

# How many words after a negation it is taken to reach, if no clause ends before.
_NEGATION_REACH = 3
# fmt: off
_NEGATIONS = frozenset((
    "not", "no", "never", "none", "nothing", "neither", "nor", "cannot", "without", "hardly",
    "barely", "nobody", "nowhere", "lacks", "lacking", "dont", "didnt", "doesnt", "isnt", "wasnt",
    "wont", "cant", "couldnt", "wouldnt", "shouldnt", "arent", "werent", "havent", "hasnt",
    "hadnt", "aint",
))

# Words that say nothing by themselves: no key phrase begins or ends with one.
EMPTY = frozenset((
    "a", "about", "am", "an", "and", "are", "as", "at", "be", "been", "but", "by", "did", "do",
    "does", "for", "from", "had", "has", "have", "he", "her", "his", "i", "i'm", "if", "in", "is",
    "it", "it's", "its", "me", "my", "of", "on", "or", "our", "she", "so", "that", "the", "their",
    "them", "they", "this", "to", "us", "was", "we", "were", "what", "when", "which", "who", "will",
    "with", "would", "you", "your",
))
# fmt: on

_TOKEN = re.compile(
    r"""
      (?P<url> https?://\S+ | www\.\S+ )
    | (?P<user> (?<!\w)@\w+ )
    | (?P<place> \[[A-Z]+\] )                            # [NAME] and the like: removed names
    | (?P<smile> <3+ | </3 | \^_*\^ | -_+- | [oO]_[oO]
        | (?<![\w:]) [:;=xX] ['`]? [-o^]? [)(DPpOo/\\|*3\[\]{}@] (?!\w) )
    | (?P<word> [^\W\d_]+ (?: ['’] [^\W\d_]+ )* )
    | (?P<number> \d+ )
    | (?P<mark> [!?]+ | \.\.+ | … )
    | (?P<emoji> [\u2600-\u27bf\u2b50\u2b55\U0001f1e6-\U0001faff] )
    | (?P<stop> [.,;:()\n"“”] )
    """,
    re.VERBOSE,
)
_ELONGATED = re.compile(r"(.)\1{2,}", re.DOTALL)
# Natural text is made of few words. Bounded, because texts are not; nor are longer words kept.
_CACHED_WORDS = 16384
_LONGEST_CACHED = 2 * MAX_WORD


class Token(NamedTuple):
    """One token: its key, and where it stands in the text (`text[start:end]`).

    start == end for what has no place of its own, such as `<caps>`.
    """

    key: str
    start: int
    end: int
    is_word: bool = False
    is_picture: bool = False


def tokens(text: str) -> list[Token]:
    """The tokens of text in their order; of a very long text its two ends."""
    found: list[Token] = []
    reach = 0
    capitals = 0
    elongated = False
    matches = list(_TOKEN.finditer(text))
    if len(matches) > MAX_TOKENS:
        matches = matches[: MAX_TOKENS // 2] + matches[-MAX_TOKENS // 2 :]
    for match in matches:
        kind = match.lastgroup
        start, end = match.span()
        if kind == "word":
            raw = match.group()
            short, negation, stretched, loud = (
                spelt(raw) if len(raw) <= _LONGEST_CACHED else spelt.__wrapped__(raw)
            )
            elongated = elongated or stretched
            capitals += loud
            if reach and not negation:
                found.append(Token("!" + short, start, end, True))
                reach -= 1
            else:
                found.append(Token(short, start, end, True))
                reach = _NEGATION_REACH if negation else 0
        elif kind == "stop":
            reach = 0
        else:
            key = _other(kind or "", match.group())
            found.append(Token(key, start, end, is_picture=kind in ("smile", "emoji")))
    if capitals > 1:
        found.append(Token("<caps>", 0, 0))
    if elongated:
        found.append(Token("<elongated>", 0, 0))
    return found


@lru_cache(_CACHED_WORDS)
def spelt(raw: str) -> tuple[str, bool, bool, bool]:
    """A word's key, and whether it negates, was stretched (sooo), and is all capitals."""
    word = raw.lower().replace("’", "'")[:MAX_WORD]
    short = _ELONGATED.sub(r"\1\1", word)
    return short, negates(short), len(short) < len(word), len(raw) > 2 and raw.isupper()


def negates(word: str) -> bool:
    """Whether a word turns what follows it into its opposite."""
    return word in _NEGATIONS or word.endswith("n't")


def _other(kind: str, raw: str) -> str:
    """The key of a token that is no word."""
    if kind == "number":
        return raw if len(raw) <= 2 and raw.isascii() else "<number>"
    if kind == "mark":
        if raw[0] in ".…":
            return "..."
        return ("?!" if "!" in raw else "?") if "?" in raw else raw[:3]
    if kind in ("url", "user", "place"):
        return f"<{kind}>"
    return raw


def bare(key: str) -> str:
    """A token's key as it stands in pairs: without its negation."""
    return key.lstrip("!") or key


def pairs(keys: list[str]) -> list[str]:
    """The keys of neighbours, the ends of the text included: one more than there are keys."""
    return neighbours([bare(key) for key in keys])


def neighbours(words: list[str]) -> list[str]:
    """As `pairs`, of bare keys."""
    return [
        f"{left} {right}" for left, right in zip(["<s>", *words], [*words, "</s>"], strict=True)
    ]


def pieces(word: str) -> list[str]:
    """The keys of a word's character n-grams (3 to 5, its ends marked), for unknown words."""
    marked = f"<{word}>"
    return [
        "#" + marked[at : at + size] for size in (3, 4, 5) for at in range(len(marked) - size + 1)
    ]
