"""Why something that is called for is not done now: a cordon, a drain, a restart. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SkipReason:
    """cause: a bounded label, as the name of a limit; text: for people; until: when it ends by
    time alone, None = not by time."""

    cause: str
    text: str
    until: float | None = None
