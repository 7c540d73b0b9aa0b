"""What is thought of one node. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from selfheal_remediator.config import Config
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.node.actions import Action
from selfheal_remediator.node.annotation import STATE_KEY, State
from selfheal_remediator.node.assessment import Assessment
from selfheal_remediator.node.conditions import NodeHistory, Reading
from selfheal_remediator.node.limits import Member
from selfheal_remediator.node.queues import Queue
from selfheal_remediator.node.skip_reason import SkipReason

#: A condition and one of its reasons.
Key = tuple[str, str]


@dataclass(slots=True)
class Entry:
    """One node (one uid) and what we think of it.

    node: as we see it, which in dry-run is with what was only tried; actual: as it is.
    """

    node: Node
    actual: Node
    history: NodeHistory
    assessment: Assessment = field(default_factory=lambda: Assessment("new"))
    pending: Action | None = None
    #: Where it waits for a limit.
    queue: Queue | None = None
    member: Member | None = None
    retry_at: float = 0.0
    failures: int = 0
    #: When it is evaluated again though nothing changed, and which entry of the heap says so.
    due: float | None = None
    ticket: int = 0
    #: When the rule that requests a cordon (or requested one last) was due.
    due_at: float = 0.0
    #: In dry-run: (unschedulable, annotation) as they would be had the writes been real.
    overlay: tuple[bool, str | None] | None = None
    #: The drain under way: when it began as written down (by whose clock ever), and by ours.
    drain_began: tuple[int, float] | None = None

    @property
    def blocked(self) -> SkipReason | None:
        """The limit that it waits for."""
        return self.queue.skip_reason if self.queue is not None else None

    @property
    def state(self) -> State | None:
        """The annotation as it is, or as the write under way will leave it."""
        return self.pending.state if self.pending is not None else self.assessment.state

    @property
    def states(self) -> tuple[State, ...]:
        """The annotation as it is and as a write under way will leave it: both may be so."""
        both = (self.assessment.state, self.pending.state if self.pending is not None else None)
        return tuple(state for state in both if state is not None)


def bad_now(entry: Entry, config: Config) -> set[Key]:
    found: set[Key] = set()
    for rule in config.rules_for(entry.node.labels):
        observation = entry.history.observations[rule.key]
        if observation.reading is Reading.BAD:
            reasons = {entry.node.conditions[rule.condition].reason, *observation.reasons}
            found.update((rule.condition, r) for r in reasons if rule.matches_reason(r))
    return found


def overlaid(node: Node, overlay: tuple[bool, str | None] | None) -> Node:
    if overlay is None:
        return node
    unschedulable, state = overlay
    annotations = {key: value for key, value in node.annotations.items() if key != STATE_KEY}
    if state is not None:
        annotations[STATE_KEY] = state
    return replace(node, unschedulable=unschedulable or node.unschedulable, annotations=annotations)
