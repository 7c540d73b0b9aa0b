"""Sends one restart: all of it runs in a worker.

First a dry-run eviction is sent; then the restart is recorded in the policy's status; then, unless
it was cancelled meanwhile, the pod is evicted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from selfheal_remediator.failures import ApiFailure, NotLeader
from selfheal_remediator.healing.owners import owner_of
from selfheal_remediator.healing.permits import Permit
from selfheal_remediator.healing.plan import Owner, RestartAction
from selfheal_remediator.healing.policy import Policy, policy_from_json
from selfheal_remediator.healing.restart_limits import canary_lost, refused_by_owner
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.json_values import as_name
from selfheal_remediator.kube.responses import (
    Outcome,
    budget_refusal,
    classify_eviction,
    understood,
)
from selfheal_remediator.node.skip_reason import SkipReason
from selfheal_remediator.threads import supervision

#: Writes of a status before an eviction, when somebody else changed the policy meanwhile.
CONFLICTS = 3
NOT_LEADER = SkipReason("not-leader", "the lease is not held")


@dataclass(frozen=True, slots=True)
class Errand:
    """A restart on its way, with all of the main thread's state that it needs."""

    action: RestartAction
    policy: Policy
    permit: Permit
    dry_run: bool
    restores: int


@dataclass(frozen=True, slots=True)
class Result:
    """version: the policy's resourceVersion. skip_reason: why the pod was certainly not evicted,
    None = it was, or may have been."""

    version: str
    skip_reason: SkipReason | None


def carry_out(
    api: KubernetesApi,
    errand: Errand,
    owner_known: Callable[[Owner], None],
    clock: Callable[[], float],
) -> Result:
    """Send the restart; owner_known: receives the owner, which was read again."""
    version, pod = errand.policy.version, errand.action.pod
    try:
        with supervision.expected("worker", f"the restart of {pod.name}", runtime=api.runtime):
            skip_reason = _checked(api, errand, owner_known, clock)
            if skip_reason is not None:
                return Result(version, skip_reason)
            version, skip_reason = _record(api, errand)
            if skip_reason is not None:
                return Result(version, skip_reason)
            return Result(version, errand.permit.take() or _evict(api, errand, dry_run=False))
    except NotLeader:
        return Result(version, NOT_LEADER)
    except ApiFailure as failure:
        return Result(version, SkipReason("unavailable", str(failure)))


def _checked(
    api: KubernetesApi,
    errand: Errand,
    owner_known: Callable[[Owner], None],
    clock: Callable[[], float],
) -> SkipReason | None:
    """What the permit, the owner and a dry run of the eviction say against it."""
    action, permit = errand.action, errand.permit
    if permit.recalled is not None:
        return permit.recalled
    owner = owner_of(action.pod, api.controller)
    if owner is None:
        return SkipReason("owner-gone", "its owner was deleted")
    owner_known(owner)
    skip_reason = refused_by_owner(action, owner, clock()) or _evict(api, errand, dry_run=True)
    if skip_reason is None and errand.dry_run:
        text = f"dry-run: {action.pod.name} would be restarted: {action.why}"
        skip_reason = SkipReason("dry-run", text, float("inf"))
    return skip_reason or permit.recalled


def _record(api: KubernetesApi, errand: Errand) -> tuple[str, SkipReason | None]:
    """The restart into the status. Raises ApiFailure.

    Returns the new resourceVersion, and a reason when the status did not keep what it must.
    """
    policy = errand.policy
    version, status = policy.version, errand.action.status.to_json()
    for attempt in range(1, CONFLICTS + 1):
        answer = api.patch_policy_status(policy.namespace, policy.name, version, status)
        if answer.ok:
            with understood("a HealingPolicy"):
                raw = answer.json()
                version = as_name(raw["metadata"]["resourceVersion"])
                return version, canary_lost(errand.action, raw.get("status"))
        if not answer.conflict or attempt == CONFLICTS:
            break
        fresh = policy_from_json(api.policy(policy.namespace, policy.name))
        if (fresh.uid, fresh.generation) != (policy.uid, policy.generation):
            break  # its spec has changed: decided again at the next evaluation
        version = fresh.version
    raise answer.failure()


def _evict(api: KubernetesApi, errand: Errand, *, dry_run: bool) -> SkipReason | None:
    """Send the eviction (or a dry run of it); the reason if it was certainly not made.

    Raises NotLeader; ApiFailure only for a dry run: an eviction without an answer may have been
    made, and counts as made.
    """
    action, pod = errand.action, errand.action.pod
    try:
        with supervision.expected("worker", f"the eviction of {pod.name}", runtime=api.runtime):
            answer = api.evict(pod.namespace, pod.name, pod.uid, action.grace, dry_run=dry_run)
            result = classify_eviction(answer)
    except NotLeader:
        raise
    except ApiFailure:
        if dry_run:
            raise
        return None
    if result.outcome is Outcome.ACCEPTED or (
        not dry_run and result.outcome is Outcome.UNAVAILABLE
    ):
        return None
    text = result.message[:300]
    if result.outcome is Outcome.BUDGET:
        refusal = budget_refusal(result.message)
        text = f"PDB {pod.namespace}/{refusal}" if refusal else text
    return SkipReason(result.outcome.value, text)
