"""The node lifecycle controller, taint eviction and pod garbage collection.

pkg/controller/nodelifecycle: a kubelet that is silent for the grace period makes its node's
conditions Unknown and its pods unready; conditions and cordons become taints. While no node at all
is ready nothing is tainted NoExecute (full disruption). pkg/controller/tainteviction deletes pods
when their tolerationSeconds are over. pkg/controller/podgc removes pods of nodes that are gone.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.cluster import conditions
from tests.simulation.cluster.admission import NOT_READY, UNREACHABLE
from tests.simulation.cluster.deletion import delete
from tests.simulation.cluster.kubelets import Kubelets
from tests.simulation.cluster.messages import Json, Simulation, stamp, unix
from tests.simulation.cluster.scheduler_model import UNSCHEDULABLE
from tests.simulation.cluster.store import Change, Store, Stored
from tests.simulation.cluster.work_queue import WorkQueue

#: nodeMonitorPeriod and nodeMonitorGracePeriod (seconds).
MONITOR_EVERY, MONITOR_GRACE = 5.0, 50.0
#: podgc: for how long a node must be gone, and the pause between checks (seconds).
GC_QUARANTINE, GC_EVERY = 40.0, 20.0
_PRESSURE = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
_MANAGED = {(key, "NoSchedule") for key in (NOT_READY, UNREACHABLE, UNSCHEDULABLE)}
_MANAGED |= {(key, "NoSchedule") for key in _PRESSURE.values()}
_MANAGED |= {(NOT_READY, "NoExecute"), (UNREACHABLE, "NoExecute")}
_NAME = "node-controller"


class NodeLifecycle:
    """See the module. paused: the controller does not run."""

    def __init__(self, simulation: Simulation, store: Store, kubelets: Kubelets) -> None:
        self._simulation, self._store, self._kubelets = simulation, store, kubelets
        self.paused = self._full_disruption = False
        self.queue: WorkQueue[str] = WorkQueue(simulation, self._taint)
        self._evictions: WorkQueue[tuple[str, str]] = WorkQueue(simulation, self._evict)
        self._gone_since: dict[str, float] = {}
        store.subscribe(self._changed)
        simulation.after(MONITOR_EVERY, self._monitor)
        simulation.after(GC_EVERY, self._collect)

    def _changed(self, change: Change) -> None:
        if change.key[0] == "nodes" and change.new is not None:
            self.queue.add(change.key[2])
            self._plan_evictions(change.new)
        elif change.key[0] == "pods" and change.new is not None:
            node = self._store.get("nodes", "", str(change.new["spec"].get("nodeName") or ""))
            if node is not None:
                self._plan_eviction(change.new, node)

    # -- health -------------------------------------------------------------------------

    def _monitor(self) -> None:
        self._simulation.after(MONITOR_EVERY, self._monitor)
        if self.paused:
            return
        for node in self._store.all("nodes"):
            name = node["metadata"]["name"]
            kubelet = self._kubelets.of.get(name)
            since = kubelet.renewed_at if kubelet is not None else 0.0
            if self._simulation.now - since > MONITOR_GRACE:
                self._lost(name)
        disrupted = not self._any_ready()
        if disrupted is not self._full_disruption:
            self._full_disruption = disrupted
            for node in self._store.all("nodes"):
                self.queue.add(node["metadata"]["name"])

    def _any_ready(self) -> bool:
        nodes = self._store.all("nodes")
        return any(conditions.status_of(node, "Ready") == "True" for node in nodes)

    def _lost(self, name: str) -> None:
        """The kubelet is silent: its conditions are Unknown, its pods are not ready."""
        now = self._store.clock()

        def unknown(raw: Json) -> None:
            for kind in ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure"):
                if conditions.status_of(raw, kind) != "Unknown":
                    reason, text = "NodeStatusUnknown", "Kubelet stopped posting node status."
                    conditions.put(raw, kind, "Unknown", now, reason=reason, message=text)

        self._store.change(("nodes", "", name), unknown, _NAME)
        for pod in self._store.pods_on(name):
            if conditions.status_of(pod, "Ready") == "True":
                meta = pod["metadata"]
                self._store.change(("pods", meta["namespace"], meta["name"]), _unready(now), _NAME)

    # -- taints -------------------------------------------------------------------------

    def _taint(self, name: str) -> None:
        if self.paused:
            return
        node = self._store.get("nodes", "", name)
        if node is None:
            return
        wanted = wanted_taints(node)
        if not self._any_ready():
            wanted = {(key, effect) for key, effect in wanted if effect != "NoExecute"}
        now = self._store.clock()

        def write(raw: Json) -> None:
            there = raw["spec"].get("taints") or []
            kept = [t for t in there if (t["key"], t["effect"]) not in _MANAGED - wanted]
            known = {(t["key"], t["effect"]) for t in kept}
            for key, effect in sorted(wanted - known):
                kept.append({"key": key, "effect": effect, "timeAdded": stamp(now)})
            if kept:
                raw["spec"]["taints"] = kept
            else:
                raw["spec"].pop("taints", None)

        self._store.change(("nodes", "", name), write, _NAME)

    def _plan_evictions(self, node: Stored) -> None:
        if any(taint["effect"] == "NoExecute" for taint in node["spec"].get("taints") or ()):
            for pod in self._store.pods_on(node["metadata"]["name"]):
                self._plan_eviction(pod, node)

    def _plan_eviction(self, pod: Stored, node: Stored) -> None:
        due = eviction_time(pod, node)
        if due is not None and pod["metadata"].get("deletionTimestamp") is None:
            wait = max(0.01, due - self._store.clock())
            self._evictions.add((pod["metadata"]["namespace"], pod["metadata"]["name"]), wait)

    def _evict(self, key: tuple[str, str]) -> None:
        pod = self._store.get("pods", *key)
        if pod is None or self.paused or pod["metadata"].get("deletionTimestamp") is not None:
            return
        node = self._store.get("nodes", "", str(pod["spec"].get("nodeName") or ""))
        due = eviction_time(pod, node) if node is not None else None
        if due is None:
            return
        if due > self._store.clock():
            self._evictions.add(key, due - self._store.clock())
            return
        now = self._store.clock()

        def target(raw: Json) -> None:
            reason = "DeletionByTaintManager"
            conditions.put(raw, "DisruptionTarget", "True", now, reason=reason)

        self._store.change(("pods", *key), target, "taint-eviction-controller")
        delete(self._store, ("pods", *key), {}, "taint-eviction-controller")

    # -- garbage ------------------------------------------------------------------------

    def _collect(self) -> None:
        self._simulation.after(GC_EVERY, self._collect)
        now = self._simulation.now
        orphans: dict[str, list[Stored]] = {}
        for pod in self._store.all("pods"):
            name = pod["spec"].get("nodeName")
            if name and self._store.get("nodes", "", name) is None:
                orphans.setdefault(name, []).append(pod)
        self._gone_since = {name: self._gone_since.get(name, now) for name in orphans}
        for name, pods in orphans.items():
            if now - self._gone_since[name] >= GC_QUARANTINE and not self.paused:
                for pod in pods:
                    meta = pod["metadata"]
                    self._store.remove(("pods", meta["namespace"], meta["name"]), "pod-gc")


def _unready(now: float) -> Callable[[Json], None]:
    def edit(raw: Json) -> None:
        conditions.put(raw, "Ready", "False", now)

    return edit


def wanted_taints(node: Json) -> set[tuple[str, str]]:
    """The taints that a node's conditions and its cordon call for."""
    wanted = set()
    if node["spec"].get("unschedulable"):
        wanted.add((UNSCHEDULABLE, "NoSchedule"))
    ready = conditions.status_of(node, "Ready")
    key = {"False": NOT_READY, "Unknown": UNREACHABLE, "": NOT_READY}.get(ready)
    if key is not None:
        wanted |= {(key, "NoSchedule"), (key, "NoExecute")}
    for kind, taint in _PRESSURE.items():
        if conditions.status_of(node, kind) == "True":
            wanted.add((taint, "NoSchedule"))
    return wanted


def eviction_time(pod: Json, node: Json) -> float | None:
    """When taints have the pod deleted (Unix seconds), None = they do not.

    Every NoExecute taint must be tolerated; the shortest tolerationSeconds count from the first.
    """
    times = []
    for taint in node["spec"].get("taints") or ():
        if taint["effect"] != "NoExecute":
            continue
        since = unix(taint["timeAdded"]) if "timeAdded" in taint else 0.0
        fitting = [
            item
            for item in pod["spec"].get("tolerations") or ()
            if item.get("effect") in (None, "", "NoExecute")
            and item.get("key") in (None, "", taint["key"])
            and (
                item.get("operator") == "Exists"
                or str(item.get("value") or "") == str(taint.get("value") or "")
            )
        ]
        if not fitting:
            return 0.0
        limits = [i["tolerationSeconds"] for i in fitting if i.get("tolerationSeconds") is not None]
        if limits:
            times.append(since + min(limits))
    return min(times, default=None)
