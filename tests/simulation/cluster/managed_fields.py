"""metadata.managedFields, as far as somebody reads it: who owns a Node's spec.unschedulable.

An update that sets the field makes its manager the owner. One that removes it, or sets false
(which Go's omitempty leaves out), leaves no owner. Only a server-side apply of false keeps one,
because an apply's fields are those of its configuration
(https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management).
"""

from __future__ import annotations

from tests.simulation.cluster.messages import Json, stamp

_FIELD: Json = {"f:spec": {"f:unschedulable": {}}}


def take_in(
    before: Json | None, raw: Json, manager: str, now: float, *, applied: bool = False
) -> None:
    """Write who owns spec.unschedulable after a write of `raw` by `manager`."""
    if raw["kind"] != "Node":
        return
    spec, meta = raw.setdefault("spec", {}), raw["metadata"]
    was = bool(before and before["spec"].get("unschedulable"))
    named = "unschedulable" in spec
    if not spec.get("unschedulable"):
        spec.pop("unschedulable", None)
    is_now = "unschedulable" in spec
    if before is not None:
        old = before["metadata"].get("managedFields")
        meta.pop("managedFields", None)
        if old:
            meta["managedFields"] = old
    if is_now != was or (applied and named):
        keeps = is_now or (applied and named)
        meta["managedFields"] = [_entry(manager, now, applied=applied)] if keeps else []
        if not keeps:
            del meta["managedFields"]


def _entry(manager: str, now: float, *, applied: bool) -> Json:
    return {
        "manager": manager,
        "operation": "Apply" if applied else "Update",
        "apiVersion": "v1",
        "time": stamp(now),
        "fieldsType": "FieldsV1",
        "fieldsV1": _FIELD,
    }
