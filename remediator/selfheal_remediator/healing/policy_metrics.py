"""What the metrics say of HealingPolicies. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from selfheal_remediator.healing.policy_state import Ward


@dataclass(frozen=True, slots=True)
class PolicyValues:
    """Values of gauges by their labels' values, the policy first."""

    pods: dict[tuple[str, ...], float] = field(default_factory=dict)
    states: dict[tuple[str, ...], float] = field(default_factory=dict)
    stuck: dict[tuple[str, ...], float] = field(default_factory=dict)


def policy_values(wards: Iterable[Ward]) -> PolicyValues:
    """Of policies that were evaluated at least once; of the others nothing is known yet."""
    found = PolicyValues()
    for ward in wards:
        if ward.status is None:
            continue
        key = ward.policy.key
        found.pods[key, "desired"] = ward.desired
        found.pods[key, "healthy"] = ward.healthy
        found.states[key, ward.status.state.value] = 1
        found.stuck[(key,)] = sum(1 for group in ward.groups.values() if group.stuck)
    return found
