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
class Shown:
    """The evidence of an owner's pods about its canary at one moment.

    stays: its pod exists and was not deleted. recovered: that pod is healthy. proved: a pod created
    since has been healthy for long enough. new_unhealthy: all pods created since are unhealthy.
    overdue: it takes longer than any replacement may; late: much longer. alone: no older pod has
    been healthy for long, or nearly none. unhealthy: an older pod is. settled: the health of each
    older pod is known. relapsed: nearly all pods, old and new, are unhealthy.
    """

    stays: bool = False
    recovered: bool = False
    proved: bool = False
    new_unhealthy: bool = False
    overdue: bool = False
    late: bool = False
    alone: bool = False
    unhealthy: bool = False
    settled: bool = False
    relapsed: bool = False


def advanced(canary: Canary, shown: Shown) -> Canary | None:
    """The canary as of now, None = there is nothing to remember."""
    if canary.outcome is Outcome.PASSED and shown.relapsed:
        return replace(canary, outcome=Outcome.FAILED)
    if not canary.under_way:
        return canary
    if shown.stays:
        return None if shown.recovered or shown.overdue else canary
    if shown.proved:
        return replace(canary, outcome=Outcome.PASSED) if shown.alone and shown.unhealthy else None
    return _unproved(canary, shown)


def _unproved(canary: Canary, shown: Shown) -> Canary | None:
    """A canary whose replacement has not been healthy for long enough."""
    if not (shown.new_unhealthy or shown.overdue):
        return canary
    if not shown.settled and not shown.late:
        return canary
    return replace(canary, outcome=Outcome.FAILED) if shown.alone else None


def canary_kept(status: Json | None, uid: str, canary: Canary) -> bool:
    """Whether the status returned by the API server contains the owner's canary.

    A CustomResourceDefinition of an earlier version has no such field and drops it.
    """
    for item in (status or {}).get("owners") or ():
        if item.get("uid") == uid:
            return bool((item.get("canary") or {}).get("pod") == canary.pod)
    return False
