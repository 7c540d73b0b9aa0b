"""Other systems that change nodes: Cluster API, medik8s, kured."""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.cluster import conditions, objects
from tests.simulation.cluster.cluster import Cluster
from tests.simulation.cluster.messages import Json, micro_stamp, stamp

MACHINE = "cluster.x-k8s.io/machine"
REMEDIATE = "cluster.x-k8s.io/remediate-machine"
KURED = "weave.works/kured-reboot-in-progress"
REMEDIATED = "OwnerRemediated"
CAPI_NAMESPACE, MEDIK8S_NAMESPACE = "capi", "medik8s-leases"


class ClusterApi:
    """A Machine for each node that it was given."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        cluster.api.custom.add("machines")
        if cluster.store.get("namespaces", "", CAPI_NAMESPACE) is None:
            cluster.add_namespace(CAPI_NAMESPACE)

    def adopt(self, node: str) -> None:
        """The node belongs to a Machine."""
        name = f"machine-{node}"

        def annotate(raw: Json) -> None:
            raw["metadata"].setdefault("annotations", {})[MACHINE] = name

        self._cluster.store.change(("nodes", "", node), annotate, "capi")
        machine: Json = {
            "kind": "Machine",
            "apiVersion": "cluster.x-k8s.io/v1beta1",
            "metadata": {
                "namespace": CAPI_NAMESPACE,
                "name": name,
                "finalizers": ["machine.cluster.x-k8s.io"],
            },
            "spec": {"clusterName": "model"},
            "status": {"nodeRef": {"kind": "Node", "name": node}, "phase": "Running"},
        }
        self._cluster.store.create(machine, "capi")

    def delete(self, node: str, seconds: float) -> None:
        """The Machine is being deleted; its node goes after so long."""
        key = "machines", CAPI_NAMESPACE, f"machine-{node}"
        at = stamp(self._cluster.store.clock())

        def mark(raw: Json) -> None:
            raw["metadata"]["deletionTimestamp"] = at

        self._cluster.store.change(key, mark, "capi")
        self._cluster.simulation.after(seconds, lambda: self._end(node))

    def _end(self, node: str) -> None:
        if node in self._cluster.kubelets.of:
            self._cluster.kubelets.vanish(node)
        self._cluster.store.remove(("nodes", "", node), "capi")
        self._cluster.store.remove(("machines", CAPI_NAMESPACE, f"machine-{node}"), "capi")

    def remediate(self, node: str, seconds: float) -> None:
        """The Machine is being remediated for so long; the node is booted again."""
        key = "machines", CAPI_NAMESPACE, f"machine-{node}"
        now = self._cluster.store.clock()
        self._cluster.store.change(key, lambda raw: conditions.put(raw, REMEDIATED, "False", now))
        if node in self._cluster.kubelets.of:
            self._cluster.kubelets.of[node].reboot(seconds)

        self._cluster.simulation.after(seconds, lambda: self.remediated(node))

    def remediated(self, node: str) -> None:
        """The end of that, if its Machine is being remediated."""
        now = self._cluster.store.clock()

        def end(raw: Json) -> None:
            if conditions.status_of(raw, REMEDIATED) == "False":
                conditions.put(raw, REMEDIATED, "True", now)

        self._cluster.store.change(("machines", CAPI_NAMESPACE, f"machine-{node}"), end)


class Medik8s:
    """Takes a Lease for a node before it works on it, and renews it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        if cluster.store.get("namespaces", "", MEDIK8S_NAMESPACE) is None:
            cluster.add_namespace(MEDIK8S_NAMESPACE)

    def maintain(self, node: str, seconds: float, *, duration: int = 3600) -> None:
        """Works on the node for so long, then gives the Lease back."""
        store, name = self._cluster.store, f"node-{node}"
        lease = objects.lease(
            MEDIK8S_NAMESPACE, name, "node-maintenance", micro_stamp(store.clock()), duration
        )
        store.put(lease, "medik8s")
        key = "leases", MEDIK8S_NAMESPACE, name
        self._cluster.simulation.after(seconds, lambda: store.remove(key, "medik8s"))


class Kured:
    """Cordons a node, reboots it, and uncordons it unless it was cordoned before."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def reboot(self, node: str, down: float = 60.0, drain: float = 30.0) -> None:
        """One reboot: drain and down are seconds."""
        raw, simulation = self._cluster.node(node), self._cluster.simulation
        was = bool(raw["spec"].get("unschedulable"))
        at = stamp(self._cluster.store.clock())

        def begin(there: Json) -> None:
            there["metadata"].setdefault("annotations", {})[KURED] = at
            there["spec"]["unschedulable"] = True

        def end(there: Json) -> None:
            there["metadata"].get("annotations", {}).pop(KURED, None)
            if not was:
                there["spec"].pop("unschedulable", None)

        self._edit(node, begin)
        simulation.after(drain, lambda: self._down(node, down))
        finished = drain + down + 10.0
        simulation.after(finished, lambda: self._edit(node, end))

    def _edit(self, node: str, edit: Callable[[Json], None]) -> None:
        self._cluster.store.change(("nodes", "", node), edit, "kured")

    def _down(self, node: str, seconds: float) -> None:
        if node in self._cluster.kubelets.of:
            self._cluster.kubelets.of[node].reboot(seconds)
