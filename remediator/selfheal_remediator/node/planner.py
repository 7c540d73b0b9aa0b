"""All nodes together: weighs what each calls for against the limits. Pure: time is passed in.

The planner assesses only the nodes that changed or are due, and hands out actions. An action that
was handed out counts as done for the limits until its outcome is reported (`settled` or `failed`),
because a watch lags behind one's own writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush

from selfheal_remediator.backoff import delay_after
from selfheal_remediator.config import Config, DisruptionLimits, Group
from selfheal_remediator.kube.informer import Change, version_number
from selfheal_remediator.kube.objects import Condition, Node
from selfheal_remediator.moments import earliest
from selfheal_remediator.node import lifecycle
from selfheal_remediator.node.actions import Action, Kind
from selfheal_remediator.node.annotation import State, known_state
from selfheal_remediator.node.assessment import Assessment, Attached, Scope
from selfheal_remediator.node.counts import Counts
from selfheal_remediator.node.drain_slots import DrainSlots
from selfheal_remediator.node.entry import Entry, Overlay
from selfheal_remediator.node.evaluate import assess
from selfheal_remediator.node.known_nodes import KnownNodes
from selfheal_remediator.node.limits import CountedNode, Tally, check_cordon, check_repair
from selfheal_remediator.node.maintenance import Maintenance
from selfheal_remediator.node.queues import LimitedChange, Urgency
from selfheal_remediator.node.room_checks import RoomChecks
from selfheal_remediator.node.schedule import Schedule
from selfheal_remediator.node.skip_reason import SkipReason
from selfheal_remediator.node.slot_allocation import SlotAllocation
from selfheal_remediator.node.waves import Waves

#: A change that could not be made is tried again after so many seconds, then twice as many, at most
#: so many.
FIRST_RETRY, LONGEST_RETRY = 0.2, 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, when to plan again at the latest, and how many nodes wait for each limit."""

    actions: tuple[Action, ...]
    wake: float | None
    limited_by: Mapping[str, int]


