"""What the metrics say of HealingPolicies. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from selfheal_remediator.healing.policy_state import PolicyState


@dataclass(frozen=True, slots=True)
class PolicyValues:
    """Values of gauges by their labels' values, the policy first."""

    pods: dict[tuple[str, ...], float] = field(default_factory=dict)
    states: dict[tuple[str, ...], float] = field(default_factory=dict)
    stuck: dict[tuple[str, ...], float] = field(default_factory=dict)


def policy_values(policy_states: Iterable[PolicyState]) -> PolicyValues:
    """Of policies that were evaluated at least once; of the others nothing is known yet."""
    found = PolicyValues()
    for policy_state in policy_states:
        if policy_state.status is None:
            continue
        key = policy_state.policy.key
        found.pods[key, "desired"] = policy_state.desired
        found.pods[key, "healthy"] = policy_state.healthy
        found.states[key, policy_state.status.state.value] = 1
        found.stuck[(key,)] = sum(1 for group in policy_state.groups.values() if group.stuck)
    return found
