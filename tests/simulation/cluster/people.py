"""What people and their tools do, by requests to the API server."""

from __future__ import annotations

import json
from typing import Any

from tests.simulation.cluster.cluster import Cluster
from tests.simulation.cluster.messages import Answer, Json, Request, Response, Server, stamp
from tests.simulation.cluster.resources import RESOURCES
from tests.simulation.cluster.selectors import controller_of

MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
#: kubectl's EvictErrorRetryDelay, and how often it looks whether a pod is gone (seconds).
RETRY, WATCH_EVERY = 5.0, 1.0


class Person:
    """Somebody with a tool; agent: its name, by which managedFields know it."""

    def __init__(
        self,
        cluster: Cluster,
        agent: str = "kubectl",
        name: str = "person",
        server: Server | None = None,
    ) -> None:
        self._cluster, self.agent, self.name = cluster, agent, name
        self._server: Server = server or cluster.api

    def send(self, method: str, path: str, body: object = None, kind: str = "") -> Response:
        """Any request."""
        headers = {"User-Agent": f"{self.agent}/v1.34.4"}
        headers["Content-Type"] = kind or "application/json"
        text = None if body is None else json.dumps(body).encode()
        at = self._cluster.simulation.now
        request = Request.to(method, path, headers=headers, body=text, at=at, process=self.name)
        answer: Answer = self._server.handle(request)
        assert isinstance(answer, Response)
        return answer

    def _path(self, plural: str, namespace: str, name: str) -> str:
        resource = RESOURCES[plural]
        group = f"/apis/{resource.group}" if resource.group else "/api"
        place = f"/namespaces/{namespace}" if resource.namespaced else ""
        return f"{group}/{resource.version}{place}/{plural}/{name}"

    def patch(
        self, plural: str, namespace: str, name: str, patch: Json, *, applied: bool = False
    ) -> Response:
        """A merge patch, or a server-side apply."""
        kind = APPLY if applied else MERGE
        return self.send("PATCH", self._path(plural, namespace, name), patch, kind)

    # -- nodes --------------------------------------------------------------------------

    def cordon(self, node: str) -> Response:
        """kubectl cordon."""
        return self.patch("nodes", "", node, {"spec": {"unschedulable": True}})

    def uncordon(self, node: str, *, applied: bool = False) -> Response:
        """kubectl uncordon; applied: as a controller does that applies the whole Node."""
        value = False if applied else None
        return self.patch("nodes", "", node, {"spec": {"unschedulable": value}}, applied=applied)

    def annotate(self, plural: str, namespace: str, name: str, **values: str | None) -> Response:
        """Set or remove annotations, given as their keys."""
        return self.patch(plural, namespace, name, {"metadata": {"annotations": values}})

    def label(self, plural: str, namespace: str, name: str, **values: str | None) -> Response:
        """Set or remove labels, given as their keys."""
        return self.patch(plural, namespace, name, {"metadata": {"labels": values}})

    def delete_node(self, node: str) -> None:
        """The machine is ended and its Node deleted."""
        if node in self._cluster.kubelets.of:
            self._cluster.kubelets.vanish(node)
        self.send("DELETE", self._path("nodes", "", node))

    def replace_node(self, node: str, after: float, **more: Any) -> None:
        """Another machine of the same name joins after a while."""
        self.delete_node(node)
        self._cluster.simulation.after(after, lambda: self._join(node, more))

    def _join(self, node: str, more: dict[str, Any]) -> None:
        if node not in self._cluster.kubelets.of:
            self._cluster.add_node(node, **more)

    # -- workloads ----------------------------------------------------------------------

    def scale(self, plural: str, namespace: str, name: str, replicas: int) -> Response:
        """kubectl scale."""
        return self.patch(plural, namespace, name, {"spec": {"replicas": replicas}})

    def restart(self, plural: str, namespace: str, name: str) -> Response:
        """kubectl rollout restart."""
        at = stamp(self._cluster.store.clock())
        meta = {"annotations": {"kubectl.kubernetes.io/restartedAt": at}}
        return self.patch(plural, namespace, name, {"spec": {"template": {"metadata": meta}}})

    def delete(self, plural: str, namespace: str, name: str, **options: Any) -> Response:
        """kubectl delete; options: of DeleteOptions."""
        return self.send("DELETE", self._path(plural, namespace, name), options or None)

    # -- drain --------------------------------------------------------------------------

    def drain(self, node: str, *, timeout: float = 0.0) -> None:
        """kubectl drain --ignore-daemonsets --delete-emptydir-data --force: cordons, evicts all
        at once, tries a refused pod again every five seconds (kubectl's pkg/drain). timeout:
        seconds, 0 = for ever."""
        self.cordon(node)
        until = self._cluster.simulation.now + timeout if timeout else float("inf")
        for pod in self._cluster.store.pods_on(node):
            owner = controller_of(pod)
            mirror = "kubernetes.io/config.mirror" in (pod["metadata"].get("annotations") or {})
            if not mirror and (owner is None or owner["kind"] != "DaemonSet"):
                self._evict(pod["metadata"]["namespace"], pod["metadata"]["name"], until)

    def _evict(self, namespace: str, name: str, until: float) -> None:
        """By name alone, as kubectl does: also a pod of that name that is elsewhere by now."""
        body = {
            "kind": "Eviction",
            "apiVersion": "policy/v1",
            "metadata": {"name": name, "namespace": namespace},
        }
        path = self._path("pods", namespace, name)
        answer = self.send("POST", f"{path}/eviction", body)
        simulation = self._cluster.simulation
        if answer.status == 429 and simulation.now + RETRY < until:
            simulation.after(RETRY, lambda: self._evict(namespace, name, until))
