"""The values of metrics, as Prometheus reads them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry


def sample(registry: CollectorRegistry, name: str, **labels: str) -> float:
    """The value of one series of the registry; 0 where nothing has been counted under these labels.

    Raises AssertionError when the registry has no such metric.
    """
    value = registry.get_sample_value(name, labels)
    if value is None:
        known = {family.name for family in registry.collect()}
        assert name.removesuffix("_total") in known, f"no metric {name}; there are {sorted(known)}"
        return 0.0
    return value
