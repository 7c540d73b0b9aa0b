"""The Job controller (pkg/controller/job): pods until enough have succeeded.

A pod that fails or is deleted is replaced, after 10 s doubled for each failure; beyond the backoff
limit the Job fails.
"""

from __future__ import annotations

from tests.simulation.cluster import conditions
from tests.simulation.cluster.messages import Json, unix
from tests.simulation.cluster.replica_sets import PodController, active
from tests.simulation.cluster.resources import Key
from tests.simulation.cluster.store import Stored

FIRST_BACKOFF, LONGEST_BACKOFF = 10.0, 360.0


class Jobs(PodController):
    """See the module."""

    plural, name = "jobs", "job-controller"

    def sync(self, key: Key, raw: Stored) -> None:
        """One pass."""
        if conditions.status_of(raw, "Complete") or conditions.status_of(raw, "Failed"):
            return
        pods, spec, now = self.pods(raw), raw["spec"], self.store.clock()
        succeeded = sum(pod["status"].get("phase") == "Succeeded" for pod in pods)
        failed = [pod for pod in pods if pod["status"].get("phase") == "Failed"]
        running = active(pods)
        wanted = min(int(spec.get("parallelism", 1)), int(spec.get("completions", 1)) - succeeded)
        if len(failed) > int(spec.get("backoffLimit", 6)):
            self._finish(key, "Failed", now)
            for pod in running:
                self.delete_pod(pod)
        elif succeeded >= int(spec.get("completions", 1)):
            self._finish(key, "Complete", now)
        elif len(running) < wanted:
            wait = self._backoff(failed, now)
            if wait > 0:
                self.queue.add(key, wait)
            else:
                for _ in range(wanted - len(running)):
                    self.create_pod(raw)
        counts = {"active": len(active(self.pods(raw))), "succeeded": succeeded}
        self.write_status(key, {**counts, "failed": len(failed)})

    def _finish(self, key: Key, kind: str, now: float) -> None:
        self.store.change(key, lambda raw: conditions.put(raw, kind, "True", now), self.name)

    def _backoff(self, failed: list[Stored], now: float) -> float:
        if not failed:
            return 0.0
        last = max(_ended(pod) for pod in failed)
        wait: float = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** (len(failed) - 1))
        return last + wait - now


def _ended(pod: Json) -> float:
    ends = [
        item["state"]["terminated"]["finishedAt"]
        for item in pod["status"].get("containerStatuses") or ()
        if "terminated" in item.get("state", {})
    ]
    return max((unix(end) for end in ends), default=unix(pod["metadata"]["creationTimestamp"]))
