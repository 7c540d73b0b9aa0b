"""Finding an excerpt in a text though a model has copied it in another spelling. Pure.

Models join lines, straighten quotation marks, and write é as one character where the text has two.
The excerpt is returned as it is written in the text.
"""

from __future__ import annotations

import unicodedata

_ALIKE = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛′ʼ`´", "'"),
        **dict.fromkeys("“”„‟″«»", '"'),
        **dict.fromkeys("‐‑‒–—―−", "-"),
        "…": "...",
        # Invisible: zero-width characters, soft hyphens, and what the prompt inserts.
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad", ""),
    }
)


class Excerpts:
    """Finds excerpts of one text; the text is folded once, and only if needed."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._folded: str | None = None
        # For each character of the folded text: where what it stands for begins in the text.
        self._begins: list[int] = []

    def find(self, phrase: str) -> str | None:
        """The excerpt as the text has it, None where the text does not have it."""
        if phrase in self._text:
            return phrase
        if self._folded is None:
            self._fold()
        folded = self._folded or ""
        wanted = "".join(piece for piece, _ in _pieces(phrase)).strip()
        if not wanted:
            return None
        at = folded.find(wanted)
        while at >= 0:
            found = self._between(at, at + len(wanted))
            if found is not None:
                return found
            at = folded.find(wanted, at + 1)
        return None

    def _fold(self) -> None:
        pieces: list[str] = []
        for piece, begin in _pieces(self._text):
            pieces.append(piece)
            self._begins.extend([begin] * len(piece))
        self._begins.append(len(self._text))
        self._folded = "".join(pieces)

    def _between(self, first: int, end: int) -> str | None:
        """None where it would begin or end inside of one character."""
        begins = self._begins
        if first and begins[first] == begins[first - 1]:
            return None
        if begins[end] == begins[end - 1]:
            return None
        return self._text[begins[first] : begins[end]].strip()


def _pieces(text: str) -> list[tuple[str, int]]:
    """Each character with the marks upon it, folded, and where it begins; blanks are one."""
    found: list[tuple[str, int]] = []
    at = 0
    blank = False
    while at < len(text):
        begin = at
        at += 1
        if text[begin].isspace():
            if not blank:
                found.append((" ", begin))
            blank = True
            continue
        while at < len(text) and unicodedata.combining(text[at]):
            at += 1
        folded = unicodedata.normalize("NFD", text[begin:at].casefold()).translate(_ALIKE)
        if folded:
            blank = False
            found.append((folded, begin))
    return found
