"""What is thought of one node. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from selfheal_remediator.config import Config
from selfheal_remediator.kube.objects import Node, Taint
from selfheal_remediator.node.actions import Action, Kind
from selfheal_remediator.node.annotation import STATE_KEY, State, known_state
from selfheal_remediator.node.assessment import Assessment
from selfheal_remediator.node.conditions import NodeHistory, Reading
from selfheal_remediator.node.limits import CountedNode
from selfheal_remediator.node.queues import Queue
from selfheal_remediator.node.skip_reason import SkipReason
from selfheal_remediator.node.taints import our_taint


@dataclass(frozen=True, slots=True)
class Overlay:
    """What writes would have made of a node: cordoned, its annotation, our taint on it."""

    unschedulable: bool
    state: str | None
    taint: Taint | None

    @classmethod
    def of(cls, answer: Node, before: Overlay | None) -> Overlay:
        """The answer to a dry run shows what this write alone would do: of a cordon before it,
        nothing."""
        text = answer.annotations.get(STATE_KEY)
        state = known_state(answer)
        if state is None or not state.phase.cordoned:
            return cls(False, text, None)
        earlier = before.taint if before is not None else None
        return cls(not state.taint_only, text, our_taint(answer, state) or earlier)


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
    counted: CountedNode | None = None
    retry_at: float = 0.0
    failures: int = 0
    #: When it is evaluated again though nothing changed, and which entry of the heap says so.
    due: float | None = None
    ticket: int = 0
    #: When the rule that requests a cordon (or requested one last) was due.
    due_at: float = 0.0
    #: In dry-run: as the node would be had the writes been real.
    overlay: Overlay | None = None
    #: The drain under way: when it began as written down (by whose clock ever), and by ours.
    drain_began: tuple[int, float] | None = None

    @property
    def blocked(self) -> SkipReason | None:
        """The limit that it waits for."""
        return self.queue.skip_reason if self.queue is not None else None

    @property
    def expected(self) -> Node:
        """The node as pods of others will find it: closed, if it is about to be cordoned."""
        cordons = self.pending is not None and self.pending.kind is Kind.CORDON
        return replace(self.node, unschedulable=True) if cordons else self.node

    @property
    def state(self) -> State | None:
        """The annotation as it is, or as the write under way will leave it."""
        return self.pending.state if self.pending is not None else self.assessment.state

    @property
    def states(self) -> tuple[State, ...]:
        """The annotation as it is and as a write under way will leave it: both may be so."""
        both = (self.assessment.state, self.pending.state if self.pending is not None else None)
        return tuple(state for state in both if state is not None)


def bad_now(entry: Entry, config: Config) -> set[str]:
    """The conditions that a rule finds bad."""
    return {
        rule.condition
        for rule in config.rules_for(entry.node.labels)
        if entry.history.observations[rule.key].reading is Reading.BAD
    }


def overlaid(node: Node, overlay: Overlay | None) -> Node:
    if overlay is None:
        return node
    annotations = {key: value for key, value in node.annotations.items() if key != STATE_KEY}
    if overlay.state is not None:
        annotations[STATE_KEY] = overlay.state
    taints = node.taints
    if overlay.taint is not None and overlay.taint not in taints:
        taints = (*taints, overlay.taint)
    unschedulable = overlay.unschedulable or node.unschedulable
    return replace(node, unschedulable=unschedulable, annotations=annotations, taints=taints)
