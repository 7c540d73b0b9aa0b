"""Which Deployments of a drain's pods are read now, because budgets keep these pods. Pure."""

from __future__ import annotations

from collections.abc import Collection

from selfheal_remediator.drain.budgets import KnownBudgets
from selfheal_remediator.drain.eviction import Eviction
from selfheal_remediator.drain.surge import Surge
from selfheal_remediator.kube.pods import Pod
from selfheal_remediator.kube.responses import Outcome
from selfheal_remediator.moments import earliest

#: So many Deployments of one node are read, or rolled out, at a time.
AT_ONCE = 5
#: Seconds for which a budget that may let a pod go is waited for, before it is read whether a
#: rollout was begun for it: while that runs, the budget counts the new pod too.
PATIENCE = 30.0


def take_due(
    evictions: Collection[Eviction], budgets: KnownBudgets, now: float
) -> tuple[list[Pod], float | None]:
    """The pods whose Deployments are to be read now, then awaited; and when the next is."""
    found = [(item, _due(item, budgets)) for item in evictions if _refused(item)]
    items = [item for item, _ in found]
    busy = sum(item.surge.awaited or item.surge.rolls(now) for item in items)
    pods, wake = list[Pod](), None
    for item, due in found:
        surge = item.surge
        if surge.awaited:
            continue
        if due > now:
            wake = earliest(wake, due)
        elif surge.rolls(now) or busy < AT_ONCE:
            busy += not surge.rolls(now)
            surge.awaited = True
            pods.append(item.pod)
    return pods, wake


def _refused(item: Eviction) -> bool:
    """Whether a budget refused the pod of a ReplicaSet, or a rollout is to replace it."""
    pod = item.pod
    if item.terminating or pod.owner_kind != "ReplicaSet" or pod.owner_api != "apps/v1":
        return False
    by_budget = item.waits_for_budget and item.outcome is Outcome.BUDGET
    return by_budget or item.surge.decision.surge is Surge.ROLLING


def _due(item: Eviction, budgets: KnownBudgets) -> float:
    """When its Deployment is to be read."""
    surge = item.surge
    if surge.decision.surge is Surge.ROLLING or budgets.never_let(item.pod):
        return surge.due
    return max(surge.due, (item.refused_since or 0.0) + PATIENCE)
