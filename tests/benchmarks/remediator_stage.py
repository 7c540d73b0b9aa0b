"""The stage of the remediator's benchmark: a real control plane, pretended nodes, an observer.

Times are taken by an observer's own watches, so that neither the server's clock nor that of the
tool measured counts. Requests come from the API server's audit log, by user agent.
"""

import json
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ci.cluster import Cluster
from ci.cluster.kwok import node as kwok_node
from selfheal_remediator.config import ApiBudget
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.access import load_configuration
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.collection import Collection

CONDITION = "BenchFault"
PATIENCE = 600.0
Json = dict[str, Any]
_MERGE = "application/merge-patch+json"
_PODS = "/api/v1/namespaces/default/pods"
_BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
_OURS = ("selfheal.dev/state", "cluster-autoscaler.kubernetes.io/scale-down-disabled")


Look = Callable[[str, Json, float], None]


class _Watching:
    """Watches collections from their list on, each in a thread of its own, until it is closed."""

    def __init__(self) -> None:
        self._news, self._stop = threading.Condition(), threading.Event()
        self._watched: list[Collection] = []

    def _watch(
        self, collection: Collection, look: Look, listed: Callable[[Json], None] | None = None
    ) -> None:
        """`listed` gets each object that there is, then `look` the type, object and time of each
        change."""
        self._watched.append(collection)
        version = ""
        for raws, version in collection.pages():  # noqa: B007 - the last page's is wanted
            for raw in raws:
                if listed is not None:
                    listed(raw)
        arguments = (collection, look, version)
        threading.Thread(target=self._run, args=arguments, daemon=True).start()

    def _run(self, watch: Collection, look: Look, version: str) -> None:
        with suppress(ApiFailure):  # it ends with the stage
            while not self._stop.is_set():
                for event in watch.watch(version, self._stop):
                    now = time.perf_counter()
                    version = event.raw["metadata"]["resourceVersion"]
                    if event.type != "BOOKMARK":
                        with self._news:
                            look(event.type, event.raw, now)

    def close(self) -> None:
        """No more watching."""
        self._stop.set()
        for collection in self._watched:
            collection.close()


class Observer(_Watching):
    """Remembers when each node was first seen bad and cordoned, and when its last pod went."""

    def __init__(self, stage: "Stage", pods: str = "") -> None:
        super().__init__()
        self.bad: dict[str, float] = {}
        self.cordoned: dict[str, float] = {}
        self.empty: dict[str, float] = {}
        self._left: dict[str, set[str]] = {}
        self._watch(stage.api.nodes(), self._node)
        if pods:
            chosen = Collection(stage.api.transport, _PODS, {"labelSelector": pods})
            self._watch(chosen, self._pod, self._there)

    def _there(self, raw: Json) -> None:
        self._left.setdefault(raw["spec"]["nodeName"], set()).add(raw["metadata"]["uid"])

    def _node(self, _type: str, raw: Json, now: float) -> None:
        name = raw["metadata"]["name"]
        conditions = (raw.get("status") or {}).get("conditions") or ()
        if any(item["type"] == CONDITION and item["status"] == "True" for item in conditions):
            self.bad.setdefault(name, now)
        if raw["spec"].get("unschedulable") and name in self.bad:
            self.cordoned.setdefault(name, now)
            self._news.notify_all()

    def _pod(self, kind: str, raw: Json, now: float) -> None:
        node, uid = raw["spec"].get("nodeName") or "", raw["metadata"]["uid"]
        left = self._left.get(node)
        if kind == "DELETED" and left is not None and uid in left:
            left.discard(uid)
            if not left:
                self.empty.setdefault(node, now)
                self._news.notify_all()

    def wait(self, seen: dict[str, float], names: Iterable[str]) -> None:
        """Until all names are in `seen` (one of this observer's)."""
        wanted = set(names)
        with self._news:
            if not self._news.wait_for(lambda: seen.keys() >= wanted, PATIENCE):
                missing = sorted(wanted - seen.keys())
                raise SystemExit(f"not within {PATIENCE:g}s: {len(missing)} as {missing[:3]}")


class Openings(_Watching):
    """When a budget's status let a pod go, and when the next one was seen to go from its node."""

    def __init__(self, stage: "Stage", budget: str, label: str, node: str) -> None:
        super().__init__()
        self.opened: list[float] = []
        self.gone: list[float] = []
        self._budget, self._bad, self._left = budget, node, set[str]()
        self._watch(Collection(stage.api.transport, _BUDGETS), self._status)
        self._watch(Collection(stage.api.transport, _PODS, {"labelSelector": label}), self._pod)

    def _status(self, _type: str, raw: Json, now: float) -> None:
        if raw["metadata"]["name"] != self._budget or len(self.opened) > len(self.gone):
            return
        if (raw.get("status") or {}).get("disruptionsAllowed", 0) > 0:
            self.opened.append(now)

    def _pod(self, _type: str, raw: Json, now: float) -> None:
        meta = raw["metadata"]
        if raw["spec"].get("nodeName") != self._bad or "deletionTimestamp" not in meta:
            return
        if meta["uid"] not in self._left:
            self._left.add(meta["uid"])
            self.gone.append(now)
            self._news.notify_all()

    def wait(self, count: int) -> None:
        """Until so many pods went."""
        with self._news:
            if not self._news.wait_for(lambda: len(self.gone) >= count, PATIENCE):
                raise SystemExit(f"the budget opened, but pod {count} did not go")


