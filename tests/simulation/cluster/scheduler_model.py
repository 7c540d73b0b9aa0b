"""Binds pods to nodes: cordons, taints, selectors, affinity, volumes, room.

A cordon is passed by who tolerates the taint node.kubernetes.io/unschedulable (the scheduler's
plugin NodeUnschedulable); among the nodes that fit chance chooses, the emptier ones more often.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.simulation.cluster.messages import Json, Simulation, stamp
from tests.simulation.cluster.objects import HOSTNAME
from tests.simulation.cluster.quantities import amounts, requests
from tests.simulation.cluster.resources import Key
from tests.simulation.cluster.selectors import labels_of, selects
from tests.simulation.cluster.store import Change, Store, Stored
from tests.simulation.cluster.work_queue import WorkQueue

UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
#: Seconds until a pod that fits nowhere is tried again without a change of the cluster.
RETRY = 30.0


def tolerates(pod: Json, key: str, effect: str, value: str = "") -> bool:
    """Whether the pod tolerates a taint."""
    for item in pod["spec"].get("tolerations") or ():
        if item.get("effect") not in (None, "", effect):
            continue
        if not item.get("key"):
            if item.get("operator") == "Exists":
                return True
        elif item["key"] == key and (
            item.get("operator") == "Exists" or str(item.get("value") or "") == value
        ):
            return True
    return False


def _expressions_match(items: Iterable[Json], labels: dict[str, str]) -> bool:
    for item in items:
        if item["operator"] in ("Gt", "Lt"):
            there = labels.get(item["key"], "")
            if not there.isdigit():
                return False
            more = int(there) > int(item["values"][0])
            if more is not (item["operator"] == "Gt") or int(there) == int(item["values"][0]):
                return False
        elif not selects({"matchExpressions": [item]}, labels):
            return False
    return True


def terms_match(terms: list[Json], node: Json) -> bool:
    """Whether any node selector term matches the node."""
    labels = dict(labels_of(node))
    return any(
        _expressions_match(term.get("matchExpressions") or (), labels)
        and _expressions_match(
            term.get("matchFields") or (), {"metadata.name": node["metadata"]["name"]}
        )
        for term in terms
        if term.get("matchExpressions") or term.get("matchFields")
    )


def fits_node(pod: Json, node: Json) -> bool:
    """nodeSelector and required node affinity (plugin NodeAffinity)."""
    labels = labels_of(node)
    if any(labels.get(k) != v for k, v in (pod["spec"].get("nodeSelector") or {}).items()):
        return False
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or terms_match(required["nodeSelectorTerms"], node)


def blocked_by_taints(pod: Json, node: Json) -> bool:
    """Plugins TaintToleration and NodeUnschedulable."""
    if node["spec"].get("unschedulable") and not tolerates(pod, UNSCHEDULABLE, "NoSchedule"):
        return True
    return any(
        taint["effect"] in ("NoSchedule", "NoExecute")
        and not tolerates(pod, taint["key"], taint["effect"], str(taint.get("value") or ""))
        for taint in node["spec"].get("taints") or ()
    )


class Scheduler:
    """One scheduler."""

    def __init__(self, simulation: Simulation, store: Store) -> None:
        self._store, self._simulation = store, simulation
        self.queue: WorkQueue[Key] = WorkQueue(simulation, self._schedule)
        self._waiting: dict[Key, None] = {}
        store.subscribe(self._changed)
        store.on_restore(self._resync)

    def _resync(self) -> None:
        for pod in self._store.all("pods"):
            self._consider("pods", pod)

    def _changed(self, change: Change) -> None:
        plural = change.key[0]
        if plural == "pods" and change.new is not None:
            if change.old is None or not change.new["spec"].get("nodeName"):
                self._consider(plural, change.new)
        elif plural in ("nodes", "pods", "persistentvolumeclaims"):
            for key in sorted(self._waiting):
                self.queue.add(key)

    def _consider(self, plural: str, pod: Stored) -> None:
        meta, spec = pod["metadata"], pod["spec"]
        if not spec.get("nodeName") and not spec.get("schedulingGates"):
            key = plural, meta["namespace"], meta["name"]
            if key not in self._waiting:
                self.queue.add(key)

    def _schedule(self, key: Key) -> None:
        pod = self._store.get(*key)
        self._waiting.pop(key, None)
        if pod is None or pod["spec"].get("nodeName") or pod["metadata"].get("deletionTimestamp"):
            return
        nodes = self._store.all("nodes")
        fitting = [node for node in nodes if self._fits(pod, node)]
        if not fitting:
            self._waiting[key] = None
            self._report(key, f"0/{len(nodes)} nodes are available.")
            self.queue.add(key, RETRY)
            return
        few = min(len(self._store.pods_on(n["metadata"]["name"])) for n in fitting)
        best = [
            n["metadata"]["name"]
            for n in fitting
            if len(self._store.pods_on(n["metadata"]["name"])) <= few + 1
        ]
        chosen = best[int(self._simulation.random.random() * len(best))]

        def bind(raw: Json) -> None:
            raw["spec"]["nodeName"] = chosen
            _scheduled(raw, "True", "", "", self._store.clock())

        self._store.change(key, bind, "kube-scheduler")

    def _report(self, key: Key, message: str) -> None:
        def unschedulable(raw: Json) -> None:
            _scheduled(raw, "False", "Unschedulable", message, self._store.clock())

        self._store.change(key, unschedulable, "kube-scheduler")

    def _fits(self, pod: Json, node: Stored) -> bool:
        if node["metadata"].get("deletionTimestamp") or blocked_by_taints(pod, node):
            return False
        if not fits_node(pod, node) or not self._room(pod, node):
            return False
        return self._volumes_fit(pod, node) and self._apart(pod, node)

    def _room(self, pod: Json, node: Json) -> bool:
        """Plugin NodeResourcesFit."""
        free = amounts(node["status"].get("allocatable"))
        for other in self._store.pods_on(node["metadata"]["name"]):
            if other["status"].get("phase") not in ("Succeeded", "Failed"):
                for name, value in requests(other).items():
                    free[name] = free.get(name, 0) - value
        return all(v <= free.get(name, 0) for name, v in requests(pod).items() if v)

    def _volumes_fit(self, pod: Json, node: Json) -> bool:
        """Plugin VolumeBinding, for claims that are bound."""
        for volume in pod["spec"].get("volumes") or ():
            name = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            if not name:
                continue
            claim = self._store.get("persistentvolumeclaims", pod["metadata"]["namespace"], name)
            if claim is None:
                return False
            bound = self._store.get("persistentvolumes", "", claim["spec"].get("volumeName") or "")
            affinity = bound["spec"].get("nodeAffinity") or {} if bound is not None else {}
            required = affinity.get("required")
            if required and not terms_match(required["nodeSelectorTerms"], node):
                return False
        return True

    def _apart(self, pod: Json, node: Json) -> bool:
        """Required pod anti-affinity of the pod itself (plugin InterPodAffinity), own namespace."""
        affinity = (pod["spec"].get("affinity") or {}).get("podAntiAffinity") or {}
        for term in affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or ():
            key = term.get("topologyKey", HOSTNAME)
            domain = labels_of(node).get(key)
            for other in self._store.all("pods", pod["metadata"]["namespace"]):
                if not selects(term.get("labelSelector"), labels_of(other)):
                    continue
                where = self._store.get("nodes", "", other["spec"].get("nodeName") or "")
                if where is not None and labels_of(where).get(key) == domain:
                    return False
        return True


def _scheduled(pod: Json, status: str, reason: str, message: str, now: float) -> None:
    conditions = pod["status"].setdefault("conditions", [])
    old = next((item for item in conditions if item["type"] == "PodScheduled"), None)
    item: Json = {"type": "PodScheduled", "status": status, "lastTransitionTime": stamp(now)}
    if reason:
        item |= {"reason": reason, "message": message}
    if old is None:
        conditions.append(item)
    elif (old["status"], old.get("message")) != (status, item.get("message")):
        conditions[conditions.index(old)] = item
