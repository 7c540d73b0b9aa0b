"""The whole modelled cluster: its store, API server, and everything that acts on its objects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.simulation.cluster import admission
from tests.simulation.cluster.api_server import ApiServer
from tests.simulation.cluster.daemon_sets import DaemonSets
from tests.simulation.cluster.deployments import Deployments
from tests.simulation.cluster.disruption import Disruption
from tests.simulation.cluster.garbage import GarbageCollector
from tests.simulation.cluster.jobs import Jobs
from tests.simulation.cluster.kubelets import Kubelet, Kubelets
from tests.simulation.cluster.messages import EPOCH, Answer, Json, Request, Simulation
from tests.simulation.cluster.node_lifecycle import NodeLifecycle
from tests.simulation.cluster.replica_sets import ReplicaSets
from tests.simulation.cluster.scheduler_model import Scheduler
from tests.simulation.cluster.stateful_sets import StatefulSets
from tests.simulation.cluster.store import Store, Stored
from tests.simulation.cluster.work_queue import WorkQueue

NAMESPACES = ("default", "kube-system", "selfheal")


class Cluster:
    """See the module. epoch: Unix time at which virtual time is 0."""

    def __init__(
        self,
        simulation: Simulation,
        *,
        epoch: float = EPOCH,
        namespaces: Iterable[str] = NAMESPACES,
    ) -> None:
        self.simulation = simulation
        self.store = Store(lambda: epoch + simulation.now)
        self.api = ApiServer(simulation, self.store)
        self.scheduler = Scheduler(simulation, self.store)
        self.kubelets = Kubelets(simulation, self.store)
        suffix = self.api.suffix
        self.disruption = Disruption(simulation, self.store)
        self.replica_sets = ReplicaSets(simulation, self.store, suffix)
        self.deployments = Deployments(simulation, self.store, suffix)
        self.stateful_sets = StatefulSets(simulation, self.store, suffix)
        self.daemon_sets = DaemonSets(simulation, self.store, suffix)
        self.jobs = Jobs(simulation, self.store, suffix)
        self.node_lifecycle = NodeLifecycle(simulation, self.store, self.kubelets)
        self.garbage = GarbageCollector(simulation, self.store)
        for name in namespaces:
            self.add_namespace(name)

    def handle(self, request: Request) -> Answer:
        """Answer a request, as the API server does that nothing disturbs."""
        return self.api.handle(request)

    @property
    def queues(self) -> dict[str, WorkQueue[Any]]:
        """The queue of each controller, to pause it."""
        return {
            "scheduler": self.scheduler.queue,
            "disruption": self.disruption.queue,
            "replicasets": self.replica_sets.queue,
            "deployments": self.deployments.queue,
            "statefulsets": self.stateful_sets.queue,
            "daemonsets": self.daemon_sets.queue,
            "jobs": self.jobs.queue,
            "nodes": self.node_lifecycle.queue,
            "garbage": self.garbage.queue,
        }

    # -- building -----------------------------------------------------------------------

    def add_namespace(self, name: str) -> Stored:
        """A namespace."""
        return self.store.create(admission.namespace(name, self.store.clock()), "world")

    def add_node(self, name: str, **more: object) -> Kubelet:
        """A machine with its kubelet; more: see objects.node."""
        return self.kubelets.join(name, **more)

    def add(self, raw: Json, by: str = "world") -> Stored:
        """Any object, completed as the API server does it."""
        resource = admission.resource_of(raw)
        raw = admission.completed(self.store, raw, resource)
        return self.store.create(raw, by)

    # -- looking ------------------------------------------------------------------------

    def node(self, name: str) -> Stored:
        """A node that is there."""
        found = self.store.get("nodes", "", name)
        assert found is not None, name
        return found

    def pod_at(self, ip: str) -> Stored | None:
        """The pod with this IP, None = nobody answers there."""
        for pod in self.store.all("pods"):
            if pod["status"].get("podIP") == ip:
                return pod
        return None
