"""Who was published, who was answered: the account that the demo ends with (pure)."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Tally:
    """Counts of messages by their ids; every published message is in exactly one of answered,
    dead_lettered, lost; `duplicates` counts answers beyond the first of an id; `unknown` counts
    ids that nobody published; `both` counts ids that were answered and dead-lettered."""

    published: int
    answered: int
    dead_lettered: int
    lost: int
    duplicates: int
    unknown: int
    both: int

    @property
    def holds(self) -> bool:
        """Nothing lost, nothing invented, nothing both answered and dead-lettered."""
        return self.lost == 0 and self.unknown == 0 and self.both == 0

    def __str__(self) -> str:
        line = (
            f"published {self.published} = answered {self.answered}"
            f" + dead-lettered {self.dead_lettered}, lost {self.lost},"
            f" duplicates {self.duplicates}"
        )
        if self.unknown or self.both:
            line += f", unknown {self.unknown}, answered and dead-lettered {self.both}"
        return line


def tally(published: Iterable[str], results: Iterable[str], dead: Iterable[str]) -> Tally:
    """The account of message ids: `published` once each, `results` and `dead` as they were read."""
    sent, answers, letters = set(published), Counter(results), set(dead)
    answered = answers.keys() & sent
    dead_lettered = letters & sent
    return Tally(
        published=len(sent),
        answered=len(answered),
        dead_lettered=len(dead_lettered - answered),
        lost=len(sent - answered - dead_lettered),
        duplicates=sum(answers[key] - 1 for key in answered),
        unknown=len((answers.keys() | letters) - sent),
        both=len(answered & dead_lettered),
    )
