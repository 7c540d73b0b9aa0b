"""A small cluster in simulated time: owners, pods, a disruption budget, and the pure healer.

It plays the controllers and the API server: pods start, become ready, are evicted if the budget
lets them go, and go when their grace is over. What is written down of a policy is JSON, as in
the API, so that a new leader starts from exactly what its predecessor left.
"""

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from selfheal_remediator.healing.engine import Healing
from selfheal_remediator.healing.plan import Around, Owner, Plan, RestartAction
from selfheal_remediator.healing.pod_health import Container, Reading, WatchedPod
from selfheal_remediator.healing.policy import Policy, Status, policy_from_json
from selfheal_remediator.kube.informer import Change
from selfheal_remediator.node.skip_reason import SkipReason

NOW = 1_800_000_000.0
NODES = ("node-a", "node-b", "node-c")


def policy_json(name: str = "web", **spec: Any) -> dict[str, Any]:
    """A policy as the API server holds it, with quick looks and all defaults."""
    return {
        "metadata": {
            "namespace": "ns",
            "name": name,
            "uid": f"uid-{name}",
            "resourceVersion": "1",
            "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "unhealthyWhen": {"notReadyFor": "30s"},
            **spec,
        },
    }


def policy(name: str = "web", **spec: Any) -> Policy:
    """A policy as a value."""
    return policy_from_json(policy_json(name, **spec))


def watched(name: str, **more: Any) -> WatchedPod:
    """A pod that is healthy, of Deployment `web`."""
    values: dict[str, Any] = {
        "namespace": "ns",
        "uid": f"uid-{name}",
        "version": "1",
        "node": NODES[0],
        "owner_kind": "ReplicaSet",
        "owner_name": "web-1",
        "owner_uid": "rs-web",
        "owner_api": "apps/v1",
        "phase": "Running",
        "created": NOW - 3600,
        "deletion": None,
        "finalizers": (),
        "mirror": False,
        "kept": False,
        "ready": True,
        "ready_changed": NOW - 3000,
        "waits_for_node": "",
        "address": "10.0.0.1",
        "ports": {"http": 8080},
        "containers": (Container("main", running_since=NOW - 3500),),
    }
    return WatchedPod(name=name, **{**values, **more})


def around(**more: Any) -> Around:
    """Nodes that nothing is wrong with."""
    return Around(**{"node_trouble": lambda _: "", "node_path": lambda _: True, **more})


@dataclass
class Worker:
    """What a pod does behind its face."""

    ready_at: float
    broken: bool = False
    #: Work in flight: (since, until); None = idle.
    work: tuple[float, float] | None = None
    last_progress: float = NOW
    hung: bool = False


