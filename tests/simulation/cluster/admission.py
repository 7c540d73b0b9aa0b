"""What the API server adds to objects, and what it refuses: defaults, admission, validation."""

from __future__ import annotations

from tests.simulation.cluster import statuses
from tests.simulation.cluster.messages import Json, clone, stamp
from tests.simulation.cluster.resources import RESOURCES, Place, Resource
from tests.simulation.cluster.store import Store

#: Admission plugin DefaultTolerationSeconds.
NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"
TOLERATION_SECONDS = 300
_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}


def check_namespace(store: Store, place: Place) -> None:
    """NamespaceLifecycle: nothing is created in a namespace that is missing or ends.

    Raises Refused (404, 403)."""
    if not place.namespace:
        return
    found = store.get("namespaces", "", place.namespace)
    if found is None:
        raise statuses.failure(
            404,
            "NotFound",
            f'namespaces "{place.namespace}" not found',
            {"name": place.namespace, "kind": "namespaces"},
        )
    if found["metadata"].get("deletionTimestamp") is not None:
        raise statuses.namespace_terminating(place.resource, place.name, place.namespace)


def take_in(store: Store, raw: Json, resource: Resource, *, created: bool) -> None:
    """Complete an object that is to be stored. Raises Refused (422)."""
    match resource.kind:
        case "Pod":
            if created:
                _pod(store, raw)
        case "Lease":
            _lease(raw, resource)
        case "HealingPolicy":
            _healing_policy(raw, resource)
        case "Node":
            if created:
                raw.setdefault("spec", {})
                raw.setdefault("status", {})


def _pod(store: Store, raw: Json) -> None:
    spec = raw["spec"]
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("priority", _PRIORITIES.get(spec.get("priorityClassName", ""), 0))
    tolerations = clone(spec.get("tolerations") or [])
    for key in (NOT_READY, UNREACHABLE):
        if not any(
            item.get("key") in (key, None, "") and _no_execute(item) for item in tolerations
        ):
            tolerations.append(
                {
                    "key": key,
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": TOLERATION_SECONDS,
                }
            )
    spec["tolerations"] = tolerations
    status = raw.setdefault("status", {})
    status.setdefault("phase", "Pending")
    status.setdefault("qosClass", "BestEffort")


def _no_execute(toleration: Json) -> bool:
    return toleration.get("effect") in ("NoExecute", None, "")


def _lease(raw: Json, resource: Resource) -> None:
    """pkg/apis/coordination/validation."""
    spec, name = raw.get("spec") or {}, raw["metadata"]["name"]
    duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    if duration is not None and duration <= 0:
        why = f"Invalid value: {duration}: must be greater than 0"
        raise statuses.invalid(resource, name, "spec.leaseDurationSeconds", why)
    if transitions is not None and transitions < 0:
        why = f"Invalid value: {transitions}: must be greater than or equal to 0"
        raise statuses.invalid(resource, name, "spec.leaseTransitions", why)


#: The defaults of the CustomResourceDefinition (chart/crds/healingpolicy.yaml).
POLICY_DEFAULTS: Json = {"healthThreshold": 1, "failureThreshold": 3}


def _healing_policy(raw: Json, resource: Resource) -> None:
    spec = raw.get("spec")
    if not isinstance(spec, dict):
        raise statuses.invalid(resource, raw["metadata"]["name"], "spec", "Required value")
    for key, value in POLICY_DEFAULTS.items():
        spec.setdefault(key, value)
    for key in ("selector", "unhealthyWhen"):
        if not isinstance(spec.get(key), dict):
            name = raw["metadata"]["name"]
            raise statuses.invalid(resource, name, f"spec.{key}", "Required value")


def namespace(name: str, now: float) -> Json:
    """A Namespace."""
    labels = {"kubernetes.io/metadata.name": name}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels, "creationTimestamp": stamp(now)},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    }


def resource_of(raw: Json) -> Resource:
    """The resource of an object by its kind."""
    return next(found for found in RESOURCES.values() if found.kind == raw["kind"])


def completed(store: Store, raw: Json, resource: Resource) -> Json:
    """The object as the API server would store it."""
    raw = clone(raw)
    take_in(store, raw, resource, created=True)
    return raw
