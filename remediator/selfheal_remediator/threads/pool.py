"""Daemon threads that carry out blocking requests; started as they are needed.

Each purpose has its own threads, so that hanging requests delay only their own kind: an
eviction may take 35 s, and must delay neither a cordon nor the restart of a hung pod.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from enum import Enum

from selfheal_remediator.threads import supervision
from selfheal_remediator.threads.runtime import REAL, Runtime

log = logging.getLogger(__name__)

Job = Callable[[], None]
#: Hands a job to the thread that owns all state.
Post = Callable[[Job], None]


class Purpose(Enum):
    """What a job is for; jobs of different purposes never wait for each other."""

    #: Cordons, uncordons, annotations, and the fresh reads that they need.
    NODES = "nodes"
    #: Evictions and deletions of drains, by node.
    EVICTIONS = "evictions"
    #: Restarts of pods under a HealingPolicy, by policy.
    RESTARTS = "restarts"
    #: Reads of owners and of other systems, and writes of a status.
    LOOKUPS = "lookups"


class Workers:
    """At most `limit` jobs of each purpose at a time. Nothing waits for them at exit.

    Jobs of one purpose and one key run in order of arrival. Of several keys the one with the
    fewest jobs under way is next, and the last quarter of the places is kept for keys that have
    none under way: the hanging evictions of one node do not hold up another node's drain.
    """

    def __init__(self, limit: int, *, runtime: Runtime = REAL) -> None:
        self.limit, self.runtime = limit, runtime
        self._pools = {purpose: _Pool(purpose.value, limit, runtime) for purpose in Purpose}

    def submit(self, job: Job, purpose: Purpose = Purpose.NODES, key: str = "") -> None:
        """Run the job soon; it settles its own errors (what escapes is logged and counted)."""
        self._pools[purpose].submit(job, key)


class _Pool:
    """The threads of one purpose."""

    def __init__(self, name: str, limit: int, runtime: Runtime) -> None:
        self._name, self._limit, self._reserve = name, limit, limit // 4
        self._runtime = runtime
        self._changed = runtime.condition()
        self._waiting: dict[str, deque[Job]] = {}
        self._running: Counter[str] = Counter()
        self._threads = 0
        self._idle = 0

    def submit(self, job: Job, key: str) -> None:
        with self._changed:
            self._waiting.setdefault(key, deque()).append(job)
            if self._next() is None:
                return  # as many as may be are under way: taken up when one of them ends
            if self._idle > 0:
                self._idle -= 1  # here, or a second job would count on the same thread
                self._changed.notify()
            elif self._threads < self._limit:
                self._start_thread()

    def _start_thread(self) -> None:
        try:
            self._runtime.start(f"worker-{self._name}", self._run)
        except RuntimeError as error:
            if self._threads == 0:
                raise  # nobody would carry the job out: the process ends
            log.warning("no more threads for %s: %s", self._name, error)
            return
        self._threads += 1

    def _next(self) -> str | None:
        """The key whose job may run now, None = none may."""
        if not self._waiting:
            return None
        free = self._limit - self._running.total()
        key = min(self._waiting, key=lambda key: self._running[key])
        # A single key may have all places but the reserve; jobs without a key may have them all.
        if free > (self._reserve if key and self._running[key] else 0):
            return key
        return "" if free > 0 and "" in self._waiting else None

    def _take(self) -> tuple[str, Job]:
        with self._changed:
            while (key := self._next()) is None:
                self._idle += 1
                self._changed.wait()
            jobs = self._waiting[key]
            job = jobs.popleft()
            if not jobs:
                del self._waiting[key]
            else:
                self._waiting[key] = self._waiting.pop(key)  # equals take turns
            self._running[key] += 1
            return key, job

    def _ended(self, key: str) -> None:
        with self._changed:
            self._running[key] -= 1
            if not self._running[key]:
                del self._running[key]

    def _run(self) -> None:
        while True:
            key, job = self._take()
            try:
                job()
            except BaseException as error:  # noqa: BLE001
                supervision.failed(
                    f"worker-{self._name}",
                    error,
                    "the job is not carried out",
                    runtime=self._runtime,
                )
            self._ended(key)
