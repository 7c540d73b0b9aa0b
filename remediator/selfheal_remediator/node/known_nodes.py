"""What is known of all nodes, from the watch and from what we say of them ourselves. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from selfheal_remediator.config import PODS_HUNG, Config
from selfheal_remediator.kube.informer import Change, version_number
from selfheal_remediator.kube.objects import Condition, Node
from selfheal_remediator.node.conditions import NodeHistory, observe
from selfheal_remediator.node.counts import Counts
from selfheal_remediator.node.entry import Entry, overlaid
from selfheal_remediator.node.queues import Queues
from selfheal_remediator.node.room_checks import RoomChecks
from selfheal_remediator.node.waves import Waves


class KnownNodes:
    """Not thread-safe but for `with_signal`: one thread owns it. entries: all nodes, by uid."""

    def __init__(
        self,
        config: Config,
        entries: dict[str, Entry],
        waves: Waves,
        counts: Counts,
        rooms: RoomChecks,
    ) -> None:
        self._config, self.entries = config, entries
        self._waves, self._counts, self._rooms = waves, counts, rooms
        #: What we say of nodes ourselves, by name: conditions that no object holds.
        self.signals: Mapping[str, Condition] = {}
        self._names: dict[str, str] = {}
        #: Nodes (uids) that are to be assessed again, and those that wait for a limit.
        self.dirty: set[str] = set()
        self.queues = Queues()
        #: Grows with every change of what is thought of a node or under way with it; which nodes
        #: (uids) they were is kept until `take_changed`.
        self.revision = 0
        self._changed: set[str] = set()
        #: Nodes (uids) whose annotation is about PodsHung, or will be after the write under way.
        self._pods_hung: set[str] = set()

    def reconfigure(self, config: Config, now: float) -> None:
        """Continue with other rules; what was seen of conditions that are in both is kept."""
        self._config = config
        for entry in self.entries.values():
            rules = config.rules_for(entry.node.labels)
            entry.history = observe(entry.history, entry.node, entry.node, rules, now)
        self._waves.reconfigure(config)
        self.dirty.update(self.entries)

    def forget_overlays(self) -> None:
        """Nothing that was only a dry run counts any more."""
        for entry in self.entries.values():
            entry.overlay, entry.node = None, entry.actual

    def forget_pending(self) -> None:
        """Nothing handed out counts any more."""
        for uid, entry in self.entries.items():
            entry.pending = None
            self.note_changed(uid)
        self.dirty.update(self.entries)

    def marks_changed(self, names: Iterable[str]) -> None:
        """Other systems began or ended their work on these nodes."""
        self.dirty.update(self._names[name] for name in names if name in self._names)

    def apply(self, change: Change[Node], now: float) -> None:
        """A node appeared, changed or went."""
        if change.new is None:
            # Said of this node, not of another one created under its name.
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
        self.observe(node, entry, now)

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
                self.observe(entry.actual, entry, now)

    def with_signal(self, node: Node) -> Node:
        """The node with what we say of it. Thread-safe."""
        ours = self.signals.get(node.name)
        if ours is None and PODS_HUNG not in node.conditions:
            return node
        others = {kind: item for kind, item in node.conditions.items() if kind != PODS_HUNG}
        return replace(node, conditions=others if ours is None else {**others, ours.type: ours})

    def take_changed(self) -> set[str]:
        """Nodes that were assessed again, or whose action began or ended, since the last call."""
        changed, self._changed = self._changed, set()
        return changed

    def note_changed(self, uid: str) -> None:
        """What is thought of the node, or under way with it, has changed."""
        self.revision += 1
        self._changed.add(uid)
        entry = self.entries.get(uid)
        state = entry.state if entry is not None else None
        if state is not None and state.condition == PODS_HUNG:
            self._pods_hung.add(uid)
        else:
            self._pods_hung.discard(uid)

    @property
    def pods_hung(self) -> list[str]:
        """Nodes (names) whose annotation is about PodsHung, or will be after the write under way.
        Kept at each change: going over all nodes in each turn would delay its writes."""
        return [self.entries[uid].node.name for uid in self._pods_hung]

    def _forget(self, uid: str, now: float) -> None:
        entry = self.entries.pop(uid, None)
        self._waves.forget(uid)
        self._rooms.forget(uid)
        self.note_changed(uid)
        if entry is not None:
            self._counts.remove(entry, now)
        self.dirty.discard(uid)
        self.queues.discard(uid)

    def observe(self, node: Node, entry: Entry | None, now: float) -> None:
        """The node is so now; entry: what is known of it, None = nothing."""
        node, rules = self.with_signal(node), self._config.rules_for(node.labels)
        if entry is None:
            history = observe(NodeHistory(), None, node, rules, now)
            entry = Entry(node, node, history)
            known = self._names.get(node.name)
            if known is not None:
                self._forget(known, now)  # another one was created under its name
            self.entries[node.uid] = entry
            self._names[node.name] = node.uid
            self._waves.note_onsets(entry, None, now)
        else:
            seen = overlaid(node, entry.overlay)
            before = entry.history
            entry.history = observe(before, entry.node, seen, rules, now)
            entry.node, entry.actual = seen, node
            self._waves.note_onsets(entry, before, now)
        self.dirty.add(node.uid)
