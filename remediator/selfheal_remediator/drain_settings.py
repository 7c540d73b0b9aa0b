"""Settings of drains: part of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from selfheal_remediator.owner_kinds import parse_owner_kind
from selfheal_remediator.strict import Duration, Strict, need

OwnerKind = Annotated[str, BeforeValidator(parse_owner_kind)]


class WaitForCompletion(Strict):
    """Pods that end by themselves may do so on a draining node, for `max` since its drain began.

    max 0: they are evicted as any other.
    """

    owners: tuple[OwnerKind, ...] = ("batch/Job",)
    max: Duration = 3600.0


class Drain(Strict):
    """How a node is emptied."""

    delay: Duration = 0.0
    deadline: Duration = 1800.0
    on_deadline: Literal["wait", "report", "delete"] = "wait"
    grace_period: int | None = Field(default=None, ge=1)
    order: Literal["critical", "priority"] = "critical"
    delete_empty_dir: bool = True
    unmanaged_pods: Literal["report", "evict"] = "report"
    #: Whether nodes are made when pods need them; auto = by what the cluster shows.
    autoscaler: Literal["auto", "present", "absent"] = "auto"
    headroom: bool = True
    scale_down_disabled: bool = True
    #: How long a rule's `then` waits until no volume is attached to the drained node.
    detach_timeout: Duration = 600.0
    #: Kinds of controllers whose pods belong to the node, as a DaemonSet's do.
    keep_owners: tuple[OwnerKind, ...] = ()
    #: Roll out a Deployment that asks for it, whose only pod a PDB keeps (drain/surge.py).
    surge: bool = False
    #: Whether the node's status says by the conditions of KEP-5683 that it is drained.
    lifecycle_conditions: bool = False
    wait_for_completion: WaitForCompletion = Field(default_factory=WaitForCompletion)

    @model_validator(mode="after")
    def _evicts_first(self) -> Drain:
        why = (
            "every drain would be past it from its beginning, without waves and without maxDraining"
        )
        need("deadline", self.deadline, "1s", why)
        if self.on_deadline == "delete":
            why = "pods would be deleted that had no time to be evicted"
            need("deadline with onDeadline: delete", self.deadline, "1m", why)
        return self
