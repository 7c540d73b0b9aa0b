"""Settings of pod healing."""

from __future__ import annotations

from pydantic import Field, model_validator

from selfheal_remediator.names import NamespaceName
from selfheal_remediator.strict import Duration
from selfheal_remediator.strict import Strict as _Strict


class Policies(_Strict):
    """Settings of pod healing by HealingPolicies."""

    enabled: bool = True
    #: Namespaces whose policies count; empty = all.
    namespaces: tuple[NamespaceName, ...] = ()
    evaluation_interval: Duration = 10.0
    progress_timeout: Duration = 2.0
    progress_concurrency: int = Field(default=8, ge=1, le=64)
    #: After this time without progress a rollout no longer prevents restarts of pods, where
    #: its owner has no own deadline.
    rollout_deadline: Duration = 600.0

    @model_validator(mode="after")
    def _intervals(self) -> Policies:
        if self.evaluation_interval < 1:
            raise ValueError(
                f"evaluationInterval must be at least 1s, got {self.evaluation_interval:g}s"
            )
        if self.rollout_deadline < 1:
            raise ValueError(f"rolloutDeadline must be at least 1s, got {self.rollout_deadline:g}s")
        if not 0.1 <= self.progress_timeout <= 30:
            raise ValueError(
                f"progressTimeout must be from 100ms to 30s, got {self.progress_timeout:g}s"
            )
        return self
