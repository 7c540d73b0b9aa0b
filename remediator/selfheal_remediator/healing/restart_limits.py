"""Why an owner's pods are not restarted now. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from selfheal_remediator.healing.canary import canary_kept
from selfheal_remediator.healing.canary_trial import waits_for_canary
from selfheal_remediator.healing.plan import Around, Owner, RestartAction
from selfheal_remediator.healing.policy_state import STUCK_AFTER, Group, PolicyState
from selfheal_remediator.healing.rollouts import Rollout, exceeds
from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.node.skip_reason import SkipReason

#: An owner is read again so long (seconds) after its rollout prevented a restart of a pod.
ROLLING_AGAIN = 2.0


def why_stuck(owner: Owner | None, rollout: Rollout | None, limit: float, now: float) -> str:
    """Why a change of the owner's pods makes no progress, empty = it does, or there is none.

    rollout: its progress so far; limit: seconds without, where the owner has no own deadline.
    """
    if owner is None or owner.stopped or rollout is None:
        return owner.stopped if owner is not None else ""
    if now - rollout.since < rollout_deadline(owner, limit):
        return ""
    return f"{owner.rolling}, without progress since {time_text(rollout.since)}"


def rollout_deadline(owner: Owner, limit: float) -> float:
    """Seconds without progress after which the owner's rollout is stuck; limit: see `why_stuck`."""
    return owner.deadline if owner.deadline is not None else limit + owner.patience


def refused_by_owner(action: RestartAction, owner: Owner, now: float) -> SkipReason | None:
    """What the owner, read afresh, says against the restart."""
    if (owner.desired or 0) < (action.owner.desired or 0):
        return SkipReason("scale-in", f"{owner.kind} {owner.name} is being scaled in")
    same = owner.template == action.owner.template and not owner.unseen
    halted = action.stuck and same and not exceeds(owner.progress, action.owner.progress)
    if owner.rolling and not halted:
        return SkipReason("rollout", owner.rolling, now + ROLLING_AGAIN)
    return None


def canary_lost(action: RestartAction, status: Json | None) -> SkipReason | None:
    """Whether the policy's status, as the API server answered it, has lost the owner's canary.

    Then the next leader would restart another pod: this one is not restarted either.
    """
    canary = action.canary
    if canary is None or canary_kept(status, action.owner.uid, canary):
        return None
    text = (
        "all its pods are unhealthy, on every node, and none is restarted to see whether that "
        "helps: the policy's status did not keep status.owners[].canary; update the "
        "CustomResourceDefinition (kubectl apply --server-side --force-conflicts -f chart/crds/), "
        "then restart the remediator"
    )
    return SkipReason("siblings", text, math.inf)


#: A check that may block a restart: whether it does, the cause, the text.
Check = tuple[object, str, str]


def blocked(
    policy_state: PolicyState,
    group: Group,
    around: Around,
    acting: Mapping[str, str],
    interval: float,
    now: float,
) -> SkipReason | None:
    """Skip reasons for all pods of the owner; acting: owner -> the policy that acts on it.

    interval: seconds between two evaluations.
    """
    acting_policy = acting.get(group.key, policy_state.policy.key)
    for holds, cause, text in (
        *_policy_checks(policy_state, group, around, acting_policy),
        *_restart_checks(policy_state, group, interval, now),
        *_owner_checks(group, now),
    ):
        if holds:
            return SkipReason(cause, text)
    refusal = policy_state.refusals.get(group.key)
    if refusal is not None and (refusal.skip_reason.until or 0.0) > now:
        return refusal.skip_reason
    return None


def _policy_checks(
    policy_state: PolicyState, group: Group, around: Around, acting_policy: str
) -> tuple[Check, ...]:
    """Whether anything may be restarted, and by this policy. acting_policy: the one that acts."""
    policy = policy_state.policy
    return (
        (policy_state.problem, "stale", policy_state.problem),
        (policy.paused, "paused", "the policy is paused"),
        (around.stopped, "stopped", around.stopped),
        (acting_policy != policy.key, "other-policy", f"policy {acting_policy} also selects it"),
        (not group.unhealthy[0].owner_uid, "unmanaged", "no controller would replace it"),
        (group.owner is None, "owner-unknown", "its owner is not known yet"),
    )


def _restart_checks(
    policy_state: PolicyState, group: Group, interval: float, now: float
) -> tuple[Check, ...]:
    """What earlier restarts of the owner say."""
    record, limit = policy_state.records.get(group.key), policy_state.policy.restart.max_per_hour
    canary = waits_for_canary(policy_state, group, record, interval, now)
    gave_up = record is not None and record.gave_up
    return (
        (group.under_way, "under-way", "a restart is in progress"),
        (gave_up, "gave-up", f"{limit} restarts within an hour did not help"),
        (canary, canary.cause if canary else "", canary.text if canary else ""),
    )


def _owner_checks(group: Group, now: float) -> tuple[Check, ...]:
    """Whether the owner's pods change anyway."""
    leaving = [
        pod.name
        for pod in group.pods
        if pod.deletion is not None and not pod.finished and now <= pod.deletion + STUCK_AFTER
    ]
    rolling = group.owner.rolling if group.owner is not None else ""
    unseen = group.owner is not None and group.owner.unseen
    stopped = f"{group.stuck}: nothing would replace the pod; is kube-controller-manager running?"
    scaled = f"{len(group.alive)} pods, {group.desired} wanted: it is being scaled in"
    return (
        (leaving, "leaving", f"{leaving[0] if leaving else ''} is still terminating"),
        (unseen and group.stuck, "controller", stopped),
        (rolling and not group.stuck, "rollout", rolling),
        (group.shrinking and not group.stuck, "scale-in", scaled),
    )


def used_up(policy_state: PolicyState, group: Group, now: float) -> SkipReason | None:
    """Whether the owner's restarts are used up: for the hour (noted, it gives up), or for now."""
    record = policy_state.records.get(group.key)
    if record is None:
        return None
    restart = policy_state.policy.restart
    recent = record.recent(now)
    if len(recent) >= restart.max_per_hour:
        policy_state.records[group.key] = replace(record, gave_up=now)
        return SkipReason("gave-up", f"{len(recent)} restarts within the hour did not help")
    opens = max(record.restarts, default=0.0) + restart.wait(record.failures)
    if opens > now:
        return SkipReason("backoff", f"{record.failures} restarts did not help", opens)
    return None
