"""What must hold of each pod that the remediator has evicted; see `invariants`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from selfheal_remediator.kube.objects import node_from_json
from selfheal_remediator.node.annotation import Phase, Unreadable, read_state
from tests.simulation.cluster.messages import Json, unix
from tests.simulation.cluster.selectors import controller_of
from tests.simulation.remediator.pods import SETTLED, app_of
from tests.simulation.remediator.world import World

HOUR = 3600.0
#: A drain from which a pod was evicted so lately (seconds) makes progress: it has its place.
UNDER_WAY = 20.0
#: Clocks of the machines differ by at most so much (seconds).
SKEW = 45.0
_HASHES = ("pod-template-hash", "controller-revision-hash")


@dataclass(slots=True)
class Evicted:
    """fail(invariant, what): something does not hold."""

    world: World
    fail: Callable[[str, str], None]
    #: When pods were evicted, by node and process, and restarted, by owner.
    drained: dict[str, tuple[float, str]] = field(default_factory=dict)
    restarts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    restored: bool = False
    #: Until when a drain may continue though its node's cordon was lost: etcd went back in time.
    doubtful_until: float = 0.0

    def pod(self, old: Json, by: str) -> None:
        """A pod was evicted, or deleted."""
        name = str(old["spec"].get("nodeName") or "")
        node = self.world.cluster.store.get("nodes", "", name)
        if node is None:
            return
        drains = _phase(node)
        if self.world.simulation.now < self.doubtful_until:
            return
        if drains is None or not drains.cordoned:
            self._restarted(old, name, by)
        else:
            self._daemon(old, name, by)
            if drains is Phase.DRAINING:
                self._drained(name, by)

    # -- restarts -------------------------------------------------------------------------

    def _restarted(self, old: Json, node: str, by: str) -> None:
        app, now, name = app_of(old), self.world.simulation.now, old["metadata"]["name"]
        spec = self.world.policies.get(app)
        if spec is None:
            # README: pods are evicted from nodes that it drains, and where a policy says so.
            self.fail("evictions_have_a_reason", f"{by} evicts {name} from {node}, in service")
            return
        ready = _ready_for(old, self.world.cluster.store.clock())
        if ready > SETTLED and not self.world.pods.is_unwell(old):
            # README: "Unhealthy pods are evicted".
            self.fail("healthy_pods_stay", f"{by} restarts {name}, which is healthy")
        owner = controller_of(old)
        labels = old["metadata"].get("labels") or {}
        template = next((labels[key] for key in _HASHES if key in labels), "")
        key = f"{owner['uid'] if owner else ''}/{template}"
        self.restarts[key] = [at for at in self.restarts[key] if at > now - HOUR] + [now]
        allowed = spec["restart"]["maxPerHour"]
        if len(self.restarts[key]) > allowed and not self.restored:
            # README: "After maxPerHour restarts the policy gives up".
            times = len(self.restarts[key])
            self.fail("restart_budget", f"{by} restarts {name}: {times} of {allowed} in an hour")

    # -- drains ---------------------------------------------------------------------------

    def _daemon(self, pod: Json, node: str, by: str) -> None:
        """docs/traps.md: "A DaemonSet's pod stays while that DaemonSet (uid) exists"."""
        owner, namespace = controller_of(pod), pod["metadata"]["namespace"]
        if owner is None or owner["kind"] != "DaemonSet":
            return
        there = self.world.cluster.store.get("daemonsets", namespace, owner["name"])
        if there is not None and there["metadata"]["uid"] == owner["uid"]:
            what = f"{by} evicts {pod['metadata']['name']} of a DaemonSet from {node}"
            self.fail("daemon_pods_stay", what)

    def _drained(self, node: str, by: str) -> None:
        """README, limits: maxDraining. A drain without progress gives its place away."""
        now, store = self.world.simulation.now, self.world.cluster.store
        under_way = [node]
        for other, (when, who) in self.drained.items():
            raw = store.get("nodes", "", other)
            if other == node or raw is None or who != by or now - when > UNDER_WAY:
                continue
            if _phase(raw) is Phase.DRAINING and not self._late(raw):
                under_way.append(other)
        self.drained[node] = (now, by)
        allowed = self.world.config.limits.max_draining
        raw = store.get("nodes", "", node)
        if len(under_way) > allowed and raw is not None and not self._late(raw):
            self.fail("max_draining", f"{by} drains {under_way}, {allowed} may be drained")

    def _late(self, node: Json) -> bool:
        """Whether its drain may be past its deadline."""
        started = read_state(node_from_json(node))
        if started is None:
            return True
        end = started.drain_started + self.world.config.drain.deadline
        return self.world.cluster.store.clock() > end - SKEW

    def deleted(self, node: str, by: str, pod: str) -> None:
        """A pod was deleted past the Eviction API: README, only after the deadline."""
        raw = self.world.cluster.store.get("nodes", "", node)
        state = None if raw is None else read_state(node_from_json(raw))
        if state is None or state.phase is not Phase.DRAINING:
            return
        end = state.drain_started + self.world.config.drain.deadline
        left = end - self.world.cluster.store.clock()
        if left > SKEW:
            what = f"{by} deletes {pod} {left:.0f} s before the deadline of {node}"
            self.fail("deletions_wait_for_the_deadline", what)


def _phase(node: Json) -> Phase | None:
    try:
        state = read_state(node_from_json(node))
    except Unreadable:
        return None
    return state.phase if state is not None else None


def _ready_for(pod: Json, now: float) -> float:
    """For how long it is ready, 0 = it is not."""
    for item in pod["status"].get("conditions") or ():
        if item["type"] == "Ready" and item["status"] == "True":
            return now - unix(item["lastTransitionTime"])
    return 0.0
