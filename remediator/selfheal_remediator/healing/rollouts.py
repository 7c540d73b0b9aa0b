"""Whether a rollout of an owner's pods still makes progress. Pure.

A new leader cannot compare its clock with the one that wrote since when there was no progress: the
status keeps the seconds as well, in steps, and a takeover adds at most the time since they were
written. Past the rollout's deadline they do not matter any more, and nothing is written for them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Annotated

from pydantic import Field

from selfheal_remediator.kube.fields import Moment, Text, Whole

#: Seconds without progress are written down in steps of at least so many, or of a tenth of the
#: deadline.
STEP = 60
STEPS = 10


@dataclass(frozen=True, slots=True)
class Rollout:
    """The highest observed progress of a rollout, and since when there was none.

    template: names the pod template that is rolled out. progress: counts, each the highest
    observed: a pod that alternates between ready and unready is no progress. since: by our clock.
    waited: whole seconds without progress, in steps, up to the deadline.
    """

    template: Text = ""
    progress: tuple[Whole, ...] = ()
    since: Moment = 0.0
    waited: Annotated[Whole, Field(ge=0)] = 0

    def taken_over(self, now: float) -> Rollout:
        """As our clock has it, when another process wrote it."""
        return replace(self, since=now - self.waited)


def advance(
    before: Rollout | None,
    rolling: str,
    template: str,
    progress: tuple[int, ...],
    now: float,
    deadline: float = STEP * STEPS,
) -> Rollout | None:
    """The current rollout, None = there is none. deadline: seconds without progress after which it
    is stuck."""
    if not rolling:
        return None
    if before is None or before.template != template:
        return Rollout(template, progress, now)
    if not exceeds(progress, before.progress):
        return replace(before, waited=_in_steps(now - before.since, deadline))
    best = tuple(max(pair) for pair in zip_longest(progress, before.progress, fillvalue=-(2**31)))
    return replace(before, progress=best, since=now, waited=0)


def _in_steps(waited: float, deadline: float) -> int:
    """So many seconds, rounded down to a step; from the deadline on always the same."""
    step = max(STEP, int(deadline / STEPS))
    return int(min(waited, math.ceil(deadline / step) * step) // step) * step


def exceeds(progress: tuple[int, ...], before: tuple[int, ...]) -> bool:
    """Whether any count is higher than before."""
    return any(new > old for new, old in zip(progress, before, strict=False))
