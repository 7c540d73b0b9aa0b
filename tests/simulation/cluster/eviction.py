"""POST pods/eviction, in the order of checks of pkg/registry/core/pod/storage/eviction.go.

Pending, finished and terminating pods pass budgets by. Two budgets: 500. A budget whose controller
has not seen its last change: 429 with Retry-After 10. No disruption allowed: 429 without. An
unready pod passes when the budget has its healthy pods without it (or says AlwaysAllow). The
budget is decremented before the pod is deleted: a uid that does not match costs a disruption.
"""

from __future__ import annotations

from tests.simulation.cluster import deletion, statuses
from tests.simulation.cluster.messages import Json, Response, clone, stamp
from tests.simulation.cluster.resources import RESOURCES
from tests.simulation.cluster.selectors import labels_of, selects
from tests.simulation.cluster.store import Store, Stored

PODS, BUDGETS = RESOURCES["pods"], RESOURCES["poddisruptionbudgets"]
#: MaxDisruptedPodSize.
MOST_DISRUPTED = 2000
#: Seconds in the 429 of a budget that is being processed.
PROCESSING_RETRY = 10
TWO_BUDGETS = (
    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not "
    "support."
)


def is_ready(pod: Json) -> bool:
    """Whether the condition Ready is True."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def budgets_of(store: Store, pod: Json) -> list[Stored]:
    """The budgets that select the pod."""
    return [
        budget
        for budget in store.all("poddisruptionbudgets", pod["metadata"]["namespace"])
        if selects(budget["spec"].get("selector"), labels_of(pod))
    ]


def evict(store: Store, namespace: str, name: str, body: Json, by: str, *, dry: bool) -> Response:
    """Evict the pod. Raises Refused."""
    if (body.get("metadata") or {}).get("name") != name:
        raise statuses.bad_request("name in URL does not match name in Eviction object")
    options = body.get("deleteOptions") or {}
    dry = dry or "All" in (options.get("dryRun") or ())
    pod = store.get("pods", namespace, name)
    if pod is None:
        raise statuses.not_found(PODS, name)
    if not _passes_budgets(pod):
        budgets = budgets_of(store, pod)
        if len(budgets) > 1:
            raise statuses.failure(500, "", TWO_BUDGETS)
        for budget in budgets:
            if is_ready(pod) or not _unready_may_go(budget):
                _check_and_decrement(store, budget, name, by, dry=dry)
    _condition_and_delete(store, pod, options, by, dry=dry)
    done = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
    return statuses.answer(201, done)


def _passes_budgets(pod: Json) -> bool:
    phase = (pod.get("status") or {}).get("phase")
    terminating = pod["metadata"].get("deletionTimestamp") is not None
    return terminating or phase in ("Succeeded", "Failed", "Pending")


def _unready_may_go(budget: Json) -> bool:
    if budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget.get("status") or {}
    desired = int(status.get("desiredHealthy") or 0)
    return int(status.get("currentHealthy") or 0) >= desired > 0


def _check_and_decrement(store: Store, budget: Stored, pod: str, by: str, *, dry: bool) -> None:
    meta, status = budget["metadata"], budget.get("status") or {}
    name, allowed = meta["name"], int(status.get("disruptionsAllowed") or 0)
    if int(status.get("observedGeneration") or 0) < int(meta["generation"]):
        cause = f"The disruption budget {name} is still being processed by the server."
        raise statuses.disruption_budget(cause, PROCESSING_RETRY)
    disrupted = status.get("disruptedPods") or {}
    details = {"name": name, "group": BUDGETS.group, "kind": "poddisruptionbudget"}
    subject = f'poddisruptionbudget.policy "{name}" is forbidden: '
    if allowed < 0:
        why = "pdb disruptions allowed is negative"
        raise statuses.failure(403, "Forbidden", subject + why, details)
    if len(disrupted) > MOST_DISRUPTED:
        why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        raise statuses.failure(403, "Forbidden", subject + why, details)
    if allowed == 0:
        needs, has = int(status.get("desiredHealthy") or 0), int(status.get("currentHealthy") or 0)
        raise statuses.disruption_budget(
            f"The disruption budget {name} needs {needs} healthy pods and has {has} currently"
        )
    if dry:
        return

    def decrement(raw: Json) -> None:
        raw["status"]["disruptionsAllowed"] = allowed - 1
        raw["status"]["disruptedPods"] = {**disrupted, pod: stamp(store.clock())}

    store.change(("poddisruptionbudgets", meta["namespace"], name), decrement, by)


def _condition_and_delete(store: Store, pod: Stored, options: Json, by: str, *, dry: bool) -> None:
    """addConditionAndDeletePod: the condition DisruptionTarget, then the deletion."""
    meta = pod["metadata"]
    key = "pods", meta["namespace"], meta["name"]
    deletion.check_preconditions(PODS, pod, options)
    if dry:
        return
    at = stamp(store.clock())

    def mark(raw: Json) -> None:
        conditions = raw.setdefault("status", {}).setdefault("conditions", [])
        if any(c["type"] == "DisruptionTarget" and c["status"] == "True" for c in conditions):
            return
        conditions.append(
            {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "EvictionByEvictionAPI",
                "message": "Eviction API: evicting",
                "lastTransitionTime": at,
            }
        )

    if meta.get("deletionTimestamp") is None:
        store.change(key, mark, by)
    options = clone(options)
    options.get("preconditions", {}).pop("resourceVersion", None)  # met, before the condition
    deletion.delete(store, key, options, by)
