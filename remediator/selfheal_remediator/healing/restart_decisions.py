"""Which pods of a policy are restarted now, and which restarts are called back. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from selfheal_remediator.healing.canary_trial import canary_of, not_deleted
from selfheal_remediator.healing.node_findings import NodeFindings
from selfheal_remediator.healing.notices import rollout_notices, skip_notices, stuck_pod_notices
from selfheal_remediator.healing.owner_registry import Owners
from selfheal_remediator.healing.plan import RECALLED, Around, Notice, Owner, RestartAction
from selfheal_remediator.healing.pod_health import Cause, WatchedPod
from selfheal_remediator.healing.policy import Record, State, Status
from selfheal_remediator.healing.policy_state import Group, PolicyState
from selfheal_remediator.healing.restart_limits import blocked, used_up
from selfheal_remediator.healing.status import status
from selfheal_remediator.node.skip_reason import SkipReason

#: Placeholder in an action until the evaluation has ended, which writes its status.
_NOTHING = Status(0, 0, 0, None, 0, State.HEALTHY, "", (), (), ())


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a decision about one policy needs beside it. acting: owner -> the policy that acts."""

    around: Around
    policy_states: Collection[PolicyState]
    acting: Mapping[str, str]
    owners: Owners


@dataclass(frozen=True, slots=True)
class RestartDecisions:
    """interval: seconds between evaluations. nodes: which nodes are at fault."""

    interval: float
    nodes: NodeFindings

    def decide(
        self, policy_state: PolicyState, given: Surroundings, now: float
    ) -> tuple[list[RestartAction], list[Notice]]:
        """The restarts to make now, counted already; and what is said of the other pods."""
        actions: list[RestartAction] = []
        notices: list[Notice] = []
        if not policy_state.pending:
            policy_state.conditions_before = dict(policy_state.conditions)
        for group in policy_state.groups.values():
            group.skip_reason = None
            notices += rollout_notices(policy_state, group)
            if not group.unhealthy:
                policy_state.reported.pop(group.key, None)
                policy_state.refusals.pop(group.key, None)
                continue
            pod, skip_reason = self._choose(policy_state, group, given, now)
            group.skip_reason = skip_reason
            if skip_reason is None and pod is not None and group.owner is not None:
                actions.append(_restart(policy_state, group, group.owner, pod, now))
            elif skip_reason is not None:
                notices += skip_notices(policy_state, group, skip_reason)
        notices += stuck_pod_notices(policy_state, given.owners, given.around, now)
        policy_state.status = status(policy_state, now)
        return [replace(action, status=policy_state.status) for action in actions], notices

    def recalls(
        self, policy_states: Collection[PolicyState], around: Around, now: float
    ) -> tuple[tuple[RestartAction, SkipReason], ...]:
        """Restarts that were decided, and would not be decided now."""
        found = []
        for policy_state in policy_states:
            for action in policy_state.pending.values():
                why = self._recalled(policy_state, action, policy_states, around, now)
                if why:
                    found.append((action, SkipReason(RECALLED, why)))
        return tuple(found)

    def _recalled(
        self,
        policy_state: PolicyState,
        action: RestartAction,
        policy_states: Collection[PolicyState],
        around: Around,
        now: float,
    ) -> str:
        if around.stopped or policy_state.policy.paused or policy_state.problem:
            return around.stopped or policy_state.problem or "the policy is paused"
        group = policy_state.groups.get(action.owner.uid)
        pod = policy_state.pods.get(action.pod.uid)
        if not policy_state.known or group is None or pod is None:
            return f"{action.pod.name} is no longer selected by the policy"
        if pod.unread:
            return f"{pod.name} cannot be read"
        if pod not in group.unhealthy:
            return f"{pod.name} is no longer unhealthy" if policy_state.is_healthy(pod) else ""
        skip_reason = self._pod_blocked(policy_state, group, pod, policy_states, around, now)
        return skip_reason.text if skip_reason is not None else ""

    def _choose(
        self, policy_state: PolicyState, group: Group, given: Surroundings, now: float
    ) -> tuple[WatchedPod | None, SkipReason | None]:
        """The pod to restart now, or why none of the group is."""
        around = given.around
        skip_reason = blocked(policy_state, group, around, given.acting, self.interval, now)
        if skip_reason is not None:
            if skip_reason.cause != "under-way":
                for pod in group.pods:
                    policy_state.free_since.pop(pod.uid, None)
            return None, skip_reason
        first: SkipReason | None = None
        record = policy_state.records.get(group.key)
        canary_pod = not_deleted(policy_state, record.canary if record is not None else None)
        for pod in group.unhealthy:
            if canary_pod is not None and pod.uid != canary_pod.uid:
                continue  # no other one before it is known what comes of that one
            skip_reason = self._pod_blocked(
                policy_state, group, pod, given.policy_states, around, now
            )
            if skip_reason is None:
                skip_reason = used_up(policy_state, group, now)
                if skip_reason is None:
                    return pod, None
                policy_state.free_since.pop(pod.uid, None)
                return None, skip_reason
            first = first or skip_reason
        return None, first

    def _pod_blocked(
        self,
        policy_state: PolicyState,
        group: Group,
        pod: WatchedPod,
        policy_states: Collection[PolicyState],
        around: Around,
        now: float,
    ) -> SkipReason | None:
        if pod.kept or pod.mirror:
            why = "annotation selfheal.dev/evict=false" if pod.kept else "it is bound to its node"
            return SkipReason("kept", f"{pod.name}: {why}")
        return self.nodes.skip_reason(policy_state, group, pod, policy_states, around, now)


def _restart(
    policy_state: PolicyState, group: Group, owner: Owner, pod: WatchedPod, now: float
) -> RestartAction:
    """Restart the pod: counted at once, as if its eviction had been made."""
    observation = policy_state.observations[pod.uid]
    found = observation.diagnosis
    record = policy_state.records.get(owner.uid) or Record(owner.uid, template=group.template)
    canary = canary_of(policy_state, group, pod, record.canary, now)
    policy_state.records[owner.uid] = replace(
        record,
        canary=canary,
        kind=owner.kind,
        name=owner.name,
        restarts=(*record.recent(now), now),
        failures=record.failures + 1,
        pod=pod.uid,
    )
    policy_state.restarts += 1
    hung = found.cause is Cause.NO_PROGRESS
    why = f"{found.name} for {now - observation.since:.0f}s"
    if found.detail:
        why += f" ({found.detail})"
    action = RestartAction(
        policy=policy_state.policy.key,
        pod=pod,
        owner=owner,
        cause=found.cause,
        why=why,
        grace=max(1, round(policy_state.policy.restart.grace)) if hung else None,
        at=now,
        status=_NOTHING,
        stuck=group.stuck,
        before=record.canary,
        canary=canary if group.everywhere_unhealthy else None,
    )
    policy_state.pending[owner.uid] = action
    policy_state.reported.pop(group.key, None)
    group.under_way = True
    return action
