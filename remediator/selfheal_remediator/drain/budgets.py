"""What one drain knows of PodDisruptionBudgets, and which refused pods a change wakes up. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from selfheal_remediator.drain.eviction import Eviction, Step
from selfheal_remediator.kube.budgets import Budget
from selfheal_remediator.kube.pods import Pod


@dataclass(slots=True)
class KnownBudgets:
    """Budgets by uid, as last observed."""

    known: dict[str, Budget] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Budget]:
        return iter(self.known.values())

    def has_room(self, pod: Pod) -> bool:
        """Whether all that cover the pod allow an eviction; False if none is known."""
        covering = [budget for budget in self if budget.covers(pod)]
        return bool(covering) and all(b.allowed > 0 and b.current for b in covering)

    def never_let(self, pod: Pod) -> bool:
        """Whether one that covers the pod allows no eviction even if all its pods are healthy."""
        return any(never_lets(budget, pod) for budget in self)

    def covering(self, pod: Pod) -> tuple[Budget, ...]:
        """Those that cover the pod."""
        return tuple(budget for budget in self if budget.covers(pod))

    def changed(
        self, budget: Budget, evictions: Collection[Eviction], now: float, *, gone: bool
    ) -> None:
        """A budget's status changed: pods that it blocked are tried again now."""
        before = self.known.pop(budget.uid, None)
        if not gone:
            self.known[budget.uid] = budget
        for item in evictions:
            if item.step is Step.REFUSED and _let_go(item.pod, before, None if gone else budget):
                item.retry_at = now
        if gone or not budget.current:
            return
        covered = [item for item in evictions if budget.covers(item.pod)]
        room = budget.allowed - sum(item.step is Step.POSTED for item in covered)
        waiting = [item for item in covered if item.waits_for_budget]
        waiting.sort(key=lambda item: (item.refused_since or 0.0, item.pod.name))
        for item in waiting[: max(0, room)]:
            item.retry_at = now


def _let_go(pod: Pod, before: Budget | None, after: Budget | None) -> bool:
    """Whether the budget covered the pod and does not any more; None = there is none."""
    covered = before is not None and before.covers(pod)
    return covered and (after is None or not after.covers(pod))


def never_lets(budget: Budget, pod: Pod) -> bool:
    """Whether it covers the pod and allows no eviction even if all its pods are healthy."""
    return budget.covers(pod) and budget.current and budget.expected <= budget.desired
