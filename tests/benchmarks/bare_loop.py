"""What the API server itself allows: watch nodes, cordon (and empty) what is bad, no guard at all.

Usage: bare_loop.py KUBECONFIG CONDITION cordon|drain. Prints `ready` when the watch has begun.
"""

import queue
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from selfheal_remediator.config import ApiBudget
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.access import load_configuration
from selfheal_remediator.kube.client import KubernetesApi

AGENT = "bare-loop"


class Loop:
    """Everything at once, as many requests as there are threads."""

    def __init__(self, kubeconfig: Path, condition: str, *, drain: bool) -> None:
        access, _ = load_configuration(kubeconfig)
        budget = ApiBudget.model_validate({"qps": 10000, "burst": 10000, "maxInFlight": 64})
        self._api = KubernetesApi(access, "default", budget)
        self._api.transport.user_agent = AGENT
        self._condition, self._drain = condition, drain
        self._pool = ThreadPoolExecutor(64)
        self._refused: queue.SimpleQueue[tuple[str, str, str]] = queue.SimpleQueue()
        self._budgets = threading.Event()

    def run(self) -> None:
        """Until killed."""
        done: set[str] = set()
        nodes = self._api.nodes()
        version = [version for _, version in nodes.pages()][-1]
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            for event in nodes.watch(version, threading.Event()):
                raw = event.raw
                version = raw["metadata"]["resourceVersion"]
                bad = any(
                    item["type"] == self._condition and item["status"] == "True"
                    for item in (raw.get("status") or {}).get("conditions") or ()
                )
                name = raw["metadata"].get("name", "")
                if bad and name not in done and not raw["spec"].get("unschedulable"):
                    done.add(name)
                    self._pool.submit(self._take, name)

    def _take(self, name: str) -> None:
        answer = self._api.send(
            "PATCH",
            f"/api/v1/nodes/{name}",
            body={"spec": {"unschedulable": True}},
            content_type="application/merge-patch+json",
        )
        if not answer.ok:
            sys.stderr.write(f"{answer.failure()}\n")
        if not self._drain:
            return
        for raws, _ in self._api.pods_of(name).pages(cached=True):
            for raw in raws:
                meta = raw["metadata"]
                pod = (meta["namespace"], meta["name"], meta["uid"])
                self._pool.submit(self._evict, *pod)

    def _evict(self, namespace: str, name: str, uid: str) -> None:
        try:
            answer = self._api.evict(namespace, name, uid, None)
        except ApiFailure:
            self._pool.submit(self._evict, namespace, name, uid)
            return
        if answer.throttled or answer.status >= 500:
            self._pool.submit(self._evict, namespace, name, uid)
        elif answer.status == 429:
            self._refused.put((namespace, name, uid))
            if not self._budgets.is_set():
                self._budgets.set()
                threading.Thread(target=self._watch_budgets, daemon=True).start()

    def _watch_budgets(self) -> None:
        budgets = self._api.budgets()
        version = [version for _, version in budgets.pages()][-1]
        while True:
            for event in budgets.watch(version, threading.Event()):
                version = event.raw["metadata"]["resourceVersion"]
                status = event.raw.get("status") or {}
                for _ in range(status.get("disruptionsAllowed") or 0):
                    if self._refused.empty():
                        break
                    self._pool.submit(self._evict, *self._refused.get())


if __name__ == "__main__":
    Loop(Path(sys.argv[1]), sys.argv[2], drain=sys.argv[3] == "drain").run()
