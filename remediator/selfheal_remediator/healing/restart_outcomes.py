"""What became of a restart that was sent, or was not. Pure."""

from __future__ import annotations

from dataclasses import replace

from selfheal_remediator.backoff import delay_after
from selfheal_remediator.healing.plan import RECALLED, Notice, RestartAction
from selfheal_remediator.healing.policy_state import PolicyState, Refusal
from selfheal_remediator.healing.status import status
from selfheal_remediator.node.skip_reason import SkipReason

#: A refused restart is tried again after at most so many seconds.
LONGEST_RETRY = 60.0


def note_accepted(policy_state: PolicyState, action: RestartAction, now: float) -> Notice:
    """The eviction was made, or may have been."""
    if policy_state.is_pending(action):
        del policy_state.pending[action.owner.uid]
    policy_state.refusals.pop(action.owner.uid, None)
    policy_state.last_heal = now
    policy_state.dirty = True
    text = f"restarted {action.pod.name}: {action.why}"
    return Notice(action.policy, action.owner, "HealingTriggered", text, True)


def note_refused(
    policy_state: PolicyState,
    action: RestartAction,
    skip_reason: SkipReason,
    interval: float,
    now: float,
) -> None:
    """The eviction was certainly not made: nothing was spent."""
    if not policy_state.is_pending(action):
        return
    uid = action.owner.uid
    del policy_state.pending[uid]
    record = policy_state.records[uid]
    policy_state.records[uid] = replace(
        record,
        restarts=tuple(moment for moment in record.restarts if moment != action.at),
        failures=max(0, record.failures - 1),
        pod="",
        canary=action.before,
    )
    policy_state.restarts -= 1
    policy_state.dirty = True
    group = policy_state.groups.get(uid)
    if group is not None:
        group.under_way = False
    # The reason for a cancellation applies until it ends by itself.
    if skip_reason.cause != RECALLED:
        refusal = _refusal(policy_state.refusals.get(uid), skip_reason, interval, now)
        policy_state.refusals[uid] = refusal
        if group is not None:
            group.skip_reason = refusal.skip_reason
    if not policy_state.pending:
        policy_state.conditions.update(policy_state.conditions_before)
    # Before the status that counts the restart is written.
    policy_state.status = status(policy_state, now)


def _refusal(
    before: Refusal | None, skip_reason: SkipReason, interval: float, now: float
) -> Refusal:
    """One more, after which the restart is tried again later."""
    count = before.count + 1 if before is not None else 1
    until = skip_reason.until
    if until is None:
        until = now + delay_after(count, first=interval, longest=LONGEST_RETRY)
    return Refusal(replace(skip_reason, until=until), count)
