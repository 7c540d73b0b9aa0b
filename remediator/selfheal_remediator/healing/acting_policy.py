"""Which policy acts on an owner that several policies select. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from selfheal_remediator.healing.canary_trial import hand_over
from selfheal_remediator.healing.policy_state import PolicyState


def acting_policies(policy_states: Collection[PolicyState]) -> dict[str, str]:
    """Owner -> the key of the policy that acts on it: of several, the oldest."""
    acting: dict[str, str] = {}
    for policy_state in sorted(policy_states, key=lambda one: (one.policy.created, one.policy.key)):
        for key in policy_state.groups:
            acting.setdefault(key, policy_state.policy.key)
    return acting


def hand_over_canaries(policy_states: Mapping[str, PolicyState], acting: Mapping[str, str]) -> None:
    """Pass on the canaries of owners that another policy now selects."""
    for policy_state in policy_states.values():
        for uid in policy_state.records:
            if uid in acting:
                other = policy_states[acting[uid]]
                if other is not policy_state:
                    hand_over(policy_state, other, uid)


def hand_over_of_deleted(gone: PolicyState, policy_states: Collection[PolicyState]) -> None:
    """Pass on the canaries of a policy that was deleted."""
    for policy_state in policy_states:
        for uid in gone.records:
            hand_over(gone, policy_state, uid)
