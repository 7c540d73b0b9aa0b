"""Conditions in an object's status."""

from __future__ import annotations

from tests.simulation.cluster.messages import Json, stamp


def find(raw: Json, kind: str) -> Json | None:
    """The condition of this type, None = it has none."""
    conditions = (raw.get("status") or {}).get("conditions") or ()
    return next((item for item in conditions if item["type"] == kind), None)


def status_of(raw: Json, kind: str) -> str:
    """Its status, empty = it has none."""
    found = find(raw, kind)
    return str(found["status"]) if found else ""


def put(
    raw: Json,
    kind: str,
    status: str,
    now: float,
    *,
    reason: str = "",
    message: str = "",
    heartbeat: bool = False,
    moved: bool = False,
) -> None:
    """Set a condition, for editing. Its transition moves with the status, or if `moved`.

    heartbeat: it has lastHeartbeatTime, which is now."""
    conditions = raw.setdefault("status", {}).setdefault("conditions", [])
    item = next((item for item in conditions if item["type"] == kind), None)
    if item is None:
        item = {"type": kind}
        conditions.append(item)
    if item.get("status") != status or moved:
        item["lastTransitionTime"] = stamp(now)
    item["status"] = status
    for key, value in (("reason", reason), ("message", message)):
        if value:
            item[key] = value
        else:
            item.pop(key, None)
    if heartbeat:
        item["lastHeartbeatTime"] = stamp(now)
