"""Whether a roll-out of an owner's pods still makes progress. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import zip_longest

from selfheal_remediator.kube.objects import Json, timestamp


@dataclass(frozen=True, slots=True)
class Rollout:
    """The most progress that a roll-out was seen to make, and since when there was none.

    template: names the pod template that is rolled out. progress: counts, each the highest seen:
    a pod that becomes ready and unready again and again is no progress.
    """

    template: str
    progress: tuple[int, ...]
    since: float


def advance(
    before: Rollout | None, rolling: str, template: str, progress: tuple[int, ...], now: float
) -> Rollout | None:
    """The roll-out as of now, None = none is under way."""
    if not rolling:
        return None
    if before is None or before.template != template:
        return Rollout(template, progress, now)
    if not exceeds(progress, before.progress):
        return before
    best = tuple(max(pair) for pair in zip_longest(progress, before.progress, fillvalue=-(2**31)))
    return replace(before, progress=best, since=now)


def exceeds(progress: tuple[int, ...], before: tuple[int, ...]) -> bool:
    """Whether any count is higher than before."""
    return any(new > old for new, old in zip(progress, before, strict=False))


def rollout_json(rollout: Rollout, since: str | None) -> Json:
    """As status.owners[].rollout holds it; `since` as the API writes times."""
    return {
        "template": rollout.template,
        "progress": list(rollout.progress),
        "since": since,
    }


def rollout_from(raw: Json | None) -> Rollout | None:
    """From status.owners[].rollout. Raises ValueError, TypeError."""
    if not raw:
        return None
    progress = tuple(int(count) for count in raw.get("progress") or ())
    return Rollout(raw.get("template") or "", progress, timestamp(raw.get("since")) or 0.0)
