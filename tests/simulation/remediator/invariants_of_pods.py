"""What must hold of each pod that the remediator has evicted; see `invariants`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from selfheal_remediator.kube.objects import node_from_json
from selfheal_remediator.node.annotation import Phase, Unreadable, read_state
from tests.simulation.cluster.messages import Json, unix
from tests.simulation.cluster.selectors import controller_of
from tests.simulation.remediator.pods import SETTLED, app_of
from tests.simulation.remediator.world import World

HOUR = 3600.0
#: Pods of one owner that return to a cordoned node and are evicted again, at most.
MOST_RETURNS = 3
BACKOFF = "backoff", "maxBackoff"
#: An owner whose pods were healthy for so long (seconds) starts from scratch.
HEALTHY_FOR = 600.0
#: Moments are written down, and compared, in whole seconds.
GRAIN = 2.0
#: A drain gives its slot away after a minute without progress (seconds), not before.
YIELDS = 58.0
#: A drain from which a pod was evicted so lately (seconds) makes progress: it has its slot.
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
    #: Which pods (uids) there were when a node (name) was cordoned, or its drain began; how many
    #: that were made since have been evicted, by node and owner (uid).
    before: dict[str, frozenset[str]] = field(default_factory=dict)
    returns: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: Which owners (uids) have lost a pod of a cordoned node (name).
    lost: set[tuple[str, str]] = field(default_factory=set)
    #: When the drain of a node (uid) began.
    begun: dict[str, float] = field(default_factory=dict)
    restored: bool = False
    #: When a person resumed the remediator last, or etcd went back in time: restarts are forgotten.
    resumed: float = float("-inf")
    #: Until when a drain may continue though its node's cordon was lost: etcd went back in time.
    doubtful_until: float = 0.0

    def went_back(self) -> None:
        """etcd went back in time: what was written down since then is forgotten."""
        self.restored, self.resumed = True, self.world.simulation.now
        self.before.clear()
        self.begun.clear()

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
        self._check_backoff(spec, self.restarts[key], name, by)
        if len(self.restarts[key]) > allowed and not self.restored:
            # README: "After maxPerHour restarts the policy gives up".
            times = len(self.restarts[key])
            self.fail("restart_budget", f"{by} restarts {name}: {times} of {allowed} in an hour")

    def _check_backoff(self, spec: Json, restarts: list[float], name: str, by: str) -> None:
        """docs, HealingPolicy: after restarts in a row, less than ten minutes apart, the next
        one waits for `backoff`, twice as long for each, at most `maxBackoff`."""
        first, longest = (float(spec["restart"][key].rstrip("s")) for key in BACKOFF)
        row = 1  # with a person's `resume` all begins again
        for before, after in pairwise([at for at in restarts if at >= self.resumed]):
            row = row + 1 if after - before < HEALTHY_FOR else 1
        if row < 2:
            return
        pause, needed = restarts[-1] - restarts[-2], min(longest, first * 2.0 ** (row - 2))
        if pause < needed - GRAIN:
            what = f"{by} restarts {name} {pause:.0f} s after the last of {row - 1} restarts"
            self.fail("restart_backoff", f"{what}, not {needed:.0f} s")

    # -- drains ---------------------------------------------------------------------------

    def began(self, node: Json, by: str) -> None:
        """README, limits: maxDraining. The drain of a node begins. Another one gives its slot away
        only after a minute without progress."""
        store, now, limits = (
            self.world.cluster.store,
            self.world.simulation.now,
            self.world.config.limits,
        )
        if now < self.doubtful_until:
            return
        self.begun[node["metadata"]["uid"]] = now
        name = str(node["metadata"]["name"])
        self.before[name] = self.before.get(name, frozenset()) | self._pods()
        under_way = [
            one
            for one in store.all("nodes")
            if _phase(one) is Phase.DRAINING
            and now - self.begun.get(one["metadata"]["uid"], float("-inf")) < YIELDS
        ]
        label, most = limits.group_label, limits.max_draining_per_group
        pool = [one for one in under_way if _label(one, label) == _label(node, label)]
        if len(under_way) > limits.max_draining or (most and len(pool) > most):
            names = [one["metadata"]["name"] for one in under_way]
            self.fail("max_draining", f"{by} begins a drain: {names} are drained")

    def returned(self, pod: Json, owner: Json, node: str, by: str) -> None:
        """docs/traps.md: "Returned pods are counted from the first one, [...] across leaders. An
        owner whose pods keep returning is reported and its pods stay." """
        before, known = self.before.get(node), (node, owner["uid"]) in self.lost
        self.lost.add((node, owner["uid"]))
        if before is None or pod["metadata"]["uid"] in before or not known:
            return
        self.returns[node, owner["uid"]] += 1
        if self.returns[node, owner["uid"]] > MOST_RETURNS:
            what = f"{by} evicts {pod['metadata']['name']}: so often has {owner['name']} returned"
            self.fail("returns_end", f"{what} to {node}: {self.returns[node, owner['uid']]}")

    def cordoned(self, node: str) -> None:
        """By anybody, now."""
        self.before[node] = self._pods()

    def _pods(self) -> frozenset[str]:
        pods = self.world.cluster.store.all("pods")
        return frozenset(pod["metadata"]["uid"] for pod in pods)

    def uncordoned(self, node: str) -> None:
        """Its pods may return."""
        self.before.pop(node, None)
        for key in [key for key in self.returns if key[0] == node]:
            del self.returns[key]
        self.lost = {key for key in self.lost if key[0] != node}

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
        """README, limits: maxDraining. A drain without progress gives its slot away."""
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


def _label(node: Json, key: str) -> str:
    return str((node["metadata"].get("labels") or {}).get(key, ""))


def _ready_for(pod: Json, now: float) -> float:
    """For how long it is ready, 0 = it is not."""
    for item in pod["status"].get("conditions") or ():
        if item["type"] == "Ready" and item["status"] == "True":
            return now - unix(item["lastTransitionTime"])
    return 0.0
