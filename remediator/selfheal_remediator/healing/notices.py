"""What is said of owners and pods that are not healed, once for each reason. Pure."""

from __future__ import annotations

from dataclasses import replace

from selfheal_remediator.healing.owner_registry import Owners
from selfheal_remediator.healing.plan import Around, Notice
from selfheal_remediator.healing.policy_state import Group, PolicyState
from selfheal_remediator.healing.status import GIVEN_UP, UNREPORTED
from selfheal_remediator.node.skip_reason import SkipReason


def skip_notices(policy_state: PolicyState, group: Group, skip_reason: SkipReason) -> list[Notice]:
    """An unhealthy pod of the group is not restarted."""
    cause = skip_reason.cause
    if policy_state.reported.get(group.key) == cause or cause in UNREPORTED:
        return []
    policy_state.reported[group.key] = cause
    reason = "HealingGaveUp" if cause in GIVEN_UP else "HealingThrottled"
    pod = group.unhealthy[0]
    name = policy_state.observations[pod.uid].diagnosis.name
    text = f"{pod.name} is unhealthy ({name}) and not restarted: {skip_reason.text}"
    return [Notice(policy_state.policy.key, group.owner, reason, text, True)]


def rollout_notices(policy_state: PolicyState, group: Group) -> list[Notice]:
    """Once for each template: its rollout is stuck, with unhealthy pods."""
    owner = group.owner
    whole = len(group.alive) >= group.desired and all(
        policy_state.is_healthy(pod) for pod in group.alive
    )
    if owner is None or not group.stuck or owner.unseen or whole:
        if not group.stuck:
            policy_state.rollouts_reported.pop(group.key, None)
        return []
    if policy_state.rollouts_reported.get(group.key) == owner.template:
        return []
    policy_state.rollouts_reported[group.key] = owner.template
    text = f"{group.stuck}: its pods are still restarted when they are unhealthy"
    return [Notice(policy_state.policy.key, owner, "RolloutStuck", text, True)]


def stuck_pod_notices(
    policy_state: PolicyState, owners: Owners, around: Around, now: float
) -> list[Notice]:
    """Pods that should have been deleted: what blocks the deletion. Nothing is forced."""
    notices = []
    for pod, observation in policy_state.overdue(now):
        held = ", ".join(pod.finalizers)
        text = f"it has the finalizers {held}" if held else ""
        trouble = around.node_trouble(pod.node)
        if not text and trouble:
            text = f"node {pod.node}: {trouble}"
        elif not text:
            text = f"node {pod.node} is healthy: the pod's process or volume does not stop"
        policy_state.observations[pod.uid] = replace(
            observation, diagnosis=replace(observation.diagnosis, detail=text)
        )
        if pod.uid not in policy_state.stuck_reported:
            policy_state.stuck_reported.add(pod.uid)
            text = f"{pod.name} should have been deleted: {text}"
            owner = owners.get(pod.owner_uid)
            notices.append(Notice(policy_state.policy.key, owner, "PodStuck", text, True))
    return notices