@dataclass
class World:
    """See the module. `allowed`: pods that the budget wants well; start: seconds until ready."""

    documents: dict[str, dict[str, Any]]
    wanted: dict[str, int]
    min_available: int = 0
    start: float = 5.0
    grace: float = 30.0
    seed: int = 0
    now: float = NOW
    around: Around = field(default_factory=around)
    pods: dict[str, WatchedPod] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)
    restarts: list[RestartAction] = field(default_factory=list)
    evicted: list[tuple[float, str, str]] = field(default_factory=list)
    #: After each eviction of a ready pod: pods still ready, and how many the budget wanted.
    left: list[tuple[int, int]] = field(default_factory=list)
    plan: Plan = field(default_factory=Plan)
    #: Decides what becomes of an eviction: "", "refused" or "unanswered".
    fate: Callable[[RestartAction], str] = lambda _: ""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self._made = 0
        self._last_json: dict[str, tuple[Status, dict[str, Any]]] = {}
        self.healing = Healing(10.0)
        self.new_leader()

    # -- the healer -----------------------------------------------------------------------

    def new_leader(self) -> None:
        """Another process takes over, from what is written down."""
        self.healing = Healing(10.0)
        for document in self.documents.values():
            self.healing.adopt(policy_from_json(document), self.now)
        for key in self.healing.policy_states:
            for pod in self.pods.values():
                if pod.owner_name == key.partition("/")[2]:
                    self.healing.pod_changed(key, Change(pod.name, None, pod))
            self.healing.pods_known(key)

    def owner(self, name: str) -> Owner:
        """The Deployment as the API would tell it."""
        return Owner(f"deploy-{name}", "Deployment", name, "apps/v1", self.wanted[name], "", "1")

    def tick(self, seconds: float = 1.0) -> Plan:
        """Let time pass, then let the healer look and do what it says."""
        self.now += seconds
        self.controllers()
        self.plan = plan = self.healing.evaluate(self.now, self.around)
        for pod in plan.lookups:
            self.healing.owner_known(pod.owner_uid, self.owner(pod.owner_name))
        for ask in plan.probes:
            self.healing.answered(ask.policy, ask.uid, self.reading(ask.uid), self.now)
        for action in plan.restarts:
            self.carry_out(action)
        for key, policy_state in self.healing.policy_states.items():
            if policy_state.status is not None and not policy_state.pending:
                self.write(key, self._json(key, policy_state.status))
        return plan

    def run(self, seconds: float, step: float = 1.0) -> None:
        """Many ticks."""
        for _ in range(round(seconds / step)):
            self.tick(step)

    def write(self, key: str, status: dict[str, Any]) -> None:
        document = self.documents[key]
        if document.get("status") != status:
            document["status"] = copy.deepcopy(status)

    def _json(self, key: str, status: Status) -> dict[str, Any]:
        """Most ticks leave the status as it was: it is made JSON once."""
        of, made = self._last_json.get(key, (None, {}))
        if of is not status:
            made = status.to_json()
            self._last_json[key] = status, made
        return made

    def carry_out(self, action: RestartAction) -> None:
        self.restarts.append(action)
        pod = self.pods.get(action.pod.uid)
        if self.fate(action) == "refused" or pod is None or not self._budget_allows(pod):
            self.healing.refused(action, SkipReason("pdb", "PDB says no"), self.now)
            return
        self.write(action.policy, action.status.to_json())
        grace = self.grace if action.grace is None else action.grace
        self.evicted.append((self.now, pod.owner_name, pod.uid))
        if self.fate(action) != "ignored":  # answered with success, and nothing deleted
            self.change(replace(pod, deletion=self.now + grace))
        if pod.ready:
            is_healthy = [
                one for one in self.of(pod.owner_name) if one.ready and one.deletion is None
            ]
            self.left.append((len(is_healthy), self.min_available))
        if self.fate(action) == "died":
            return  # the process ends here; `new_leader` is the caller's
        self.healing.accepted(action, self.now)

    def _budget_allows(self, pod: WatchedPod) -> bool:
        """As the API server with AlwaysAllow: what is not ready may always go."""
        if not pod.ready:
            return True
        is_healthy = [one for one in self.of(pod.owner_name) if one.ready and one.deletion is None]
        return len(is_healthy) - 1 >= self.min_available

    def reading(self, uid: str) -> Reading | None:
        worker = self.workers[uid]
        flying = worker.work is not None
        oldest = self.now - worker.work[0] if worker.work is not None else 0.0
        return Reading(
            int(flying), self.now - worker.last_progress, worker.last_progress, oldest, False
        )

    # -- controllers ------------------------------------------------------------------------

    def of(self, owner: str) -> list[WatchedPod]:
        """Pods of an owner that exist."""
        return [pod for pod in self.pods.values() if pod.owner_name == owner]

    def controllers(self) -> None:
        for pod in list(self.pods.values()):
            if pod.deletion is not None and pod.deletion <= self.now:
                self.gone(pod)
        for owner, wanted in self.wanted.items():
            alive = [pod for pod in self.of(owner) if pod.deletion is None]
            # A ReplicaSet takes away what is not ready first, then the youngest.
            alive.sort(key=lambda pod: (pod.ready, -pod.created, pod.name))
            for pod in alive[: max(0, len(alive) - wanted)]:
                self.change(replace(pod, deletion=self.now + self.grace))
            for _ in range(wanted - len(alive)):
                self._new(owner)
        for uid, pod in list(self.pods.items()):
            worker = self.workers[uid]
            ready = self.now >= worker.ready_at and not worker.broken
            if ready != pod.ready:
                begun = tuple(replace(item, started=True) for item in pod.containers)
                self.change(replace(pod, ready=ready, ready_changed=self.now, containers=begun))

    def _new(self, owner: str) -> None:
        self._made += 1
        begins = Container(
            "main", running_since=self.now, started=False, startup_budget=self.start * 3 + 60
        )
        pod = watched(
            f"{owner}-{self._made}",
            owner_name=owner,
            owner_uid=f"rs-{owner}",
            node=NODES[self._made % len(NODES)],
            created=self.now,
            ready=False,
            ready_changed=self.now,
            containers=(begins,),
        )
        self.workers[pod.uid] = Worker(self.now + self.start, last_progress=self.now)
        self.change(pod)

    def change(self, pod: WatchedPod) -> None:
        before = self.pods.get(pod.uid)
        self.pods[pod.uid] = pod
        self.notify(pod, before, pod)
        if before is None or before.deletion != pod.deletion:
            self._owner_read(pod.owner_name)

    def gone(self, pod: WatchedPod) -> None:
        del self.pods[pod.uid], self.workers[pod.uid]
        self.notify(pod, pod, None)
        self._owner_read(pod.owner_name)

    def _owner_read(self, owner: str) -> None:
        if f"rs-{owner}" in self.healing.owners:
            self.healing.owner_known(f"rs-{owner}", self.owner(owner))

    def notify(self, pod: WatchedPod, old: WatchedPod | None, new: WatchedPod | None) -> None:
        for key in self.healing.policy_states:
            if pod.owner_name == key.partition("/")[2]:
                self.healing.pod_changed(key, Change(pod.name, old, new))

    # -- faults -------------------------------------------------------------------------------

    def break_one(self, owner: str, broken: bool = True, index: int = 0) -> None:
        """A pod stops being ready, or is ready again."""
        pods = sorted(self.of(owner), key=lambda pod: pod.name)
        if pods:
            self.workers[pods[index % len(pods)].uid].broken = broken
