"""What the limits count: nodes out of service, drains, and the pace of cordons. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from selfheal_remediator.config import Config, DisruptionLimits
from selfheal_remediator.node.annotation import Phase, State
from selfheal_remediator.node.cordon_times import CordonTimes
from selfheal_remediator.node.drain_slots import DrainSlots
from selfheal_remediator.node.entry import Entry
from selfheal_remediator.node.limits import (
    OUTAGE_MINIMUM,
    OUTAGE_PERCENT,
    CountedNode,
    GroupTally,
    Tally,
)
from selfheal_remediator.node.peak import Peak
from selfheal_remediator.node.selection import NO_MARKS, foreign_mark, selected
from selfheal_remediator.node.skip_reason import SkipReason
from selfheal_remediator.node.work_clock import time_left
from selfheal_remediator.selectors import NodeSelector

PEAK_WINDOW = 3600.0


class Counts:
    """Updated at each change of a node: counting all of them every time takes long."""

    def __init__(self, config: Config, owner: str, now: float) -> None:
        self._config, self._owner = config, owner
        #: Which nodes (by name) another system is changing, reported elsewhere than on the node.
        self.marks: Mapping[str, str] = NO_MARKS
        #: Which drains make no progress, and which of them gave their slot away.
        self.slots = DrainSlots()
        self._tally = Tally()
        #: Nodes of which nothing can be read: each may be one that we cordoned.
        self.unread = 0
        #: Before what is known of them the pace counts as used up.
        self.cordons = CordonTimes(now - config.recovery.flap_window)
        self._peak = Peak(PEAK_WINDOW)
        #: The same of each group.
        self._peaks: dict[str, Peak] = {}
        self.regroup(())

    def reconfigure(self, config: Config, now: float) -> None:
        """Other limits may have to look back further than was kept for those before. What was
        only a dry run does not count for the cordons that are made."""
        self.cordons.known_from = max(self.cordons.known_from, now - self._pace_window())
        if _selectors(config) != _selectors(self._config):
            self._peaks = {}  # a group's nodes were others
        self._config = config
        if not config.dry_run:
            self.cordons.forget_dry_runs()

    def regroup(self, entries: Iterable[Entry]) -> None:
        """Count each group of the configuration; entries: all nodes."""
        self._peaks = {
            group.name: self._peaks.get(group.name, Peak(PEAK_WINDOW))
            for group in self._config.groups
        }
        self._tally.named = {
            group.name: GroupTally(group.limits, Tally()) for group in self._config.groups
        }
        for entry in entries:
            if entry.counted is None:
                continue
            name = self._group_name(entry)
            entry.counted = replace(entry.counted, group_name=name)
            self._tally.count_in_group(entry.counted, 1)
            self.cordons.grouped(entry.node.uid, name)

    def _group_name(self, entry: Entry) -> str:
        group = self._config.group_of(entry.node.labels)
        return group.name if group is not None else ""

    def begin_term(self, now: float) -> None:
        """This process leads from now on: when its predecessor cordoned is written on the nodes."""
        self.cordons.known_from = now - self._config.recovery.flap_window
        self.slots = DrainSlots()

    @property
    def cordoned(self) -> int:
        """How many nodes are cordoned by us, or about to be."""
        return self._tally.cordoned

    def note_cordon(self, uid: str, now: float) -> None:
        """The node is cordoned now."""
        self.cordons.note(uid, now, dry_run=self._config.dry_run)

    def remove(self, entry: Entry, now: float) -> None:
        """The node is gone."""
        self.cordons.node_gone(entry.node.uid)
        if entry.counted is not None:
            self._note_peaks(entry.counted, None, now)
            self._tally.count(entry.counted, -1)

    def _note_peaks(
        self, before: CountedNode | None, after: CountedNode | None, now: float
    ) -> None:
        """The number of nodes, and of those of a group, is about to change."""
        if before is None or after is None:
            self._peak.was(self._tally.population, now)
        names = {counted.group_name for counted in (before, after) if counted is not None}
        if before is not None and after is not None and len(names) == 1:
            return
        for name in names & self._tally.named.keys():
            self._peaks[name].was(self._tally.named[name].tally.population, now)

    def recount(self, entry: Entry, now: float) -> None:
        """The node, its assessment, or a change of it that is under way is another one."""
        counted = self._counted_node(entry, now)
        if counted == entry.counted:
            return
        self._note_peaks(entry.counted, counted, now)
        if entry.counted is not None:
            self._tally.count(entry.counted, -1)
        if counted is not None:
            self._tally.count(counted, 1)
            self.cordons.grouped(entry.node.uid, counted.group_name)
        entry.counted = counted

    def tally(self, now: float) -> Tally:
        """The limits' counts as of now."""
        self.drop_old(now)
        peak = self._peak.of(self._tally.population, now)
        tally = self._copy(self._tally, self._config.limits, self.cordons.all, peak)
        tally.named = {
            name: GroupTally(group.limits, self._group_copy(name, group, now))
            for name, group in self._tally.named.items()
        }
        return tally

    def drop_old(self, now: float) -> None:
        """Forget the cordons that no limit looks back to."""
        self.cordons.drop(now - self._pace_window())

    def _copy(
        self, tally: Tally, limits: DisruptionLimits, cordons: Iterable[float], peak: int
    ) -> Tally:
        """Of a node that cannot be read nothing is known: it counts everywhere."""
        unknown = [self.cordons.known_from] * (limits.rate.count if limits.rate else 1)
        copy = tally.copy(sorted([*unknown, *cordons]), peak)
        copy.population += self.unread
        copy.unavailable += self.unread
        return copy

    def _group_copy(self, name: str, group: GroupTally, now: float) -> Tally:
        peak = self._peaks[name].of(group.tally.population, now)
        return self._copy(group.tally, group.limits, self.cordons.of_group(name), peak)

    def _pace_window(self) -> float:
        """How far back cordons are kept: as far as the limits need, or as annotations do."""
        window = max(1.0, self._config.recovery.flap_window)
        for limits in (self._config.limits, *(group.limits for group in self._config.groups)):
            window = max(window, limits.rate.window if limits.rate else 0.0, limits.min_interval)
        return window

    def _counted_node(self, entry: Entry, now: float) -> CountedNode | None:
        node = entry.node
        ours = [s for s in entry.states if s.phase.cordoned and s.by == self._owner]
        if not ours and not selected(node, self._config):
            return None
        draining = node.uid not in self.slots.yielded and self.counts_as_draining(entry, ours, now)
        marked = bool(foreign_mark(node, self.marks))
        out = node.unschedulable or not node.ready or node.deleting or marked
        ready = node.conditions.get("Ready")
        yields = entry.assessment.yields and entry.pending is None
        ladder = [] if yields else [state for state in ours if state.phase is Phase.REPAIRING]
        return CountedNode(
            zone=node.zone,
            group=node.labels.get(self._config.limits.group_label, ""),
            group_name=self._group_name(entry),
            control_plane=node.control_plane,
            cordoned=bool(ours),
            unavailable=out and not ours,
            draining=draining,
            repairing=bool(ladder),
            step_runs=any(state.step_runs for state in ladder),
            silent=ready is not None and ready.status == "Unknown",
            tainted=any(
                taint.effect in ("NoSchedule", "NoExecute")
                and not taint.key.startswith("node.kubernetes.io/")
                for taint in node.taints
            ),
        )

    def counts_as_draining(self, entry: Entry, states: Iterable[State], now: float) -> bool:
        """Whether one of these states is a drain that the limits count.

        A drain past its deadline continues, but frees its slot for others. One that is paused keeps
        its slot: the time of the pause does not count for the deadline.
        """
        drains = [state for state in states if state.phase is Phase.DRAINING]
        if not drains:
            entry.drain_began = None
            return False
        self._note_begin(entry, drains[-1], now)
        deadline = self.drain_deadline(entry)
        return entry.assessment.recovering or (deadline is not None and now < deadline)

    def _note_begin(self, entry: Entry, state: State, now: float) -> None:
        """Since when it is drained by our clock: who wrote it down may have another one."""
        if entry.drain_began is None:
            limit = self._config.drain.deadline
            began = now + time_left(limit, state.drain_used) - limit
        else:
            as_written, began = entry.drain_began
            began = min(now, began + max(0, state.drain_started - as_written))  # it was paused
        entry.drain_began = (state.drain_started, began)

    def drain_deadline(self, entry: Entry) -> float | None:
        """When the deadline of the node's drain is, None = it is not drained."""
        if entry.drain_began is None:
            return None
        _, began = entry.drain_began
        deadline = began + self._config.drain.deadline
        return self.slots.deadlines.get(entry.node.uid, deadline)

    def stopped(self, paused: str, unhealthy: str) -> SkipReason | None:
        """Why nothing that the limits pace is begun now."""
        if paused:
            return SkipReason("paused", f"paused: {paused}")
        unhealthy = unhealthy or self.outage()
        return SkipReason("controlPlaneUnhealthy", unhealthy) if unhealthy else None

    def outage(self) -> str:
        """Most nodes silent at once is the control plane's fault (as the node controller says)."""
        total, lost = self._tally.population, self._tally.silent
        if lost >= OUTAGE_MINIMUM and 100 * lost >= OUTAGE_PERCENT * total:
            return f"{lost} of {total} nodes do not answer: the control plane is suspected"
        return ""


def _selectors(config: Config) -> list[tuple[str, NodeSelector]]:
    """Which nodes belong to which group."""
    return [(group.name, group.node_selector) for group in config.groups]
