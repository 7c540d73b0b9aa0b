"""The same condition on many nodes within seconds: a fault of the detector is suspected. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from selfheal_remediator.config import Config
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.node.annotation import State, Unreadable, read_state
from selfheal_remediator.node.conditions import NodeHistory, Observation, Reading, onsets
from selfheal_remediator.node.entry import Entry, Key, bad_now
from selfheal_remediator.node.skip_reason import SkipReason


@dataclass(frozen=True, slots=True)
class Onset:
    """A condition came upon a node. rollout: soon after the node's detector restarted."""

    when: float
    rollout: bool


class Waves:
    """What came upon nodes, and what of it is suspected. entries: all nodes, by uid."""

    def __init__(self, config: Config, entries: Mapping[str, Entry]) -> None:
        self.config, self._entries = config, entries
        #: What is suspected -> when its wave began.
        self.suspects: dict[Key, float] = {}
        #: Conditions that an administrator trusts.
        self.trusted: frozenset[str] = frozenset()
        #: The last one of each node (uid).
        self._onsets: dict[Key, dict[str, Onset]] = {}
        self._granted: dict[Key, deque[float]] = {}

    def note_onsets(self, entry: Entry, before: NodeHistory | None, now: float) -> None:
        """What came upon the node since it was as `before` says (None = it is new)."""
        config = self.config
        for rule in config.rules:
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
            rollout = reset is not None and when - reset < config.signal.rollout_window
            for reason in reasons:
                key = (rule.condition, reason)
                self._onsets.setdefault(key, {})[entry.node.uid] = Onset(when, rollout)

    def _wave_limit(self) -> int:
        signal = self.config.signal
        return max(signal.max_touched.of(len(self._entries)), signal.floor)

    def update(self, now: float) -> bool:
        """Look which waves there are now; returns whether that has changed."""
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
        return before != self.suspects

    def _drop_onsets(self, key: Key, now: float) -> None:
        """Those that are over. While its node is bad none is, however long ago it was: who leads
        from now on has seen or finds what was suspect to its predecessor, too.
        """
        signal = self.config.signal
        kept = {
            uid: onset
            for uid, onset in self._onsets[key].items()
            if onset.when >= now - (signal.rollout_window if onset.rollout else signal.window)
            or (uid in self._entries and key in bad_now(self._entries[uid], self.config))
        }
        if kept and key[0] not in self.trusted:
            self._onsets[key] = kept
        else:
            del self._onsets[key]

    def _wave(self, key: Key) -> float | None:
        """When the wave began that the onsets make: on many nodes within seconds, or each soon
        after its detector restarted (a rollout moves from node to node, and so does its mistake).
        """
        signal, limit = self.config.signal, self._wave_limit()
        onsets = self._onsets.get(key, {}).values()
        found = _crowded([onset.when for onset in onsets], signal.window, limit)
        if found is not None:
            return found
        rollout = [onset.when for onset in onsets if onset.rollout]
        return _crowded(rollout, max(signal.window, signal.rollout_window), limit)

    def _wave_is_over(self, key: Key) -> bool:
        """So few nodes still say it that it can be trusted again, or an administrator trusts it."""
        if key[0] in self.trusted:
            return True
        bad = sum(key in bad_now(entry, self.config) for entry in self._entries.values())
        return bad <= self._wave_limit()

    def check_cordon(self, entry: Entry, state: State, now: float) -> SkipReason | None:
        """None when the node may be cordoned now: not as one of a wave that just begins."""
        signal = self.config.signal
        if not signal.enabled or state.condition in self.trusted:
            return None
        for key in _keys(entry, state, self.config):
            recent = self._granted.setdefault(key, deque())
            while recent and recent[0] <= now - signal.window:
                recent.popleft()
            if len(recent) >= self._wave_limit():
                message = f"{len(recent)} cordons for {key[0]} within {signal.window:g}s"
                return SkipReason("signal", message, recent[0] + signal.window)
        return None

    def note_cordon(self, entry: Entry, state: State, now: float) -> None:
        """The node is cordoned now."""
        for key in _keys(entry, state, self.config):
            self._granted.setdefault(key, deque()).append(now)


def _crowded(moments: list[float], window: float, limit: int) -> float | None:
    """The first moment after which more than `limit` of them lie within `window` seconds."""
    ordered = sorted(moments)
    spans = zip(ordered, ordered[limit:], strict=False)
    return next((first for first, last in spans if last - first <= window), None)


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
    shown = {key for key in bad_now(entry, config) if key[0] == state.condition}
    return {(state.condition, state.reason), *shown}
