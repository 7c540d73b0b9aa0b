"""The disruption controller: the status of PodDisruptionBudgets (pkg/controller/disruption).

Terminating pods are not healthy, nor are those whose eviction was accepted within two minutes.
Budgets with maxUnavailable or a percentage need to know each pod's owner and its scale; where an
owner has none (a DaemonSet, a Job, a missing one), nothing may be disrupted (failSafe).
"""

from __future__ import annotations

from tests.simulation.cluster import conditions
from tests.simulation.cluster.eviction import is_ready
from tests.simulation.cluster.messages import Json, Simulation, unix
from tests.simulation.cluster.quantities import count_of
from tests.simulation.cluster.resources import Key
from tests.simulation.cluster.selectors import controller_of, labels_of, selects
from tests.simulation.cluster.store import Change, Store, Stored
from tests.simulation.cluster.work_queue import WorkQueue

#: DeletionTimeout: an accepted eviction counts as a disruption for so long (seconds).
DELETION_TIMEOUT = 120.0
PLURAL = "poddisruptionbudgets"
_SCALED = {"Deployment": "deployments", "ReplicaSet": "replicasets", "StatefulSet": "statefulsets"}


class NoScale(Exception):
    """It is not known how many pods there should be."""


class Disruption:
    """See the module."""

    def __init__(self, simulation: Simulation, store: Store) -> None:
        self._store = store
        self.queue: WorkQueue[Key] = WorkQueue(simulation, self._sync)
        store.subscribe(self._changed)
        store.on_restore(self._resync)

    def _resync(self) -> None:
        for budget in self._store.all(PLURAL):
            self._add(budget)

    def _add(self, budget: Json, after: float | None = None) -> None:
        meta = budget["metadata"]
        self.queue.add((PLURAL, meta["namespace"], meta["name"]), after)

    def _changed(self, change: Change) -> None:
        plural, namespace, _ = change.key
        if plural == PLURAL and change.new is not None:
            self._add(change.new)
        elif plural == "pods":
            states = [raw for raw in (change.old, change.new) if raw is not None]
            for budget in self._store.all(PLURAL, namespace):
                selector = budget["spec"].get("selector")
                if any(selects(selector, labels_of(raw)) for raw in states):
                    self._add(budget)
        elif plural in _SCALED.values() and _replicas(change.old) != _replicas(change.new):
            for budget in self._store.all(PLURAL, namespace):
                self._add(budget)

    def _sync(self, key: Key) -> None:
        budget = self._store.get(*key)
        if budget is None:
            return
        selector = budget["spec"].get("selector")
        pods = [p for p in self._store.all("pods", key[1]) if selects(selector, labels_of(p))]
        try:
            expected, desired = self._expected(budget, pods)
        except NoScale as error:
            self._fail_safe(key, str(error))
            return
        now = self._store.clock()
        disrupted = self._disrupted(budget, pods, now)
        healthy = sum(
            1
            for pod in pods
            if is_ready(pod)
            and pod["metadata"].get("deletionTimestamp") is None
            and pod["metadata"]["name"] not in disrupted
        )
        allowed = max(0, healthy - desired) if expected > 0 else 0

        def status(raw: Json) -> None:
            raw["status"] = {
                "currentHealthy": healthy,
                "desiredHealthy": desired,
                "expectedPods": expected,
                "disruptionsAllowed": allowed,
                "observedGeneration": raw["metadata"]["generation"],
                "conditions": (raw.get("status") or {}).get("conditions") or [],
                **({"disruptedPods": disrupted} if disrupted else {}),
            }
            _condition(raw, allowed, now)

        self._store.change(key, status, "disruption-controller")
        if disrupted:
            first = min(unix(at) for at in disrupted.values())
            self._add(budget, max(0.1, first + DELETION_TIMEOUT - now + 1.0))

    def _fail_safe(self, key: Key, message: str) -> None:
        now = self._store.clock()

        def status(raw: Json) -> None:
            raw.setdefault("status", {})["disruptionsAllowed"] = 0
            reason = "SyncFailed"
            conditions.put(raw, "DisruptionAllowed", "False", now, reason=reason, message=message)

        self._store.change(key, status, "disruption-controller")

    def _expected(self, budget: Json, pods: list[Stored]) -> tuple[int, int]:
        """How many pods there should be, and how many of them healthy."""
        spec = budget["spec"]
        if "maxUnavailable" in spec:
            expected = self._scale(pods)
            return expected, max(0, expected - count_of(spec["maxUnavailable"], expected, up=True))
        least = spec.get("minAvailable", 1)
        if isinstance(least, int):
            return len(pods), least
        expected = self._scale(pods)
        return expected, count_of(least, expected, up=True)

    def _scale(self, pods: list[Stored]) -> int:
        """The sum of the scales of the pods' owners; pods of nobody count for nothing."""
        scales: dict[str, int] = {}
        for pod in pods:
            owner = controller_of(pod)
            if owner is None or owner["uid"] in scales:
                continue
            found = self._owner(pod["metadata"]["namespace"], owner)
            if found is None:
                raise NoScale(f'found no controllers for pod "{pod["metadata"]["name"]}"')
            above = controller_of(found)
            top = self._owner(pod["metadata"]["namespace"], above) if above else found
            chosen = top or found
            scales[chosen["metadata"]["uid"]] = int(chosen["spec"].get("replicas", 1))
            scales.setdefault(owner["uid"], 0)
        return sum(scales.values())

    def _owner(self, namespace: str, owner: Json) -> Stored | None:
        plural = _SCALED.get(owner["kind"])
        if plural is None:
            raise NoScale(f"{owner['kind']} does not implement the scale subresource")
        found = self._store.get(plural, namespace, owner["name"])
        return found if found is not None and found["metadata"]["uid"] == owner["uid"] else None

    def _disrupted(self, budget: Json, pods: list[Stored], now: float) -> dict[str, str]:
        known = (budget.get("status") or {}).get("disruptedPods") or {}
        there = {
            pod["metadata"]["name"]
            for pod in pods
            if pod["metadata"].get("deletionTimestamp") is None
        }
        return {
            name: at
            for name, at in known.items()
            if name in there and unix(at) + DELETION_TIMEOUT > now
        }


def _replicas(raw: Json | None) -> object:
    return raw["spec"].get("replicas") if raw is not None else None


def _condition(raw: Json, allowed: int, now: float) -> None:
    status, reason = ("True", "SufficientPods") if allowed else ("False", "InsufficientPods")
    conditions.put(raw, "DisruptionAllowed", status, now, reason=reason)
