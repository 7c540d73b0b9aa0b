"""A clock that stands still until the servers of a test have been asked.

A call with a short deadline fails otherwise where it did not get as far as its server in time, as
on a machine that has no time for it.
"""

from __future__ import annotations

import threading
import time

import pytest

from selfheal_worker.runtime import REAL


class HeldClock:
    """The runtime's monotonic clock for those who are built after it; askers: how many must ask."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, askers: int = 1) -> None:
        self._at = time.monotonic()
        self._began: float | None = None
        self._askers = askers
        self._asked: set[object] = set()
        self._lock = threading.Lock()
        monkeypatch.setattr(REAL, "monotonic", self)

    def __call__(self) -> float:
        began = self._began
        return self._at if began is None else self._at + time.monotonic() - began

    def asked(self, who: object) -> None:
        """One of the askers is there; with the last of them the clock begins to run."""
        with self._lock:
            self._asked.add(who)
            if self._began is None and len(self._asked) >= self._askers:
                self._began = time.monotonic()
