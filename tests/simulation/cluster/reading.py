"""GET, LIST and WATCH of the modelled API server, of the present or an older state.

https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions: a list without a
resourceVersion is consistent, 0 is answered from the watch cache (all at once, whatever `limit`),
pages are of one version, an expired page is 410 with a token for an inconsistent rest.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping

from tests.simulation.cluster import statuses
from tests.simulation.cluster.messages import Json, Request, Response, Simulation
from tests.simulation.cluster.resources import Place
from tests.simulation.cluster.selectors import BadSelector, query
from tests.simulation.cluster.statuses import JSON_HEADERS, encode
from tests.simulation.cluster.store import Store, Stored, View
from tests.simulation.cluster.watches import SHORTEST, Watch, WatchStream, failed_watch

CONTINUE_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can "
    "start a new list without the continue parameter, or use the continue token in this response "
    "to retrieve the remainder of the results. Continuing with the provided token results in an "
    "inconsistent list - objects that were created, modified, or deleted between the time the "
    "first chunk was returned and now may show up in the list."
)


def get(view: View, place: Place) -> Response:
    """One object. Raises Refused (404)."""
    raw = view.get(*place.key)
    if raw is None:
        raise statuses.not_found(place.resource, place.name)
    return Response(200, JSON_HEADERS, raw.text)


def fits(values: Mapping[str, str], place: Place) -> Callable[[Json], bool] | None:
    """The predicate of the request's selectors. Raises Refused (400)."""
    try:
        return query(values, place.resource.plural)
    except BadSelector as error:
        raise statuses.bad_request(str(error)) from error


def list_objects(store: Store, place: Place, values: Mapping[str, str], stale: View) -> Response:
    """A list, or one page of it. stale: what resourceVersion=0 is answered from. Raises Refused."""
    wanted, token = values.get("resourceVersion", ""), values.get("continue", "")
    limit = int(values.get("limit") or 0)
    after: tuple[str, str] | None = None
    view: View = store
    if token:
        view, after = _continued(store, token)
    elif wanted == "0":
        view, limit = stale, 0
    elif wanted:
        if int(wanted) > store.version:
            raise statuses.version_too_large(int(wanted), store.version)
        if values.get("resourceVersionMatch") == "Exact":
            if int(wanted) < store.compacted:
                raise statuses.expired("The resourceVersion for the provided list is too old.")
            view = store.at(int(wanted))
    wants = fits(values, place)
    raws = view.all(place.resource.plural, place.namespace)
    if after is not None:
        raws = [raw for raw in raws if _position(raw) > after]
    selected = [raw for raw in raws if wants is None or wants(raw)]
    page = selected[:limit] if limit else selected
    meta: Json = {"resourceVersion": str(view.version)}
    if len(page) < len(selected):
        meta["continue"] = _token(view.version, page[-1])
        if wants is None:
            meta["remainingItemCount"] = len(selected) - len(page)
    return Response(200, JSON_HEADERS, _list_text(place, meta, page))


def _list_text(place: Place, meta: Json, raws: list[Stored]) -> bytes:
    resource = place.resource
    head = encode({"kind": f"{resource.kind}List", "apiVersion": resource.api_version})
    items = b",".join(raw.text for raw in raws)
    return head[:-1] + b',"metadata":' + encode(meta) + b',"items":[' + items + b"]}"


def _position(raw: Json) -> tuple[str, str]:
    return raw["metadata"].get("namespace", ""), raw["metadata"]["name"]


def _token(version: int, last: Json) -> str:
    return base64.urlsafe_b64encode(encode([version, *_position(last)])).decode()


def _continued(store: Store, token: str) -> tuple[View, tuple[str, str]]:
    """The state and the position that a continue token names. Raises Refused (400, 410)."""
    try:
        version, namespace, name = json.loads(base64.urlsafe_b64decode(token))
    except ValueError as error:
        raise statuses.bad_request(f"continue key is not valid: {error}") from error
    after = str(namespace), str(name)
    if version < 0:  # of an inconsistent rest
        return store, after
    if not store.compacted <= version <= store.version:
        rest = base64.urlsafe_b64encode(encode([-1, *after])).decode()
        raise statuses.expired(CONTINUE_EXPIRED, rest)
    return store.at(version), after


def watch(simulation: Simulation, store: Store, place: Place, request: Request) -> WatchStream:
    """A stream of events. Raises Refused (400)."""
    values = request.query
    wants, version_text = fits(values, place), values.get("resourceVersion", "")
    if version_text and not version_text.isdigit():
        raise statuses.bad_request(f"invalid resource version {version_text!r}")
    from_now = version_text in ("", "0")
    version = store.version if from_now else int(version_text)
    if version < store.compacted:
        message = f"too old resource version: {version} ({store.compacted})"
        return failed_watch(statuses.expired(message).response.body)
    stream = Watch(
        simulation,
        store,
        place.resource,
        place.namespace,
        wants,
        version=version,
        bookmarks=values.get("allowWatchBookmarks") in ("true", "1"),
        timeout=float(values.get("timeoutSeconds") or SHORTEST * (1 + simulation.random.random())),
    )
    if from_now:
        raws = store.all(place.resource.plural, place.namespace)
        stream.show([raw for raw in raws if wants is None or wants(raw)])
    return stream
