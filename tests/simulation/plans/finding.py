"""One thing that a plan said, and what happened."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """See the module. kind: of which sort it is."""

    kind: str
    subject: str
    shown: str
    happened: str

    @property
    def right(self) -> bool:
        """Whether it happened so."""
        return self.shown == self.happened
