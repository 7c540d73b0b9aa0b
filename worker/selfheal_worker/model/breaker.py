"""A circuit breaker as a value: each function takes the time and gives the next state. Pure.

Closed: work flows. Open: it does not, until `probe_at`. Probing: one probe is under way. Failures
in a row open it, or a single one that says that the other side is away; only a probe closes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import Enum

from selfheal_worker.backoff import growing, spread

THRESHOLD = 5
FIRST_PAUSE = 1.0
# Work resumes so soon after the other side is back; a probe is one short call.
LONGEST_PAUSE = 3.0
# After so many probes (a minute) they become rarer: a fleet must not probe at that rate for long.
FAST_PROBES = 20
RARE_PAUSE = 30.0
# Where somebody must change a key or a quota first.
ACCESS_PAUSE = 300.0


class State(Enum):
    """The value is the metric's number."""

    CLOSED = 0
    PROBING = 1
    OPEN = 2


@dataclass(frozen=True, slots=True)
class Breaker:
    """failures: in a row. probe_at: when the next probe is due (the caller's clock, seconds).

    probe: the number of the last probe, which its answer must name. probe_by: when a probe that did
    not answer is given up.
    """

    state: State = State.CLOSED
    failures: int = 0
    probes: int = 0
    probe_at: float = 0.0
    probe: int = field(default=0, compare=False)
    probe_by: float = field(default=math.inf, compare=False)

    @property
    def closed(self) -> bool:
        """Whether work may flow."""
        return self.state is State.CLOSED


def succeeded(breaker: Breaker) -> Breaker:
    """One piece of work succeeded. An open breaker ignores it, because it began before."""
    if breaker.failures and breaker.closed:
        return Breaker(probe=breaker.probe)
    return breaker


def failed(breaker: Breaker, now: float, *, away: bool, chance: float = 1.0) -> Breaker:
    """One piece of work failed; away: in a way that shows that the server is unavailable.

    chance: from 0 to 1, shortens the pause by up to half, so that a fleet does not probe at once.
    """
    if not breaker.closed:
        return breaker
    failures = breaker.failures + 1
    if away or failures >= THRESHOLD:
        return Breaker(State.OPEN, failures, 0, now + spread(FIRST_PAUSE, chance), breaker.probe)
    return replace(breaker, failures=failures)


def due(breaker: Breaker, now: float) -> bool:
    """Whether a probe should be started now."""
    if breaker.state is State.PROBING:
        return now >= breaker.probe_by
    return breaker.state is State.OPEN and now >= breaker.probe_at


def probing(breaker: Breaker, until: float = math.inf) -> Breaker:
    """A probe was started, whose number is the new state's `probe`; until: its deadline."""
    return replace(breaker, state=State.PROBING, probe=breaker.probe + 1, probe_by=until)


def probed(
    breaker: Breaker,
    now: float,
    *,
    succeeded: bool,
    probe: int | None = None,
    chance: float = 1.0,
    access: bool = False,
) -> Breaker:
    """The probe ended: closed again, or open for a pause twice as long, up to the longest.

    probe: its number; the answer of one that was replaced changes nothing. chance: as for
    `failed`. access: a key or a quota was refused.
    """
    if probe is not None and (breaker.state is not State.PROBING or probe != breaker.probe):
        return breaker
    if succeeded:
        return Breaker(probe=breaker.probe)
    probes = breaker.probes + 1
    pause = spread(_pause(probes, access=access), chance)
    return replace(
        breaker, state=State.OPEN, probes=probes, probe_at=now + pause, probe_by=math.inf
    )


def _pause(probes: int, *, access: bool) -> float:
    if access:
        return growing(FIRST_PAUSE, 2.0, probes, ACCESS_PAUSE)
    if probes <= FAST_PROBES:
        return growing(FIRST_PAUSE, 2.0, probes, LONGEST_PAUSE)
    return growing(LONGEST_PAUSE, 1.25, probes - FAST_PROBES, RARE_PAUSE)
