"""What DELETE does: preconditions, grace, finalizers (apiserver's pkg/registry/rest/delete.go)."""

from __future__ import annotations

from tests.simulation.cluster import statuses
from tests.simulation.cluster.messages import Json, stamp
from tests.simulation.cluster.resources import RESOURCES, Key, Resource
from tests.simulation.cluster.store import Store, Stored

DEFAULT_GRACE = 30


def check_preconditions(resource: Resource, raw: Json, options: Json) -> None:
    """Raises Refused (409) when it is another object, or has changed."""
    wanted, meta = options.get("preconditions") or {}, raw["metadata"]
    if wanted.get("uid") not in (None, meta["uid"]):
        raise statuses.other_uid(resource, meta["name"], wanted["uid"], meta["uid"])
    if wanted.get("resourceVersion") not in (None, meta["resourceVersion"]):
        raise statuses.other_version(
            resource, meta["name"], wanted["resourceVersion"], meta["resourceVersion"]
        )


def delete(store: Store, key: Key, options: Json, by: str, *, dry_run: bool = False) -> Stored:
    """Delete an object, or begin to. Returns it as it is answered. Raises Refused (404, 409)."""
    resource = RESOURCES[key[0]]
    raw = store.get(*key)
    if raw is None:
        raise statuses.not_found(resource, key[2])
    check_preconditions(resource, raw, options)
    if dry_run:
        return raw
    grace = _grace(raw, options, resource)
    meta = raw["metadata"]
    if meta.get("deletionTimestamp") is not None:
        return _sooner(store, key, raw, options, by)
    if grace == 0 and not meta.get("finalizers"):
        store.remove(key, by)
        return raw

    def mark(there: Json) -> None:
        there["metadata"]["deletionTimestamp"] = stamp(store.clock() + grace)
        there["metadata"]["deletionGracePeriodSeconds"] = grace

    return store.change(key, mark, by) or raw


def _sooner(store: Store, key: Key, raw: Stored, options: Json, by: str) -> Stored:
    """It is being deleted: a shorter grace counts, a longer one changes nothing."""
    meta = raw["metadata"]
    before, wanted = (
        int(meta.get("deletionGracePeriodSeconds") or 0),
        options.get("gracePeriodSeconds"),
    )
    if wanted is None or int(wanted) >= before:
        if before == 0 and not meta.get("finalizers"):
            store.remove(key, by)
        return raw
    grace = max(0, int(wanted))
    if grace == 0 and not meta.get("finalizers"):
        store.remove(key, by)
        return raw

    def shorten(there: Json) -> None:
        there["metadata"]["deletionGracePeriodSeconds"] = grace
        there["metadata"]["deletionTimestamp"] = stamp(store.clock() + grace)

    return store.change(key, shorten, by) or raw


def _grace(raw: Json, options: Json, resource: Resource) -> int:
    """Seconds. Only pods are deleted gracefully; one that is bound to no node, or has finished,
    goes at once (pkg/registry/core/pod/strategy.go, CheckGracefulDelete)."""
    if resource.kind != "Pod":
        return 0
    spec, wanted = raw["spec"], options.get("gracePeriodSeconds")
    if not spec.get("nodeName") or raw.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    if wanted is not None:
        return int(wanted) if int(wanted) >= 0 else 1
    return int(spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE))