class Planner:
    """See the module. Not thread-safe: one thread owns it."""

    def __init__(self, config: Config, owner: str, now: float) -> None:
        self.config, self.owner = config, owner
        self.entries: dict[str, Entry] = {}
        #: Other remediators whose Lease lives; None = not known yet.
        self.live: frozenset[str] | None = None
        self.attached: Mapping[str, Attached] = {}
        self._waves = Waves(config, self.entries)
        self._counts = Counts(config, owner, now)
        self.schedule, self.rooms = Schedule(self.entries), RoomChecks()
        self._known = KnownNodes(config, self.entries, self._waves, self._counts, self.rooms)
        self._slot_allocation = SlotAllocation(self.entries, self._counts)
        self._maintenance = Maintenance()

    # -- what is known ------------------------------------------------------------------

    def reconfigure(self, config: Config, now: float) -> None:
        """Use other rules from now on; what was seen of conditions that are in both is kept."""
        if config.dry_run != self.config.dry_run:
            self.forget_pending()  # what is answered from now on was asked in the other mode
            self._known.forget_overlays()
        self._counts.reconfigure(config, now)
        self._counts.regroup(self.entries.values())
        self.config = config
        self._known.reconfigure(config, now)

    def begin_term(self, now: float) -> None:
        """This process leads from now on: when its predecessor cordoned is written on the nodes."""
        self._counts.begin_term(now)
        self._slot_allocation.begin_term()
        self._known.dirty.update(self.entries)

    @property
    def slots(self) -> DrainSlots:
        """Which drains make no progress, and which of them gave their slot away."""
        return self._counts.slots

    @property
    def suspects(self) -> Mapping[str, float]:
        """Conditions that are suspected to be a detector's fault -> when the wave began."""
        return self._waves.suspects

    @property
    def trusted(self) -> frozenset[str]:
        """Conditions that an administrator trusts."""
        return self._waves.trusted

    @property
    def marks(self) -> Mapping[str, str]:
        """Which nodes (by name) another system is changing, reported elsewhere than on the node."""
        return self._counts.marks

    @property
    def signals(self) -> Mapping[str, Condition]:
        """What we say of nodes ourselves, by name."""
        return self._known.signals

    @property
    def pods_hung(self) -> list[str]:
        """Nodes (names) whose annotation is about PodsHung, or will be after a write under way."""
        return self._known.pods_hung

    @property
    def revision(self) -> int:
        """Grows with every change of what is thought of a node or under way with it."""
        return self._known.revision

    def leave_out(self, unread: int) -> None:
        """So many nodes cannot be read: the limits count them as out of service."""
        self._counts.unread = unread

    def trust(self, conditions: frozenset[str]) -> None:
        """Conditions that an administrator trusts: many of them at once are no detector's fault."""
        self._waves.trusted = conditions

    def mark(self, marks: Mapping[str, str]) -> None:
        """Which nodes (by name) another system is changing, reported elsewhere than on the node."""
        self._known.marks_changed(_changed(self._counts.marks, marks))
        self._counts.marks = marks

    def owners_live(self, live: frozenset[str]) -> None:
        """Which other remediators are there: what one that is gone wrote on nodes is void."""
        if live != self.live:
            self.live = live
            self._known.dirty.update(self.entries)

    def volumes(self, attached: Mapping[str, Attached]) -> None:
        """Which volumes are attached to the drained nodes (uids) whose ladder waits for it."""
        self._known.dirty.update(_changed(self.attached, attached) & self.entries.keys())
        self.attached = attached

    def apply(self, change: Change[Node], now: float) -> None:
        """A node appeared, changed or went."""
        self._known.apply(change, now)

    def listed(self, nodes: Iterable[Node], version: int, now: float) -> list[Node]:
        """All nodes as a list showed them; returns those that count though they are older."""
        return self._known.listed(nodes, version, now)

    def entry_named(self, name: str) -> Entry | None:
        """The node of this name, as it is known."""
        return self._known.entry_named(name)

    def signal(self, signals: Mapping[str, Condition], now: float) -> None:
        """What we say of nodes ourselves from now on; the rules see it as a condition."""
        self._known.signal(signals, now)

    def with_signal(self, node: Node) -> Node:
        """The node with what we say of it. Thread-safe."""
        return self._known.with_signal(node)

    def take_changed(self) -> set[str]:
        """Nodes that were assessed again, or whose action began or ended, since the last call."""
        return self._known.take_changed()

    # -- outcomes -----------------------------------------------------------------------

    def settled(self, action: Action, node: Node, now: float) -> None:
        """The action was carried out; `node` is the server's answer."""
        entry = self.entries.get(action.uid)
        if entry is None or entry.pending is not action:
            return  # gone, or forgotten meanwhile: the watch tells what has become of it
        entry.pending, entry.failures, entry.retry_at = None, 0, 0.0
        self._known.note_changed(action.uid)
        if self.config.dry_run:
            entry.overlay = Overlay.of(node, entry.overlay)
            self._known.observe(entry.actual, entry, now)
        elif version_number(node.version) >= version_number(entry.node.version):
            self._known.observe(node, entry, now)
        else:
            self._known.dirty.add(action.uid)  # the watch was faster than the answer

    def failed(self, action: Action, now: float, delay: float = 0.0) -> None:
        """The action was not carried out; the node is assessed again after `delay`, at most
        LONGEST_RETRY, as a webhook or proxy may ask for any."""
        entry = self.entries.get(action.uid)
        if entry is None or entry.pending is not action:
            return
        entry.pending = None
        self._known.note_changed(action.uid)
        if action.kind is Kind.CORDON and not _shows(entry.actual, action.state):
            for second in action.state.cordons[-1:] if action.state is not None else ():
                self._counts.cordons.not_made(action.uid, second)
            self._waves.cordons.not_made(action.uid)
        entry.failures += 1
        backoff = delay_after(entry.failures, first=FIRST_RETRY, longest=LONGEST_RETRY)
        entry.retry_at = now + min(LONGEST_RETRY, max(delay, backoff))
        self._known.dirty.add(action.uid)

    def request(self, action: Action, now: float) -> bool:
        """Take up an action of the drain engine; False when the node is gone or busy."""
        entry = self.entries.get(action.uid)
        if entry is None or entry.pending is not None or entry.retry_at > now:
            return False
        self._hand_out(entry, action, now)
        return True

    def _hand_out(self, entry: Entry, action: Action, now: float) -> None:
        entry.pending, entry.queue = action, None
        self._known.note_changed(entry.node.uid)
        self._known.queues.discard(entry.node.uid)
        self._counts.recount(entry, now)

    def forget_pending(self) -> None:
        """Leadership was lost, or the mode changed: nothing handed out counts any more."""
        self._known.forget_pending()

    def scope(self) -> Scope:
        """What assessments need; immutable, so other threads may use it for a fresh look."""
        suspects, attached, rooms = dict(self.suspects), self.attached, self.rooms.found
        return Scope(self.config, self.owner, suspects, self.marks, attached, self.live, rooms)

    def tally(self, now: float) -> Tally:
        """The limits' counts as of now."""
        return self._counts.tally(now)

    # -- the plan -----------------------------------------------------------------------

    def plan(self, now: float, *, paused: str = "", unhealthy: str = "") -> Plan:
        """What to do now. `paused` or `unhealthy` (a reason) stops what takes capacity away."""
        self._counts.drop_old(now)
        if self._waves.update(now):
            self._known.dirty.update(self.entries)
        actions = self._reassess(now)
        limited_by: Counter[str] = Counter()
        stopped = self._counts.stopped(paused, unhealthy)
        self._slot_allocation.restore(self.config.limits, now)
        self._slot_allocation.return_slots(self.config.limits, now, stopped=stopped is not None)
        granted, opens = self._weigh(stopped, now, limited_by)
        return Plan((*actions, *granted), earliest(self.schedule.wake, opens), limited_by)

    def _weigh(
        self, stopped: SkipReason | None, now: float, limited_by: Counter[str]
    ) -> tuple[list[Action], float | None]:
        granted: list[Action] = []
        opens: float | None = None
        heads = [(queue.first, queue) for queue in self._known.queues]
        tally = self.tally(now) if heads else Tally()
        heapify(heads)
        while heads:
            urgency, queue = heappop(heads)
            entry = self.entries[urgency[-1]]
            queue.skip_reason = stopped or self.check(entry, queue.change, tally, now)
            if queue.skip_reason is not None:
                # As for all behind it: what is granted from now on makes no room for them.
                limited_by[queue.skip_reason.cause] += len(queue.order)
                opens = earliest(opens, queue.skip_reason.until)
                continue
            action = self._grant(entry, queue.change, tally, now)
            self._hand_out(entry, action, now)
            granted.append(action)
            if queue.order:
                heappush(heads, (queue.first, queue))
        return granted, opens

    def check(
        self, entry: Entry, change: LimitedChange, tally: Tally, now: float
    ) -> SkipReason | None:
        """None when what the node waits for may begin at that time."""
        limits, group = self.config.limits, self.config.group_named(change.node.group_name)
        waits = self._maintenance.check(group, change.kind, now)
        if waits is not None and not _in_vain(waits, change.kind, limits, group):
            return waits
        if change.kind is Kind.DRAIN:
            return self._slot_allocation.check(entry, limits, tally, now)
        if change.kind is Kind.REPAIR:
            return check_repair(limits, tally, change.node)
        return check_cordon(limits, tally, change.node, now) or self._waves.check_cordon(
            change.condition, now
        )

    def kept_from_repair(self, uid: str, now: float) -> str:
        """Why the step that is written down for the node may not begin any more, empty = it may."""
        if (entry := self.entries.get(uid)) is None:
            return ""
        if entry.assessment.recovering:
            return "the node recovered before it began"
        change = LimitedChange(Kind.REPAIR, entry.counted or CountedNode())
        skip_reason = self.check(entry, change, self.tally(now), now)
        return skip_reason.text if skip_reason is not None else ""

    def _grant(self, entry: Entry, change: LimitedChange, tally: Tally, now: float) -> Action:
        action, node = entry.assessment.limited_action, change.node
        assert action is not None
        assert action.state is not None
        if change.kind is Kind.DRAIN:
            tally.add_drain(node)
            return action
        if change.kind is Kind.REPAIR:
            return _begun(action, action.state, tally, node, now)
        entry.due_at = entry.assessment.due_since
        tally.add_cordon(node, now)
        # It may have waited for the limits since it was assessed.
        state, second = action.state, int(now)
        state = replace(state, since=second, cordons=(*state.cordons[:-1], second))
        self._counts.note_cordon(entry.node.uid, now)
        self._waves.note_cordon(change.condition, entry.node.uid, now)
        drain = replace(change, kind=Kind.DRAIN)
        if state.action == "drain" and self.check(entry, drain, tally, now) is None:
            # One write for both: cordoned and being drained.
            tally.add_drain(node)
            state = lifecycle.draining(state, now)
        return replace(action, state=state)

    # -- assessing again ----------------------------------------------------------------

    def _reassess(self, now: float) -> list[Action]:
        """Returns the actions that no limit applies to."""
        self._known.dirty.update(self.schedule.take_due(now))
        scope = self.scope()
        unlimited = []
        for uid in self._known.dirty:
            entry = self.entries[uid]
            before, seen = entry.assessment, assess(entry.node, entry.history, scope, now)
            entry.assessment = seen
            self.rooms.assessed(uid, wanted=seen.checks_room)
            self._counts.cordons.take(uid, seen.state, now)
            if _notified(before) != _notified(seen):
                self._known.note_changed(uid)
            self._counts.recount(entry, now)
            self._enqueue(entry, now)
            if seen.action is not None and _free(entry, now):
                unlimited.append((entry, seen.action))
            if (due := _due(entry, self._counts.drain_deadline(entry), now)) is not None:
                self.schedule.put(entry, max(due, now))
        self._known.dirty.clear()
        for entry, action in unlimited:
            self._hand_out(entry, action, now)
        return [action for _, action in unlimited]

    def _enqueue(self, entry: Entry, now: float) -> None:
        """The node waits for a limit, or does not."""
        uid, seen, entry.queue = entry.node.uid, entry.assessment, None
        self._known.queues.discard(uid)
        action = seen.limited_action
        if action is None or action.state is None or seen.action or not _free(entry, now):
            return
        entry.queue = self._known.queues.put(*limited_change(entry, action.kind, action.state))


