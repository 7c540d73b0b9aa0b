"""Whether a drain makes progress, and when one that yielded its slot requests one. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from selfheal_remediator.backoff import delay_after

#: Without any progress for so long (seconds) a drain stands still.
STANDSTILL_AFTER = 60.0
#: Seconds without a slot before it requests one, by consecutive times that it yielded its own:
#: first and longest, where something has changed and where only a new attempt can tell.
CHANGED = (10.0, 600.0)
UNCHANGED = (300.0, 1800.0)


@dataclass(slots=True)
class Standstill:
    """One drain's progress. seen: its pods at the last evaluation."""

    seen: Hashable = None
    progress_at: float = 0.0
    #: When it gave its slot away, None = it has one; how often in a row without progress since.
    yielded_at: float | None = None
    times: int = 0

    def observe(self, seen: Hashable, now: float) -> None:
        """Any change of the present and terminating pods is progress."""
        if seen != self.seen:
            self.seen, self.progress_at = seen, now
            self.times = self.times if self.yielded_at is not None else 0

    @property
    def due(self) -> float:
        """When it stands still, if nothing changes."""
        return self.progress_at + STANDSTILL_AFTER

    def since(self, now: float, *, stuck: bool) -> float | None:
        """Since when it stands still; None = it does not. stuck: each pod is."""
        if not stuck or now < self.due:
            return None
        return self.progress_at

    def yield_slot(self, now: float) -> None:
        """Its slot goes to another drain."""
        self.times = self.times + 1 if self.yielded_at is None else self.times
        self.yielded_at = now

    def regain_slot(self, now: float) -> None:
        """It has a slot again, and time to use it."""
        self.yielded_at, self.progress_at = None, now

    def requests_at(self, *, changed: bool) -> float | None:
        """When it requests a slot; None = it has one."""
        if self.yielded_at is None:
            return None
        first, longest = CHANGED if changed else UNCHANGED
        return self.yielded_at + delay_after(self.times, first=first, longest=longest)
