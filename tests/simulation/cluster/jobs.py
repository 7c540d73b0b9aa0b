"""The Job controller (pkg/controller/job): pods until enough have succeeded.

A pod that fails or is deleted is replaced, after 10 s doubled for each failure; beyond the backoff
limit the Job fails, and so it does when activeDeadlineSeconds are over since its start.
"""

from __future__ import annotations

from tests.simulation.cluster import conditions
from tests.simulation.cluster.messages import Json, unix
from tests.simulation.cluster.replica_sets import PodController, active
from tests.simulation.cluster.resources import Key
from tests.simulation.cluster.store import Stored

FIRST_BACKOFF, LONGEST_BACKOFF = 10.0, 360.0
JOB_NAME = "batch.kubernetes.io/job-name"


class Jobs(PodController):
    """See the module."""

    plural, name = "jobs", "job-controller"

    def sync(self, key: Key, raw: Stored) -> None:
        """One pass."""
        if conditions.status_of(raw, "Complete") or conditions.status_of(raw, "Failed"):
            return
        pods, spec, now = self.pods(raw), raw["spec"], self.store.clock()
        left = self._left(key, raw, now)
        succeeded = sum(pod["status"].get("phase") == "Succeeded" for pod in pods)
        failed = [pod for pod in pods if pod["status"].get("phase") == "Failed"]
        running = active(pods)
        wanted = min(int(spec.get("parallelism", 1)), int(spec.get("completions", 1)) - succeeded)
        if left <= 0 or len(failed) > int(spec.get("backoffLimit", 6)):
            why = "DeadlineExceeded" if left <= 0 else "BackoffLimitExceeded"
            self._finish(key, "Failed", now, why)
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
                    self.create_pod(raw, labels={JOB_NAME: key[2]})
        counts = {"active": len(active(self.pods(raw))), "succeeded": succeeded}
        self.write_status(key, {**counts, "failed": len(failed)})

    def _left(self, key: Key, raw: Stored, now: float) -> float:
        """Seconds until its deadline; it is handled again then."""
        seconds = raw["spec"].get("activeDeadlineSeconds")
        if seconds is None:
            return float("inf")
        left = unix(raw["metadata"]["creationTimestamp"]) + float(seconds) - now
        if left > 0:
            self.queue.add(key, left)
        return left

    def _finish(self, key: Key, kind: str, now: float, reason: str = "") -> None:
        def finish(raw: Json) -> None:
            conditions.put(raw, kind, "True", now, reason=reason)

        self.store.change(key, finish, self.name)

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
