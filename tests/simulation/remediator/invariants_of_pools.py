"""What must hold of node pools, and of pods that fit nowhere else; see `invariants`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from selfheal_remediator.node.annotation import Phase
from tests.simulation.cluster.autoscaler import DISRUPTED, TO_BE_DELETED
from tests.simulation.cluster.messages import Json
from tests.simulation.cluster.store import Change
from tests.simulation.remediator.invariants import Watcher, control_plane, state_of
from tests.simulation.remediator.pools import GPU, LABEL
from tests.simulation.remediator.world import World


@dataclass(slots=True)
class Pools:
    """See the module. fail(invariant, what): something does not hold. sizes: the largest number of
    nodes that each pool ever had; scales: whether an autoscaler has shown itself."""

    world: World
    replicas: frozenset[str]
    fail: Callable[[str, str], None]
    sizes: Counter[str] = field(default_factory=Counter)
    scales: bool = False

    @classmethod
    def watch(cls, world: World, watcher: Watcher) -> Pools:
        """It watches from now on."""
        made = cls(world, watcher.replicas, watcher.fail)
        made.count()
        for node in world.cluster.store.all("nodes"):
            made.scales = made.scales or _shows_autoscaler(node)
        world.cluster.store.subscribe(made.changed)
        return made

    def count(self) -> None:
        """Take in the pools of the nodes that are there."""
        nodes = self.world.cluster.store.all("nodes")
        self.sizes |= Counter(_pool(node) for node in nodes if not control_plane(node))

    def changed(self, change: Change) -> None:
        """The store has changed."""
        old, new = change.old, change.new
        if change.key[0] == "nodes":
            self.scales = self.scales or _shows_autoscaler(change.last)
            if old is None or new is None:
                self.count()
            elif change.by in self.replicas and _ours(new) and not _ours(old):
                self._check_cordon(change.by, new)
        elif change.key[0] == "configmaps" or change.by == "karpenter-leader-election":
            self.scales = True
        elif change.key[0] == "pods" and change.by in self.replicas and old is not None:
            self._check_room(change.by, old)

    def _check_cordon(self, by: str, node: Json) -> None:
        """README, limits: maxUnavailablePerGroup."""
        limit, pool = self.world.config.limits.max_unavailable_per_group, _pool(node)
        if limit is None:
            return
        nodes = self.world.cluster.store.all("nodes")
        ours = [one for one in nodes if _pool(one) == pool and _ours(one)]
        allowed = max(limit.of(self.sizes[pool]), 1)
        if len(ours) > allowed:
            name = node["metadata"]["name"]
            what = f"{by} cordons {name}: {len(ours)} of {allowed} in the pool {pool!r}"
            self.fail("max_unavailable_per_group", what)

    def _check_room(self, by: str, pod: Json) -> None:
        """features: a node whose pods fit nowhere else is cordoned, not drained, where no
        autoscaler makes nodes. Until faults stop only one node has GPUs."""
        node = self.world.cluster.store.get("nodes", "", str(pod["spec"].get("nodeName") or ""))
        state = None if node is None else state_of(node)
        drains = state is not None and state.phase is Phase.DRAINING
        others = [one for one in self.world.cluster.store.all("nodes") if one is not node]
        room = self.scales or any(GPU in one["status"]["allocatable"] for one in others)
        if drains and _uses_gpu(pod) and self.world.config.drain.headroom and not room:
            what = f"{by} evicts {pod['metadata']['name']}, which fits nowhere else"
            self.fail("pods_have_room", what)


def _pool(node: Json) -> str:
    return str((node["metadata"].get("labels") or {}).get(LABEL, ""))


def _ours(node: Json) -> bool:
    state = state_of(node)
    return bool(node["spec"].get("unschedulable")) and state is not None and state.phase.cordoned


def _shows_autoscaler(node: Json) -> bool:
    taints = {taint["key"] for taint in node["spec"].get("taints") or ()}
    labels = node["metadata"].get("labels") or {}
    return bool(taints & {TO_BE_DELETED, DISRUPTED}) or "karpenter.sh/nodepool" in labels


def _uses_gpu(pod: Json) -> bool:
    return any(
        GPU in ((one.get("resources") or {}).get("requests") or {})
        for one in pod["spec"]["containers"]
    )
