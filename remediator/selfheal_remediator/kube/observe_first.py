"""Whether a remediator enforces yet: an installation first only reports what it would do. Pure.

The first start is stored on the Lease, where restarts, upgrades and other leaders find it. It is
written once, by the first process that takes the Lease; an uninstall empties it, and the next
installation starts from scratch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from selfheal_remediator.config import Config
from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.kube.json_values import timestamp

#: When the installation was first started (RFC 3339); empty = start from scratch.
FIRST_START_KEY = "selfheal.dev/first-start"
#: The first start of an installation that is older than the annotation.
LONG_AGO = "1970-01-01T00:00:00Z"
_OURS = "selfheal.dev/"


def first_start(annotations: Mapping[str, str]) -> float | None:
    """Seconds since the epoch, None = the Lease does not say."""
    try:
        return timestamp(annotations.get(FIRST_START_KEY) or None)
    except ValueError:
        return None


@dataclass(slots=True)
class FirstStart:
    """The first start as one process knows it. counts: since the epoch, None = not known."""

    counts: float | None = None
    _read: float | None = None

    def read(self, annotations: Mapping[str, str], now: float) -> None:
        """Read the first start from the Lease.

        A value that was read once still counts if somebody removes it. A future value was written
        by a clock that was ahead, and would extend the period: it counts as now.
        """
        first = first_start(annotations)
        if first is not None and first != self._read:
            self._read, self.counts = first, min(first, now)


def annotation_to_write(
    annotations: Mapping[str, str] | None, *, was_held: bool, now: float, known: str = ""
) -> str | None:
    """The first start to write when taking the Lease; None = it is known.

    annotations: the Lease's, None = there is no Lease yet. was_held: whether anybody ever held it:
    then the installation did enforce before there was this annotation. known: what this process
    read there before: somebody deleted the Lease or the annotation, and it is written again.
    """
    here = annotations or {}
    if first_start(here) is not None:
        return None
    if known and FIRST_START_KEY not in here:
        return known
    if FIRST_START_KEY not in here and (was_held or any(key.startswith(_OURS) for key in here)):
        return LONG_AGO
    return time_text(now)


def observing_until(config: Config, first: float | None) -> float | None:
    """When it begins to enforce; None = it does not observe first.

    first: the first start, None = not known (yet), which is for ever.
    """
    if config.dry_run or not config.observe_first:
        return None
    return float("inf") if first is None else first + config.observe_first


def effective(config: Config, first: float | None, now: float) -> Config:
    """The configuration to act by: dryRun while it observes."""
    until = observing_until(config, first)
    if until is None or now >= until:
        return config
    return config.model_copy(update={"mode": "dryRun"})