class Stage:
    """The cluster, with as many ready nodes as a row asks for."""

    def __init__(self, cluster: Cluster) -> None:
        self.kubeconfig, self.audit_log = cluster.kubeconfig, cluster.layout.audit_log
        access, _ = load_configuration(cluster.kubeconfig)
        self.api = KubernetesApi(access, "default", ApiBudget(qps=10000, burst=10000))
        self.api.transport.user_agent = "bench"  # not the tool that is measured
        self.names: list[str] = []
        self._rows = 0
        owner = self._owner_of_pods()
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "controller": True}
        self._owner = {**reference, "uid": owner["metadata"]["uid"]}

    def _owner_of_pods(self) -> Json:
        """A controller that does nothing: pods that have it are managed."""
        path = "/api/v1/namespaces/default/configmaps"
        with suppress(ApiFailure):  # it is there from a run before
            self.create(path, {"metadata": {"name": "o"}})
        return self.api.get(f"{path}/o")

    def create(self, path: str, body: Json) -> Json:
        """POST an object."""
        answer = self.api.send("POST", path, body=body)
        if not answer.ok:
            raise answer.failure()
        return answer.json()

    def each(self, work: Callable[[Any], object], items: Iterable[Any], width: int = 8) -> None:
        """Do it for all, some at a time."""
        with ThreadPoolExecutor(width) as pool:
            list(pool.map(work, items))

    # -- nodes --------------------------------------------------------------------------

    def need(self, count: int) -> list[str]:
        """So many ready nodes."""
        fresh = [f"bench-{number:04}" for number in range(len(self.names), count)]
        self.each(self._make, fresh)
        self.names += fresh
        _until(lambda: self._ready() >= len(self.names), f"{len(self.names)} nodes are ready")
        return self.names[:count]

    def _make(self, name: str) -> None:
        body = kwok_node(name)
        body["spec"] = {}
        with suppress(ApiFailure):  # it is there from a run before; `need` sees what is missing
            self.create("/api/v1/nodes", body)

    def _ready(self) -> int:
        pages = self.api.nodes().pages()
        return sum(
            any(c["type"] == "Ready" and c["status"] == "True" for c in _conditions(raw))
            and not raw["spec"].get("taints")
            for raws, _ in pages
            for raw in raws
        )

    def write(self, name: str, status: str) -> None:
        """The condition, as a detector writes it."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        entry = {"type": CONDITION, "status": status, "reason": "Bench"}
        entry |= {"lastTransitionTime": now, "lastHeartbeatTime": now}
        self.api.send(
            "PATCH",
            f"/api/v1/nodes/{name}/status",
            body={"status": {"conditions": [entry]}},
            content_type="application/strategic-merge-patch+json",
        )

    def reset(self, names: list[str]) -> None:
        """Good, schedulable, without annotation."""
        body = {
            "metadata": {"annotations": dict.fromkeys(_OURS)},
            "spec": {"unschedulable": None},
        }

        def one(name: str) -> None:
            self.write(name, "False")
            self.api.send("PATCH", f"/api/v1/nodes/{name}", body=body, content_type=_MERGE)

        self.each(one, names)

    # -- pods ---------------------------------------------------------------------------

    def fill(self, names: list[str], pods: int) -> str:
        """So many running pods on each node, which nothing replaces; returns their label."""
        self._rows += 1
        row = self._rows
        places = [(node, number) for node in names for number in range(pods)]
        self.each(lambda place: self.add(row, *place), places, 16)
        self.until_running(f"row={row}", pods * len(names))
        return f"row={row}"

    def add(self, row: int, node: str, number: int) -> None:
        """One more running pod of a row."""
        meta: Json = {"name": f"{node}-{row}-{number}", "labels": {"row": str(row)}}
        spec: Json = {"nodeName": node, "containers": [{"name": "c", "image": "none"}]}
        spec["terminationGracePeriodSeconds"] = 0
        meta["ownerReferences"] = [self._owner]
        self.create(_PODS, {"metadata": meta, "spec": spec})

    def guard(self, label: str, healthy: int) -> str:
        """A budget by which so many pods with the label must stay; returns its name."""
        key, _, value = label.partition("=")
        name = f"guard-{value}"
        spec = {"selector": {"matchLabels": {key: value}}, "minAvailable": healthy}
        self.create(_BUDGETS, {"metadata": {"name": name}, "spec": spec})

        def seen() -> bool:
            status = self.api.get(f"{_BUDGETS}/{name}").get("status") or {}
            return bool(status.get("currentHealthy") == healthy)

        _until(seen, f"the budget {name} sees {healthy} pods")
        return name

    def until_running(self, label: str, count: int) -> None:
        """Until so many pods with the label run."""
        selectors = {"labelSelector": label, "fieldSelector": "status.phase=Running"}
        _until(lambda: self.count(_PODS, selectors) >= count, f"{count} pods with {label} run")

    def count(self, path: str, selectors: dict[str, str]) -> int:
        """How many objects there are."""
        return sum(len(raws) for raws, _ in Collection(self.api.transport, path, selectors).pages())

    # -- the audit log ------------------------------------------------------------------

    def audit_mark(self) -> int:
        """Where the audit log ends now (it is written with a second's delay)."""
        time.sleep(2.5)
        return self.audit_log.stat().st_size

    def requests(self, agent: str, start: int, end: int) -> Counter[str]:
        """Requests of the user agent between two marks: `POST pods/eviction` and so on."""
        found: Counter[str] = Counter()
        with self.audit_log.open("rb") as log:
            log.seek(start)
            for line in log.read(end - start).splitlines():
                with suppress(ValueError):
                    item = json.loads(line)
                    if item.get("userAgent", "").startswith(agent) and _counts(item):
                        found[_what(item)] += 1
        return found


def _until(look: Callable[[], bool], what: str) -> None:
    """Reads until it holds. To read thousands of objects is work for the server that is waited
    for, so it is left alone for four times the time that a read took.

    Raises:
        SystemExit: it did not hold within `PATIENCE`.
    """
    began = time.monotonic()
    while True:
        looked = time.monotonic()
        if look():
            return
        now = time.monotonic()
        if now > began + PATIENCE:
            raise SystemExit(f"not within {PATIENCE:g}s: {what}")
        time.sleep(max(0.2, 4 * (now - looked)))


def _conditions(raw: Json) -> list[Json]:
    return (raw.get("status") or {}).get("conditions") or []


def _counts(item: Json) -> bool:
    """A watch counts when it begins, everything else when it is answered."""
    begun = "ResponseStarted" if item["verb"] == "watch" else "ResponseComplete"
    return bool(item["stage"] == begun)


def _what(item: Json) -> str:
    about = item.get("objectRef") or {}
    resource = about.get("resource", item["requestURI"].partition("?")[0])
    sub = about.get("subresource")
    return f"{item['verb']} {resource}{'/' + sub if sub else ''}"


def quantile(values: list[float], share: float) -> float:
    """The value below which this share of the values lies."""
    if share == 0.5:
        return statistics.median(values)
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(len(ordered) * share))]


