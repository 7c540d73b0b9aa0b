"""The typed calls to the API server: what is read and changed of each resource.

Raw requests, their rate and the fence: transport.py. Lists and watches: collection.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import quote

from kubernetes.client import Configuration

from selfheal_remediator.config import ApiBudget
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube import custom_resources, permissions
from selfheal_remediator.kube.changes_under_way import ChangesUnderWay
from selfheal_remediator.kube.collection import Collection
from selfheal_remediator.kube.json_values import as_name, as_object, as_text
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.kube.permissions import Permission
from selfheal_remediator.kube.placement import Terms, node_terms
from selfheal_remediator.kube.rate_limit import Budget
from selfheal_remediator.kube.responses import Answer, understood
from selfheal_remediator.kube.transport import Pool, Transport
from selfheal_remediator.threads.runtime import REAL, Runtime

__all__ = ["EVICTION_TIMEOUT", "Collection", "KubernetesApi"]

#: An eviction may be retried inside the server for about 10 s; never give up on it earlier.
EVICTION_TIMEOUT = 35.0

_PATCH = "application/json-patch+json"
_MERGE = "application/merge-patch+json"
_APPLY = "application/apply-patch+yaml"
#: Cluster API's group.
CLUSTER_API = "cluster.x-k8s.io"
#: API version, plural, namespace and name of an object.
ObjectPath = tuple[str, str, str, str]


class KubernetesApi:
    """Calls to one API server. Thread-safe. `get`, `send` and `write` are raw requests."""

    def __init__(
        self,
        configuration: Configuration,
        namespace: str,
        budget: ApiBudget,
        *,
        dry_run: bool = False,
        on_request: Callable[[str, int, float], None] | None = None,
        pool: Pool | None = None,
        runtime: Runtime = REAL,
    ) -> None:
        self.namespace, self.runtime = namespace, runtime
        self.transport = Transport(
            configuration,
            budget,
            dry_run=dry_run,
            on_request=on_request,
            pool=pool,
            runtime=runtime,
        )
        self.get, self.send = self.transport.get, self.transport.send
        self.write = self.transport.write
        self._changes = ChangesUnderWay(runtime=runtime)

    @property
    def server(self) -> str:
        """The API server's address, for people."""
        return self.transport.server

    @property
    def budget(self) -> Budget:
        """How many requests may be sent."""
        return self.transport.budget

    @property
    def dry_run(self) -> bool:
        """Whether each change is sent with dryRun=All."""
        return self.transport.dry_run

    @dry_run.setter
    def dry_run(self, value: bool) -> None:
        self.transport.dry_run = value

    @property
    def fence(self) -> Callable[[], object]:
        """What each write asks whether it may be sent, see Transport."""
        return self.transport.fence

    @fence.setter
    def fence(self, value: Callable[[], object]) -> None:
        self.transport.fence = value

    # -- nodes and pods -----------------------------------------------------------------

    def node(self, name: str) -> Json:
        """The node as it is now (a quorum read)."""
        return self.get(f"/api/v1/nodes/{quote(name)}")

    def patch_node(
        self, name: str, patch: list[Json], *, dry_run: bool = False, begun: object = None
    ) -> Answer:
        """JSON patch of a node; dry_run: with dryRun=All; begun: see Transport.write."""
        path = f"/api/v1/nodes/{quote(name)}"
        with self._changes.one():
            return self.write(
                "PATCH",
                path,
                patch,
                content_type=_PATCH,
                timeout=15.0,
                dry_run=dry_run,
                begun=begun,
            )

    def settle(self, seconds: float) -> bool:
        """Wait until no node is being changed and no pod evicted, for at most so long; whether
        that came true."""
        return self._changes.settle(seconds)

    def evict(
        self, namespace: str, name: str, uid: str, grace: int | None, *, dry_run: bool = False
    ) -> Answer:
        """Evict the pod, if it still is the pod with this uid.

        dry_run: only checks whether it would be allowed; uses up no budget.
        """
        options: Json = {"preconditions": {"uid": uid}}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if self.dry_run or dry_run:
            options["dryRun"] = ["All"]
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": options,
        }
        path = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(name)}/eviction"
        with self._changes.one():
            return self.write("POST", path, body, timeout=EVICTION_TIMEOUT, dry_run=dry_run)

    def delete_pod(
        self, namespace: str, name: str, uid: str, grace: int | None, *, dry_run: bool = False
    ) -> Answer:
        """Delete the pod with its own grace period (or a shorter one, never 0)."""
        options: Json = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
        }
        if grace is not None:
            options["gracePeriodSeconds"] = max(1, grace)
        path = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(name)}"
        with self._changes.one():
            return self.write("DELETE", path, options, dry_run=dry_run)

    def pod(self, namespace: str, name: str) -> Json | None:
        """The pod as it is now, None = there is none; needs only the right to list."""
        path = f"/api/v1/namespaces/{quote(namespace)}/pods"
        found = Collection(self.transport, path, {"fieldSelector": f"metadata.name={name}"})
        return next((raw for raws, _ in found.pages() for raw in raws), None)

    def claim_terms(self, namespace: str, claim: str) -> Terms | None:
        """The nodes that the claim's volume can be used on; None = any. Raises ApiFailure."""
        path = f"/api/v1/namespaces/{quote(namespace)}/persistentvolumeclaims/{quote(claim)}"
        with understood(f"claim {namespace}/{claim}"):
            name = as_text(as_object(self.get(path).get("spec")).get("volumeName"))
            if not name:
                return None  # not bound: its volume is made where the pod goes
            volume = self.get(f"/api/v1/persistentvolumes/{quote(name)}")
            affinity = as_object(as_object(volume.get("spec")).get("nodeAffinity"))
            return node_terms(affinity.get("required"))

    def config_map(self, namespace: str, name: str) -> Json | None:
        """A ConfigMap, None = there is none of this name. Raises ApiFailure."""
        path = f"/api/v1/namespaces/{quote(namespace)}/configmaps/{quote(name)}"
        return self.get_if_there(path)

    def get_if_there(self, path: str) -> Json | None:
        """What is at the path, None = nothing is (404). Raises ApiFailure."""
        try:
            return self.get(path)
        except ApiFailure as failure:
            if failure.status == 404:
                return None
            raise

    # -- policies -----------------------------------------------------------------------

    def controller(self, namespace: str, api: str, plural: str, name: str) -> Json | None:
        """A controller of pods, None = there is none of this name. Raises ApiFailure."""
        return self.get_if_there(
            f"/apis/{api}/namespaces/{quote(namespace)}/{plural}/{quote(name)}"
        )

    def policy(self, namespace: str, name: str) -> Json:
        """One HealingPolicy. Raises ApiFailure."""
        return self.get(f"{_policies(namespace)}/{quote(name)}")

    def patch_policy_status(self, namespace: str, name: str, version: str, status: Json) -> Answer:
        """Write a policy's status, if it still is the one of this resourceVersion."""
        body = {"metadata": {"resourceVersion": version}, "status": status}
        path = f"{_policies(namespace)}/{quote(name)}/status"
        return self.write("PATCH", path, body, content_type=_MERGE)

    # -- objects of a release --------------------------------------------------------------

    def objects(
        self, api: str, plural: str, namespace: str, selectors: Mapping[str, str]
    ) -> Collection:
        """Objects of any type in a namespace."""
        return Collection(self.transport, _collection(api, plural, namespace), selectors)

    def apply(
        self, at: ObjectPath, body: Json, manager: str, *, force: bool, begun: object = None
    ) -> Answer:
        """Server-side apply under this field manager; force: also against other managers."""
        return self.write(
            "PATCH",
            f"{_collection(*at[:3])}/{quote(at[3])}",
            body,
            content_type=_APPLY,
            options={"fieldManager": manager, "force": "true" if force else "false"},
            begun=begun,
        )

    def patch_object(self, at: ObjectPath, patch: list[Json], *, begun: object = None) -> Answer:
        """JSON patch of an object of any type."""
        path = f"{_collection(*at[:3])}/{quote(at[3])}"
        return self.write("PATCH", path, patch, content_type=_PATCH, begun=begun)

    # -- collections --------------------------------------------------------------------

    def nodes(self) -> Collection:
        """All nodes."""
        return Collection(self.transport, "/api/v1/nodes")

    def pods_of(self, node: str) -> Collection:
        """The pods of one node."""
        selector = f"spec.nodeName={node}"
        return Collection(self.transport, "/api/v1/pods", {"fieldSelector": selector})

    def pods(self) -> Collection:
        """All pods that may still need room; read in pages, never kept."""
        selector = "status.phase!=Succeeded,status.phase!=Failed"
        return Collection(self.transport, "/api/v1/pods", {"fieldSelector": selector})

    def policies(self, namespace: str = "") -> Collection:
        """All HealingPolicies, or those of a namespace."""
        return Collection(self.transport, _policies(namespace))

    def pods_labelled(self, namespace: str, selector: str) -> Collection:
        """The pods of a namespace (empty = of all) that a label selector takes."""
        path = f"/api/v1/namespaces/{quote(namespace)}/pods" if namespace else "/api/v1/pods"
        return Collection(self.transport, path, {"labelSelector": selector} if selector else {})

    def pending_pods(self) -> Collection:
        """The pods that are on no node yet."""
        selector = "spec.nodeName=,status.phase=Pending"
        return Collection(self.transport, "/api/v1/pods", {"fieldSelector": selector})

    def namespaces(self) -> Collection:
        """All Namespaces."""
        return Collection(self.transport, "/api/v1/namespaces")

    def volume_attachments(self) -> Collection:
        """All VolumeAttachments."""
        return Collection(self.transport, "/apis/storage.k8s.io/v1/volumeattachments")

    def budgets(self) -> Collection:
        """All PodDisruptionBudgets."""
        return Collection(self.transport, "/apis/policy/v1/poddisruptionbudgets")

    def daemon_sets(self) -> Collection:
        """All DaemonSets."""
        return Collection(self.transport, "/apis/apps/v1/daemonsets")

    def daemon_set(self, namespace: str, name: str) -> Collection:
        """The DaemonSet of this name, if there is one; needs only the right to list."""
        path = f"/apis/apps/v1/namespaces/{quote(namespace)}/daemonsets"
        return Collection(self.transport, path, {"fieldSelector": f"metadata.name={name}"})

    def leases(self, label_selector: str) -> Collection:
        """Leases of the whole cluster with a label."""
        path = "/apis/coordination.k8s.io/v1/leases"
        return Collection(self.transport, path, {"labelSelector": label_selector})

    def leases_in(self, namespace: str) -> Collection:
        """All Leases of a namespace (none when there is no such namespace)."""
        path = f"/apis/coordination.k8s.io/v1/namespaces/{quote(namespace)}/leases"
        return Collection(self.transport, path)

    def machines(self) -> Collection | None:
        """Cluster API's Machines, None where that API is not served. Raises ApiFailure."""
        version = self.preferred_version(CLUSTER_API)
        if version is None:
            return None
        return Collection(self.transport, f"/apis/{version}/machines")

    def preferred_version(self, group: str) -> str | None:
        """`group/version`, None = the group is not served. Raises ApiFailure."""
        found = self.get_if_there(f"/apis/{group}")
        if found is None:
            return None
        with understood(f"the API group {group}"):
            return as_name(as_object(found.get("preferredVersion")).get("groupVersion"))

    def config_map_watch(self, namespace: str, name: str) -> Collection:
        """One ConfigMap, to be watched."""
        return self.objects(
            "v1", "configmaps", namespace, {"fieldSelector": f"metadata.name={name}"}
        )

    def lease(self, namespace: str, name: str) -> Collection:
        """One Lease, to be watched."""
        path = f"/apis/coordination.k8s.io/v1/namespaces/{quote(namespace)}/leases"
        return Collection(self.transport, path, {"fieldSelector": f"metadata.name={name}"})

    # -- permissions --------------------------------------------------------------------

    def missing(self, wanted: list[Permission]) -> list[Permission]:
        """Those of the permissions that this account does not have. Raises ApiFailure."""
        return permissions.missing(self.transport, wanted)


def _policies(namespace: str) -> str:
    group = f"/apis/{custom_resources.GROUP}/{custom_resources.VERSION}"
    place = f"/namespaces/{quote(namespace)}" if namespace else ""
    return f"{group}{place}/{custom_resources.PLURAL}"


def _collection(api: str, plural: str, namespace: str) -> str:
    root = "apis" if "/" in api else "api"
    return f"/{root}/{api}/namespaces/{quote(namespace)}/{plural}"
