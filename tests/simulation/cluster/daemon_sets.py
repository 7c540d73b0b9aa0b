"""The DaemonSet controller (pkg/controller/daemon): one pod on each node that its pods tolerate.

Its pods tolerate a cordon and all conditions of the node (daemon/util/daemonset_util.go,
AddOrUpdateDaemonPodTolerations) and are bound to their node by an affinity to its name.
"""

from __future__ import annotations

from tests.simulation.cluster.deployments import template_hash
from tests.simulation.cluster.eviction import is_ready
from tests.simulation.cluster.messages import Json, clone
from tests.simulation.cluster.replica_sets import PodController, finished, terminating
from tests.simulation.cluster.resources import Key
from tests.simulation.cluster.scheduler_model import fits_node, tolerates
from tests.simulation.cluster.store import Change, Stored

GENERATION = "deprecated.daemonset.template.generation"
HASH = "controller-revision-hash"
TOLERATIONS: tuple[Json, ...] = (
    {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
    {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"},
    {"key": "node.kubernetes.io/disk-pressure", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "node.kubernetes.io/pid-pressure", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"},
)
_FIELD_AFFINITY = "requiredDuringSchedulingIgnoredDuringExecution"


class DaemonSets(PodController):
    """See the module."""

    plural, name = "daemonsets", "daemonset-controller"

    def changed(self, change: Change) -> None:
        super().changed(change)
        if change.key[0] == "nodes" and _matters(change):
            self.resync()

    def sync(self, key: Key, raw: Stored) -> None:
        """One pass over all nodes."""
        wanted = template_hash(raw["spec"]["template"])
        generation = self._note_generation(key, raw, wanted)
        spec = self._pod_spec(raw)
        by_node: dict[str, list[Stored]] = {}
        for pod in self.pods(raw):
            by_node.setdefault(target_of(pod), []).append(pod)
        nodes = {node["metadata"]["name"]: node for node in self.store.all("nodes")}
        should = [name for name, node in nodes.items() if _runs_on(spec, node)]
        for name in should:
            pods = [pod for pod in by_node.get(name, ()) if not terminating(pod)]
            for pod in pods:
                if pod["status"].get("phase") == "Failed":
                    self.delete_pod(pod)
            if not by_node.get(name):
                self.create_pod(raw, labels={HASH: wanted}, spec=_bound(spec, name))
        for name in sorted(set(by_node) - set(should)):
            if name in nodes and _stays_on(spec, nodes[name]):
                continue
            for pod in by_node[name]:
                self.delete_pod(pod)
        self._update(raw, by_node, should, wanted)
        self._status(key, raw, should, wanted, generation)

    def _note_generation(self, key: Key, raw: Stored, wanted: str) -> str:
        """The API server counts the changes of the template in an annotation."""
        annotations = raw["metadata"].get("annotations") or {}
        if annotations.get("model/template") == wanted:
            return str(annotations[GENERATION])
        generation = str(int(annotations.get(GENERATION, "0")) + 1)

        def note(there: Json) -> None:
            added = {GENERATION: generation, "model/template": wanted}
            there["metadata"]["annotations"] = {**annotations, **added}

        self.store.change(key, note, self.name)
        return generation

    def _pod_spec(self, raw: Stored) -> Json:
        spec: Json = clone(raw["spec"]["template"]["spec"])
        spec["tolerations"] = [*(spec.get("tolerations") or []), *map(clone, TOLERATIONS)]
        return spec

    def _update(
        self, raw: Stored, by_node: dict[str, list[Stored]], should: list[str], wanted: str
    ) -> None:
        """RollingUpdate with maxUnavailable 1: an old pod goes when all others are available."""
        if (raw["spec"].get("updateStrategy") or {}).get("type") == "OnDelete":
            return
        pods = [pod for name in should for pod in by_node.get(name, ())]
        old = [pod for pod in pods if not terminating(pod) and _hash_of(pod) != wanted]
        unavailable = [pod for pod in old if not is_ready(pod)]
        missing = len(should) - sum(is_ready(pod) and not terminating(pod) for pod in pods)
        if unavailable:
            for pod in unavailable:
                self.delete_pod(pod)
        elif old and missing <= 0:
            self.delete_pod(old[0])

    def _status(
        self, key: Key, raw: Stored, should: list[str], wanted: str, generation: str
    ) -> None:
        wanted_nodes = set(should)
        pods = [p for p in self.pods(raw) if not terminating(p) and not finished(p)]
        right = [pod for pod in pods if target_of(pod) in wanted_nodes]
        ready = sum(map(is_ready, right))
        counts = {
            "desiredNumberScheduled": len(should),
            "currentNumberScheduled": len(right),
            "numberMisscheduled": len(pods) - len(right),
            "numberReady": ready,
            "numberAvailable": ready,
            "numberUnavailable": len(should) - ready,
            "updatedNumberScheduled": sum(_hash_of(pod) == wanted for pod in right),
        }
        self.write_status(key, counts)


def target_of(pod: Json) -> str:
    """The node of a DaemonSet's pod, also before it is bound."""
    if pod["spec"].get("nodeName"):
        return str(pod["spec"]["nodeName"])
    affinity = pod["spec"].get("affinity", {}).get("nodeAffinity", {}).get(_FIELD_AFFINITY, {})
    for term in affinity.get("nodeSelectorTerms") or ():
        for item in term.get("matchFields") or ():
            return str(item["values"][0])
    return ""


def _bound(spec: Json, node: str) -> Json:
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    terms = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    return {**clone(spec), "affinity": {"nodeAffinity": {_FIELD_AFFINITY: terms}}}


def _runs_on(spec: Json, node: Json) -> bool:
    pod = {"spec": spec}
    if not fits_node(pod, node) or node["metadata"].get("deletionTimestamp") is not None:
        return False
    return all(
        tolerates(pod, taint["key"], taint["effect"], str(taint.get("value") or ""))
        for taint in node["spec"].get("taints") or ()
        if taint["effect"] in ("NoSchedule", "NoExecute")
    )


def _stays_on(spec: Json, node: Json) -> bool:
    """A pod that is there already goes only for a NoExecute taint, or a selector."""
    pod = {"spec": spec}
    return fits_node(pod, node) and all(
        tolerates(pod, taint["key"], taint["effect"], str(taint.get("value") or ""))
        for taint in node["spec"].get("taints") or ()
        if taint["effect"] == "NoExecute"
    )


def _matters(change: Change) -> bool:
    old, new = change.old, change.new
    if old is None or new is None:
        return True
    return bool(
        old["spec"] != new["spec"] or old["metadata"].get("labels") != new["metadata"].get("labels")
    )


def _hash_of(pod: Json) -> str:
    return str((pod["metadata"].get("labels") or {}).get(HASH, ""))