def _in_vain(waits: SkipReason, kind: Kind, limits: DisruptionLimits, group: Group | None) -> bool:
    """Whether it would wait for a window in which nothing is drained either: no drain is allowed,
    over all nodes or of the group."""
    most = (limits.max_draining, *((group.limits.max_draining,) if group is not None else ()))
    return kind is Kind.DRAIN and waits.until is not None and 0 in most


def _free(entry: Entry, now: float) -> bool:
    """Whether an action may begin: none is under way, and none that failed still has to wait."""
    return entry.pending is None and entry.retry_at <= now


def _due(entry: Entry, deadline: float | None, now: float) -> float | None:
    """When the node is to be assessed again; deadline: of its drain."""
    due = entry.assessment.due
    drains = entry.counted is not None and entry.counted.draining
    if drains and deadline is not None and deadline > now:  # else it is paused, past its deadline
        due = earliest(due, deadline)
    return earliest(due, entry.retry_at) if entry.retry_at > now else due


def limited_change(entry: Entry, kind: Kind, state: State) -> tuple[LimitedChange, Urgency]:
    """What the node waits for: those that are cordoned already first, then the worst, then the
    oldest."""
    cordons, since = kind is Kind.CORDON, entry.assessment.since
    change = LimitedChange(kind, entry.counted or CountedNode(), state.condition if cordons else "")
    return change, (cordons, state.action != "drain", since, entry.node.name, entry.node.uid)


def _begun(action: Action, state: State, tally: Tally, node: CountedNode, now: float) -> Action:
    """A step begins now, though it may have waited for the limits; it is counted."""
    tally.add_repair(node)
    return replace(action, state=replace(state, step_began=int(now)))


def _changed(before: Mapping[str, object], after: Mapping[str, object]) -> set[str]:
    """The keys that differ."""
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


def _shows(node: Node, made: State | None) -> bool:
    """Whether the node was cordoned as this state says: the change's answer was lost."""
    found = known_state(node)
    return found is not None and made is not None and made.cordons[-1:] == found.cordons[-1:]


def _notified(seen: Assessment) -> tuple[object, ...]:
    """What others go by; the rest of an assessment is read when it is asked for."""
    return seen.standing, seen.state, seen.rejected, seen.recovering
