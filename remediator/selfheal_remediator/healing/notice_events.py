"""Notices as Events: on the policy, and on the owner that they are about. Pure."""

from __future__ import annotations

from selfheal_remediator.healing.plan import Notice
from selfheal_remediator.healing.policy import Policy
from selfheal_remediator.kube.custom_resources import GROUP, KIND, VERSION
from selfheal_remediator.kube.events import ObjectEvent


def events_of(notice: Notice, policy: Policy) -> tuple[ObjectEvent, ...]:
    """The Events that report the notice."""
    content = (notice.reason, notice.message, notice.warning)
    api, place = f"{GROUP}/{VERSION}", policy.namespace
    of_policy = ObjectEvent(api, KIND, place, policy.name, policy.uid, *content)
    owner = notice.owner
    if owner is None:
        return (of_policy,)
    return of_policy, ObjectEvent(owner.api, owner.kind, place, owner.name, owner.uid, *content)
