"""The modelled API server: answers requests at once, and always as it should.

What goes wrong in between is the business of faulty_server.py. Each request that changed something
did so with `request.process` as the writer of the Change (store.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.simulation.cluster import admission, eviction, reading, statuses, writing
from tests.simulation.cluster.messages import Answer, Request, Response, Simulation
from tests.simulation.cluster.resources import CUSTOM, RESOURCES, Place, Resource, place_of
from tests.simulation.cluster.statuses import Refused
from tests.simulation.cluster.store import Store, View
from tests.simulation.cluster.watches import WatchStream

_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
#: (verb, resource or resource/subresource): what an account may not do.
Denied = set[tuple[str, str]]


class ApiServer:
    """See the module. custom: the custom resources that are installed.

    denied: refused with 403, which reviews report too. on_request: called after each answer.
    """

    user = "system:serviceaccount:selfheal:selfheal-remediator"

    def __init__(self, simulation: Simulation, store: Store) -> None:
        self.simulation, self.store = simulation, store
        self.custom: set[str] = {"healingpolicies"}
        self.denied: Denied = set()
        self.on_request: list[Callable[[Request, Answer], None]] = []
        #: What a list with resourceVersion=0 shows; None = the present.
        self.watch_cache: View | None = None
        #: The watches that are open, the oldest first.
        self.watches: list[WatchStream] = []
        store.on_restore(self._restart)

    def _restart(self) -> None:
        """It starts again: connections break."""
        for stream in list(self.watches):
            stream.reset()

    def handle(self, request: Request) -> Answer:
        """Answer a request; its path is not quoted."""
        try:
            answer = self._handle(request)
        except Refused as refusal:
            answer = refusal.response
        for tell in self.on_request:
            tell(request, answer)
        return answer

    def suffix(self) -> str:
        """Five letters for a generated name."""
        return "".join(self.simulation.random.choice(_LETTERS) for _ in range(5))

    # -- routes -------------------------------------------------------------------------

    def _handle(self, request: Request) -> Answer:
        if request.path == _REVIEWS and request.method == "POST":
            return self._review(request)
        fixed = self._fixed(request)
        if fixed is not None:
            return fixed
        place = place_of(request.path)
        if place is None or not self._serves(place.resource):
            raise statuses.not_served()
        self._authorize(request, place)
        if request.method == "GET":
            return self._read(request, place)
        return self._write(writing.Write(self.store, place, request))

    def _fixed(self, request: Request) -> Response | None:
        """What is no object; None = it is one."""
        path = request.path.rstrip("/")
        if path in ("/livez", "/readyz", "/healthz"):
            return Response(200, {"Content-Type": "text/plain"}, b"ok")
        if path == "/version":
            return statuses.answer(200, {"major": "1", "minor": "34", "gitVersion": "v1.34.4"})
        parts = path.strip("/").split("/")
        if len(parts) == 2 and parts[0] == "apis":
            return self._group(parts[1])
        if len(parts) == 3 and parts[0] == "apis":
            return self._kinds(parts[1], parts[2])
        return None

    def _group(self, group: str) -> Response:
        versions = sorted(
            {r.version for r in RESOURCES.values() if r.group == group and self._serves(r)}
        )
        if not versions:
            raise statuses.not_served()
        named = [{"groupVersion": f"{group}/{v}", "version": v} for v in versions]
        body = {"kind": "APIGroup", "apiVersion": "v1", "name": group, "versions": named}
        return statuses.answer(200, {**body, "preferredVersion": named[-1]})

    def _kinds(self, group: str, version: str) -> Response:
        """What a version of a group has."""
        found = [
            {"name": one.plural, "kind": one.kind, "namespaced": one.namespaced}
            for one in RESOURCES.values()
            if (one.group, one.version) == (group, version) and self._serves(one)
        ]
        if not found:
            raise statuses.not_served()
        body = {"kind": "APIResourceList", "groupVersion": f"{group}/{version}"}
        return statuses.answer(200, {**body, "resources": found})

    def _serves(self, resource: Resource) -> bool:
        return resource.plural not in CUSTOM or resource.plural in self.custom

    def _read(self, request: Request, place: Place) -> Answer:
        if place.name:
            if place.subresource not in ("", "status"):
                raise statuses.not_served()
            if not request.watches:
                return reading.get(self.store, place)
            raise statuses.failure(405, "MethodNotAllowed", "watch a list with a field selector")
        if request.watches:
            return self._watch(request, place)
        cache = self.watch_cache or self.store
        return reading.list_objects(self.store, place, request.query, cache)

    def _watch(self, request: Request, place: Place) -> WatchStream:
        stream = reading.watch(self.simulation, self.store, place, request)
        if not stream.ended:
            self.watches.append(stream)
            stream.on_close(lambda: self.watches.remove(stream))
        return stream

    def _write(self, write: writing.Write) -> Response:
        place, method = write.place, write.request.method
        if place.subresource == "eviction" and place.resource.kind == "Pod" and method == "POST":
            return self._evict(write)
        if not place.name and method == "POST":
            return writing.create(write, self.suffix)
        if place.name and place.subresource in ("", "status"):
            if place.subresource and not place.resource.status:
                raise statuses.not_served()
            match method:
                case "PATCH":
                    return writing.patch(write)
                case "PUT":
                    return writing.put(write)
                case "DELETE" if not place.subresource:
                    return writing.delete(write)
        raise statuses.failure(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
            {},
        )

    def _evict(self, write: writing.Write) -> Response:
        place, body = write.place, write.body()
        if not isinstance(body, dict) or body.get("kind") != "Eviction":
            raise statuses.bad_request("not a Eviction object")
        admission.check_namespace(self.store, place)
        return eviction.evict(
            self.store,
            place.namespace,
            place.name,
            body,
            write.request.process,
            dry=write.dry_run,
        )

    # -- permissions --------------------------------------------------------------------

    def _authorize(self, request: Request, place: Place) -> None:
        verb = _verb(request, place)
        plural = place.resource.plural
        wanted = f"{plural}/{place.subresource}" if place.subresource else plural
        if (verb, wanted) in self.denied:
            raise statuses.forbidden(place.resource, verb, self.user, place.namespace, place.name)

    def _review(self, request: Request) -> Response:
        body = json.loads(request.body or b"{}")
        asked = body["spec"]["resourceAttributes"]
        sub = asked.get("subresource")
        wanted = f"{asked['resource']}/{sub}" if sub else asked["resource"]
        allowed = (asked["verb"], wanted) not in self.denied
        return statuses.answer(201, {**body, "status": {"allowed": allowed}})


def _verb(request: Request, place: Place) -> str:
    if request.method == "GET":
        if request.watches:
            return "watch"
        return "get" if place.name else "list"
    return {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}[request.method]
