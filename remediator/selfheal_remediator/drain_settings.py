"""The settings of drains."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from selfheal_remediator.strict import Duration, Strict, need


class Drain(Strict):
    """How a node is emptied."""

    deadline: Duration = 1800.0
    on_deadline: Literal["wait", "report", "delete"] = "wait"
    grace_period: int | None = Field(default=None, ge=1)
    delete_empty_dir: bool = True
    unmanaged_pods: Literal["report", "evict"] = "report"
    #: Whether nodes are made when pods need them; auto = by what the cluster shows.
    autoscaler: Literal["auto", "present", "absent"] = "auto"
    headroom: bool = True
    scale_down_disabled: bool = True
    #: How long a rule's `then` waits until no volume is attached to the drained node.
    detach_timeout: Duration = 600.0

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
