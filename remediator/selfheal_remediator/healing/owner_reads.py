"""When the owner of each pod is read: soon after its pods changed, and again after a failure. Pure.

A read that fails is repeated ever later, whatever its pods do meanwhile; each owner waits for
itself alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from selfheal_remediator.backoff import delay_after
from selfheal_remediator.healing.pod_health import WatchedPod

#: Seconds between a change of an owner's pods and the read.
SOON = 2.0
#: Seconds until a read that failed is repeated: first, and longest.
FIRST_RETRY, LONGEST_RETRY = 5.0, 300.0


@dataclass(slots=True)
class _Read:
    """One owner. pod: any of its pods; due: when it is read next, None = not by itself."""

    pod: WatchedPod
    due: float | None = None
    reading: bool = False
    failures: int = 0
    retry_at: float = 0.0


@dataclass(slots=True)
class OwnerReads:
    """The reads of all owners, by their uids. spread: a number from 0 to 1 for each failure."""

    spread: Callable[[], float]
    _all: dict[str, _Read] = field(default_factory=dict)

    def needed(self, pod: WatchedPod, now: float) -> None:
        """Nothing is known of the pod's owner: it is read at once, unless a read is due anyway."""
        one = self._all.setdefault(pod.owner_uid, _Read(pod))
        if one.due is None:
            one.due = max(now, one.retry_at)

    def changed(self, pod: WatchedPod, now: float) -> None:
        """A pod came or went: the owner's number of pods or its template may have changed."""
        one = self._all.setdefault(pod.owner_uid, _Read(pod))
        one.pod = pod
        soon = max(now + SOON, one.retry_at)
        one.due = soon if one.due is None else min(one.due, soon)

    def due(self, now: float) -> list[WatchedPod]:
        """A pod of each owner that is to be read now; they count as being read."""
        found = [
            one for one in self._all.values() if not one.reading and (one.due or now + 1) <= now
        ]
        for one in found:
            one.due, one.reading = None, True
        return [one.pod for one in found]

    def failures(self, uid: str) -> int:
        """How many reads of it have failed in a row."""
        one = self._all.get(uid)
        return one.failures if one is not None else 0

    def done(self, uid: str, again: float) -> None:
        """It was read; `again`: when it is to be read next, unless its pods change before."""
        one = self._all.get(uid)
        if one is not None:
            one.reading, one.failures, one.retry_at = False, 0, 0.0
            one.due = again if one.due is None else min(one.due, again)

    def failed(self, uid: str, now: float) -> float:
        """It could not be read; returns the seconds until it is tried again."""
        one = self._all.get(uid)
        if one is None:
            return 0.0
        one.reading, one.failures = False, one.failures + 1
        delay = delay_after(one.failures, first=FIRST_RETRY, longest=LONGEST_RETRY)
        delay *= 1.0 - 0.2 * self.spread()  # what failed together is not repeated together
        one.due = one.retry_at = now + delay
        return delay

    def forget(self, uid: str) -> None:
        """It is gone, or nobody needs it."""
        self._all.pop(uid, None)

    def clear(self) -> None:
        """Everything is read again."""
        self._all.clear()

    @property
    def wake(self) -> float | None:
        """When the next one is to be read."""
        moments = (one.due for one in self._all.values() if not one.reading)
        return min((moment for moment in moments if moment is not None), default=None)
