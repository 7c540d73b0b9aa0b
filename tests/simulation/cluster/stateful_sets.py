"""The StatefulSet controller (pkg/controller/statefulset/stateful_set_control.go).

OrderedReady: one pod after the other, each waits until all before it are running and ready; a pod
that is being deleted must be gone before its name is used again. An update goes from the highest
ordinal to the partition and waits for each pod: a pod that never becomes ready blocks it, also
when the template is repaired (kubernetes#67250).
"""

from __future__ import annotations

from tests.simulation.cluster.deployments import template_hash
from tests.simulation.cluster.eviction import is_ready
from tests.simulation.cluster.messages import Json
from tests.simulation.cluster.replica_sets import PodController, finished, terminating
from tests.simulation.cluster.resources import Key
from tests.simulation.cluster.store import Stored

REVISION = "controller-revision-hash"


class StatefulSets(PodController):
    """See the module."""

    plural, name = "statefulsets", "statefulset-controller"

    def sync(self, key: Key, raw: Stored) -> None:
        """One pass: what can be done now."""
        total = int(raw["spec"].get("replicas", 1))
        update = self._revision(raw)
        current = (raw.get("status") or {}).get("currentRevision") or update
        monotonic = raw["spec"].get("podManagementPolicy") != "Parallel"
        pods = {_ordinal(pod): pod for pod in self.pods(raw)}
        if self._scale(raw, pods, total, monotonic, current, update):
            self._update(raw, pods, total, update)
        self._status(key, raw, total, current, update)

    def _scale(
        self,
        raw: Stored,
        pods: dict[int, Stored],
        total: int,
        monotonic: bool,
        current: str,
        update: str,
    ) -> bool:
        """Create what is missing, delete what is too many; whether it got to its end."""
        for ordinal in range(total):
            pod = pods.get(ordinal)
            if pod is not None and finished(pod) and not terminating(pod):
                self.delete_pod(pod)
                return False
            if pod is None:
                self._create(raw, ordinal, self._revision_of_new(raw, ordinal, current, update))
            if monotonic and (pod is None or terminating(pod) or not _healthy(pod)):
                return False
        for ordinal in sorted((o for o in pods if o >= total), reverse=True):
            if terminating(pods[ordinal]):
                if monotonic:
                    return False
                continue
            self.delete_pod(pods[ordinal])
            if monotonic:
                return False
        return True

    def _update(self, raw: Stored, pods: dict[int, Stored], total: int, update: str) -> None:
        strategy = raw["spec"].get("updateStrategy") or {}
        if strategy.get("type") == "OnDelete":
            return
        partition = int((strategy.get("rollingUpdate") or {}).get("partition") or 0)
        for ordinal in range(total - 1, partition - 1, -1):
            pod = pods.get(ordinal)
            if pod is None:
                return
            if _revision_of(pod) != update and not terminating(pod):
                self.delete_pod(pod)
                return
            if not _healthy(pod):
                return

    def _create(self, raw: Stored, ordinal: int, revision: str) -> None:
        name = f"{raw['metadata']['name']}-{ordinal}"
        labels = {
            REVISION: revision,
            "statefulset.kubernetes.io/pod-name": name,
            "apps.kubernetes.io/pod-index": str(ordinal),
        }
        self.create_pod(raw, name=name, labels=labels, spec={"hostname": name})

    def _revision(self, raw: Stored) -> str:
        return f"{raw['metadata']['name']}-{template_hash(raw['spec']['template'])}"

    def _revision_of_new(self, raw: Stored, ordinal: int, current: str, update: str) -> str:
        strategy = raw["spec"].get("updateStrategy") or {}
        if strategy.get("type") == "OnDelete":
            return update
        partition = int((strategy.get("rollingUpdate") or {}).get("partition") or 0)
        return current if ordinal < partition else update

    def _status(self, key: Key, raw: Stored, total: int, current: str, update: str) -> None:
        pods = [pod for pod in self.pods(raw) if _ordinal(pod) < total]
        ready = sum(is_ready(pod) and not terminating(pod) for pod in pods)
        updated = sum(_revision_of(pod) == update for pod in pods if not terminating(pod))
        if updated == total == ready:
            current = update
        counts = {
            "replicas": len(pods),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "updatedReplicas": updated,
            "currentReplicas": sum(_revision_of(pod) == current for pod in pods),
        }
        self.write_status(key, {**counts, "currentRevision": current, "updateRevision": update})


def _ordinal(pod: Json) -> int:
    return int(pod["metadata"]["name"].rpartition("-")[2])


def _revision_of(pod: Json) -> str:
    return str((pod["metadata"].get("labels") or {}).get(REVISION, ""))


def _healthy(pod: Json) -> bool:
    return is_ready(pod) and pod["status"].get("phase") == "Running" and not terminating(pod)