class Landing:
    """One node without KWOK, whose pods become ready a second after they were sent there."""

    NAME = "bench-landing"

    def __init__(self, stage: Stage, seconds: float) -> None:
        self._stage, self._seconds = stage, seconds
        self._stop = threading.Event()
        body = kwok_node(self.NAME)
        body["metadata"]["annotations"] = {}
        body["metadata"]["labels"]["landing"] = "yes"
        body["spec"] = {}
        with suppress(ApiFailure):  # it is there from the run before
            stage.create("/api/v1/nodes", body)
        self._pods = stage.api.pods_of(self.NAME)
        self._seen: set[str] = set()
        self._beat()
        for target in (self._beats, self._run):
            threading.Thread(target=target, daemon=True).start()

    def _beat(self) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {"type": "Ready", "status": "True", "reason": "Bench", "lastHeartbeatTime": now}
        self._stage.api.send(
            "PATCH",
            f"/api/v1/nodes/{self.NAME}/status",
            body={"status": {"conditions": [{**ready, "lastTransitionTime": now}]}},
            content_type="application/strategic-merge-patch+json",
        )

    def _beats(self) -> None:
        while not self._stop.wait(8):
            with suppress(ApiFailure):
                self._beat()

    def _run(self) -> None:
        with suppress(ApiFailure):
            version = ""
            for raws, version in self._pods.pages():  # noqa: B007 - the last page's
                for raw in raws:
                    self._see(raw)
            while not self._stop.is_set():
                for event in self._pods.watch(version, self._stop):
                    version = event.raw["metadata"]["resourceVersion"]
                    if event.type in ("ADDED", "MODIFIED"):
                        self._see(event.raw)

    def _see(self, raw: Json) -> None:
        meta = raw["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        if "deletionTimestamp" in meta:
            gone = {"gracePeriodSeconds": 0, "kind": "DeleteOptions", "apiVersion": "v1"}
            self._later(0, lambda: self._stage.api.send("DELETE", path, body=gone))
        elif meta["uid"] not in self._seen:
            self._seen.add(meta["uid"])
            status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            patch = {"status": status}
            send = self._stage.api.send
            self._later(
                self._seconds,
                lambda: send("PATCH", f"{path}/status", body=patch, content_type=_MERGE),
            )

    def _later(self, seconds: float, work: Callable[[], object]) -> None:
        timer = threading.Timer(seconds, work)
        timer.daemon = True
        timer.start()

    def close(self) -> None:
        """No more readiness, no more heartbeats."""
        self._stop.set()
        self._pods.close()


def written(folder: Path, name: str, text: str) -> Path:
    """A file in the folder."""
    path = folder / name
    path.write_text(text)
    return path
