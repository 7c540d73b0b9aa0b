"""All nodes together: weighs what each calls for against the limits. Pure: time is passed in.

The planner remembers what the nodes showed, assesses only those that changed or are due, and
hands out intents. An intent that was handed out counts as done for the limits until its
outcome is told (`settled` or `failed`), because a watch lags behind one's own writes.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from selfheal_remediator.config import PODS_HUNG, Config
from selfheal_remediator.kube.informer import Change, version_number
from selfheal_remediator.kube.objects import Condition, Node
from selfheal_remediator.moments import earliest
from selfheal_remediator.node.annotation import STATE_KEY, Phase, State, Unreadable
from selfheal_remediator.node.conditions import NodeHistory, Observation, Reading, observe, onsets
from selfheal_remediator.node.drain_clock import time_left
from selfheal_remediator.node.drain_slots import DrainSlots
from selfheal_remediator.node.evaluate import (
    NO_MARKS,
    Action,
    Assessment,
    Kind,
    Scope,
    assess,
    foreign_mark,
    read_state,
    selected,
)
from selfheal_remediator.node.limits import (
    OUTAGE_MINIMUM,
    OUTAGE_PERCENT,
    LimitedBy,
    Member,
    Tally,
    check_cordon,
    check_drain,
)
from selfheal_remediator.node.peak import Peak

PEAK_WINDOW = 3600.0
#: A change that could not be made is tried again after at most so long (seconds).
LONGEST_RETRY = 60.0
#: The heap of times may hold so many entries that count no more, beside one for each node.
DUE_SPARE = 1000
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Onset:
    """A condition came upon a node. rollout: soon after the node's detector began anew."""

    when: float
    rollout: bool


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
    blocked: LimitedBy | None = None
    member: Member | None = None
    retry_at: float = 0.0
    failures: int = 0
    #: When it is looked at again though nothing changed, and which entry of the heap says so.
    due: float | None = None
    ticket: int = 0
    #: When the rule that asks (or asked last) for a hold was due.
    due_at: float = 0.0
    #: In dry-run: (unschedulable, annotation) as they would be had the writes been real.
    overlay: tuple[bool, str | None] | None = None
    #: The drain under way: when it began as written down (by whose clock ever), and by ours.
    drain_began: tuple[int, float] | None = None

    @property
    def state(self) -> State | None:
        """The annotation as it is, or as the write under way will leave it."""
        return self.pending.state if self.pending is not None else self.assessment.state

    @property
    def states(self) -> tuple[State, ...]:
        """The annotation as it is and as a write under way will leave it: both may be so."""
        both = (self.assessment.state, self.pending.state if self.pending is not None else None)
        return tuple(state for state in both if state is not None)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, when to ask again at the latest, and which limits are engaged."""

    intents: tuple[Action, ...]
    wake: float | None
    limited_by: Mapping[str, int]


class Planner:
    """See the module. Not thread-safe: one thread owns it."""

    def __init__(self, config: Config, owner: str, now: float) -> None:
        self.config = config
        self.owner = owner
        self.entries: dict[str, Entry] = {}
        self.suspects: dict[Key, float] = {}
        self.trusted: frozenset[str] = frozenset()
        self.marks: Mapping[str, str] = NO_MARKS
        #: Other remediators whose Lease lives; None = not known yet.
        self.live: frozenset[str] | None = None
        #: Grows with every change of what is thought of a node or under way with it; which nodes
        #: (uids) they were is kept until `take_changed`.
        self.revision = 0
        self._changed: set[str] = set()
        #: What we say of nodes ourselves, by name: conditions that no object holds.
        self.signals: Mapping[str, Condition] = {}
        self._names: dict[str, str] = {}
        self._dirty: set[str] = set()
        self._asking: set[str] = set()
        self._counts = Tally()
        #: Which drains make no progress, and which of them gave their place away.
        self.slots = DrainSlots()
        #: Whether it was settled which of a predecessor's drains have a place.
        self._slots_known = True
        self._due: list[tuple[float, str, int]] = []
        #: The last one of each node (uid).
        self._onsets: dict[Key, dict[str, Onset]] = {}
        self._granted: dict[Key, deque[float]] = {}
        #: When nodes were cordoned, by us or as their annotations say: (uid, whole second) -> when.
        self._cordons: dict[tuple[str, int], float] = {}
        self._peak = Peak(PEAK_WINDOW)
        #: Holds from before this moment are not known, as an annotation keeps them for the flap
        #: window only: the pace counts as used up then.
        self._cordons_known_from = now - config.recovery.flap_window

    # -- what is known ------------------------------------------------------------------

    def reconfigure(self, config: Config, now: float) -> None:
        """Go on with other rules; what was seen of conditions that are in both is kept."""
        if config.dry_run != self.config.dry_run:
            self.forget_pending()  # what is answered from now on was asked in the other mode
            for entry in self.entries.values():
                entry.overlay, entry.node = None, entry.actual
        # Other limits may have to look back further than was kept for those before.
        self._cordons_known_from = max(self._cordons_known_from, now - self._pace_window())
        self.config = config
        for entry in self.entries.values():
            entry.history = observe(entry.history, entry.node, entry.node, config.rules, now)
        self._dirty.update(self.entries)

    def begin_term(self, now: float) -> None:
        """This process leads from now on: when its predecessor cordoned is written on the nodes."""
        self._cordons_known_from = now - self.config.recovery.flap_window
        self.slots, self._slots_known = DrainSlots(), False
        self._dirty.update(self.entries)

    @property
    def holding(self) -> bool:
        """Whether any node is held by us, or about to be."""
        return self._counts.cordoned > 0

    def trust(self, conditions: frozenset[str]) -> None:
        """Conditions that a human vouches for: many of them at once are no detector's fault."""
        self.trusted = conditions

    def mark(self, marks: Mapping[str, str]) -> None:
        """Which nodes (by name) another system is at work on, said elsewhere than on the node."""
        changed = {
            name
            for name in self.marks.keys() | marks.keys()
            if self.marks.get(name) != marks.get(name)
        }
        self.marks = marks
        self._dirty.update(self._names[name] for name in changed if name in self._names)

    def owners_live(self, live: frozenset[str]) -> None:
        """Which other remediators are there: what one that is gone wrote on nodes is void."""
        if live != self.live:
            self.live = live
            self._dirty.update(self.entries)

    def apply(self, change: Change[Node], now: float) -> None:
        """A node appeared, changed or went."""
        if change.new is None:
            # Said of this node, not of one made anew under its name.
            self.signals = {name: it for name, it in self.signals.items() if name != change.key}
            self._forget(self._names.pop(change.key, ""), now)
            return
        node = change.new
        entry = self.entries.get(node.uid)
        older = entry is not None and version_number(node.version) < version_number(
            entry.node.version
        )
        if older and not change.restored:
            return  # older than what we know, often from our own write: never back in time
        self._see(node, entry, now)

    def listed(self, nodes: Iterable[Node], version: int, now: float) -> list[Node]:
        """All nodes as a list showed them, in which everything up to this version is.

        A node that is known later than it is listed, though not later than the list, does not
        exist so any more: the server went back in time (etcd was restored). Returns those that
        count though they are older.
        """
        older = []
        for node in nodes:
            entry = self.entries.get(node.uid)
            known = version_number(entry.actual.version) if entry is not None else 0
            if 0 < version_number(node.version) < known <= version:
                self.apply(Change(node.name, None, node, restored=True), now)
                older.append(node)
        return older

    def entry_named(self, name: str) -> Entry | None:
        """The node of this name, as it is known."""
        return self.entries.get(self._names.get(name, ""))

    def signal(self, signals: Mapping[str, Condition], now: float) -> None:
        """What we say of nodes ourselves from now on; the rules see it as a condition."""
        if signals == self.signals:
            return
        before, self.signals = self.signals, dict(signals)
        for name in {*before, *signals}:
            entry = self.entry_named(name)
            if entry is not None and before.get(name) != signals.get(name):
                self._see(entry.actual, entry, now)

    def with_signal(self, node: Node) -> Node:
        """The node with what we say of it. Thread-safe."""
        said = self.signals.get(node.name)
        if said is None and PODS_HUNG not in node.conditions:
            return node
        others = {kind: item for kind, item in node.conditions.items() if kind != PODS_HUNG}
        return replace(node, conditions=others if said is None else {**others, said.type: said})

    def take_changed(self) -> set[str]:
        """Nodes of which anything was thought anew, or begun or ended, since the last call."""
        changed, self._changed = self._changed, set()
        return changed

    def _thought_anew(self, uid: str) -> None:
        self.revision += 1
        self._changed.add(uid)

    def _forget(self, uid: str, now: float) -> None:
        entry = self.entries.pop(uid, None)
        self._thought_anew(uid)
        if entry is not None and entry.member is not None:
            self._peak.was(self._counts.population, now)
            self._counts.count(entry.member, -1)
        self._dirty.discard(uid)
        self._asking.discard(uid)

    def _see(self, node: Node, entry: Entry | None, now: float) -> None:
        node = self.with_signal(node)
        if entry is None:
            history = observe(NodeHistory(), None, node, self.config.rules, now)
            entry = Entry(node, node, history)
            known = self._names.get(node.name)
            if known is not None:
                self._forget(known, now)  # made anew under its name
            self.entries[node.uid] = entry
            self._names[node.name] = node.uid
            self._note_onsets(entry, None, now)
        else:
            seen = _overlaid(node, entry.overlay)
            before = entry.history
            entry.history = observe(before, entry.node, seen, self.config.rules, now)
            entry.node, entry.actual = seen, node
            self._note_onsets(entry, before, now)
        self._dirty.add(node.uid)

    def _note_onsets(self, entry: Entry, before: NodeHistory | None, now: float) -> None:
        for rule in self.config.rules:
            observation = entry.history.observations[rule.key]
            if observation.reading is not Reading.BAD or not rule.cordons:
                continue
            earlier = before.observations.get(rule.key) if before is not None else None
            reasons, new = onsets(rule, earlier, observation)
            if not reasons:
                continue
            when = now if new or observation.bad is None else observation.bad.began
            if before is None:
                when = _known_since(entry.node, rule.condition, observation, now)
            reset = entry.history.reset
            rollout = reset is not None and when - reset < self.config.signal.rollout_window
            for reason in reasons:
                key = (rule.condition, reason)
                self._onsets.setdefault(key, {})[entry.node.uid] = Onset(when, rollout)

    # -- outcomes -----------------------------------------------------------------------

    def settled(self, action: Action, node: Node, now: float) -> None:
        """The intent was carried out; `node` is the server's answer."""
        entry = self.entries.get(action.uid)
        if entry is None or entry.pending is not action:
            return  # gone, or forgotten meanwhile: the watch tells what has become of it
        entry.pending, entry.failures, entry.retry_at = None, 0, 0.0
        self._thought_anew(action.uid)
        if self.config.dry_run:
            # The answer shows what this write alone would do: of a cordon before it, nothing.
            cordoned = action.state is not None and action.state.phase.cordoned
            entry.overlay = (cordoned, node.annotations.get(STATE_KEY))
            self._see(entry.actual, entry, now)
        elif version_number(node.version) >= version_number(entry.node.version):
            self._see(node, entry, now)
        else:
            self._dirty.add(action.uid)  # the watch was faster than the answer

    def failed(self, action: Action, now: float, delay: float = 0.0) -> None:
        """The intent was not carried out; the node is looked at again after `delay`.

        A webhook or proxy may ask for any delay: no node waits longer than LONGEST_RETRY.
        """
        entry = self.entries.get(action.uid)
        if entry is None or entry.pending is not action:
            return
        entry.pending = None
        self._thought_anew(action.uid)
        entry.failures += 1
        backoff = 0.1 * 2.0 ** min(entry.failures, 10)
        entry.retry_at = now + min(LONGEST_RETRY, max(delay, backoff))
        self._dirty.add(action.uid)

    def request(self, action: Action, now: float) -> bool:
        """Take up an intent of the drain engine; False when the node is gone or busy."""
        entry = self.entries.get(action.uid)
        if entry is None or entry.pending is not None or entry.retry_at > now:
            return False
        self._hand_out(entry, action, now)
        return True

    def _hand_out(self, entry: Entry, action: Action, now: float) -> None:
        entry.pending, entry.blocked = action, None
        self._thought_anew(entry.node.uid)
        self._asking.discard(entry.node.uid)
        self._recount(entry, now)

    def forget_pending(self) -> None:
        """Leadership was lost, or the mode changed: nothing handed out counts any more."""
        for entry in self.entries.values():
            entry.pending = None
        self.revision += 1
        self._changed.update(self.entries)
        self._dirty.update(self.entries)

    def scope(self) -> Scope:
        """What assessments need; immutable, so other threads may use it for a fresh look."""
        return Scope(self.config, self.owner, dict(self.suspects), self.marks, self.live)

    # -- the plan -----------------------------------------------------------------------

    def plan(self, now: float, *, paused: str = "", unhealthy: str = "") -> Plan:
        """What to do now. `paused` or `unhealthy` (a reason) stops what takes capacity away."""
        self._update_suspects(now)
        self._reassess(now)
        intents: list[Action] = []
        wishes: list[Entry] = []
        for entry in [self.entries[uid] for uid in self._asking]:
            action = entry.assessment.action
            if entry.retry_at > now:
                continue
            if action is not None:
                self._hand_out(entry, action, now)
                intents.append(action)
            else:
                wishes.append(entry)
        limited_by: Counter[str] = Counter()
        wake = self._due[0][0] if self._due else None
        stopped = self._stopped(paused, unhealthy)
        self._restore_places(now)
        self._places_again(stopped, now)
        if wishes:
            granted, opens = self._weigh(wishes, stopped, now, limited_by)
            intents += granted
            wake = earliest(wake, opens)
        return Plan(tuple(intents), wake, limited_by)

    def _restore_places(self, now: float) -> None:
        """At the begin of a term more drains may be written down than may run at a time: those that
        came to a standstill among them. The youngest keep their places: they took theirs last."""
        if self._slots_known:
            return
        self._slots_known = True
        found = [
            (max(state.drain_started for state in entry.states), uid, entry.member)
            for uid, entry in self.entries.items()
            if entry.member is not None and entry.member.draining
        ]
        found.sort(key=lambda one: (-one[0], one[1]))
        drains = [(uid, member) for _, uid, member in found]
        self.slots.restore(self.config.limits, self.tally(now), drains, now)
        for uid in self.slots.given:
            self._recount(self.entries[uid], now)

    def _places_again(self, stopped: LimitedBy | None, now: float) -> None:
        """Drains without a place that ask for one get it before others do."""
        draining = (
            uid
            for uid in self.slots.given
            if uid in self.entries
            and self._in_time(self.entries[uid], self.entries[uid].states, now)
        )
        self.slots.keep(draining)
        for uid in [] if stopped else self.slots.waiting():
            entry = self.entries[uid]
            if check_drain(self.config.limits, self.tally(now), entry.member or Member()) is None:
                del self.slots.given[uid]
                self._recount(entry, now)

    def _check_drain(self, entry: Entry, tally: Tally, now: float) -> LimitedBy | None:
        """None when the node may be drained now, if need be in the place of a drain that makes no
        progress."""
        standing = (self.entries.get(uid) for uid in self.slots.standing)
        members = {e.node.uid: e.member for e in standing if e is not None and e.member}
        mine = entry.member or Member()
        skip_reason, given = self.slots.ask(self.config.limits, tally, mine, members, now)
        if given:
            self._recount(self.entries[given], now)
        return skip_reason

    def tally(self, now: float) -> Tally:
        """The limits' counts as of now."""
        self._drop_cordons_before(now - self._pace_window())
        peak = self._peak.of(self._counts.population, now)
        rate = self.config.limits.rate
        unknown = [self._cordons_known_from] * (rate.count if rate else 1)
        return self._counts.copy(sorted([*unknown, *self._cordons.values()]), peak)

    def _pace_window(self) -> float:
        """How far back holds are kept: as far as the limits need, or as annotations do."""
        rate = self.config.limits.rate
        window = max(rate.window if rate else 0.0, self.config.limits.min_interval, 1.0)
        return max(window, self.config.recovery.flap_window)

    def _drop_cordons_before(self, oldest: float) -> None:
        self._cordons = {key: moment for key, moment in self._cordons.items() if moment >= oldest}

    def _take_cordons(self, uid: str, state: State | None, now: float) -> None:
        """When the node was cordoned, as its annotation says.

        A predecessor wrote it by its own clock: what is still to come counts as of now, or one
        node's annotation would keep all others in service until then.
        """
        for second in state.cordons if state is not None else ():
            self._cordons.setdefault((uid, second), min(float(second), now))

    def _recount(self, entry: Entry, now: float) -> None:
        member = self._member(entry, now)
        if member == entry.member:
            return
        if entry.member is not None:
            if member is None:
                self._peak.was(self._counts.population, now)
            self._counts.count(entry.member, -1)
        if member is not None:
            self._counts.count(member, 1)
        entry.member = member

    def _member(self, entry: Entry, now: float) -> Member | None:
        node = entry.node
        ours = [s for s in entry.states if s.phase.cordoned and s.by == self.owner]
        if not ours and not selected(node, self.config):
            return None
        draining = node.uid not in self.slots.given and self._in_time(entry, ours, now)
        marked = bool(foreign_mark(node, self.marks))
        out = node.unschedulable or not node.ready or node.deleting or marked
        ready = node.conditions.get("Ready")
        return Member(
            zone=node.zone,
            group=node.labels.get(self.config.limits.group_label, ""),
            control_plane=node.control_plane,
            cordoned=bool(ours),
            unavailable=out and not ours,
            draining=draining,
            silent=ready is not None and ready.status == "Unknown",
            tainted=any(
                taint.effect in ("NoSchedule", "NoExecute")
                and not taint.key.startswith("node.kubernetes.io/")
                for taint in node.taints
            ),
        )

    def _in_time(self, entry: Entry, states: Iterable[State], now: float) -> bool:
        """Whether the node is being drained and the limits count it.

        A drain that has outlived its deadline goes on, but frees its place for others. One that
        rests keeps it: when it goes on, the time does not count.
        """
        drains = [state for state in states if state.phase is Phase.DRAINING]
        if not drains:
            entry.drain_began = None
            return False
        self._note_begin(entry, drains[-1], now)
        deadline = self._drain_deadline(entry)
        return entry.assessment.recovering or (deadline is not None and now < deadline)

    def _note_begin(self, entry: Entry, state: State, now: float) -> None:
        """Since when it is drained by our clock: who wrote it down may have another one."""
        known = entry.drain_began
        if known is None:
            limit = self.config.drain.deadline
            began = now + time_left(limit, state.drain_used) - limit
        else:
            began = min(now, known[1] + max(0, state.drain_started - known[0]))  # it rested
        entry.drain_began = (state.drain_started, began)

    def _drain_deadline(self, entry: Entry) -> float | None:
        """When the node's drain has outlived its deadline, None = it is not drained."""
        if entry.drain_began is None:
            return None
        told = self.slots.deadlines.get(entry.node.uid)
        return told if told is not None else entry.drain_began[1] + self.config.drain.deadline

    def _stopped(self, paused: str, unhealthy: str) -> LimitedBy | None:
        if paused:
            return LimitedBy("paused", f"paused: {paused}")
        unhealthy = unhealthy or self._control_plane_unhealthy()
        return LimitedBy("controlPlaneUnhealthy", unhealthy) if unhealthy else None

    def _control_plane_unhealthy(self) -> str:
        """Most nodes silent at once is the control plane's fault (as the node controller says)."""
        total, lost = self._counts.population, self._counts.silent
        if lost >= OUTAGE_MINIMUM and 100 * lost >= OUTAGE_PERCENT * total:
            return f"{lost} of {total} nodes do not answer: the control plane is suspected"
        return ""

    def _weigh(
        self, wishes: list[Entry], stopped: LimitedBy | None, now: float, limited_by: Counter[str]
    ) -> tuple[list[Action], float | None]:
        granted: list[Action] = []
        opens: float | None = None
        tally = self.tally(now)
        wishes.sort(key=_urgency)
        for entry in wishes:
            limited_action = entry.assessment.limited_action
            assert limited_action is not None
            skip_reason = stopped or (
                self._check_drain(entry, tally, now)
                if limited_action.kind is Kind.DRAIN
                else self._check_cordon(entry, limited_action, tally, now)
            )
            if skip_reason is not None:
                entry.blocked = skip_reason
                limited_by[skip_reason.limit] += 1
                opens = earliest(opens, skip_reason.until)
                continue
            if limited_action.kind is Kind.DRAIN:
                tally.add_drain(entry.member or Member())
            else:
                limited_action = self._grant_cordon(entry, limited_action, tally, now)
            self._hand_out(entry, limited_action, now)
            granted.append(limited_action)
        return granted, opens

    def _check_cordon(
        self, entry: Entry, limited_action: Action, tally: Tally, now: float
    ) -> LimitedBy | None:
        skip_reason = check_cordon(self.config.limits, tally, entry.member or Member(), now)
        signal = self.config.signal
        if skip_reason is not None or not signal.enabled or limited_action.state is None:
            return skip_reason
        if limited_action.state.condition in self.trusted:
            return None
        for key in _keys(entry, limited_action.state, self.config):
            recent = self._granted.setdefault(key, deque())
            while recent and recent[0] <= now - signal.window:
                recent.popleft()
            if len(recent) >= self._wave_limit():
                message = f"{len(recent)} cordons for {key[0]} within {signal.window:g}s"
                return LimitedBy("signal", message, recent[0] + signal.window)
        return None

    def _grant_cordon(
        self, entry: Entry, limited_action: Action, tally: Tally, now: float
    ) -> Action:
        state = limited_action.state
        assert state is not None
        entry.due_at = entry.assessment.due_since
        tally.add_cordon(entry.member or Member(), now)
        second = int(now)
        # It may have waited for the limits since it was assessed.
        state = replace(state, since=second, cordons=(*state.cordons[:-1], second))
        self._cordons[entry.node.uid, second] = now
        for key in _keys(entry, state, self.config):
            self._granted.setdefault(key, deque()).append(now)
        member = entry.member or Member()
        if state.action == "drain" and self._check_drain(entry, tally, now) is None:
            # One write for both: cordoned and being drained.
            tally.add_drain(member)
            state = replace(state, phase=Phase.DRAINING, drain_started=int(now))
        return replace(limited_action, state=state)

    # -- waves ----------------------------------------------------------------------------

    def _wave_limit(self) -> int:
        signal = self.config.signal
        return max(signal.max_touched.of(len(self.entries)), signal.floor)

    def _update_suspects(self, now: float) -> None:
        signal = self.config.signal
        before = dict(self.suspects)
        if not signal.enabled:
            self.suspects.clear()
        else:
            for key in [key for key in self.suspects if self._wave_is_over(key)]:
                del self.suspects[key]
                self._onsets.pop(key, None)
            for key in self._onsets.keys() - self.suspects.keys():
                self._drop_onsets(key, now)
                began = self._wave(key)
                if began is not None:
                    self.suspects[key] = began
        if before != self.suspects:
            self._dirty.update(self.entries)

    def _drop_onsets(self, key: Key, now: float) -> None:
        """Those that are over. While its node is bad none is, however long ago it was: who leads
        from now on has seen or finds what was suspect to its predecessor, too.
        """
        signal = self.config.signal
        kept = {
            uid: onset
            for uid, onset in self._onsets[key].items()
            if onset.when >= now - (signal.rollout_window if onset.rollout else signal.window)
            or (uid in self.entries and key in _bad_now(self.entries[uid], self.config))
        }
        if kept and key[0] not in self.trusted:
            self._onsets[key] = kept
        else:
            del self._onsets[key]

    def _wave(self, key: Key) -> float | None:
        """When the wave began that the onsets make: on many nodes within seconds, or each soon
        after its detector began anew (a rollout goes from node to node, and so does its mistake).
        """
        signal, limit = self.config.signal, self._wave_limit()
        onsets = self._onsets.get(key, {}).values()
        found = _crowded([onset.when for onset in onsets], signal.window, limit)
        if found is not None:
            return found
        rollout = [onset.when for onset in onsets if onset.rollout]
        return _crowded(rollout, max(signal.window, signal.rollout_window), limit)

    def _wave_is_over(self, key: Key) -> bool:
        """So few nodes still say it that it can be believed again, or a human vouches for it."""
        if key[0] in self.trusted:
            return True
        bad = sum(key in _bad_now(entry, self.config) for entry in self.entries.values())
        return bad <= self._wave_limit()

    # -- looking again ------------------------------------------------------------------

    def _reassess(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            _, uid, ticket = heapq.heappop(self._due)
            entry = self.entries.get(uid)
            if entry is not None and entry.ticket == ticket:
                entry.due = None
                self._dirty.add(uid)
        scope = self.scope()
        for uid in self._dirty:
            entry = self.entries[uid]
            before, seen = entry.assessment, assess(entry.node, entry.history, scope, now)
            entry.assessment = seen
            self._take_cordons(uid, seen.state, now)
            if _notified(before) != _notified(seen):
                self._thought_anew(uid)
            entry.blocked = None
            self._recount(entry, now)
            if entry.pending is None and (
                seen.action is not None or seen.limited_action is not None
            ):
                self._asking.add(uid)
            else:
                self._asking.discard(uid)
            due = seen.due
            if entry.member is not None and entry.member.draining:
                due = earliest(due, self._drain_deadline(entry))
            if entry.retry_at > now:
                due = earliest(due, entry.retry_at)
            if due is not None:
                self._schedule(entry, max(due, now))
        self._dirty.clear()

    def _schedule(self, entry: Entry, when: float) -> None:
        if entry.due == when:
            return  # a node that is seen again and again is scheduled once
        entry.due = when
        entry.ticket += 1
        heapq.heappush(self._due, (when, entry.node.uid, entry.ticket))
        if len(self._due) > 2 * len(self.entries) + DUE_SPARE:
            self._due = [item for item in self._due if self._is_valid(item)]
            heapq.heapify(self._due)

    def _is_valid(self, item: tuple[float, str, int]) -> bool:
        """Whether the heap's entry is the node's last one."""
        entry = self.entries.get(item[1])
        return entry is not None and entry.ticket == item[2]


def _notified(seen: Assessment) -> tuple[object, ...]:
    """What others go by; the rest of an assessment is read when it is asked for."""
    return seen.standing, seen.state, seen.rejected, seen.recovering


def _crowded(moments: list[float], window: float, limit: int) -> float | None:
    """The first moment after which more than `limit` of them lie within `window` seconds."""
    ordered = sorted(moments)
    spans = zip(ordered, ordered[limit:], strict=False)
    return next((first for first, last in spans if last - first <= window), None)


def _bad_now(entry: Entry, config: Config) -> set[Key]:
    found: set[Key] = set()
    for rule in config.rules:
        observation = entry.history.observations[rule.key]
        if observation.reading is Reading.BAD:
            reasons = {entry.node.conditions[rule.condition].reason, *observation.reasons}
            found.update((rule.condition, r) for r in reasons if rule.matches_reason(r))
    return found


def _known_since(node: Node, condition: str, observation: Observation, now: float) -> float:
    """At first sight of a node: since when its condition is bad, by its own clock or by what a
    predecessor wrote down (a transition time moves also with the reason alone)."""
    moments = [now]
    if observation.transition is not None:
        moments.append(observation.transition)
    try:
        state = read_state(node)
    except Unreadable:
        state = None
    if state is not None and state.condition == condition and state.first_seen:
        moments.append(float(state.first_seen))
    return min(moments)


def _keys(entry: Entry, state: State, config: Config) -> set[Key]:
    """What a hold counts as: its condition with each reason that it has shown since it is bad."""
    shown = {key for key in _bad_now(entry, config) if key[0] == state.condition}
    return {(state.condition, state.reason), *shown}


def _urgency(entry: Entry) -> tuple[int, int, float, str]:
    """Drains of nodes that are held already, then the worst, then the oldest."""
    limited_action = entry.assessment.limited_action
    assert limited_action is not None
    drains = limited_action.state is not None and limited_action.state.action == "drain"
    return (
        limited_action.kind is not Kind.DRAIN,
        not drains,
        entry.assessment.since,
        entry.node.name,
    )


def _overlaid(node: Node, overlay: tuple[bool, str | None] | None) -> Node:
    if overlay is None:
        return node
    unschedulable, state = overlay
    annotations = {key: value for key, value in node.annotations.items() if key != STATE_KEY}
    if state is not None:
        annotations[STATE_KEY] = state
    return replace(node, unschedulable=unschedulable or node.unschedulable, annotations=annotations)
