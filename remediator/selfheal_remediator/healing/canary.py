"""The states of a canary: what one restart of an owner shows about the next ones. Pure.

Each restart of an owner with pods on several nodes is a canary first:

    none --restarted--> under way --its replacement stays healthy--> passed, or none
                                  --it does not------------------> failed, or none
    passed --all pods are unhealthy again--> failed

If other pods are healthy all the time, nothing is remembered (none): the ordinary
limits apply. Passed and failed end with another revision of the owner, a change of the policy, or
ten minutes in which all its pods were healthy; failed also when the remediator is resumed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Annotated

from pydantic import Field

from selfheal_remediator.kube.fields import Moment, Text
from selfheal_remediator.kube.objects import Json


class Outcome(Enum):
    """What is known of it; the value stands in status.owners[].canary.state."""

    UNDER_WAY = "under-way"
    PASSED = "passed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Canary:
    """As the policy's status remembers it, so that the next leader restarts no other pod.

    pod: uid of the pod to restart, the only one until the outcome is known. restarted: when its
    eviction was last decided. cause: what was wrong with it (a value of pod_health.Cause). newest:
    when the newest pod that existed then was created, by the API server's clock.
    """

    pod: Text
    restarted: Moment = 0.0
    cause: Text = ""
    outcome: Annotated[Outcome, Field(alias="state")] = Outcome.UNDER_WAY
    newest: Moment | None = None

    @property
    def under_way(self) -> bool:
        """Whether its outcome is not known yet."""
        return self.outcome is Outcome.UNDER_WAY


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an owner's pods show about its canary at one moment.

    not_deleted: the pod that was to be restarted is still there. recovered: that pod is healthy.
    new_healthy: a pod made since has been healthy for long enough. new_unhealthy: all pods made
    since are unhealthy. overdue: it takes longer than any replacement may; twice_overdue: twice as
    long. few_old_healthy: no older pod has been healthy for long, or nearly none. old_unhealthy: an
    older pod is. old_certain: of each older pod it is certain whether it is healthy. relapsed:
    nearly all pods, old and new, are unhealthy.
    """

    not_deleted: bool = False
    recovered: bool = False
    new_healthy: bool = False
    new_unhealthy: bool = False
    overdue: bool = False
    twice_overdue: bool = False
    few_old_healthy: bool = False
    old_unhealthy: bool = False
    old_certain: bool = False
    relapsed: bool = False


def advanced(canary: Canary, evidence: Evidence) -> Canary | None:
    """The canary as of now, None = there is nothing to remember."""
    if canary.outcome is Outcome.PASSED and evidence.relapsed:
        return replace(canary, outcome=Outcome.FAILED)
    if not canary.under_way:
        return canary
    if evidence.not_deleted:
        return None if evidence.recovered or evidence.overdue else canary
    if evidence.new_healthy:
        helped = evidence.few_old_healthy and evidence.old_unhealthy
        return replace(canary, outcome=Outcome.PASSED) if helped else None
    decided = evidence.old_certain or evidence.twice_overdue
    if not decided or not (evidence.new_unhealthy or evidence.overdue):
        return canary
    return replace(canary, outcome=Outcome.FAILED) if evidence.few_old_healthy else None


def canary_kept(status: Json | None, uid: str, canary: Canary) -> bool:
    """Whether the status returned by the API server contains the owner's canary.

    A CustomResourceDefinition of an earlier version has no such field and drops it.
    """
    for item in (status or {}).get("owners") or ():
        if item.get("uid") == uid:
            return bool((item.get("canary") or {}).get("pod") == canary.pod)
    return False
