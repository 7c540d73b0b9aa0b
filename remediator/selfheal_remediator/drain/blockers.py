"""What keeps pods on a draining node, grouped for people and metrics. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from selfheal_remediator.drain.eviction import STUCK_AFTER, Eviction, Step
from selfheal_remediator.kube.budgets import Budget
from selfheal_remediator.kube.deletion_check import NOT_DELETED
from selfheal_remediator.kube.responses import Outcome, budget_refusal


@dataclass(frozen=True, slots=True)
class Blocker:
    """Why pods remain, grouped: `cause` is a bounded label, `text` is for people."""

    cause: str
    text: str
    pods: tuple[str, ...]
    since: float


def blockers(evictions: Iterable[Eviction], budgets: Iterable[Budget], now: float) -> list[Blocker]:
    """What keeps the remaining pods here, the largest group first."""
    known = list(budgets)
    groups: dict[tuple[str, str], list[Eviction]] = {}
    for item in evictions:
        what = _blocked_by(item, known, now)
        if what is not None:
            groups.setdefault(what, []).append(item)
    found = [
        Blocker(
            cause,
            text,
            tuple(sorted(item.pod.id for item in items)),
            min(item.refused_since or now for item in items),
        )
        for (cause, text), items in groups.items()
    ]
    return sorted(found, key=lambda blocker: -len(blocker.pods))


def _blocked_by(item: Eviction, budgets: list[Budget], now: float) -> tuple[str, str] | None:
    """Cause and text, None = nothing blocks the pod."""
    pod, outcome = item.pod, item.outcome
    if pod.deletion is not None:
        if not item.overdue(now) and now <= pod.deletion + STUCK_AFTER:
            return None
        held = f", finalizers {', '.join(pod.finalizers)}" if pod.finalizers else ""
        return ("terminating", f"terminating, overdue{held}")
    if item.step is Step.REFUSED and outcome is not None and not outcome.over:
        cause = Outcome.BUDGET if outcome is Outcome.PROCESSING else outcome
        texts = (_refusal_text(item, outcome, budgets), item.surge.decision.text)
        return (cause.value, "; ".join(filter(None, texts)))
    return ("not-deleted", NOT_DELETED) if item.check.ignored else None


def _refusal_text(item: Eviction, outcome: Outcome, budgets: list[Budget]) -> str:
    names = ", ".join(sorted(b.id for b in budgets if b.covers(item.pod)))
    if outcome is Outcome.SEVERAL_BUDGETS:
        return f"more than one PDB: {names or item.message}"
    if outcome in (Outcome.BUDGET, Outcome.PROCESSING):
        refusal = budget_refusal(item.message)
        return f"PDB {item.pod.namespace}/{refusal}" if refusal else f"PDB {names}"
    return item.message[:200] or outcome.value


def causes(found: Iterable[Blocker]) -> Counter[str]:
    """Number of pods by cause of blocking."""
    counts: Counter[str] = Counter()
    for blocker in found:
        counts[blocker.cause] += len(blocker.pods)
    return counts


def describe(found: list[Blocker], limit: int = 3) -> str:
    """The blockers in one line, the largest first: what, how many pods, the first three."""
    parts = []
    for blocker in found[:limit]:
        names = ", ".join(blocker.pods[:3]) + (", …" if len(blocker.pods) > 3 else "")
        parts.append(f"{blocker.text} ({len(blocker.pods)}: {names})")
    if len(found) > limit:
        parts.append(f"and {len(found) - limit} more causes")
    return "; ".join(parts)
