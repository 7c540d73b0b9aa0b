"""The alerts with short times, all by the chart's values, as a user can; the sense stays."""

from __future__ import annotations

import re
from typing import Any

from alerts.rules import ALERTS

_WINDOW = re.compile(r"\[(?:10m|30m|1h)\]")
_AGE = re.compile(r"time\(\) - (?:\d+|%\w+%)")
#: Burn rates look days back; here their shortest window, which is the one that ends an alert.
_BURN = "selfheal:{}:ratio_rate5m{{%self%}} > {} * %{}%"
_BURNS = {
    "SelfhealResultsBurnFast": _BURN.format("results_failed", 14.4, "successBudget"),
    "SelfhealResultsBurnSlow": _BURN.format("results_failed", 3, "successBudget"),
    "SelfhealQueueWaitBurnFast": _BURN.format("queue_wait_late", 14.4, "waitBudget"),
    "SelfhealQueueWaitBurnSlow": _BURN.format("queue_wait_late", 3, "waitBudget"),
}
#: More than what they measure reaches where all is healthy.
_THRESHOLDS = {
    "SelfhealBrokerDiskLow": 1,
    "SelfhealDrainTooLong": 10,
    "SelfhealNodeWatchSilent": 75,
    "SelfhealRemediatorStale": 30,
}


def rules() -> dict[str, dict[str, Any]]:
    """The value `alerts.rules`."""
    found: dict[str, dict[str, Any]] = {}
    for alert in ALERTS:
        own = found[alert.name] = {"for": "5s"}
        own["expr"] = _BURNS.get(alert.name) or _AGE.sub(
            "time() - 60", _WINDOW.sub("[1m]", alert.expr)
        )
        if alert.threshold is not None:
            own["threshold"] = _THRESHOLDS.get(alert.name, 0)
    return found
