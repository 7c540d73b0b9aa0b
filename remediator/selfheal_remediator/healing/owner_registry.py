"""What is known of the owners of all policies' pods. Pure."""

from __future__ import annotations

from collections.abc import Collection

from selfheal_remediator.healing.plan import Owner
from selfheal_remediator.healing.policy_state import PolicyState


class Owners:
    """By the uid of a pod's controller: two ReplicaSets of one Deployment have the same owner."""

    def __init__(self) -> None:
        self._all: dict[str, Owner] = {}

    def __contains__(self, controller: str) -> bool:
        return controller in self._all

    def get(self, controller: str) -> Owner | None:
        """The owner behind a pod's controller, None = it is not known."""
        return self._all.get(controller)

    def take_in(self, controller: str, owner: Owner) -> bool:
        """What the API says of it; whether that is new."""
        before = self._all.get(controller)
        for known, other in self._all.items():
            if other.uid == owner.uid:
                self._all[known] = owner
        self._all[controller] = owner
        return before != owner

    def gone(self, controller: str) -> Owner | None:
        """The controller was deleted; returns its owner if that is gone with it."""
        owner = self._all.pop(controller, None)
        return None if owner in self._all.values() else owner

    def retire(self, controller: str, policy_states: Collection[PolicyState]) -> bool:
        """Forget a controller that nobody needs; whether it was.

        An old ReplicaSet has no pods, and its Deployment is known by another; but the last one
        known of an owner that a policy selects is kept, for its desired number of pods.
        """
        owner = self._all.get(controller)
        selecting = [one for one in policy_states if owner and owner.uid in one.owners]
        if owner is None or has_pods_of(controller, selecting):
            return False
        others = (known for known, one in self._all.items() if one.uid == owner.uid)
        if selecting and all(known == controller for known in others):
            return False
        del self._all[controller]
        return True


def has_pods_of(controller: str, policy_states: Collection[PolicyState]) -> bool:
    """Whether any of the policies selects a pod of this controller (its uid)."""
    return any(
        pod.owner_uid == controller
        for policy_state in policy_states
        for pod in policy_state.pods.values()
    )
