"""The namespace controller: what is in a namespace that is deleted goes first (pkg/controller/
namespace). Until it is empty nothing can be created in it."""

from __future__ import annotations

from tests.simulation.cluster.deletion import delete
from tests.simulation.cluster.messages import Simulation
from tests.simulation.cluster.resources import RESOURCES
from tests.simulation.cluster.store import Change, Store, key_of
from tests.simulation.cluster.work_queue import WorkQueue

#: Seconds until it is checked again whether a namespace is empty.
AGAIN = 5.0
_NAME = "namespace-controller"


class Namespaces:
    """See the module."""

    def __init__(self, simulation: Simulation, store: Store) -> None:
        self._store = store
        self.queue: WorkQueue[str] = WorkQueue(simulation, self._sync)
        store.subscribe(self._changed)

    def _changed(self, change: Change) -> None:
        if change.key[0] == "namespaces" and change.new is not None:
            self.queue.add(change.key[2])

    def _sync(self, name: str) -> None:
        raw = self._store.get("namespaces", "", name)
        if raw is None or raw["metadata"].get("deletionTimestamp") is None:
            return
        left = [
            key_of(found)
            for plural, resource in RESOURCES.items()
            if resource.namespaced
            for found in self._store.all(plural, name)
        ]
        for key in left:
            delete(self._store, key, {}, _NAME)
        if any(self._store.get(*key) is not None for key in left):
            self.queue.add(name, AGAIN)
        else:
            self._store.remove(("namespaces", "", name), _NAME)
