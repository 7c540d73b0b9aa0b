"""Settings of the access to the API server: the Lease, and the client's request rate."""

from __future__ import annotations

from pydantic import Field, model_validator

from selfheal_remediator.names import NoneOrNamespaceName, ObjectName
from selfheal_remediator.strict import Duration
from selfheal_remediator.strict import Strict as _Strict

#: Seconds between two renewals of the Lease at least.
SHORTEST_RENEWAL = 0.05


class LeaseSettings(_Strict):
    """Leader election; the Lease also carries the pause annotation."""

    name: ObjectName = "selfheal-remediator"
    namespace: NoneOrNamespaceName | None = None
    duration: Duration = 15.0
    renew_interval: Duration = 5.0
    renew_deadline: Duration = 10.0

    @model_validator(mode="after")
    def _order(self) -> LeaseSettings:
        if not self.renew_interval < self.renew_deadline < self.duration:
            raise ValueError(
                "renewInterval < renewDeadline < duration is required, got "
                f"{self.renew_interval:g}s, {self.renew_deadline:g}s, {self.duration:g}s"
            )
        if self.renew_interval < SHORTEST_RENEWAL:
            raise ValueError(
                f"renewInterval must be at least 50ms, got {self.renew_interval:g}s: each renewal "
                "is a write"
            )
        if self.duration < 1:
            raise ValueError("duration must be at least 1s")
        return self


class ApiBudget(_Strict):
    """The client's own request rate to the API server."""

    qps: float = Field(default=200.0, gt=0)
    burst: int = Field(default=400, ge=1)
    max_in_flight: int = Field(default=32, ge=4, le=256)
