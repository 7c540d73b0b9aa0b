"""The main loop's inbox: everything that changes state arrives here as a job.

Any thread may `post`; the main thread alone runs the jobs.
"""

from __future__ import annotations

from selfheal_remediator.threads.pool import Job
from selfheal_remediator.threads.runtime import REAL, Empty, Queue, Runtime

#: So many jobs are run before the loop ticks again.
MAX_BATCH = 500


class Clock:
    """Seconds since the epoch that never jump: the wall clock at the start, then monotonic."""

    def __init__(self, *, runtime: Runtime = REAL) -> None:
        self._monotonic = runtime.monotonic
        self._offset = runtime.time() - runtime.monotonic()

    def __call__(self) -> float:
        return self._monotonic() + self._offset


class Inbox:
    """See the module."""

    def __init__(self, *, runtime: Runtime = REAL) -> None:
        #: Of Job.
        self._jobs: Queue = runtime.queue()

    def post(self, job: Job) -> None:
        """Have the main loop run this next; callable from any thread and from a signal handler."""
        self._jobs.put(job)

    def wake(self) -> None:
        """End the main loop's wait; callable from any thread and from a signal handler."""
        self._jobs.put(_nothing)

    def run_jobs(self, timeout: float) -> None:
        """In the main thread: wait so many seconds for a job, then run all that have come."""
        try:
            job = self._jobs.get(timeout=timeout) if timeout else self._jobs.get_nowait()
        except Empty:
            return
        for _ in range(MAX_BATCH):
            job()
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return
        job()


def _nothing() -> None:
    """The job that only ends a wait."""
