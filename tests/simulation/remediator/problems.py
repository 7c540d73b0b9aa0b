"""What is wrong with a run of the remediator's side."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """invariant: its name; what: what happened."""

    invariant: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.what}"


class Broken(AssertionError):
    """An invariant does not hold: the run ends here."""

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(f"{invariant}: {what}")
        self.problem = Problem(invariant, what)
