"""Autoscalers: cluster-autoscaler, and one like Karpenter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import UTC, datetime

from tests.simulation.cluster import conditions, objects
from tests.simulation.cluster.cluster import Cluster
from tests.simulation.cluster.deletion import delete
from tests.simulation.cluster.messages import Json, micro_stamp, unix
from tests.simulation.cluster.selectors import controller_of
from tests.simulation.cluster.store import Stored, key_of

STATUS = "configmaps", "kube-system", "cluster-autoscaler-status"
TO_BE_DELETED = "ToBeDeletedByClusterAutoscaler"
DISABLED = "cluster-autoscaler.kubernetes.io/scale-down-disabled"
DISRUPTED = "karpenter.sh/disrupted"


class Autoscaler(ABC):
    """A node group that grows for pods that fit nowhere and shrinks by empty nodes.

    scan: seconds between its rounds; provision: until a new node joins; unneeded: for how long a
    node must be empty. most: nodes of the cluster. Subclasses say how they mark what they do.
    """

    lease = ""

    def __init__(
        self,
        cluster: Cluster,
        *,
        most: int = 20,
        scan: float = 10.0,
        provision: float = 60.0,
        unneeded: float = 600.0,
    ) -> None:
        self._cluster, self._simulation = cluster, cluster.simulation
        self._most, self._scan, self._provision = most, scan, provision
        self._unneeded = unneeded
        self.runs = True
        self._coming = self._made = 0
        self._empty_since: dict[str, float] = {}
        self._simulation.after(scan, self._round)

    def _round(self) -> None:
        self._simulation.after(self._scan, self._round)
        if self.runs:
            self._renew()
            self._grow()
            self._shrink()

    def _renew(self) -> None:
        store = self._cluster.store
        renewed = micro_stamp(store.clock())
        store.put(objects.lease("kube-system", self.lease, "autoscaler-0", renewed), self.lease)

    def _grow(self) -> None:
        waiting = [
            pod
            for pod in self._cluster.store.all("pods")
            if not pod["spec"].get("nodeName")
            and (conditions.find(pod, "PodScheduled") or {}).get("reason") == "Unschedulable"
        ]
        total = len(self._cluster.store.all("nodes")) + self._coming
        if waiting and not self._coming and total < self._most:
            self._coming += 1
            self._simulation.after(self._provision, self._join)

    def _join(self) -> None:
        self._coming -= 1
        self._made += 1
        self._cluster.add_node(f"scaled-{self._made}", labels=self.labels())

    def labels(self) -> dict[str, str]:
        """Of the nodes that it makes."""
        return {}

    def _shrink(self) -> None:
        now = self._simulation.now
        empty = {
            node["metadata"]["name"]
            for node in self._cluster.store.all("nodes")
            if self._may_go(node)
        }
        self._empty_since = {name: self._empty_since.get(name, now) for name in sorted(empty)}
        for name, since in self._empty_since.items():
            if now - since >= self._unneeded:
                self.remove(name)
                return

    def _may_go(self, node: Stored) -> bool:
        annotations = node["metadata"].get("annotations") or {}
        if (
            annotations.get(DISABLED) == "true"
            or objects.CONTROL_PLANE in node["metadata"]["labels"]
        ):
            return False
        return all(_daemon(pod) for pod in self._cluster.store.pods_on(node["metadata"]["name"]))

    def remove(self, name: str, after: float = 30.0) -> None:
        """Mark a node, evict its pods as it does it, and end its machine after a while."""
        taint = self.taint()

        def mark(raw: Json) -> None:
            taints = raw["spec"].setdefault("taints", [])
            if not any(item["key"] == taint["key"] for item in taints):
                taints.append(taint)

        store = self._cluster.store
        if store.change(("nodes", "", name), mark, self.lease) is None:
            return
        for pod in store.pods_on(name):
            if not _daemon(pod):
                delete(store, key_of(pod), {}, self.lease)
        self._simulation.after(after, lambda: self._end(name))

    def _end(self, name: str) -> None:
        if name in self._cluster.kubelets.of:
            self._cluster.kubelets.vanish(name)
        self._cluster.store.remove(("nodes", "", name), self.lease)

    @abstractmethod
    def taint(self) -> Json:
        """What marks a node that it removes."""


class ClusterAutoscaler(Autoscaler):
    """cluster-autoscaler: also writes its status into a ConfigMap. status: whether it does."""

    lease = "cluster-autoscaler"
    status = True

    def _renew(self) -> None:
        super()._renew()
        if not self.status:
            return
        now = datetime.fromtimestamp(self._cluster.store.clock(), UTC)
        text = f"{now:%Y-%m-%d %H:%M:%S}.{now.microsecond:06d}000 +0000 UTC"
        key = "cluster-autoscaler.kubernetes.io/last-updated"
        meta = {"namespace": STATUS[1], "name": STATUS[2], "annotations": {key: text}}
        data = {"status": f"time: {text}\nautoscalerStatus: Running\n"}
        body = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": meta, "data": data}
        self._cluster.store.put(body, self.lease)

    def taint(self) -> Json:
        value = str(int(self._cluster.store.clock()))
        return {"key": TO_BE_DELETED, "value": value, "effect": "NoSchedule"}


class Karpenter(Autoscaler):
    """One like Karpenter: a Lease, the taint karpenter.sh/disrupted, labels of its node pool."""

    lease = "karpenter-leader-election"

    def labels(self) -> dict[str, str]:
        return {"karpenter.sh/nodepool": "default"}

    def taint(self) -> Json:
        return {"key": DISRUPTED, "effect": "NoSchedule"}


def _daemon(pod: Json) -> bool:
    owner = controller_of(pod)
    return owner is not None and owner["kind"] == "DaemonSet"


def written_at(raw: Json) -> float:
    """When a Lease was renewed (Unix seconds)."""
    return unix(raw["spec"]["renewTime"])
