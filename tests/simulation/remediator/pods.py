"""How the pods of a world behave: some of them crash, hang, or are never ready, for a while."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.simulation.cluster.cluster import Cluster
from tests.simulation.cluster.kubelets import Behaviour
from tests.simulation.cluster.messages import Json

#: Seconds for which a pod is healthy again before its restart would be a mistake.
SETTLED = 90.0


def app_of(raw: Json) -> str:
    """The application (label `app`) of a pod, empty = none."""
    return str((raw["metadata"].get("labels") or {}).get("app", ""))


class Pods:
    """See the module. crashing, unready, stuck: the applications whose new pods crash, are never
    ready, hang in Terminating. hung: pods (uid) that make no progress, and since when (Unix)."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.crashing: set[str] = set()
        self.unready: set[str] = set()
        self.stuck: set[str] = set()
        self.hung: dict[str, float] = {}
        #: Until when (virtual time) an application had unhealthy pods.
        self.unwell: dict[str, float] = {}
        #: How pods behave that are of no application, None = as any other.
        self.others: Callable[[Json], Behaviour | None] = lambda _: None
        cluster.kubelets.behaviour = self.behaviour

    def behaviour(self, pod: Json) -> Behaviour:
        """See Kubelets.behaviour."""
        other = self.others(pod)
        if other is not None:
            return other
        app = app_of(pod)
        stop = None if app in self.stuck else 1.0
        if app in self.crashing:
            return Behaviour(ready=None, crash=3.0, exit_code=1, stop=stop)
        return Behaviour(ready=None if app in self.unready else 1.0, stop=stop)

    def of(self, app: str) -> list[Json]:
        """Its pods."""
        return [pod for pod in self._cluster.store.all("pods", "default") if app_of(pod) == app]

    def break_ready(self, pod: Json) -> None:
        """Its readiness probe fails from now on."""
        self._note(pod)
        self._cluster.kubelets.set_ready("default", pod["metadata"]["name"], ready=False)

    def hang(self, pod: Json) -> None:
        """It makes no progress from now on, and says so."""
        self._note(pod)
        self.hung[pod["metadata"]["uid"]] = self._cluster.store.clock()

    def heal(self) -> None:
        """All that is broken works again."""
        for app in sorted(self.crashing | self.unready):
            self.unwell[app] = self._cluster.simulation.now
        self.crashing.clear()
        self.unready.clear()
        self.stuck.clear()
        self.hung.clear()
        for pod in self._cluster.store.all("pods", "default"):
            meta = pod["metadata"]
            if meta.get("deletionTimestamp"):
                self._cluster.kubelets.release("default", meta["name"])
            elif pod["status"].get("phase") == "Running":
                self._cluster.kubelets.set_ready("default", meta["name"], ready=True)

    def is_unwell(self, pod: Json) -> bool:
        """Whether there may be a reason to restart it."""
        app, uid = app_of(pod), pod["metadata"]["uid"]
        if uid in self.hung or app in self.crashing | self.unready:
            return True
        return self._cluster.simulation.now - self.unwell.get(app, float("-inf")) < SETTLED

    def _note(self, pod: Json) -> None:
        self.unwell[app_of(pod)] = self._cluster.simulation.now

    def progress(self, address: str, _port: int, _path: str) -> tuple[int, bytes] | None:
        """See process.Progress."""
        pod = self._cluster.pod_at(address)
        if pod is None:
            return None
        now = self._cluster.store.clock()
        last = self.hung.get(pod["metadata"]["uid"], now)
        body = {"in_flight": 1, "last_progress": last, "oldest_age": now - last, "ready": True}
        return 200, json.dumps(body).encode()
