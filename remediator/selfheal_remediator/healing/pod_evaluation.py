"""One evaluation of all pods of a policy: each pod's health, and the pods by owner. Pure."""

from __future__ import annotations

from dataclasses import replace

from selfheal_remediator.healing.canary_trial import note_health
from selfheal_remediator.healing.owner_registry import Owners
from selfheal_remediator.healing.plan import Owner
from selfheal_remediator.healing.pod_health import (
    Health,
    Observation,
    WatchedPod,
    diagnose,
    observe,
    renewed,
)
from selfheal_remediator.healing.policy_state import CLOCK_TOLERANCE, Group, PolicyState


def evaluate_pods(
    policy_state: PolicyState, owners: Owners, interval: float, now: float, *, once: bool
) -> None:
    """Evaluate every pod, and group them by owner.

    interval: seconds between regular evaluations; one in between counts for no failure threshold.
    once: this one stands for those that were missed.
    """
    regular = now >= policy_state.next_evaluation
    _schedule_next(policy_state, interval, now)
    policy_state.dirty, policy_state.evaluated_at = False, now
    policy_state.progress.probe_soon(now)
    policy_state.groups = {
        uid: Group(uid, owner) for uid, owner in policy_state.owners.items() if owner.desired
    }
    for pod in policy_state.pods.values():
        owner = owners.get(pod.owner_uid)
        observation = _observed(policy_state, pod, owner, interval, now, regular=regular)
        if once and observation.failed:
            missed = int((now - observation.since) / interval)
            observation = replace(observation, failed=1 + missed)
        policy_state.observations[pod.uid] = observation
        note_health(policy_state, pod, now)
        _into_group(policy_state, pod, owner, observation)
    policy_state.keep_owners()
    policy_state.desired = sum(group.desired for group in policy_state.groups.values())
    policy_state.healthy = sum(
        observation.diagnosis.health is Health.HEALTHY
        for observation in policy_state.observations.values()
    )


def _schedule_next(policy_state: PolicyState, interval: float, now: float) -> None:
    while policy_state.next_evaluation <= now:
        last = max(policy_state.next_evaluation, now - interval)
        policy_state.next_evaluation = last + interval


def _observed(
    policy_state: PolicyState,
    pod: WatchedPod,
    owner: Owner | None,
    interval: float,
    now: float,
    *,
    regular: bool,
) -> Observation:
    symptoms, noted = policy_state.policy.symptoms, policy_state.policy.saved.since
    found = diagnose(pod, symptoms, policy_state.progress.valid_stall(pod.uid, interval, now), now)
    note = noted.get((pod.name, found.name))
    if note is not None and note < pod.created - CLOCK_TOLERANCE:
        note = None  # of a pod that had its name before, as in a StatefulSet
    if owner is not None and owner.renews and pod.revision not in ("", owner.renews):
        found = renewed(found, symptoms)
    policy_state.observed_since.setdefault(pod.uid, now)
    before = policy_state.observations.get(pod.uid)
    return observe(before, found, now, regular=regular, noted=note)


def _into_group(
    policy_state: PolicyState, pod: WatchedPod, owner: Owner | None, observation: Observation
) -> None:
    if owner is not None:
        policy_state.owners[owner.uid] = owner
    key = owner.uid if owner is not None else pod.owner_uid or pod.uid
    group = policy_state.groups.setdefault(key, Group(key, owner))
    group.pods.append(pod)
    if observation.diagnosis.health not in (Health.FINISHED, Health.LEAVING):
        group.alive.append(pod)


def healthy_wanted(policy_state: PolicyState) -> int:
    """Pods that must be healthy: the threshold, at most the desired number."""
    return min(policy_state.desired, policy_state.policy.threshold.of(policy_state.desired))


def checks_needed(policy_state: PolicyState) -> int:
    """Failed evaluations after which a pod is certainly unhealthy: one when too few are healthy."""
    too_few = policy_state.healthy < healthy_wanted(policy_state)
    return 1 if too_few else policy_state.policy.failure_threshold
