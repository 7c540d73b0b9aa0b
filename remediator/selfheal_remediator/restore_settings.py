"""Settings of restoring what was deleted by hand."""

from __future__ import annotations

from pydantic import model_validator

from selfheal_remediator.names import NoneOrObjectName
from selfheal_remediator.strict import Duration
from selfheal_remediator.strict import Strict as _Strict
from selfheal_remediator.strict import need as _need


class Restore(_Strict):
    """Making deleted objects of the release again, from what a ConfigMap of it holds."""

    enabled: bool = False
    #: In the remediator's namespace; the chart names it.
    config_map: NoneOrObjectName = ""
    #: How long an object must be missing, or differ.
    grace_period: Duration = 10.0
    #: Whether image, replicas and environment are set again where they differ.
    correct_drift: bool = False

    @model_validator(mode="after")
    def _can_restore(self) -> Restore:
        if self.enabled and not self.config_map:
            raise ValueError("enabled needs configMap, the name of the ConfigMap with the objects")
        why = "what an uninstall or upgrade deletes would be made again"
        _need("gracePeriod", self.grace_period, "5s", why)
        return self
