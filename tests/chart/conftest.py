"""A Helm for the chart's tests: the pinned one, or the one that SELFHEAL_TEST_HELM names."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ci.parts import PartsError, ensure
from tests.chart.rendering import Helm


@pytest.fixture(scope="session")
def helm(unavailable: Callable[[str], None]) -> Helm:
    """Helm, with a cache of renderings that lasts for the session."""
    chosen = os.environ.get("SELFHEAL_TEST_HELM")
    if chosen:
        return Helm(Path(chosen))
    try:
        return Helm(ensure(["helm"])["helm"])
    except PartsError as error:
        unavailable(f"no Helm: {error}")
        raise


@pytest.fixture(scope="session")
def crds(unavailable: Callable[[str], None]) -> Path:
    """The folder with KEDA's CustomResourceDefinitions, of the version that the cluster runs."""
    try:
        return ensure(["keda-config"])["keda-config"] / "crd" / "bases"
    except PartsError as error:
        unavailable(f"no KEDA sources: {error}")
        raise
