"""What a step of a rule's ladder is, for the runner that carries it out. Types only.

A step is advanced again and again until it ends: a StepKind keeps nothing between two calls that
the API server (or the system that it asks) does not hold as well, because the leader may be
another process by then. `occurrence` names what it makes, so that what is made twice is one thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from selfheal_remediator.kube.objects import Node


class StepOutcome(Enum):
    """Where a step is; the values are labels of metrics, but for NOT_BEGUN: there was no step."""

    NOT_BEGUN = "not-begun"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StepRun:
    """What a step is run for.

    - node: as it was read just now. rule: its mark (Rule.mark).
    - condition, reason, message: of the condition that the node was cordoned for.
    - occurrence: names this step of this occurrence and no other. Lower case letters, digits and
      dashes, at most 40 characters: it can begin an object's name, and is the idempotency key.
    - index: position in the ladder, from 0.
    - began: when the step was written down, seconds since the epoch.
    - deadline: when its timeout is over, likewise. From then on nothing may be begun any more;
      one call after it asks how the step ended (a predecessor may have begun it).
    - boot_id: the node's when the step began.
    - kept_from: why it may not begin any more though it was written down, empty = it may.
    - dry_run: every write is sent with dryRun=All, and nothing outside the cluster is asked.
    """

    node: Node
    rule: str
    condition: str
    reason: str
    message: str
    occurrence: str
    index: int
    began: float
    deadline: float
    boot_id: str
    dry_run: bool
    kept_from: str = ""

    @property
    def withdrawn(self) -> StepResult | None:
        """The result, where nothing was begun yet and nothing is to be."""
        if not self.kept_from or self.dry_run:
            return None
        return StepResult(StepOutcome.NOT_BEGUN, self.kept_from)


@dataclass(frozen=True, slots=True)
class StepResult:
    """What became of it. message: for people, one line. again_after: seconds until it wants to be
    advanced again, while it is running."""

    outcome: StepOutcome
    message: str
    again_after: float = 5.0


class StepKind(Protocol):
    """One kind of step, made from its part of the configuration. Blocking, in a worker's thread.

    Writes go through KubernetesApi.write, which the Lease fences. The runner has read the node
    afresh just before: it is ours, cordoned, and at this step.
    """

    def advance(self, run: StepRun, now: float) -> StepResult:
        """Begin the step, or continue it. now: seconds since the epoch.

        Raises ApiFailure where an answer is missing or refused: it is tried again, later each
        time, until the deadline. In dry-run it is called once.
        """
