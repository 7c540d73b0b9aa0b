"""A circuit breaker as a value: each function takes the time and gives the next state. Pure.

Closed: work flows. Open: it does not, until `probe_at`. Probing: one probe is under way. Failures
in a row open it, or a single one that says that the other side is away; only a probe closes it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

THRESHOLD = 5
FIRST_PAUSE = 1.0
# Work resumes so soon after the other side is back; a probe is one short call.
LONGEST_PAUSE = 3.0


class State(Enum):
    """The value is the metric's number."""

    CLOSED = 0
    PROBING = 1
    OPEN = 2


@dataclass(frozen=True, slots=True)
class Breaker:
    """failures: in a row. probe_at: when the next probe is due (the caller's clock, seconds)."""

    state: State = State.CLOSED
    failures: int = 0
    probes: int = 0
    probe_at: float = 0.0

    @property
    def closed(self) -> bool:
        """Whether work may flow."""
        return self.state is State.CLOSED


def succeeded(breaker: Breaker) -> Breaker:
    """One piece of work went well. An open breaker does not trust it: it began before."""
    return Breaker() if breaker.closed and breaker.failures else breaker


def failed(breaker: Breaker, now: float, *, away: bool) -> Breaker:
    """One piece of work failed; away: in a way that says that nobody is there."""
    if not breaker.closed:
        return breaker
    failures = breaker.failures + 1
    if away or failures >= THRESHOLD:
        return Breaker(State.OPEN, failures, 0, now + FIRST_PAUSE)
    return replace(breaker, failures=failures)


def due(breaker: Breaker, now: float) -> bool:
    """Whether a probe should be started now."""
    return breaker.state is State.OPEN and now >= breaker.probe_at


def probing(breaker: Breaker) -> Breaker:
    """A probe was started."""
    return replace(breaker, state=State.PROBING)


def probed(breaker: Breaker, now: float, *, well: bool) -> Breaker:
    """The probe ended: closed again, or open for a pause twice as long, up to the longest."""
    if well:
        return Breaker()
    probes = breaker.probes + 1
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(probes, 10))
    return replace(breaker, state=State.OPEN, probes=probes, probe_at=now + pause)
