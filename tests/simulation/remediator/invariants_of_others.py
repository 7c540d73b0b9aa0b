"""What must hold of nodes that other systems change, and of drained ones; see `invariants`."""

from __future__ import annotations

from dataclasses import dataclass

from selfheal_remediator.node.annotation import Phase
from tests.simulation.cluster.external_systems import KURED
from tests.simulation.cluster.messages import Json
from tests.simulation.cluster.store import Change
from tests.simulation.remediator.invariants import Watcher, state_of
from tests.simulation.remediator.others import FINALIZER, MARKS
from tests.simulation.remediator.world import World


@dataclass(slots=True)
class Others:
    """See the module. fail(invariant, what): something does not hold."""

    world: World
    watcher: Watcher

    @classmethod
    def watch(cls, world: World, watcher: Watcher) -> Others:
        """It watches from now on."""
        made = cls(world, watcher)
        world.cluster.store.subscribe(made.changed)
        return made

    def changed(self, change: Change) -> None:
        """The store has changed."""
        old, new = change.old, change.new
        ours = change.by in self.watcher.replicas
        if change.key[0] != "nodes" or not ours or old is None or new is None:
            return
        if new["spec"].get("unschedulable") and not old["spec"].get("unschedulable"):
            self._check_marks(change.by, old)
        before, after = state_of(old), state_of(new)
        is_drained = after is not None and after.phase is Phase.DRAINED
        if is_drained and (before is None or before.phase is not Phase.DRAINED):
            self._check_empty(change.by, change.key[2])

    def _check_marks(self, by: str, node: Json) -> None:
        """features: nodes that another system is changing are left to it."""
        taints = {taint["key"] for taint in node["spec"].get("taints") or ()}
        marks = taints & set(MARKS)
        if KURED in (node["metadata"].get("annotations") or {}):
            marks.add(KURED)
        if marks:
            what = f"{by} cordons {node['metadata']['name']}, which has {sorted(marks)}"
            self.watcher.fail("marked_nodes_are_left", what)

    def _check_empty(self, by: str, node: str) -> None:
        """ARCHITECTURE: drained is a node from which the pods are gone, not only their
        containers."""
        if self.watcher.evicted.restored:
            return
        held = [
            pod["metadata"]["name"]
            for pod in self.world.cluster.store.pods_on(node)
            if FINALIZER in (pod["metadata"].get("finalizers") or ())
        ]
        if held:
            self.watcher.fail("drained_nodes_are_empty", f"{by} has drained {node}, with {held}")
