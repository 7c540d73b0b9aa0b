"""What an invariant is: a check of a whole run, with the sentence of the docs for it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tests.simulation.worker.history import History


@dataclass(frozen=True)
class Problem:
    """What is wrong, and the sentence that says so."""

    invariant: str
    sentence: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.what}\n    docs: {self.sentence}"


Check = Callable[[History], Iterator[str]]
_CHECKS: list[tuple[str, str, Check]] = []


def invariant(sentence: str) -> Callable[[Check], Check]:
    """Register a check; sentence: where, and what the docs say."""

    def register(check: Check) -> Check:
        _CHECKS.append((check.__name__, sentence, check))
        return check

    return register


def problems(history: History) -> list[Problem]:
    """All that is wrong with a run."""
    return [
        Problem(name, sentence, what)
        for name, sentence, check in _CHECKS
        for what in check(history)
    ]


def sentences() -> Mapping[str, str]:
    """Each invariant and its sentence."""
    return {name: sentence for name, sentence, _ in _CHECKS}
