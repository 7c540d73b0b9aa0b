"""The same condition on many nodes within seconds: a fault of the detector is suspected. Pure.

Whatever reasons it has: a detector may give each node, or each time, one of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from selfheal_remediator.config import Config
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.node.annotation import known_state
from selfheal_remediator.node.conditions import NodeHistory, Observation, Reading, newly_bad
from selfheal_remediator.node.drain_request import DRAIN_REQUESTED
from selfheal_remediator.node.entry import Entry, bad_now
from selfheal_remediator.node.onsets import Onset, Onsets
from selfheal_remediator.node.recent_cordons import RecentCordons
from selfheal_remediator.node.skip_reason import SkipReason


class Waves:
    """When conditions began on nodes, and which conditions are suspected. entries: all nodes, by
    uid."""

    def __init__(self, config: Config, entries: Mapping[str, Entry]) -> None:
        self.config, self._entries = config, entries
        #: The conditions that are suspected -> when the wave began.
        self.suspects: dict[str, float] = {}
        #: Conditions that an administrator trusts.
        self.trusted: frozenset[str] = frozenset()
        #: By condition.
        self._onsets: dict[str, Onsets] = {}
        #: Which nodes (uids) have each condition now, and which conditions each of them has.
        self._bad: dict[str, set[str]] = {}
        self._bad_by: dict[str, set[str]] = {}
        self.cordons = RecentCordons()

    def note_onsets(self, entry: Entry, before: NodeHistory | None, now: float) -> None:
        """Which conditions began on the node since it was as `before` says (None = it is new)."""
        self._note_bad(entry)
        config = self.config
        for rule in config.rules_for(entry.node.labels):
            observation = entry.history.observations[rule.key]
            if observation.reading is not Reading.BAD or not rule.cordons:
                continue
            earlier = before.observations.get(rule.key) if before is not None else None
            if not newly_bad(rule, earlier, observation):
                continue
            when = now
            if before is None:
                when = _known_since(entry.node, rule.condition, observation, now)
            reset = entry.history.reset
            rollout = reset is not None and when - reset < config.signal.rollout_window
            if rule.condition not in self._onsets:
                self._onsets[rule.condition] = Onsets(config.signal)
            self._onsets[rule.condition].put(entry.node.uid, Onset(when, rollout))
            # Here, too: a replica that does not lead never plans, and onsets come without end.
            self._drop_onsets(now)

    def _note_bad(self, entry: Entry) -> None:
        self._set_bad(entry.node.uid, bad_now(entry, self.config))

    def _set_bad(self, uid: str, conditions: set[str]) -> None:
        before = self._bad_by.pop(uid, set())
        if conditions:
            self._bad_by[uid] = conditions
        for condition in conditions - before:
            self._bad.setdefault(condition, set()).add(uid)
        for condition in before - conditions:
            self._bad[condition].discard(uid)
            if not self._bad[condition]:
                del self._bad[condition]
            if condition in self._onsets:
                self._onsets[condition].node_recovered(uid)

    def forget(self, uid: str) -> None:
        """The node is gone; an onset of a moment ago still counts."""
        self._set_bad(uid, set())

    def reconfigure(self, config: Config) -> None:
        """Continue with other rules, by which all nodes were observed again."""
        self.config = config
        for found in self._onsets.values():
            found.reconfigure(config.signal)
        for entry in self._entries.values():
            self._note_bad(entry)

    def _wave_limit(self) -> int:
        signal = self.config.signal
        return max(signal.max_touched.of(len(self._entries)), signal.floor)

    def update(self, now: float) -> bool:
        """Find the waves of now; returns whether the suspected conditions have changed."""
        signal = self.config.signal
        before = dict(self.suspects)
        self.cordons.drop(now - signal.window)
        self._drop_onsets(now)
        if not signal.enabled:
            self.suspects.clear()
        else:
            for condition in [one for one in self.suspects if self._wave_is_over(one)]:
                del self.suspects[condition]
                self._onsets.pop(condition, None)
            for condition in self._onsets.keys() - self.suspects.keys():
                began = self._onsets[condition].wave(self._wave_limit())
                if began is not None:
                    self.suspects[condition] = began
        return before != self.suspects

    def _drop_onsets(self, now: float) -> None:
        """Forget onsets that are over, also of conditions that are not searched now: a detector
        that flaps adds onsets without end. While its node is bad an onset is kept, however old: so
        a new leader suspects what its predecessor suspected.
        """
        for condition, found in list(self._onsets.items()):
            found.drop(now, self._bad.get(condition, frozenset()))
            if not found or condition in self.trusted:
                del self._onsets[condition]

    def _wave_is_over(self, condition: str) -> bool:
        """So few nodes still report the condition that it can be trusted again, or an administrator
        trusts it. Nodes that reported it long before the wave do not count for the wave.
        """
        if condition in self.trusted:
            return True
        limit, found = self._wave_limit(), self._onsets.get(condition)
        if len(self._bad.get(condition, ())) <= limit or found is None:
            return True
        return found.since(self.suspects[condition]) <= limit

    def check_cordon(self, condition: str, now: float) -> SkipReason | None:
        """None when a node may be cordoned for it now: not as one of a wave that just begins."""
        signal = self.config.signal
        if not signal.enabled or condition in self.trusted or condition == DRAIN_REQUESTED:
            return None
        recent = self.cordons.of(condition, now - signal.window)
        if len(recent) < self._wave_limit():
            return None
        message = f"{len(recent)} cordons for {condition} within {signal.window:g}s"
        return SkipReason("signal", message, recent[0] + signal.window)

    def note_cordon(self, condition: str, uid: str, now: float) -> None:
        """The node is cordoned for it now."""
        if condition != DRAIN_REQUESTED:  # no detector reports it
            self.cordons.note(condition, uid, now)


def _known_since(node: Node, condition: str, observation: Observation, now: float) -> float:
    """At first sight of a node: since when its condition is bad, by its own clock or by what a
    predecessor wrote down (a transition time moves also with the reason alone)."""
    moments = [now]
    if observation.transition is not None:
        moments.append(observation.transition)
    state = known_state(node)
    if state is not None and state.condition == condition and state.first_seen:
        moments.append(float(state.first_seen))
    return min(moments)
