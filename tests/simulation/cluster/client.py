"""A cluster with its own time, and short forms of requests: for tests of the model."""

from __future__ import annotations

import json
from typing import Any

from tests.simulation.cluster import objects
from tests.simulation.cluster.cluster import Cluster
from tests.simulation.cluster.kubelets import Behaviour
from tests.simulation.cluster.messages import Request, Response
from tests.simulation.cluster.timeline import Timeline
from tests.simulation.cluster.watches import WatchStream

Json = dict[str, Any]
NODES, PODS = "/api/v1/nodes", "/api/v1/namespaces/default/pods"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/selfheal/leases"
POLICIES = "/apis/selfheal.dev/v1alpha1/namespaces/default/healingpolicies"
JSON_PATCH, MERGE = "application/json-patch+json", "application/merge-patch+json"


class World:
    """A cluster with its time, and short forms of requests."""

    def __init__(self, nodes: int = 2) -> None:
        self.time = Timeline()
        self.cluster = Cluster(self.time)
        self.store = self.cluster.store
        for number in range(nodes):
            self.cluster.add_node(f"n{number}")
        self.time.run(5.0)

    def send(self, method: str, url: str, body: Any = None, kind: str = "") -> Response:
        """One request, which is no watch."""
        headers = {"Content-Type": kind or "application/json", "User-Agent": "test/1"}
        text = None if body is None else json.dumps(body).encode()
        request = Request.to(method, url, headers=headers, body=text, process="me")
        answer = self.cluster.handle(request)
        assert isinstance(answer, Response)
        return answer

    def watch(self, url: str) -> WatchStream:
        """A watch."""
        answer = self.cluster.handle(Request.to("GET", f"{url}&watch=true"))
        assert isinstance(answer, WatchStream)
        return answer

    def evict(self, pod: str, uid: str = "", query: str = "", **options: Any) -> Response:
        """An eviction, of the pod as it is."""
        there = self.store.get("pods", "default", pod)
        uid = uid or (there["metadata"]["uid"] if there else "none")
        body = {
            "kind": "Eviction",
            "apiVersion": "policy/v1",
            "metadata": {"name": pod, "namespace": "default"},
            "deleteOptions": {"preconditions": {"uid": uid}, **options},
        }
        return self.send("POST", f"{PODS}/{pod}/eviction{query}", body)

    def pod(self, name: str, ready: bool = True, **spec: Any) -> Json:
        """A pod that runs."""
        self.cluster.kubelets.behaviour = lambda _: Behaviour(ready=0.5 if ready else None)
        self.cluster.add(objects.pod("default", name, **spec))
        self.time.run(3.0)
        return self.there(name)

    def there(self, name: str) -> Json:
        """A pod of namespace default that exists."""
        found = self.store.get("pods", "default", name)
        assert found is not None
        return found

    def budget(self, name: str, app: str, allowed: int, **more: Any) -> None:
        """A budget with this status, as its controller left it."""
        raw = self.cluster.add(objects.budget("default", name, {"app": app}, minAvailable=1))

        def status(there: Json) -> None:
            counts = {"currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}
            there["status"] = {"disruptionsAllowed": allowed, "observedGeneration": 1, **counts}
            there["status"] |= more.pop("status", {})
            there["spec"] |= more

        self.store.change(("poddisruptionbudgets", "default", name), status)
        assert raw["metadata"]["generation"] == 1


def events(stream: WatchStream) -> list[tuple[str, Json]]:
    """What has come on a watch."""
    found = []
    while (chunk := stream.next_chunk()) is not None:
        for line in chunk.splitlines():
            event = json.loads(line)
            found.append((event["type"], event["object"]))
    return found


def names(answer: Response) -> list[str]:
    """Of the objects of a list."""
    return [item["metadata"]["name"] for item in answer.json()["items"]]
