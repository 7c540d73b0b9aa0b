"""What must hold of what is configured beside the defaults; see `drain_habits` and `invariants`.
Quotations are of docs/features.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from selfheal_remediator.node.annotation import EXCLUDE_KEY, Phase
from selfheal_remediator.node.drain_conditions import DRAINED, IN_PROGRESS
from tests.simulation.cluster import conditions
from tests.simulation.cluster.messages import Json, unix
from tests.simulation.cluster.store import Change, Stored
from tests.simulation.remediator.drain_habits import ENDS, SINGLE, TAINT
from tests.simulation.remediator.invariants import Watcher
from tests.simulation.remediator.invariants_of_pods import SKEW
from tests.simulation.remediator.problems import Problem
from tests.simulation.remediator.scenes import UNINSTALLED
from tests.simulation.remediator.states import control_plane, state_of
from tests.simulation.remediator.world import World

#: A node that is Ready for so long (seconds) was not lately not Ready for a minute.
READY_FOR = 120.0


@dataclass(slots=True)
class Habits:
    """See the module."""

    world: World
    watcher: Watcher

    @classmethod
    def watch(cls, world: World, watcher: Watcher) -> Habits:
        """It watches from now on."""
        made = cls(world, watcher)
        world.cluster.store.subscribe(made.changed)
        return made

    def changed(self, change: Change) -> None:
        """The store has changed."""
        old, new = change.old, change.new
        if change.by not in self.watcher.replicas or old is None:
            return
        if change.key[0] == "pods":
            ends = new is None or new["metadata"].get("deletionTimestamp")
            if ends and not old["metadata"].get("deletionTimestamp"):
                self._check_completion(change.by, old)
        elif change.key[0] == "nodes" and new is not None and self.world.config.taint:
            self._check_taint(change.by, old, new)

    # -- pods that complete ------------------------------------------------------------------

    def _check_completion(self, by: str, pod: Stored) -> None:
        """ "A running pod of a Job [...] may complete until `drain.waitForCompletion.max` after the
        drain began"."""
        node = self.world.cluster.store.get("nodes", "", str(pod["spec"].get("nodeName") or ""))
        state = None if node is None else state_of(node)
        runs = ENDS in pod["metadata"]["labels"] and pod["status"].get("phase") == "Running"
        if not runs or node is None or state is None or state.phase is not Phase.DRAINING:
            return
        if self.watcher.evicted.restored or not _is_ready(node, self._now):
            return
        left = state.drain_started + self.world.config.drain.wait_for_completion.max - self._now
        if left > SKEW:
            what = f"{by} evicts {pod['metadata']['name']}, which may complete for {left:.0f} s"
            self.watcher.fail("jobs_may_complete", what)

    @property
    def _now(self) -> float:
        return self.world.cluster.store.clock()

    # -- the taint -----------------------------------------------------------------------------

    def _check_taint(self, by: str, old: Stored, new: Stored) -> None:
        """ "each node that the remediator cordons also gets this taint, until it is
        uncordoned." """
        before, after = _cordoned(old), _cordoned(new)
        name = new["metadata"]["name"]
        if after and not before and not _tainted(new):
            what = f"{by} cordons {name} without the taint"
            self.watcher.fail("cordoned_nodes_get_the_taint", what)
        state = state_of(old)
        if before and not after and _tainted(new) and state is not None and state.taint:
            what = f"{by} uncordons {name}, and its taint stays"
            self.watcher.fail("the_taint_goes_with_the_cordon", what)

    # -- at the end ------------------------------------------------------------------------------

    def settled(self) -> Iterator[Problem]:
        """What does not hold though nothing has gone wrong for long."""
        config = self.world.config
        if config.dry_run:
            return
        for raw in self.world.cluster.store.all("nodes"):
            excluded = EXCLUDE_KEY in (raw["metadata"].get("annotations") or {})
            if control_plane(raw) or excluded:
                continue
            if _tainted(raw) and not _cordoned(raw):
                what = f"{raw['metadata']['name']} has the taint, and is not cordoned by us"
                yield Problem("the_taint_goes_with_the_cordon", what)
            if config.drain.lifecycle_conditions:
                yield from _conditions(raw)
        if config.drain.surge:
            yield from self._surge()

    def _surge(self) -> Iterator[Problem]:
        """ "the new pod is ready on another node before the old one stops": then one is left."""
        raw = self.world.cluster.store.get("deployments", "default", SINGLE)
        pods = [
            pod["metadata"]["name"]
            for pod in self.world.pods.of(SINGLE)
            if not pod["metadata"].get("deletionTimestamp")
            if pod["status"].get("phase") in ("Pending", "Running")
        ]
        if raw is not None and len(pods) != int(raw["spec"]["replicas"]):
            what = f"{SINGLE} has {pods}, not {raw['spec']['replicas']}"
            yield Problem("a_surge_leaves_no_pod", what)


def _conditions(raw: Json) -> Iterator[Problem]:
    """ "`DrainInProgress` is True while pods are evicted, `Drained` from then until the node is
    uncordoned; then both are removed, as they are when the drain is given up." """
    state, name = state_of(raw), raw["metadata"]["name"]
    phase = state.phase if state is not None else None
    if state is not None and state.by == UNINSTALLED:
        return  # somebody has written over ours
    found = conditions.status_of(raw, IN_PROGRESS), conditions.status_of(raw, DRAINED)
    if phase in (Phase.VERIFYING, Phase.REPAIR_FAILED):
        return  # it may have been drained, or not
    wanted = ("", "")
    if phase is Phase.DRAINING:
        wanted = "True", "False"
    elif phase in (Phase.DRAINED, Phase.REPAIRING):
        wanted = "False", "True"
    if found != wanted:
        what = f"{name}, {phase and phase.value}, has {IN_PROGRESS} and {DRAINED} {found}"
        yield Problem("conditions_say_how_far_the_drain_is", what)


def _is_ready(node: Json, now: float) -> bool:
    found = conditions.find(node, "Ready")
    if found is None or found["status"] != "True":
        return False
    return now - unix(found["lastTransitionTime"]) > READY_FOR


def _cordoned(raw: Json) -> bool:
    state = state_of(raw)
    return state is not None and state.phase.cordoned


def _tainted(raw: Json) -> bool:
    return any(taint["key"] == TAINT for taint in raw["spec"].get("taints") or ())
