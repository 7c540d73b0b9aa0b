"""The whole remediator, with its threads, makes a deleted Deployment of its release again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from selfheal_remediator.config import Config
from selfheal_remediator.controller.loop import Remediator
from selfheal_remediator.restore.engine import SETTLED
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.restore_world import (
    CONFIG_MAP,
    NAMESPACE,
    config_map,
    deployment,
    manifest,
)
from tests.pure.remediator.running import (
    LEASE,
    NODES,
    advance,
    node,
    pause,
    running,
    until,
    until_later,
)

WORKERS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/r-worker"
SERVICES = f"/api/v1/namespaces/{NAMESPACE}/services/r-ollama"
RELEASE = f"/api/v1/namespaces/{NAMESPACE}/configmaps/{CONFIG_MAP}"
SERVICE = manifest("Service", "r-ollama")
RESTORE = {"enabled": True, "configMap": CONFIG_MAP}


def settings(**more: Any) -> Config:
    config = {"rules": [], "policies": {"enabled": False}, "restore": RESTORE, **more}
    return Config.model_validate(config)


@pytest.fixture
def server() -> Iterator[FakeApi]:
    asked.clear()

    def note(verb: str, path: str) -> str:
        asked.append((verb, path))
        return ""

    made = FakeApi(note)
    try:
        made.put(f"{NODES}/a", node("a", "False"))
        made.put(RELEASE, config_map(deployment(), SERVICE))
        made.put(WORKERS, deployment())
        made.put(SERVICES, SERVICE)
        yield made
    finally:
        made.close()


asked: list[tuple[str, str]] = []


def applied(server: FakeApi) -> list[str]:
    return [path for verb, path, _ in server.did if verb == "APPLY"]


def turns(made: Remediator) -> None:
    """The main loop has two more turns; what they begin is sent."""
    for _ in range(2):
        done = threading.Event()
        made.post(done.set)
        assert done.wait(60)


def metric(made: Any, name: str, **labels: str) -> float | None:
    value: float | None = made.metrics.registry.get_sample_value(
        f"selfheal_remediator_{name}", labels
    )
    return value


def test_a_deleted_deployment_comes_back_and_is_helms_alone_again(server: FakeApi) -> None:
    with running(server, settings()) as made:
        until("all is known", lambda: metric(made, "restore_missing_objects") == 0.0)
        until("it is watched", lambda: ("GET", WORKERS.rpartition("/")[0]) in asked)
        server.put(WORKERS, None)
        until_later(made, "it is back", lambda: WORKERS in server.objects)
        assert "ownerReferences" in server.get(WORKERS)["metadata"]
        until("it is counted", lambda: metric(made, "restores_total", result="done") == 1.0)
        advance(made, SETTLED)
        until_later(
            made, "it is free", lambda: not server.get(WORKERS)["metadata"].get("ownerReferences")
        )
        assert applied(server) == [WORKERS]


def test_what_is_deleted_while_it_is_paused_comes_back_after_that(server: FakeApi) -> None:
    with running(server, settings()) as made:
        until("it leads", lambda: LEASE in server.objects)
        pause(server, "maintenance")
        until("it is paused", lambda: metric(made, "paused") == 1.0)
        server.put(WORKERS, None)
        until_later(made, "it is missing", lambda: metric(made, "restore_missing_objects") == 1.0)
        advance(made, 100)
        turns(made)
        assert applied(server) == []
        pause(server, None)
        until_later(made, "it is back", lambda: WORKERS in server.objects)


def test_an_object_that_lasted_is_freed_while_it_is_paused(server: FakeApi) -> None:
    """Else whoever pauses and then ends restoring by Helm 3 loses it with its ConfigMap."""
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": CONFIG_MAP, "uid": "cm-1"}
    made_again = deployment()
    made_again["metadata"]["ownerReferences"] = [owner]
    server.put(WORKERS, made_again)
    with running(server, settings()) as made:
        until("it leads", lambda: LEASE in server.objects)
        pause(server, "maintenance")
        until("it is paused", lambda: metric(made, "paused") == 1.0)
        until_later(
            made, "it is free", lambda: not server.get(WORKERS)["metadata"].get("ownerReferences")
        )
        assert metric(made, "paused") == 1.0


def test_a_kind_that_left_the_release_is_watched_no_more(server: FakeApi) -> None:
    """Where the API goes, as KEDA's, the watch would fail again and again."""
    before = set(threading.enumerate())  # those of a test before it may still be ending

    def watches() -> int:
        """Of the ConfigMap, and of the kinds of objects."""
        new = set(threading.enumerate()) - before
        return sum(thread.name == "restore" for thread in new)

    with running(server, settings()) as made:
        until("all are watched", lambda: watches() == 3)
        server.put(RELEASE, config_map(deployment()))
        until("it is not watched", lambda: watches() == 2)
        server.put(SERVICES, None)
        server.put(RELEASE, config_map(deployment(), SERVICE))
        until_later(made, "it is back", lambda: SERVICES in server.objects)
        assert watches() == 3


def test_an_uninstall_is_left_alone(server: FakeApi) -> None:
    with running(server, settings()) as made:
        until("it is watched", lambda: ("GET", WORKERS.rpartition("/")[0]) in asked)
        server.put(WORKERS, None)
        until_later(made, "it is missing", lambda: metric(made, "restore_missing_objects") == 1.0)
        server.put(RELEASE, None)
        until_later(made, "nothing is", lambda: metric(made, "restore_missing_objects") == 0.0)
        advance(made, 1000)
        turns(made)
        assert applied(server) == []


def test_without_it_nothing_of_it_is_asked(server: FakeApi) -> None:
    with running(server, settings(restore={})) as made:
        until("it leads", lambda: metric(made, "leader") == 1.0)
        server.put(WORKERS, None)
        advance(made, 1000)
        turns(made)
    kinds = {path.rpartition("/")[2] for _, path in asked}
    assert not kinds & {"configmaps", "deployments", "services"}
