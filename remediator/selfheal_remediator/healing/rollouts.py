"""Whether a rollout of an owner's pods still makes progress. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import zip_longest

from selfheal_remediator.kube.objects import Json, timestamp


@dataclass(frozen=True, slots=True)
class Rollout:
    """The highest observed progress of a rollout, and since when there was none.

    template: names the pod template that is rolled out. progress: counts, each the highest
    observed: a pod that alternates between ready and unready is no progress.
    """

    template: str
    progress: tuple[int, ...]
    since: float


def advance(
    before: Rollout | None, rolling: str, template: str, progress: tuple[int, ...], now: float
) -> Rollout | None:
    """The current rollout, None = there is none."""
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
    """As in status.owners[].rollout; `since` in the API's time format."""
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
