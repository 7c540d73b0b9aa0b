"""A policy that selects other pods from now on has forgotten the owners of those before."""

from __future__ import annotations

from selfheal_remediator.healing.engine import Healing
from selfheal_remediator.healing.plan import Owner
from selfheal_remediator.kube.informer import Change
from tests.pure.remediator.builders import NOW
from tests.pure.remediator.healing_world import NODES, around, policy, watched

KEY = "ns/web"


def _knows(healing: Healing, name: str, number: int) -> None:
    """All pods of the policy are those of this Deployment, and healthy."""
    for one in range(number):
        pod = watched(f"{name}-{one}", owner_uid=f"rs-{name}", node=NODES[one % len(NODES)])
        healing.pod_changed(KEY, Change(pod.name, None, pod))
    deployment = Owner(f"deploy-{name}", "Deployment", name, "apps/v1", number, "", "1")
    healing.owner_known(f"rs-{name}", deployment)
    healing.pods_known(KEY)


def test_the_pods_that_it_selected_before_are_not_desired_any_more() -> None:
    """Their owner exists on, with as many pods: they would all count as missing."""
    healing = Healing(10.0)
    healing.adopt(policy(), NOW)
    _knows(healing, "before", 3)
    healing.evaluate(NOW + 10, around())
    state = healing.policy_states[KEY]
    assert (state.desired, state.healthy) == (3, 3)
    healing.selector_changed(KEY, NOW + 20)
    _knows(healing, "now", 2)
    healing.evaluate(NOW + 30, around())
    assert (state.desired, state.healthy) == (2, 2)
