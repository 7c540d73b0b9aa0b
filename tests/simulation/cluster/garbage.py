"""The garbage collector: what an object owned goes after it (pkg/controller/garbagecollector)."""

from __future__ import annotations

from tests.simulation.cluster.deletion import delete
from tests.simulation.cluster.messages import Simulation
from tests.simulation.cluster.store import Change, Store, key_of
from tests.simulation.cluster.work_queue import WorkQueue


class GarbageCollector:
    """In the background: the owner goes first."""

    def __init__(self, simulation: Simulation, store: Store) -> None:
        self._store = store
        self.queue: WorkQueue[str] = WorkQueue(simulation, self._sync, (0.05, 0.5))
        store.subscribe(self._changed)

    def _changed(self, change: Change) -> None:
        if change.new is None:
            self.queue.add(change.last["metadata"]["uid"])

    def _sync(self, uid: str) -> None:
        for raw in self._store.owned_by(uid):
            delete(self._store, key_of(raw), {}, "garbage-collector")
