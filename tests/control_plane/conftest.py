"""A real control plane for the session; a stage of its own for each test."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ci.cluster import control_plane_only
from ci.cluster.errors import ClusterError
from ci.parts import ensure
from ci.parts.errors import PartsError
from tests.control_plane.launcher import Launcher
from tests.control_plane.permissions import account_kubeconfig, chart_permissions
from tests.control_plane.site import Site

#: Another name lets two runs work side by side.
CLUSTER = os.environ.get("SELFHEAL_TEST_CLUSTER", "remediator-tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here needs the control plane."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.control_plane)


@pytest.fixture(scope="session")
def cluster(unavailable: Callable[[str], None]) -> Iterator[Any]:
    """etcd, API server, controller-manager, scheduler, KWOK."""
    try:
        running = control_plane_only(CLUSTER, kwok_nodes=0)
        running.down()  # of a run that was killed: it has objects
        with running:
            yield running
    except (ClusterError, PartsError) as error:
        unavailable(f"no control plane: {error}")


@pytest.fixture(scope="session")
def permissions(unavailable: Callable[[str], None]) -> dict[str, list[dict[str, Any]]]:
    """The rules that the chart grants, by kind of role."""
    try:
        helm = ensure(["helm"])["helm"]
    except PartsError as error:
        unavailable(f"no helm: {error}")
        raise
    return chart_permissions(helm)


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    """Starts remediators."""
    started = Launcher()
    try:
        yield started
    finally:
        started.close()


_used: set[str] = set()
Stages = Callable[[str], AbstractContextManager[Site]]


@pytest.fixture
def stages(
    cluster: Any,
    launcher: Launcher,
    permissions: dict[str, list[dict[str, Any]]],
    tmp_path: Path,
) -> Stages:
    """Makes stages: own nodes, namespace, account and remediators each, under this name."""

    @contextmanager
    def stage(name: str) -> Iterator[Site]:
        while name in _used:
            name = f"{name}-x"
        _used.add(name)
        folder = tmp_path / name
        folder.mkdir()
        account = folder / "account.kubeconfig"
        made = Site(launcher, cluster.kubeconfig, account, name, folder)
        account_kubeconfig(made, permissions, account)
        try:
            yield made
        except BaseException:
            for text in made.logs():
                print(text)  # noqa: T201 - pytest shows it when the test failed
            raise
        finally:
            made.close()

    return stage


@pytest.fixture
def site(stages: Stages, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A stage named as the test."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())
    with stages(words[:36].strip("-")) as made:
        try:
            yield made
        finally:
            for text in made.logs():
                print(text)  # noqa: T201 - pytest shows it when the test failed
