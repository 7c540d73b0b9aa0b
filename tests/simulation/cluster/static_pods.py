"""Static pods: a kubelet runs them from files and shows each as a mirror pod in the API.

A mirror pod that is deleted comes back: its containers never stopped (pkg/kubelet/pod,
mirror_client.go).
"""

from __future__ import annotations

from functools import partial

from tests.simulation.cluster import admission, objects
from tests.simulation.cluster.kubelets import Kubelets
from tests.simulation.cluster.messages import Json
from tests.simulation.cluster.resources import RESOURCES
from tests.simulation.cluster.store import Change

MIRROR = "kubernetes.io/config.mirror"
#: Seconds until a mirror pod is there again.
AGAIN = 1.0


class StaticPods:
    """Those of all nodes, in kube-system."""

    def __init__(self, kubelets: Kubelets) -> None:
        self._kubelets, self._store = kubelets, kubelets.store
        self._files: dict[str, str] = {}
        self._store.subscribe(self._changed)

    def add(self, node: str, name: str) -> None:
        """A file on the node: its pod is NAME-NODE."""
        self._files[f"{name}-{node}"] = node
        self._mirror(f"{name}-{node}")

    def _mirror(self, name: str) -> None:
        node = self._files[name]
        kubelet, raw = self._kubelets.of.get(node), self._store.get("nodes", "", node)
        if kubelet is None or not kubelet.alive or raw is None:
            return
        if self._store.get("pods", "kube-system", name) is not None:
            return
        pod: Json = objects.pod("kube-system", name, nodeName=node, annotations={MIRROR: "x"})
        owner = {"apiVersion": "v1", "kind": "Node", "name": node, "controller": True}
        pod["metadata"]["ownerReferences"] = [{**owner, "uid": raw["metadata"]["uid"]}]
        made = admission.completed(self._store, pod, RESOURCES["pods"])
        self._store.create(made, f"kubelet/{node}")

    def _changed(self, change: Change) -> None:
        if change.key[0] == "pods" and change.new is None and change.key[2] in self._files:
            self._kubelets.simulation.after(AGAIN, partial(self._mirror, change.key[2]))
