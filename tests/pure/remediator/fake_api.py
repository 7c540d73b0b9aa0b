"""An API server in a hundred lines, over real HTTP, that answers as it should until set not to.

It keeps nodes, pods and Leases, takes JSON and merge patches with their tests, evicts, and serves
watches. `disturb` is asked for each request what is to go wrong with it, empty = nothing.
"""

from __future__ import annotations

import copy
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.pure.remediator import json_patch
from tests.support.loopback import LoopbackServer

Json = dict[str, Any]
#: How an answer can be wrong. `lost` is the worst: what was asked for has been done.
DISTURBANCES = (
    *("refused", "lost", "truncated", "not json", "a page", "empty", "wrong types", "an array"),
    *("500", "503", "429", "slow"),
)


class Traffic:
    """What a server is busy with. Under its `news`.

    held: requests that `disturb` has been asked about and has not let go; answering: those being
    carried out; reported: by watch, the version up to which it has reported everything.
    """

    def __init__(self) -> None:
        self.held = self.answering = 0
        self.reported: dict[object, int] = {}


class FakeApi(LoopbackServer):
    """Objects by path; `did` holds every change that was made, as (verb, path, body), `reported`
    every Event."""

    def __init__(self, disturb: Callable[[str, str], str]) -> None:
        self.disturb = disturb
        self.objects: dict[str, Json] = {}
        self.did: list[tuple[str, str, Json]] = []
        self.reported: list[Json] = []
        self._events: list[tuple[int, str, str, Json]] = []
        self._version = 100
        self.news = threading.Condition()
        self.closed = False
        self._restores = 0
        self._traffic = Traffic()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                outer.handle(self)

            do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: Any) -> None: ...

        super().__init__(Handler)

    def close(self) -> None:
        """Ends all watches too."""
        with self.news:
            self.closed = True
            self.news.notify_all()
        super().close()

    # -- objects ------------------------------------------------------------------------

    def put(self, path: str, raw: Json | None, *, watched: bool = True) -> Json:
        """Store (None: remove) the object; watched: watches report it."""
        with self.news:
            before = self.objects.get(path)
            self._version += 1
            if raw is None:
                assert before is not None
                gone = copy.deepcopy(before)
                gone["metadata"]["resourceVersion"] = str(self._version)
                del self.objects[path]
                self._events.append((self._version, path, "DELETED", gone))
                self.news.notify_all()
                return gone
            raw = copy.deepcopy(raw)
            raw["metadata"]["resourceVersion"] = str(self._version)
            raw["metadata"].setdefault("uid", f"uid-{path}")
            self.objects[path] = raw
            if watched:
                self._events.append((self._version, path, "MODIFIED" if before else "ADDED", raw))
            self.news.notify_all()
            return raw

    def backup(self) -> tuple[int, dict[str, Json]]:
        """All objects as they are, to be restored."""
        with self.news:
            return self._version, copy.deepcopy(self.objects)

    def restore(self, backup: tuple[int, dict[str, Json]]) -> None:
        """Go back in time, as when etcd is restored: versions too; all watches end."""
        with self.news:
            self._version, objects = backup
            self.objects = copy.deepcopy(objects)
            self._events.clear()
            self._restores += 1
            self.news.notify_all()

    def get(self, path: str) -> Json:
        """The object as it is."""
        with self.news:
            return copy.deepcopy(self.objects[path])

    @contextmanager
    def changing(self, path: str, *, watched: bool = True) -> Iterator[Json]:
        """The object, to be changed and stored at the end; no request comes in between.

        As with an API server what changes nothing makes no version: a test that does so at each
        look would else make each write of a slow client a conflict.
        """
        with self.news:
            raw = copy.deepcopy(self.objects[path])
            yield raw
            if raw != self.objects[path]:
                self.put(path, raw, watched=watched)

    # -- requests -----------------------------------------------------------------------

    def at_rest(self, calls: int, waiting: int) -> bool:
        """Whether nothing is under way: `disturb` holds all calls of a client, and others wait for
        those only, no request is being answered, and each watch has reported everything."""
        with self.news:
            if waiting and not self._traffic.held:
                return False
            newest = self._events[-1][0] if self._events else 0
            reported = all(version >= newest for version in self._traffic.reported.values())
            return calls <= self._traffic.held and not self._traffic.answering and reported

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        url = urlsplit(request.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        with self.news:
            self._traffic.held += 1
        try:
            trouble = "" if self.closed else self.disturb(request.command, url.path)
        finally:
            with self.news:
                self._traffic.held -= 1
                self._traffic.answering += 1
        try:
            watches = self._answer(request, url.path, query, body, trouble)
        finally:
            with self.news:
                self._traffic.answering -= 1
        if watches:
            self._watch(request, url.path, query, trouble)

    def _answer(
        self,
        request: BaseHTTPRequestHandler,
        path: str,
        query: dict[str, str],
        body: bytes,
        trouble: str,
    ) -> bool:
        """Returns whether a watch has yet to be served."""
        if trouble == "refused":
            _cut(request)
            return False
        if trouble in ("500", "503", "429", "400", "403", "422"):
            _send(request, int(trouble), b'{"kind":"Status","message":"trouble"}', retry_after="0")
            return False
        if trouble.startswith("{"):  # a Status of its own
            _send(request, json.loads(trouble)["code"], trouble.encode())
            return False
        if trouble == "slow":
            time.sleep(0.2)
        if "watch" in query:
            return True
        parsed = json.loads(body) if body else {}
        with self.news:
            status, answer = self._do(request.command, path, query, parsed)
        if trouble == "lost":
            _cut(request)
            return False
        text = _spoilt(json.dumps(answer).encode(), trouble)
        _send(request, status, text, short=trouble == "truncated")
        return False

    def _do(self, verb: str, path: str, query: dict[str, str], body: Json) -> tuple[int, Json]:
        if verb == "GET":
            return self._read(path, query)
        if path.endswith("/eviction"):
            return self._evict(path.removesuffix("/eviction"), body, dry_run="dryRun" in query)
        if path.endswith("/events"):
            self.reported.append(body)
            return 201, {"kind": "Event", "metadata": {}}
        if verb == "POST":
            return self._create(path, body, dry_run="dryRun" in query)
        applied = isinstance(body, dict) and "kind" in body
        change = self._apply if applied else self._patch
        return change(path.removesuffix("/status"), body, dry_run="dryRun" in query)

    def _apply(self, path: str, body: Json, *, dry_run: bool) -> tuple[int, Json]:
        """Server-side apply by the only manager."""
        before = self.objects.get(path)
        uid = body["metadata"].pop("uid", None)
        if uid is not None and (before is None or before["metadata"]["uid"] != uid):
            return 409, {"kind": "Status", "code": 409}
        after = copy.deepcopy(before or {"metadata": {"uid": f"uid-{self._version + 1}"}})
        _merge(after, body)
        status = 200 if before else 201
        if dry_run:
            return status, after
        self.did.append(("APPLY", path, after))
        return status, self.put(path, after)

    def _create(self, path: str, body: Json, *, dry_run: bool) -> tuple[int, Json]:
        name = f"{path}/{body['metadata']['name']}"
        if name in self.objects:
            return 409, {"kind": "Status", "code": 409}
        if dry_run:
            return 201, body
        body["metadata"]["namespace"] = "d"
        self.did.append(("POST", name, body))
        return 201, self.put(name, body)

    def _patch(self, path: str, body: Any, *, dry_run: bool) -> tuple[int, Json]:
        if path not in self.objects:
            return 404, {"kind": "Status", "code": 404}
        before = self.objects[path]
        if isinstance(body, dict):
            version = body["metadata"].get("resourceVersion")
            if version not in (None, before["metadata"]["resourceVersion"]):
                return 409, {"kind": "Status", "code": 409}
            after = copy.deepcopy(before)
            # Of a node only conditions are written so, by a strategic merge patch.
            _merge(
                after, _merged_conditions(before, body) if before.get("kind") == "Node" else body
            )
        else:
            try:
                after = json_patch.apply(before, body)
            except (json_patch.TestFailed, KeyError):
                return 422, {"kind": "Status", "code": 422}
        if dry_run:
            return 200, after
        self.did.append(("PATCH", path, after))
        return 200, self.put(path, after)

    def _evict(self, path: str, body: Json, *, dry_run: bool) -> tuple[int, Json]:
        pod = self.objects.get(path)
        if pod is None:
            return 404, {"kind": "Status", "code": 404}
        if pod["metadata"]["uid"] != body["deleteOptions"]["preconditions"]["uid"]:
            return 409, {"kind": "Status", "code": 409, "message": "the UID in the precondition"}
        if not dry_run:
            self.did.append(("EVICT", path, pod))
            self.put(path, None)
        return 201, {"kind": "Status", "status": "Success"}

    def _read(self, path: str, query: dict[str, str]) -> tuple[int, Json]:
        if path in self.objects:
            return 200, self.objects[path]
        if not _is_collection(path):
            return 404, {"kind": "Status", "code": 404}
        items = [raw for name, raw in self.objects.items() if _belongs(name, raw, path, query)]
        return 200, {
            "kind": "List",
            "metadata": {"resourceVersion": str(self._version)},
            "items": items,
        }

    def _watch(
        self, request: BaseHTTPRequestHandler, path: str, query: dict[str, str], trouble: str
    ) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")  # else a client waits for the end
        request.end_headers()
        try:
            for event in self._events_for(path, query, trouble):
                request.wfile.write(b"%x\r\n%b\n\r\n" % (len(event) + 1, event))
            request.wfile.write(b"0\r\n\r\n")
        except OSError:
            request.close_connection = True

    def _events_for(self, path: str, query: dict[str, str], trouble: str) -> Iterator[bytes]:
        """What a watch reports, for two seconds at most."""
        seen, reported = int(query["resourceVersion"]), self._traffic.reported
        ends, restores = time.monotonic() + 2.0, self._restores
        if seen > self._version:
            gone = {"kind": "Status", "code": 410, "reason": "Expired"}
            yield json.dumps({"type": "ERROR", "object": gone}).encode()
            return
        if trouble and trouble != "slow":
            yield _spoilt(b'{"type": "MODIFIED", "object": {}}', trouble)
            return
        watch = object()
        try:
            while not self.closed and time.monotonic() < ends:
                with self.news:
                    reported[watch] = seen
                    if restores != self._restores:
                        return
                    fresh = [e for e in self._events if e[0] > seen]
                    if not fresh:
                        self.news.wait(0.2)
                        continue
                for version, name, kind, raw in fresh:
                    seen = version
                    if _belongs(name, raw, path, query):
                        yield json.dumps({"type": kind, "object": raw}).encode()
        finally:
            with self.news:
                reported.pop(watch, None)


def _merge(target: Json, patch: Json) -> None:
    """JSON merge patch (RFC 7386): objects are merged, null removes, all else replaces."""
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        elif value is None:
            target.pop(key, None)
        else:
            target[key] = copy.deepcopy(value)


def _merged_conditions(before: Json, patch: Json) -> Json:
    """A strategic merge patch as a merge patch: conditions are merged by type."""
    if "status" not in patch:
        return patch
    found = {item["type"]: item for item in before["status"]["conditions"]}
    for item in patch["status"]["conditions"]:
        if item.get("$patch") == "delete":
            found.pop(item["type"], None)
        else:
            found[item["type"]] = {**found.get(item["type"], {}), **item}
    return {**patch, "status": {"conditions": list(found.values())}}


def _is_collection(path: str) -> bool:
    known = ["nodes", "pods", "leases", "poddisruptionbudgets", "daemonsets", "healingpolicies"]
    known += ["configmaps", "deployments", "services", "serviceaccounts"]
    known += ["horizontalpodautoscalers", "scaledobjects", "triggerauthentications"]
    known += ["volumeattachments"]
    return path.rsplit("/", 1)[1] in known


def _belongs(name: str, raw: Json, path: str, query: dict[str, str]) -> bool:
    """Whether an object is in a collection: `/api/v1/pods` holds those of all namespaces."""
    prefix, kind = path.rsplit("/", 1)
    if f"/{kind}/" not in name or not name.startswith(prefix.partition("/namespaces")[0]):
        return False
    labels = raw["metadata"].get("labels")  # what has none belongs to every selector
    for wanted in filter(None, query.get("labelSelector", "").split(",")):
        key, _, value = wanted.partition("=")
        if labels and labels.get(key) != value:
            return False
    field, _, value = query.get("fieldSelector", "").partition("=")
    if field == "spec.nodeName":
        return bool(raw["spec"].get("nodeName") == value)
    return field != "metadata.name" or bool(raw["metadata"]["name"] == value)


def _spoilt(text: bytes, trouble: str) -> bytes:
    wrong = {
        "not json": text[: len(text) // 2] + b"}",
        "a page": b"<html>please sign in</html>",
        "empty": b"{}",
        "an array": b"[" + text + b"]",
        "wrong types": text.replace(b'"metadata": {', b'"metadata": ["x"], "y": {')
        .replace(b'"unschedulable": true', b'"unschedulable": "false"')
        .replace(b'"items": [', b'"items": "none", "x": ['),
    }
    return wrong.get(trouble, text)


def _send(
    request: BaseHTTPRequestHandler,
    status: int,
    text: bytes,
    *,
    short: bool = False,
    retry_after: str = "",
) -> None:
    try:
        request.send_response(status)
        request.send_header("Content-Length", str(len(text) + (9 if short else 0)))
        if retry_after:
            request.send_header("Retry-After", retry_after)
        request.end_headers()
        request.wfile.write(text)
    except OSError:
        return
    if short:
        request.close_connection = True


def _cut(request: BaseHTTPRequestHandler) -> None:
    """The wire breaks."""
    request.close_connection = True
    try:
        request.connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
