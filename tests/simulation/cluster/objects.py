"""Objects as people and installers write them, with all that does not matter filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.simulation.cluster.messages import Json

HOSTNAME, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"


def node(
    name: str,
    *,
    zone: str = "a",
    cpu: str = "4",
    memory: str = "16Gi",
    pods: int = 110,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    taints: Sequence[Json] = (),
    resources: Mapping[str, str] | None = None,
    control_plane: bool = False,
) -> Json:
    """A Node as a kubelet registers it, without conditions."""
    size = {"cpu": cpu, "memory": memory, "pods": str(pods), "ephemeral-storage": "100Gi"}
    size |= dict(resources or {})
    roles = {CONTROL_PLANE: ""} if control_plane else {}
    own = {HOSTNAME: name, ZONE: zone, "kubernetes.io/os": "linux", **roles, **(labels or {})}
    meta: Json = {"name": name, "labels": own, "annotations": dict(annotations or {})}
    spec: Json = {"podCIDR": "10.0.0.0/24", "providerID": f"model://{name}"}
    taints = list(taints)
    if control_plane:
        taints.append({"key": CONTROL_PLANE, "effect": "NoSchedule"})
    if taints:
        spec["taints"] = taints
    status = {"capacity": size, "allocatable": dict(size), "conditions": [], "nodeInfo": {}}
    return {"kind": "Node", "apiVersion": "v1", "metadata": meta, "spec": spec, "status": status}


def template(
    labels: Mapping[str, str], *, cpu: str = "100m", memory: str = "64Mi", **spec: Any
) -> Json:
    """A pod template with one container. spec: more of the pod's spec."""
    annotations = spec.pop("annotations", None)
    requests = {"cpu": cpu, "memory": memory, **spec.pop("requests", {})}
    container = {"name": "main", "image": "app:1", "resources": {"requests": requests}}
    meta: Json = {"labels": dict(labels)}
    if annotations:
        meta["annotations"] = annotations
    return {"metadata": meta, "spec": {"containers": [container], **spec}}


def pod(namespace: str, name: str, labels: Mapping[str, str] | None = None, **spec: Any) -> Json:
    """A pod of nobody."""
    made = template(labels or {"app": name}, **spec)
    meta = {"namespace": namespace, "name": name, **made["metadata"]}
    return {"kind": "Pod", "apiVersion": "v1", "metadata": meta, "spec": made["spec"]}


def _workload(kind: str, namespace: str, name: str, spec: Json) -> Json:
    api = "batch/v1" if kind == "Job" else "apps/v1"
    meta = {"namespace": namespace, "name": name, "labels": {"app": name}}
    return {"kind": kind, "apiVersion": api, "metadata": meta, "spec": spec}


def _spec(name: str, pod_spec: Mapping[str, Any], **more: Any) -> Json:
    labels = {"app": name}
    selector = {"matchLabels": dict(labels)}
    return {"selector": selector, "template": template(labels, **pod_spec), **more}


def deployment(namespace: str, name: str, replicas: int, **pod_spec: Any) -> Json:
    """A Deployment with the server's defaults; its pods are labelled app=NAME."""
    rolling = {"maxSurge": "25%", "maxUnavailable": "25%"}
    spec = _spec(
        name,
        pod_spec,
        replicas=replicas,
        strategy={"type": "RollingUpdate", "rollingUpdate": rolling},
        revisionHistoryLimit=10,
        progressDeadlineSeconds=600,
    )
    return _workload("Deployment", namespace, name, spec)


def replica_set(namespace: str, name: str, replicas: int, **pod_spec: Any) -> Json:
    """A ReplicaSet without a Deployment."""
    return _workload("ReplicaSet", namespace, name, _spec(name, pod_spec, replicas=replicas))


def stateful_set(
    namespace: str, name: str, replicas: int, *, parallel: bool = False, **pod_spec: Any
) -> Json:
    """A StatefulSet."""
    spec = _spec(
        name,
        pod_spec,
        replicas=replicas,
        serviceName=name,
        podManagementPolicy="Parallel" if parallel else "OrderedReady",
        updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
    )
    return _workload("StatefulSet", namespace, name, spec)


def daemon_set(namespace: str, name: str, **pod_spec: Any) -> Json:
    """A DaemonSet."""
    update = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}
    return _workload("DaemonSet", namespace, name, _spec(name, pod_spec, updateStrategy=update))


def job(namespace: str, name: str, *, completions: int = 1, **pod_spec: Any) -> Json:
    """A Job, whose pods end by themselves."""
    made = template({"job-name": name}, restartPolicy="Never", **pod_spec)
    spec = {"completions": completions, "parallelism": 1, "backoffLimit": 6, "template": made}
    return _workload("Job", namespace, name, spec)


def budget(namespace: str, name: str, selector: Mapping[str, str], **spec: Any) -> Json:
    """A PodDisruptionBudget: minAvailable or maxUnavailable."""
    return {
        "kind": "PodDisruptionBudget",
        "apiVersion": "policy/v1",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"selector": {"matchLabels": dict(selector)}, **spec},
        "status": {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0},
    }


def healing_policy(
    namespace: str, name: str, selector: Mapping[str, str], unhealthy: Json, **spec: Any
) -> Json:
    """A HealingPolicy."""
    return {
        "kind": "HealingPolicy",
        "apiVersion": "selfheal.dev/v1alpha1",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "selector": {"matchLabels": dict(selector)},
            "unhealthyWhen": unhealthy,
            **spec,
        },
    }


def lease(namespace: str, name: str, holder: str, renewed: str, seconds: int = 15) -> Json:
    """A Lease that somebody holds."""
    spec = {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": seconds}
    meta = {"namespace": namespace, "name": name}
    api = "coordination.k8s.io/v1"
    return {"kind": "Lease", "apiVersion": api, "metadata": meta, "spec": spec}
