"""Steps that change nothing: `wait`, and `verify` by a condition. Pure."""

from __future__ import annotations

from selfheal_remediator.actions.step import StepOutcome, StepResult, StepRun
from selfheal_remediator.ladder import WAIT_MARGIN, ConditionSettings

#: Seconds between two reads of the node.
READ_EVERY = 5.0


class WaitStep:
    """Ends after so many seconds of its time: by the clock of whoever leads, as its deadline. A
    StepKind."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def advance(self, run: StepRun, now: float) -> StepResult:
        """Succeeded, once the time is over."""
        left = run.deadline - WAIT_MARGIN - now
        if left <= 0:
            return StepResult(StepOutcome.SUCCEEDED, f"waited {self._seconds:g}s")
        return StepResult(StepOutcome.RUNNING, f"waits {left:.0f}s more", left)


class ConditionStep:
    """Ends as soon as the node has the condition, by a heartbeat from after its begin: what a
    detector wrote before a repair proves nothing. A StepKind."""

    def __init__(self, settings: ConditionSettings) -> None:
        self._settings = settings

    def advance(self, run: StepRun, _now: float) -> StepResult:
        """Succeeded, once it has."""
        wanted, found = self._settings, run.node.conditions.get(self._settings.type)
        status = found.status if found is not None else "absent"
        text = f"{wanted.type} is {status}"
        heartbeat = found.heartbeat if found is not None else None
        if heartbeat is not None and heartbeat < int(run.began):
            text += ", by a heartbeat from before"
        elif status == wanted.status:
            return StepResult(StepOutcome.SUCCEEDED, text)
        return StepResult(StepOutcome.RUNNING, f"{text}, expected {wanted.status}", READ_EVERY)
