"""Which objects of the release are to be made again now, and what is done to them later. Pure.

An object that is missing is made again when that has lasted for the grace period. By then an
uninstall, which deletes the ConfigMap too, and an upgrade, which changes it, have shown themselves.
What is made is owned by the ConfigMap for SETTLED seconds: if an uninstall was under way after all,
the garbage collector deletes both. Then the owner is taken away again, because an upgrade that
takes the ConfigMap out of the release must not take the object with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from selfheal_remediator.backoff import delay_after
from selfheal_remediator.restore.drift import Difference, Settings, differences, settings_of
from selfheal_remediator.restore.live import Live
from selfheal_remediator.restore.release import Release, Wanted

#: How long (seconds) an object that was made again is owned by the ConfigMap. Helm deletes all
#: objects of a release within seconds, its Deployments, ours among them, before its ConfigMaps.
SETTLED = 120.0
#: Seconds between two attempts on one object, at first and at most; an object that has lasted for
#: LASTED is no longer one that is deleted again and again.
FIRST_PAUSE, LONGEST_PAUSE, LASTED = 60.0, 3600.0, 7200.0


class Task(Enum):
    """What is done to an object."""

    RESTORE = "restore"
    #: Take the ConfigMap away as its owner.
    RELEASE = "release"
    #: Set what differs from the release.
    CORRECT = "correct"


@dataclass(frozen=True, slots=True)
class Action:
    """To be done now. live: the object as it is known; None = it is missing.

    since: since when (seconds since the epoch) that is so.
    """

    task: Task
    wanted: Wanted
    release: Release
    live: Live | None
    since: float


@dataclass(slots=True)
class _Record:
    """What is remembered of one object. since: when it was first missing, guarded or different."""

    missing_since: float | None = None
    guarded_since: float | None = None
    drift_since: float | None = None
    drift: tuple[Difference, ...] = ()
    attempts: int = 0
    not_before: float = 0.0
    under_way: bool = False
    wanted: tuple[Wanted, Settings] | None = None


@dataclass(slots=True)
class Restoring:
    """The state of one term of leadership. grace: seconds; correct: whether drift is corrected."""

    grace: float
    correct: bool = False
    #: None: the ConfigMap does not exist, or cannot be read.
    release: Release | None = None
    live: dict[str, Live] = field(default_factory=dict)
    #: Kinds of which all objects are known.
    listed: set[str] = field(default_factory=set)
    _records: dict[str, _Record] = field(default_factory=dict)

    def off(self) -> str:
        """Why nothing is restored, empty = it may be."""
        if self.release is None:
            return "there is no ConfigMap that can be read"
        if self.release.terminating:
            return "its ConfigMap is being deleted"
        if self.release.off:
            return self.release.off
        known = (self.live.get(key) for key in self.release.objects)
        return next((live.off for live in known if live is not None and live.off), "")

    def decide(self, now: float) -> list[Action]:
        """What to do now; each action is reported by `began` and `ended`."""
        self._observe(now)
        release = self.release
        if release is None or self.off():
            return []
        return [
            action
            for key, wanted in release.objects.items()
            if (action := self._action(release, wanted, self._records[key], now)) is not None
        ]

    def wake(self, now: float) -> float:
        """When to decide again, if nothing happens before."""
        return min((at for at in self._moments() if at > now), default=float("inf"))

    def missing(self) -> int:
        """How many objects are missing."""
        return sum(record.missing_since is not None for record in self._records.values())

    def drift(self, now: float) -> Mapping[str, tuple[Difference, ...]]:
        """By object: what has differed for the grace period."""
        return {
            key: record.drift
            for key, record in self._records.items()
            if record.drift_since is not None and now >= record.drift_since + self.grace
        }

    def forget(self, kind: str) -> None:
        """Objects of this kind are no longer known."""
        self.listed.discard(kind)
        self.live = {key: live for key, live in self.live.items() if live.kind.name != kind}

    def began(self, action: Action) -> None:
        """The action is handed out."""
        self._records[action.wanted.key].under_way = True

    def ended(self, action: Action, now: float, *, dry_run: bool) -> None:
        """Its result has come; dry_run: that will be the same until something else changes."""
        record = self._records.get(action.wanted.key)
        if record is None:
            return
        record.under_way = False
        if action.task is Task.RELEASE:
            # If the watch still shows the owner it is tried again.
            record.guarded_since = float("inf") if dry_run else now
            return
        record.attempts += 1
        pause = delay_after(record.attempts, first=FIRST_PAUSE, longest=LONGEST_PAUSE)
        record.not_before = float("inf") if dry_run else now + pause

    # -- the parts of a decision -----------------------------------------------------------

    def _observe(self, now: float) -> None:
        """Take note since when each object is missing, guarded or different."""
        objects = {} if self.release is None else self.release.objects
        self._records = {key: self._records.get(key) or _Record() for key in objects}
        for key, wanted in objects.items():
            record, live = self._records[key], self.live.get(key)
            missing = live is None and wanted.kind.name in self.listed
            guarded = live is not None and self._guards(live)
            record.drift = self._drift_of(record, wanted, live)
            record.missing_since = _since(record.missing_since, missing, now)
            record.guarded_since = _since(record.guarded_since, guarded, now)
            record.drift_since = _since(record.drift_since, bool(record.drift), now)
            if live is not None and not record.drift and record.not_before == float("inf"):
                record.not_before = now
            if live is not None and now >= record.not_before + LASTED:
                record.attempts = 0

    def _guards(self, live: Live) -> bool:
        return self.release is not None and self.release.uid in live.guards

    def _drift_of(
        self, record: _Record, wanted: Wanted, live: Live | None
    ) -> tuple[Difference, ...]:
        if live is None or live.settings is None:
            return ()
        if record.wanted is None or record.wanted[0] is not wanted:
            record.wanted = wanted, settings_of(wanted.manifest)
        return differences(record.wanted[1], live.settings)

    def _action(
        self, release: Release, wanted: Wanted, record: _Record, now: float
    ) -> Action | None:
        if record.under_way:
            return None
        live, missing, guarded = (
            self.live.get(wanted.key),
            record.missing_since,
            record.guarded_since,
        )
        if missing is not None:
            due = now >= max(missing + self.grace, record.not_before)
            return Action(Task.RESTORE, wanted, release, None, missing) if due else None
        if live is not None and guarded is not None and now >= guarded + SETTLED:
            return Action(Task.RELEASE, wanted, release, live, guarded)
        differs = record.drift_since
        if self.correct and live is not None and differs is not None:
            due = now >= max(differs + self.grace, record.not_before)
            if due and not all(item.added for item in record.drift):
                return Action(Task.CORRECT, wanted, release, live, differs)
        return None

    def _moments(self) -> Iterator[float]:
        for record in self._records.values():
            if record.under_way:
                continue
            for since in (record.missing_since, record.drift_since):
                if since is not None:
                    yield max(since + self.grace, record.not_before)
                    yield since + self.grace
            if record.guarded_since is not None:
                yield record.guarded_since + SETTLED


def _since(before: float | None, holds: bool, now: float) -> float | None:
    if not holds:
        return None
    return now if before is None else before
