"""POST, PATCH, PUT and DELETE of the modelled API server."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.simulation.cluster import admission, deletion, patches, statuses
from tests.simulation.cluster.messages import Json, Request, Response, clone
from tests.simulation.cluster.resources import Place, Resource
from tests.simulation.cluster.store import Store, Stored

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
PATCHES = (JSON_PATCH, MERGE_PATCH, STRATEGIC, APPLY)


@dataclass(frozen=True, slots=True)
class Write:
    """One request that may change something."""

    store: Store
    place: Place
    request: Request

    @property
    def dry_run(self) -> bool:
        """Whether nothing is to be stored."""
        return self.request.query.get("dryRun") == "All"

    @property
    def manager(self) -> str:
        """For managedFields: as the request says, otherwise the user agent's name."""
        named = self.request.query.get("fieldManager")
        return named or self.request.header("User-Agent").partition("/")[0] or "unknown"

    def body(self) -> Any:
        """The body's JSON. Raises Refused (400)."""
        try:
            return json.loads(self.request.body or b"")
        except ValueError as error:
            raise statuses.bad_request(f"the object provided is unrecognized: {error}") from error


def create(write: Write, random: Callable[[], str]) -> Response:
    """POST of an object. random: five letters for generateName. Raises Refused."""
    place, store = write.place, write.store
    raw = write.body()
    if not isinstance(raw, dict) or raw.get("kind") not in (None, place.resource.kind):
        raise statuses.bad_request(f"the object provided is no {place.resource.kind}")
    raw["kind"] = place.resource.kind
    meta = raw.setdefault("metadata", {})
    if meta.get("namespace") not in (None, "", place.namespace):
        raise statuses.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    meta["namespace"] = place.namespace
    if not meta.get("name") and meta.get("generateName"):
        meta["name"] = meta["generateName"] + random()
    if not meta.get("name"):
        raise statuses.invalid(
            place.resource, "", "metadata.name", "Required value: name or generateName is required"
        )
    named = Place(place.resource, place.namespace, str(meta["name"]))
    admission.check_namespace(store, named)
    admission.take_in(store, raw, place.resource, created=True)
    if write.dry_run:
        if store.get(*named.key) is not None:
            raise statuses.already_exists(place.resource, named.name)
        return statuses.answer(201, raw)
    stored = store.create(raw, write.request.process, manager=write.manager)
    return Response(201, statuses.JSON_HEADERS, stored.text)


def patch(write: Write) -> Response:
    """PATCH of an object or its status. Raises Refused."""
    place = write.place
    before = write.store.get(*place.key)
    kind = write.request.header("Content-Type").partition(";")[0].strip()
    if kind not in PATCHES:
        raise statuses.failure(
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: "
            + ", ".join(PATCHES),
        )
    if before is None:
        raise statuses.not_found(place.resource, place.name)
    body = write.body()
    if kind == JSON_PATCH:
        if not isinstance(body, list):
            raise statuses.bad_request("json: cannot unmarshal object into a JSON patch")
        try:
            after = patches.apply_json_patch(before, body)
        except patches.NotApplicable as error:
            raise statuses.patch_not_applicable() from error
    elif isinstance(body, dict):
        after = (patches.strategic if kind == STRATEGIC else patches.merge)(before, body)
    else:
        raise statuses.bad_request("json: cannot unmarshal array into Go value of type map")
    return _update(write, before, after, applied=kind == APPLY)


def put(write: Write) -> Response:
    """PUT of an object or its status. Raises Refused."""
    before, after = write.store.get(*write.place.key), write.body()
    if before is None:
        raise statuses.not_found(write.place.resource, write.place.name)
    return _update(write, before, after, applied=False)


def _update(write: Write, before: Stored, after: Json, *, applied: bool) -> Response:
    place = write.place
    _check_meta(place.resource, before, after)
    after = _allowed(place, before, after)
    admission.take_in(write.store, after, place.resource, created=False)
    if write.dry_run:
        return statuses.answer(200, after)
    stored = write.store.replace(
        place.key, after, write.request.process, manager=write.manager, applied=applied
    )
    return Response(200, statuses.JSON_HEADERS, (stored or Stored(after)).text)


def _check_meta(resource: Resource, before: Json, after: Json) -> None:
    """uid and resourceVersion, where the body has them, are preconditions."""
    was, meta = before["metadata"], after.get("metadata")
    if not isinstance(meta, dict) or meta.get("name") != was["name"]:
        raise statuses.bad_request("the name of the object does not match the name on the URL")
    if meta.get("uid") not in (None, "", was["uid"]):
        why = (
            f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: "
            f"{was['uid']}"
        )
        raise statuses.conflict(resource, was["name"], why)
    if meta.get("resourceVersion") not in (None, "", was["resourceVersion"]):
        raise statuses.conflict(resource, was["name"])


def _allowed(place: Place, before: Json, after: Json) -> Json:
    """What this endpoint may change: its status, or everything but its status."""
    if place.subresource == "status":
        changed: Json = clone(before)
        if place.resource.kind == "Node":  # its strategy takes metadata over as well
            changed["metadata"] = after["metadata"]
        changed["status"] = after.get("status", {})
        return changed
    if place.resource.status and place.resource.kind not in ("Namespace",):
        after = dict(after)
        if "status" in before:
            after["status"] = before["status"]
        else:
            after.pop("status", None)
    return after


def delete(write: Write) -> Response:
    """DELETE of an object. Raises Refused."""
    options = write.body() if write.request.body else {}
    place = write.place
    dry = write.dry_run or "All" in (options.get("dryRun") or ())
    if "gracePeriodSeconds" in write.request.query:
        grace = int(write.request.query["gracePeriodSeconds"])
        options = {**options, "gracePeriodSeconds": grace}
    raw = deletion.delete(write.store, place.key, options, write.request.process, dry_run=dry)
    if write.store.get(*place.key) is None:
        return statuses.success(place.resource, place.name, raw["metadata"]["uid"])
    return Response(200, statuses.JSON_HEADERS, raw.text)
