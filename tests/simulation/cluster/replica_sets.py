"""The ReplicaSet controller, and what all controllers of pods share (pkg/controller/replicaset)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from tests.simulation.cluster import admission, deletion
from tests.simulation.cluster.eviction import is_ready
from tests.simulation.cluster.messages import Json, Simulation, clone
from tests.simulation.cluster.resources import RESOURCES, Key
from tests.simulation.cluster.selectors import controller_of
from tests.simulation.cluster.store import Change, Store, Stored
from tests.simulation.cluster.work_queue import WorkQueue


class PodController(ABC):
    """A controller of pods: a queue of its objects, whose keys its pods' changes add."""

    plural = ""
    name = ""

    def __init__(self, simulation: Simulation, store: Store, suffix: Callable[[], str]) -> None:
        self.store, self.suffix = store, suffix
        self.kind = RESOURCES[self.plural].kind
        self.queue: WorkQueue[Key] = WorkQueue(simulation, self._handle)
        store.subscribe(self.changed)
        store.on_restore(self.resync)

    def resync(self) -> None:
        """Handle every object again."""
        for raw in self.store.all(self.plural):
            self.queue.add((self.plural, raw["metadata"]["namespace"], raw["metadata"]["name"]))

    def changed(self, change: Change) -> None:
        """Something was written."""
        if change.key[0] == self.plural and change.new is not None:
            self.queue.add(change.key)
        elif change.key[0] == "pods":
            for raw in (change.old, change.new):
                owner = controller_of(raw) if raw is not None else None
                if owner is not None and owner["kind"] == self.kind:
                    self.queue.add((self.plural, change.key[1], owner["name"]))

    def _handle(self, key: Key) -> None:
        raw = self.store.get(*key)
        if raw is not None and raw["metadata"].get("deletionTimestamp") is None:
            self.sync(key, raw)

    @abstractmethod
    def sync(self, key: Key, raw: Stored) -> None:
        """Bring the pods of one object nearer to what it wants."""

    # -- pods ---------------------------------------------------------------------------

    def pods(self, owner: Json) -> list[Stored]:
        """All pods of an object."""
        return [raw for raw in self.store.owned_by(owner["metadata"]["uid"]) if _is_pod(raw)]

    def create_pod(
        self,
        owner: Json,
        *,
        name: str = "",
        labels: Json | None = None,
        spec: Json | None = None,
        template: Json | None = None,
    ) -> None:
        """One from the owner's template, or an earlier one of it."""
        meta, template = owner["metadata"], clone(template or owner["spec"]["template"])
        assert template is not None
        reference = {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": meta["name"],
            "uid": meta["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
        pod_meta = {
            **template.get("metadata", {}),
            "namespace": meta["namespace"],
            "name": name or f"{meta['name']}-{self.suffix()}",
            "ownerReferences": [reference],
        }
        if not name:
            pod_meta["generateName"] = f"{meta['name']}-"
        pod_meta["labels"] = {**pod_meta.get("labels", {}), **(labels or {})}
        pod: Json = {"kind": "Pod", "apiVersion": "v1", "metadata": pod_meta}
        pod["spec"] = {**template["spec"], **(spec or {})}
        namespace = self.store.get("namespaces", "", meta["namespace"])
        if namespace is not None and namespace["metadata"].get("deletionTimestamp") is None:
            made = admission.completed(self.store, pod, RESOURCES["pods"])
            if self.store.get("pods", meta["namespace"], pod_meta["name"]) is None:
                self.store.create(made, self.name)

    def delete_pod(self, pod: Json) -> None:
        """With its own grace."""
        key: Key = "pods", pod["metadata"]["namespace"], pod["metadata"]["name"]
        if self.store.get(*key) is not None:
            options = {"preconditions": {"uid": pod["metadata"]["uid"]}}
            deletion.delete(self.store, key, options, self.name)

    def write_status(self, key: Key, status: Json) -> None:
        """The object's status, with what it observed."""

        def write(raw: Json) -> None:
            raw["status"] = {
                **(raw.get("status") or {}),
                **status,
                "observedGeneration": raw["metadata"]["generation"],
            }

        self.store.change(key, write, self.name)


def _is_pod(raw: Json) -> bool:
    return bool(raw["kind"] == "Pod")


def terminating(raw: Json) -> bool:
    """Whether it is being deleted."""
    return raw["metadata"].get("deletionTimestamp") is not None


def finished(pod: Json) -> bool:
    """Whether it ran to its end."""
    return pod["status"].get("phase") in ("Succeeded", "Failed")


def active(pods: list[Stored]) -> list[Stored]:
    """Those that count as replicas (controller_utils.go, IsPodActive)."""
    return [pod for pod in pods if not terminating(pod) and not finished(pod)]


def _less_needed(pod: Json) -> tuple[bool, bool, bool, str]:
    """The order in which pods go when there are too many (ActivePods)."""
    placed, running = bool(pod["spec"].get("nodeName")), pod["status"].get("phase") == "Running"
    return placed, running, is_ready(pod), pod["metadata"]["name"]


class ReplicaSets(PodController):
    """See the module."""

    plural, name = "replicasets", "replicaset-controller"

    def sync(self, key: Key, raw: Stored) -> None:
        pods = active(self.pods(raw))
        missing = int(raw["spec"].get("replicas", 1)) - len(pods)
        for _ in range(missing):
            self.create_pod(raw)
        for pod in sorted(pods, key=_less_needed)[: max(0, -missing)]:
            self.delete_pod(pod)
        pods = active(self.pods(raw))
        ready = sum(map(is_ready, pods))
        counts = {"replicas": len(pods), "readyReplicas": ready, "availableReplicas": ready}
        self.write_status(key, {**counts, "fullyLabeledReplicas": len(pods)})
