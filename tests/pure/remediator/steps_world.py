"""What tests of steps share: a run, and an API server with kinds that others install."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from kubernetes.client import Configuration

from selfheal_remediator.actions.step import StepKind, StepOutcome, StepResult, StepRun
from selfheal_remediator.config import ApiBudget
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.objects import Node, node_from_json
from tests.pure.remediator.api_objects import NODE
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.fake_runtime import FakeRuntime

Json = dict[str, Any]
NODE_PATH = "/api/v1/nodes/n1"
OCCURRENCE = "0123456789abcdef0123-1"
BEGAN, DEADLINE = 1000.0, 1600.0
BOOT_ID = "b-1"


def no_trouble(_verb: str, _path: str) -> str:
    return ""


class StepsApi(FakeApi):
    """Also deletes, keeps an object's namespace, and lists what is put there.

    held: paths of objects that a finalizer keeps. calls: every request that was answered.
    """

    def __init__(self, disturb: Callable[[str, str], str] = no_trouble) -> None:
        super().__init__(disturb)
        self.held: set[str] = set()
        self.calls: list[tuple[str, str]] = []
        self.put(NODE_PATH, NODE)

    def serve(self, api_version: str, kind: str, plural: str, *, namespaced: bool = True) -> None:
        """A kind is installed."""
        group = api_version.rpartition("/")[0]
        resource = {"name": plural, "kind": kind, "namespaced": namespaced}
        status = {**resource, "name": f"{plural}/status"}
        top = "/apis" if group else "/api"
        self.objects[f"{top}/{api_version}"] = {
            "kind": "APIResourceList",
            "resources": [status, resource],
        }
        preferred = {"groupVersion": api_version, "version": api_version.rpartition("/")[2]}
        self.objects[f"/apis/{group}"] = {"kind": "APIGroup", "preferredVersion": preferred}

    def change(self, path: str, **parts: Json) -> None:
        """Another system changes parts of an object."""
        with self.changing(path) as raw:
            raw.update(parts)

    def made(self, verb: str) -> list[str]:
        """The paths of all changes of this kind."""
        return [path for done, path, _ in self.did if done == verb]

    def _do(self, verb: str, path: str, query: dict[str, str], body: Json) -> tuple[int, Json]:
        self.calls.append((verb, path))
        if verb == "DELETE":
            return self._delete(path, body, dry_run="dryRun" in query)
        if verb == "POST" and not path.endswith("/eviction"):
            if "dryRun" in query:
                return 201, body
            namespace = body["metadata"].get("namespace")
            status, answer = super()._do(verb, path, query, body)
            if status == 201 and namespace:
                answer["metadata"]["namespace"] = namespace
            return status, answer
        if verb == "GET" and path.endswith("/machines"):
            items = [
                copy.deepcopy(raw) for name, raw in self.objects.items() if "/machines/" in name
            ]
            return 200, {"kind": "List", "metadata": {"resourceVersion": "1"}, "items": items}
        return super()._do(verb, path, query, body)

    def _delete(self, path: str, body: Json, *, dry_run: bool) -> tuple[int, Json]:
        found = self.objects.get(path)
        if found is None:
            return 404, {"kind": "Status", "code": 404}
        meta = found["metadata"]
        for key, value in body["preconditions"].items():
            if meta[key] != value:
                return 409, {"kind": "Status", "code": 409}
        if dry_run:
            return 200, found
        self.did.append(("DELETE", path, found))
        if path in self.held:
            self.put(
                path, {**found, "metadata": {**meta, "deletionTimestamp": "2026-01-01T00:00:00Z"}}
            )
        else:
            self.put(path, None)
        return 200, {"kind": "Status", "status": "Success"}


def client(server: FakeApi) -> KubernetesApi:
    """The real client, which waits for nothing between two tries."""
    access = Configuration()
    access.host = server.url
    return KubernetesApi(access, "d", ApiBudget(qps=1000, burst=1000), runtime=FakeRuntime())


def run_on(server: FakeApi, *, dry_run: bool = False) -> StepRun:
    """The step's run, with the node as it is."""
    return step_run(node_from_json(server.get(NODE_PATH)), dry_run=dry_run)


def step_run(node: Node, *, dry_run: bool = False) -> StepRun:
    """The step's run on this node."""
    return StepRun(
        node=node,
        rule="1a2b3c4d",
        condition="KernelDeadlock",
        reason="DockerHung",
        message="task docker:20744 blocked",
        occurrence=OCCURRENCE,
        index=0,
        began=BEGAN,
        deadline=DEADLINE,
        boot_id=BOOT_ID,
        dry_run=dry_run,
    )


def other_boot(server: FakeApi) -> None:
    """The node reboots."""
    status = copy.deepcopy(server.get(NODE_PATH)["status"])
    status["nodeInfo"]["bootID"] = "b-2"
    server.put(NODE_PATH, {**server.get(NODE_PATH), "status": status})


def until_it_ends(
    server: FakeApi, new_step: Callable[[], StepKind], between: Callable[[], object] = lambda: None
) -> StepResult:
    """Advance the step until it ends, each time by another leader, who knows nothing.

    A leader that gets no answer is one that was killed. between: what others do meanwhile.
    """
    last = run_on(server)
    for count in range(60):
        if NODE_PATH in server.objects:
            last = run_on(server)
        try:
            result = new_step().advance(last, BEGAN + count)
        except ApiFailure:
            continue
        if result.outcome is not StepOutcome.RUNNING:
            return result
        between()
    raise AssertionError(f"it did not end: {result}")
