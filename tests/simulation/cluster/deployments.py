"""The Deployment controller: rolling updates and their progress (pkg/controller/deployment).

The condition Progressing follows progress.go: NewReplicaSetCreated, ReplicaSetUpdated at each
progress, NewReplicaSetAvailable once complete (it stays when pods fail later, until the next
change of the template), ProgressDeadlineExceeded, DeploymentPaused.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable

from tests.simulation.cluster.messages import Json, Simulation, clone, stamp, unix
from tests.simulation.cluster.quantities import count_of
from tests.simulation.cluster.resources import Key
from tests.simulation.cluster.selectors import controller_of
from tests.simulation.cluster.store import Change, Store, Stored
from tests.simulation.cluster.work_queue import WorkQueue

REVISION = "deployment.kubernetes.io/revision"
HASH = "pod-template-hash"
_NAME = "deployment-controller"


class Deployments:
    """See the module."""

    def __init__(self, simulation: Simulation, store: Store, suffix: Callable[[], str]) -> None:
        self._store = store
        self.queue: WorkQueue[Key] = WorkQueue(simulation, self._sync)
        store.subscribe(self._changed)
        store.on_restore(self._resync)

    def _resync(self) -> None:
        for raw in self._store.all("deployments"):
            self.queue.add(("deployments", raw["metadata"]["namespace"], raw["metadata"]["name"]))

    def _changed(self, change: Change) -> None:
        if change.key[0] == "deployments" and change.new is not None:
            self.queue.add(change.key)
        elif change.key[0] == "replicasets":
            owner = controller_of(change.new or change.last)
            if owner is not None:
                self.queue.add(("deployments", change.key[1], owner["name"]))

    def _sync(self, key: Key) -> None:
        raw = self._store.get(*key)
        if raw is None or raw["metadata"].get("deletionTimestamp") is not None:
            return
        sets = [r for r in self._store.owned_by(raw["metadata"]["uid"]) if r["kind"] != "Pod"]
        wanted = template_hash(raw["spec"]["template"])
        new = next((r for r in sets if r["metadata"]["labels"].get(HASH) == wanted), None)
        paused = bool(raw["spec"].get("paused"))
        created = new is None and not paused
        if created:
            new = self._create(raw, wanted, sets)
        old = [r for r in sets if new is None or r["metadata"]["uid"] != new["metadata"]["uid"]]
        if paused:
            self._scale_in_proportion(raw, new, old)
        else:
            self._roll(raw, new, old)
        self._status(key, created=created, paused=paused)

    def _create(self, raw: Stored, wanted: str, sets: list[Stored]) -> Stored:
        meta = raw["metadata"]
        revisions = [int(r["metadata"]["annotations"].get(REVISION, "0")) for r in sets]
        revision = str(max(revisions, default=0) + 1)
        template = clone(raw["spec"]["template"])
        labels = {**template.get("metadata", {}).get("labels", {}), HASH: wanted}
        template["metadata"] = {**template.get("metadata", {}), "labels": labels}
        selector = {"matchLabels": {**raw["spec"]["selector"]["matchLabels"], HASH: wanted}}
        reference = {"apiVersion": "apps/v1", "kind": "Deployment", "controller": True}
        reference |= {"name": meta["name"], "uid": meta["uid"], "blockOwnerDeletion": True}
        made: Json = {
            "kind": "ReplicaSet",
            "apiVersion": "apps/v1",
            "metadata": {
                "namespace": meta["namespace"],
                "name": f"{meta['name']}-{wanted}",
                "labels": labels,
                "annotations": {REVISION: revision},
                "ownerReferences": [reference],
            },
            "spec": {"replicas": 0, "selector": selector, "template": template},
            "status": {"replicas": 0},
        }

        def note(there: Json) -> None:
            there["metadata"].setdefault("annotations", {})[REVISION] = revision

        self._store.change(("deployments", meta["namespace"], meta["name"]), note, _NAME)
        return self._store.create(made, _NAME)

    def _roll(self, raw: Json, new: Stored | None, old: list[Stored]) -> None:
        """rolling.go: up to the surge, down to what must be available."""
        if new is None:
            return
        total, spec = int(raw["spec"].get("replicas", 1)), raw["spec"].get("strategy") or {}
        if spec.get("type") == "Recreate":
            for replica_set in old:
                self._scale(replica_set, 0)
            if not any(_count(r, "replicas") for r in old):
                self._scale(new, total)
            return
        rolling = spec.get("rollingUpdate") or {}
        surge = count_of(rolling.get("maxSurge", "25%"), total, up=True)
        fewer = count_of(rolling.get("maxUnavailable", "25%"), total, up=False)
        if surge == 0 and fewer == 0:
            fewer = 1
        have = sum(_wanted(r) for r in (new, *old))
        if _wanted(new) > total:
            self._scale(new, total)
        elif _wanted(new) < total and have < total + surge:
            self._scale(new, min(total, _wanted(new) + total + surge - have))
        new = self._store.get("replicasets", new["metadata"]["namespace"], new["metadata"]["name"])
        if new is not None and old:
            self._shrink(new, old, total - fewer)

    def _shrink(self, new: Stored, old: list[Stored], least: int) -> None:
        """Old ReplicaSets: first what is not available anyway, then what can be spared."""
        have = sum(_wanted(r) for r in (new, *old))
        missing = _wanted(new) - _count(new, "availableReplicas")
        room = have - least - missing
        if room <= 0:
            return
        for replica_set in old:
            unhealthy = _wanted(replica_set) - _count(replica_set, "availableReplicas")
            cut = min(max(0, unhealthy), max(0, room), _wanted(replica_set))
            if cut:
                self._scale(replica_set, _wanted(replica_set) - cut)
                room -= cut
        old = [r for r in map(self._fresh, old) if r is not None]
        spare = sum(_count(r, "availableReplicas") for r in (new, *old)) - least
        for replica_set in old:
            cut = min(max(0, spare), _wanted(replica_set))
            if cut:
                self._scale(replica_set, _wanted(replica_set) - cut)
                spare -= cut

    def _fresh(self, raw: Stored) -> Stored | None:
        return self._store.get("replicasets", raw["metadata"]["namespace"], raw["metadata"]["name"])

    def _scale_in_proportion(self, raw: Json, new: Stored | None, old: list[Stored]) -> None:
        """A paused Deployment is still scaled: here its only active ReplicaSet."""
        used = [r for r in (*old, *([new] if new else [])) if _wanted(r)]
        if len(used) == 1:
            self._scale(used[0], int(raw["spec"].get("replicas", 1)))

    def _scale(self, raw: Stored, replicas: int) -> None:
        meta = raw["metadata"]

        def write(there: Json) -> None:
            there["spec"]["replicas"] = replicas

        self._store.change(("replicasets", meta["namespace"], meta["name"]), write, _NAME)

    # -- status -------------------------------------------------------------------------

    def _status(self, key: Key, *, created: bool, paused: bool) -> None:
        raw = self._store.get(*key)
        assert raw is not None
        sets = [r for r in self._store.owned_by(raw["metadata"]["uid"]) if r["kind"] != "Pod"]
        wanted = template_hash(raw["spec"]["template"])
        updated = [r for r in sets if r["metadata"]["labels"].get(HASH) == wanted]
        counts = {
            "replicas": sum(_count(r, "replicas") for r in sets),
            "updatedReplicas": sum(_count(r, "replicas") for r in updated),
            "readyReplicas": sum(_count(r, "readyReplicas") for r in sets),
            "availableReplicas": sum(_count(r, "availableReplicas") for r in sets),
        }
        total = int(raw["spec"].get("replicas", 1))
        counts["unavailableReplicas"] = max(0, total - counts["availableReplicas"])
        now = self._store.clock()
        before = raw.get("status") or {}
        state = progressing(raw, counts, before, now, created=created, paused=paused)

        def write(there: Json) -> None:
            others = [c for c in before.get("conditions") or () if c["type"] != "Progressing"]
            there["status"] = {
                **counts,
                "observedGeneration": there["metadata"]["generation"],
                "conditions": [*others, *([state] if state else [])],
            }

        self._store.change(key, write, _NAME)
        deadline = raw["spec"].get("progressDeadlineSeconds")
        if state and deadline and state["status"] == "True" and state["reason"] != _COMPLETE:
            left = unix(state["lastUpdateTime"]) + deadline - now
            self.queue.add(key, max(0.0, left) + 1.0)


_COMPLETE = "NewReplicaSetAvailable"


def progressing(
    raw: Json, counts: Json, before: Json, now: float, *, created: bool, paused: bool
) -> Json | None:
    """The condition Progressing after this sync (progress.go, syncRolloutStatus)."""
    found = (c for c in before.get("conditions") or () if c["type"] == "Progressing")
    known: Json | None = next(found, None)
    if raw["spec"].get("progressDeadlineSeconds") is None:
        return None
    if paused:
        return _state(known, "Unknown", "DeploymentPaused", now)
    if created or (known and known["reason"] == "DeploymentPaused"):
        return _state(known, "True", "NewReplicaSetCreated", now)
    step = _step(raw, counts, before, known, now)
    return _state(known, *step, now) if step is not None else known


def _step(
    raw: Json, counts: Json, before: Json, known: Json | None, now: float
) -> tuple[str, str] | None:
    """Status and reason of a rollout that is under way; None = as before."""
    total, reason = int(raw["spec"].get("replicas", 1)), known["reason"] if known else ""
    if counts["replicas"] == counts["updatedReplicas"] and reason == _COMPLETE:
        return None
    if counts["replicas"] == counts["updatedReplicas"] == counts["availableReplicas"] == total:
        return "True", _COMPLETE
    old_before = before.get("replicas", 0) - before.get("updatedReplicas", 0)
    if counts["replicas"] - counts["updatedReplicas"] < old_before or any(
        counts[name] > before.get(name, 0)
        for name in ("updatedReplicas", "readyReplicas", "availableReplicas")
    ):
        return "True", "ReplicaSetUpdated"
    if known is None or known["status"] != "True" or reason == _COMPLETE:
        return None
    late = unix(known["lastUpdateTime"]) + raw["spec"]["progressDeadlineSeconds"] < now
    return ("False", "ProgressDeadlineExceeded") if late else None


def _state(known: Json | None, status: str, reason: str, now: float) -> Json:
    if known and (known["status"], known["reason"]) == (status, reason) and status != "True":
        return known
    moved = known is None or known["status"] != status
    return {
        "type": "Progressing",
        "status": status,
        "reason": reason,
        "lastUpdateTime": stamp(now),
        "lastTransitionTime": stamp(now) if moved or known is None else known["lastTransitionTime"],
    }


def template_hash(template: Json) -> str:
    """A name for a pod template; the controller's own label is no part of it."""
    template = clone(template)
    template.get("metadata", {}).get("labels", {}).pop(HASH, None)
    return f"{zlib.crc32(json.dumps(template, sort_keys=True).encode()):08x}"


def _wanted(raw: Json) -> int:
    return int(raw["spec"].get("replicas", 0))


def _count(raw: Json, name: str) -> int:
    return int((raw.get("status") or {}).get(name) or 0)
