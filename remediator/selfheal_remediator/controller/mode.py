"""The configuration that is acted by: as configured, but dryRun while it only observes. Pure.

The main thread alone changes it; other threads read `config`.
"""

from __future__ import annotations

from collections.abc import Mapping

from selfheal_remediator.config import Config
from selfheal_remediator.kube import observe_first
from selfheal_remediator.kube.fields import time_text


class Mode:
    """See the module and kube/observe_first.py."""

    def __init__(self, config: Config, now: float) -> None:
        self.configured = config
        self.first_start = observe_first.FirstStart()
        #: Whether this process has reported that it observes.
        self.reported_observing = False
        #: What is acted by.
        self.config = self.wanted(now)

    def read(self, annotations: Mapping[str, str], now: float) -> None:
        """What the Lease says of the installation's first start."""
        self.first_start.read(annotations, now)

    def wanted(self, now: float) -> Config:
        """What is to be acted by now."""
        return observe_first.effective(self.configured, self.first_start.counts, now)

    def observes_until(self, now: float) -> float | None:
        """When it begins to enforce; None = it does not observe now."""
        until = observe_first.observing_until(self.configured, self.first_start.counts)
        return until if until is not None and until > now else None

    @property
    def known(self) -> bool:
        """Whether the Lease was read: before that it observes, but does not say so."""
        return self.first_start.counts is not None


def start_text(moment: float) -> str:
    """When it begins to enforce, for people."""
    return "its first start is known" if moment == float("inf") else time_text(moment)
