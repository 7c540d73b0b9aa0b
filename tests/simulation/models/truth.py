"""What a model server did, for those who judge what the worker made of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Did(Enum):
    """What a server did with a request. The value is the word in stories."""

    ANSWERED = "answered"
    LISTED = "listed its models"
    NOT_USABLE = "answered with what is no answer"
    FAILED = "failed"
    OVERLOADED = "refused: overloaded"
    AWAY = "refused: not available"
    TOO_LONG = "refused: the text is too long"
    FILTERED = "filtered the text"
    DECLINED = "declined to answer"
    REFUSED = "refused the request"
    PARAMETER = "refused a parameter"
    SILENT = "stays silent"
    CUT = "answered a part of the text"


#: What may count as a failed attempt of a message: the failure was not the server's state alone.
COUNTED = frozenset(
    {
        *(Did.NOT_USABLE, Did.FAILED, Did.TOO_LONG, Did.FILTERED, Did.DECLINED, Did.REFUSED),
        *(Did.SILENT, Did.CUT),
    }
)


@dataclass(slots=True)
class Exchange:
    """One request, and what became of it; seconds of virtual time.

    client: the process that asked. text: the number of the message, None for the worker's own
    texts and for lists of models. did: None while the server works on it. pause: seconds that it
    asked for. began: when a slot took it; ended: when its last byte was sent, or the client left.
    left: whether the client ended it before the server did. version: of the model that answered.
    """

    server: str
    client: str
    number: int
    opened: float
    text: int | None = None
    chat: bool = True
    did: Did | None = None
    pause: float | None = None
    began: float | None = None
    ended: float | None = None
    left: bool = False
    version: str = ""

    def story(self) -> str:
        """For people."""
        what = "lists its models" if not self.chat else f"text {self.text}"
        if self.chat and self.text is None:
            what = "the worker's own text"
        did = self.did.value if self.did is not None else "works on it"
        end = "" if self.ended is None else f" until {self.ended:.2f}"
        left = ", and the client left" if self.left else ""
        return f"{self.opened:9.2f}{end} {self.client} asks {self.server} ({what}): {did}{left}"
