"""Both Helms for the chart's tests, the pinned ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ci.parts import PartsError, ensure
from tests.chart.rendering import CASES, CHART, CLUSTERS, Helm, on_cluster


@pytest.fixture(scope="session")
def helm(unavailable: Callable[[str], None]) -> Iterator[Helm]:
    """Helm 4, or the one that SELFHEAL_TEST_HELM names; what most tests ask for is begun with."""
    chosen = os.environ.get("SELFHEAL_TEST_HELM")
    with Helm(Path(chosen) if chosen else _part("helm", unavailable)) as found:
        for case in CASES:
            found.ahead(on_cluster(case, version, groups) for version, groups in CLUSTERS)
        yield found


@pytest.fixture(scope="session")
def helm3(unavailable: Callable[[str], None]) -> Iterator[Helm]:
    """Helm 3, which many still have."""
    with Helm(_part("helm3", unavailable)) as found:
        yield found


@pytest.fixture(scope="session")
def crds(unavailable: Callable[[str], None]) -> tuple[Path, ...]:
    """Folders with CustomResourceDefinitions: KEDA's of the version that the cluster runs, those of
    operators that the chart knows, and the chart's own."""
    operators = ("keda-config", "prometheus-operator-crds", "vertical-pod-autoscaler-crds")
    return (*(_part(name, unavailable) for name in operators), CHART / "crds")


def _part(name: str, unavailable: Callable[[str], None]) -> Path:
    try:
        return ensure([name])[name]
    except PartsError as error:
        unavailable(f"no {name}: {error}")
        raise
