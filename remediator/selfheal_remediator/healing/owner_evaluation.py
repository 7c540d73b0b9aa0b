"""One evaluation of an owner: how its rollout, its last restart and its canary go. Pure.

Runs after the policy's pods were evaluated, see pod_evaluation.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from selfheal_remediator.healing.canary import Outcome
from selfheal_remediator.healing.canary_trial import everywhere_unhealthy, follow
from selfheal_remediator.healing.node_findings import NodeFindings
from selfheal_remediator.healing.plan import Notice
from selfheal_remediator.healing.policy import Record
from selfheal_remediator.healing.policy_state import UNSEEN_FOR, Group, PolicyState, urgency
from selfheal_remediator.healing.restart_check import give_up_waiting
from selfheal_remediator.healing.restart_limits import rollout_deadline, why_stuck
from selfheal_remediator.healing.rollouts import advance

#: Seconds of health after which earlier restarts of an owner no longer count.
FORGIVE_AFTER = 600.0


@dataclass(frozen=True, slots=True)
class OwnerEvaluation:
    """interval: seconds between evaluations. rollout_deadline: seconds after which a rollout
    without progress defers no restart. nodes: which nodes had trouble."""

    interval: float
    rollout_deadline: float
    nodes: NodeFindings

    def evaluate(
        self, policy_state: PolicyState, group: Group, checks: int, now: float
    ) -> list[Notice]:
        """Bring the owner's record up to date; checks: failed evaluations until a pod counts."""
        group.unhealthy = [
            pod for pod in group.alive if policy_state.observations[pod.uid].certain(checks, now)
        ]
        group.unhealthy.sort(key=lambda pod: urgency(policy_state.observations[pod.uid], pod))
        group.everywhere_unhealthy = everywhere_unhealthy(group)
        _follow_template(policy_state, group)
        self._follow_rollout(policy_state, group, now)
        notices = self._follow_restart(policy_state, group, now)
        notices += self._follow_canary(policy_state, group, now)
        self._forgive(policy_state, group, now)
        return notices

    def _follow_rollout(self, policy_state: PolicyState, group: Group, now: float) -> None:
        """Record the progress of a change of the owner's pods, and whether it continues."""
        owner, record = group.owner, policy_state.records.get(group.key)
        if owner is not None:
            before = record.rollout if record is not None else None
            deadline = rollout_deadline(owner, self.rollout_deadline)
            rollout = advance(before, owner.rolling, owner.template, owner.progress, now, deadline)
            if rollout != before:
                known = record or Record(owner.uid, template=owner.template)
                policy_state.records[group.key] = replace(
                    known, kind=owner.kind, name=owner.name, rollout=rollout
                )
            group.stuck = why_stuck(owner, rollout, self.rollout_deadline, now)
        if len(group.alive) > group.desired:
            since = policy_state.surplus_since.setdefault(group.key, now)
            group.shrinking = now - since < self.rollout_deadline
        else:
            policy_state.surplus_since.pop(group.key, None)

    def _follow_restart(self, policy_state: PolicyState, group: Group, now: float) -> list[Notice]:
        record = policy_state.records.get(group.key)
        group.under_way = record is not None and policy_state.under_way(group, record, now)
        if record is None or not record.pod or group.under_way:
            return []
        ignored = give_up_waiting(policy_state, record.pod, now + UNSEEN_FOR, now)
        if ignored is not None:
            return [ignored]
        policy_state.records[group.key] = replace(record, pod="")
        if not self._all_healthy(policy_state, group, now):
            return []
        begun = max(record.restarts, default=now)
        text = f"{group.name()} is healthy again {now - begun:.0f}s after the restart"
        return [_succeeded(policy_state, group, text)]

    def _follow_canary(self, policy_state: PolicyState, group: Group, now: float) -> list[Notice]:
        record = policy_state.records.get(group.key)
        if record is None or record.canary is None:
            return []
        canary = follow(policy_state, group, record, self.interval, now)
        policy_state.records[group.key] = replace(record, canary=canary)
        if canary is None or canary.outcome is not Outcome.PASSED or not record.canary.under_way:
            return []
        text = f"a restarted pod of {group.name()} stays healthy: the unhealthy ones follow"
        return [_succeeded(policy_state, group, text)]

    def _forgive(self, policy_state: PolicyState, group: Group, now: float) -> None:
        """After a while of health, what was restarted before no longer counts."""
        all_healthy = (
            len(group.alive) + policy_state.blocked_places(group, now) >= group.desired
            and not group.under_way
            and self._all_healthy(policy_state, group, now)
        )
        if not all_healthy:
            policy_state.owner_healthy_since.pop(group.key, None)
            return
        since = policy_state.owner_healthy_since.setdefault(group.key, now)
        record = policy_state.records.get(group.key)
        if record is not None and now - since >= FORGIVE_AFTER:
            policy_state.records[group.key] = replace(record.forgiven(), canary=None)

    def _all_healthy(self, policy_state: PolicyState, group: Group, now: float) -> bool:
        """Whether the owner's pods are healthy, except those whose node has trouble."""
        lately = now - 2 * self.interval
        counted = [pod for pod in group.alive if not self.nodes.had_trouble_since(pod.node, lately)]
        return bool(counted) and all(policy_state.is_healthy(pod) for pod in counted)


def _follow_template(policy_state: PolicyState, group: Group) -> None:
    """Another template is a new chance, within the same hour's budget."""
    record, template = policy_state.records.get(group.key), group.template
    if record is None or template in ("", record.template):
        return
    changed = bool(record.template)
    record = replace(record, template=template)
    if changed:
        record = replace(record, failures=0, gave_up=None, canary=None)
        policy_state.refusals.pop(group.key, None)
    policy_state.records[group.key] = record


def _succeeded(policy_state: PolicyState, group: Group, text: str) -> Notice:
    return Notice(policy_state.policy.key, group.owner, "HealingSucceeded", text, False)
