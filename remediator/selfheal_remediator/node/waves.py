"""The same condition on many nodes within seconds: a fault of the detector is suspected. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from selfheal_remediator.config import Config
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.node.annotation import State, Unreadable, read_state
from selfheal_remediator.node.conditions import NodeHistory, Observation, Reading, onsets
from selfheal_remediator.node.drain_request import DRAIN_REQUESTED
from selfheal_remediator.node.entry import Entry, Key, bad_now
from selfheal_remediator.node.onsets import Onset, Onsets
from selfheal_remediator.node.recent_cordons import RecentCordons
from selfheal_remediator.node.skip_reason import SkipReason


class Waves:
    """What came upon nodes, and what of it is suspected. entries: all nodes, by uid."""

    def __init__(self, config: Config, entries: Mapping[str, Entry]) -> None:
        self.config, self._entries = config, entries
        #: What is suspected -> when its wave began.
        self.suspects: dict[Key, float] = {}
        #: Conditions that an administrator trusts.
        self.trusted: frozenset[str] = frozenset()
        #: The last one of each node (uid).
        self._onsets: dict[Key, Onsets] = {}
        #: Which nodes (uid) are bad now, and what each is bad by.
        self._bad: dict[Key, set[str]] = {}
        self._bad_by: dict[str, set[Key]] = {}
        self.cordons = RecentCordons()

    def note_onsets(self, entry: Entry, before: NodeHistory | None, now: float) -> None:
        """What came upon the node since it was as `before` says (None = it is new)."""
        self._note_bad(entry)
        config = self.config
        for rule in config.rules_for(entry.node.labels):
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
                if key not in self._onsets:
                    self._onsets[key] = Onsets(config.signal)
                self._onsets[key].put(entry.node.uid, Onset(when, rollout))
            # Here, too: a replica that does not lead never plans, and onsets come without end.
            self._drop_onsets(now)

    def _note_bad(self, entry: Entry) -> None:
        self._set_bad(entry.node.uid, bad_now(entry, self.config))

    def _set_bad(self, uid: str, keys: set[Key]) -> None:
        before = self._bad_by.pop(uid, set())
        if keys:
            self._bad_by[uid] = keys
        for key in keys - before:
            self._bad.setdefault(key, set()).add(uid)
        for key in before - keys:
            self._bad[key].discard(uid)
            if not self._bad[key]:
                del self._bad[key]
            if key in self._onsets:
                self._onsets[key].not_bad(uid)

    def forget(self, uid: str) -> None:
        """The node is gone; what came upon it a moment ago still counts."""
        self._set_bad(uid, set())

    def reconfigure(self, config: Config) -> None:
        """Continue with other rules, by which all nodes were observed again."""
        self.config = config
        for of_key in self._onsets.values():
            of_key.reconfigure(config.signal)
        for entry in self._entries.values():
            self._note_bad(entry)

    def _wave_limit(self) -> int:
        signal = self.config.signal
        return max(signal.max_touched.of(len(self._entries)), signal.floor)

    def update(self, now: float) -> bool:
        """Look which waves there are now; returns whether that has changed."""
        signal = self.config.signal
        before = dict(self.suspects)
        self.cordons.drop(now - signal.window)
        self._drop_onsets(now)
        if not signal.enabled:
            self.suspects.clear()
        else:
            for key in [key for key in self.suspects if self._wave_is_over(key)]:
                del self.suspects[key]
                self._onsets.pop(key, None)
            for key in self._onsets.keys() - self.suspects.keys():
                began = self._onsets[key].wave(self._wave_limit())
                if began is not None:
                    self.suspects[key] = began
        return before != self.suspects

    def _drop_onsets(self, now: float) -> None:
        """Those that are over, also of what is not searched now: a detector that flaps adds onsets
        without end. While its node is bad none is over, however long ago it was: who leads from now
        on has seen or finds what was suspect to its predecessor, too.
        """
        for key, of_key in list(self._onsets.items()):
            of_key.drop(now, self._bad.get(key, frozenset()))
            if not of_key or key[0] in self.trusted:
                del self._onsets[key]

    def _wave_is_over(self, key: Key) -> bool:
        """So few nodes still say it that it can be trusted again, or an administrator trusts it."""
        if key[0] in self.trusted:
            return True
        return len(self._bad.get(key, ())) <= self._wave_limit()

    def signals(self, uid: str, state: State) -> frozenset[Key]:
        """What a cordon of the node counts as: its condition with each reason that it has shown
        since it is bad."""
        if state.condition == DRAIN_REQUESTED:
            return frozenset()  # no detector reports it
        shown = (key for key in self._bad_by.get(uid, ()) if key[0] == state.condition)
        return frozenset({(state.condition, state.reason), *shown})

    def check_cordon(self, signals: Iterable[Key], now: float) -> SkipReason | None:
        """None when a node may be cordoned now: not as one of a wave that just begins."""
        signal = self.config.signal
        for key in signals if signal.enabled else ():
            if key[0] in self.trusted:
                continue
            recent = self.cordons.of(key, now - signal.window)
            if len(recent) >= self._wave_limit():
                message = f"{len(recent)} cordons for {key[0]} within {signal.window:g}s"
                return SkipReason("signal", message, recent[0] + signal.window)
        return None

    def note_cordon(self, signals: Iterable[Key], uid: str, now: float) -> None:
        """The node is cordoned now."""
        self.cordons.note(signals, uid, now)


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
