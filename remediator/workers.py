"""Daemon threads that carry out blocking requests; started as they are needed."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

Job = Callable[[], None]
#: Hands a job to the thread that owns all state.
Post = Callable[[Job], None]


class Workers:
    """At most `limit` jobs at a time, in order of arrival. Nothing waits for them at exit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0

    def submit(self, job: Job) -> None:
        """Run the job soon; it handles its own errors (what escapes is logged)."""
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
            elif self._threads < self._limit:
                self._threads += 1
                threading.Thread(target=self._run, name="worker", daemon=True).start()
        self._jobs.put(job)

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                job()
            except Exception:
                log.exception("a job failed in a way that nobody foresaw")
            with self._lock:
                self._idle += 1
