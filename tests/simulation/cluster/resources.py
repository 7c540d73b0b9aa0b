"""The resources that the modelled API server serves, and its paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: plural, namespace (empty for what has none), name.
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of objects.

    status: it has a status subresource, which alone changes its status. generation:
    metadata.generation grows with each change of its spec.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    status: bool = False
    generation: bool = False

    @property
    def api_version(self) -> str:
        """As objects name it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """As error messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


def _workload(plural: str, kind: str, group: str = "apps") -> Resource:
    return Resource(group, "v1", plural, kind, status=True, generation=True)


_ALL = (
    Resource("", "v1", "nodes", "Node", namespaced=False, status=True),
    Resource("", "v1", "namespaces", "Namespace", namespaced=False, status=True),
    Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False, status=True),
    Resource(
        "storage.k8s.io",
        "v1",
        "volumeattachments",
        "VolumeAttachment",
        namespaced=False,
        status=True,
    ),
    Resource("", "v1", "pods", "Pod", status=True),
    Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", status=True),
    Resource("", "v1", "configmaps", "ConfigMap"),
    Resource("", "v1", "events", "Event"),
    _workload("deployments", "Deployment"),
    _workload("replicasets", "ReplicaSet"),
    _workload("statefulsets", "StatefulSet"),
    _workload("daemonsets", "DaemonSet"),
    _workload("jobs", "Job", "batch"),
    _workload("poddisruptionbudgets", "PodDisruptionBudget", "policy"),
    Resource("coordination.k8s.io", "v1", "leases", "Lease"),
    Resource(
        "selfheal.dev",
        "v1alpha1",
        "healingpolicies",
        "HealingPolicy",
        status=True,
        generation=True,
    ),
    Resource("cluster.x-k8s.io", "v1beta1", "machines", "Machine", status=True, generation=True),
    Resource(
        *("self-node-remediation.medik8s.io", "v1alpha1"),
        *("selfnoderemediations", "SelfNodeRemediation"),
        status=True,
        generation=True,
    ),
)
RESOURCES: Mapping[str, Resource] = {resource.plural: resource for resource in _ALL}
#: Served only once its CustomResourceDefinition is installed.
CUSTOM = frozenset({"healingpolicies", "machines", "selfnoderemediations"})


@dataclass(frozen=True, slots=True)
class Place:
    """What a path names: a collection (name empty), an object, or a subresource."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def key(self) -> Key:
        """Of the object."""
        return self.resource.plural, self.namespace, self.name


def place_of(path: str) -> Place | None:
    """What an unquoted path names; None = nothing that is known."""
    parts = path.strip("/").split("/")
    if parts[:2] == ["api", "v1"]:
        group, version, rest = "", "v1", parts[2:]
    elif len(parts) > 3 and parts[0] == "apis":
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if rest[0:1] == ["namespaces"] and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    resource = RESOURCES.get(rest[0]) if rest else None
    if resource is None or (resource.group, resource.version) != (group, version):
        return None
    if len(rest) > 3 or (namespace and not resource.namespaced):
        return None
    name, subresource = (*rest[1:], "", "")[:2]
    if name and resource.namespaced and not namespace:
        return None
    return Place(resource, namespace, name, subresource)
