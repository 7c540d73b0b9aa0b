"""How much of its deadline a drain has used, or of its timeout a step of a ladder, without a clock
of anybody else. Pure.

Only time in which it may do its work counts, by the clock of the process that leads. A new leader
cannot compare its clock with the one that wrote when the drain began: the node carries the seconds
that were used, written now and then, and a takeover adds at most the time since they were written.
"""

from __future__ import annotations

from dataclasses import dataclass

#: What is taken over has at least so long (seconds), or its whole deadline if that is less.
#: Whatever the annotation says, pods are evicted before any is deleted, and a step is begun before
#: it fails.
LEAST_LEFT = 60.0
#: The used seconds are written so many times within a deadline, at least so far apart (seconds).
NOTES, NOTE_EVERY = 6, 60.0


def time_left(limit: float, used: float) -> float:
    """Seconds until the deadline of what is taken over."""
    return max(limit - max(0.0, used), min(LEAST_LEFT, limit))


def first_eviction(cordoned: float, delay: float, now: float) -> float:
    """When a drain may evict its first pod, by our clock, at the earliest; delay: drain.delay.

    cordoned: as the annotation has it, in whole seconds, by the clock of whoever wrote it.
    """
    return min(cordoned + 1 + delay, now + delay) if delay else now


@dataclass(slots=True)
class WorkClock:
    """limit: the whole deadline in seconds; noted: the used ones as written down last; idle_at: up
    to when idle time is credited, None = it is not idle."""

    limit: float
    noted: float = 0.0
    idle_at: float | None = None

    def credit(self, now: float, *, idle: bool) -> float:
        """Seconds to add to the deadline: the idle ones since the last call."""
        idled = self.owed(now)
        self.idle_at = now if idle else None
        return idled

    def owed(self, now: float) -> float:
        """Idle seconds that are not credited yet."""
        return 0.0 if self.idle_at is None else max(0.0, now - self.idle_at)

    def used(self, deadline: float, now: float) -> float:
        """Seconds used until now; `deadline` is our clock, with the credits made until now."""
        return min(max(0.0, self.limit - (deadline + self.owed(now) - now)), self.limit)

    def to_note(self, deadline: float, now: float) -> int | None:
        """The used seconds, when they are to be written down again; else None."""
        used = self.used(deadline, now)
        step = max(NOTE_EVERY, self.limit / NOTES)
        return int(used) if used - self.noted >= step else None
