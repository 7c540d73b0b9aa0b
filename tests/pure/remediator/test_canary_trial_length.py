"""How long a canary's replacement must be healthy, and what shows that it was not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from selfheal_remediator.healing.pod_health import Container, watched_from_json
from selfheal_remediator.healing.trial_length import trial_seconds
from tests.pure.remediator.healing_world import watched


@pytest.mark.parametrize(
    ("lasting", "checks", "runs", "seconds"),
    [
        (0.0, 1, (), 60.0),
        (1.0, 1, (None,), 60.0),
        (30.0, 3, (0.0,), 60.0),
        (300.0, 3, (), 300.0),
        (0.0, 12, (), 120.0),
        (0.0, 1, (20.0, 100.0, None), 150.0),
        (200.0, 1, (100.0,), 200.0),
        (0.0, 1, (600.0,), 900.0),
        (0.0, 1, (601.0, 86400.0), 60.0),  # that was no crash loop
    ],
)
def test_as_long_as_the_fault_takes_to_appear(
    lasting: float, checks: int, runs: tuple[float | None, ...], seconds: float
) -> None:
    containers = [Container("main", ran=run) for run in runs]
    assert trial_seconds(lasting, checks, 10.0, containers) == seconds


def _ended(code: int, seconds: int) -> dict[str, Any]:
    return {
        "terminated": {
            "exitCode": code,
            "startedAt": "2026-01-01T00:00:00Z",
            "finishedAt": f"2026-01-01T00:00:{seconds:02}Z",
        }
    }


RUNNING = {"running": {"startedAt": "2026-01-01T00:01:00Z"}}


@pytest.mark.parametrize(
    ("state", "before", "ran"),
    [
        (RUNNING, {}, None),
        (RUNNING, _ended(1, 7), 7.0),
        (RUNNING, _ended(0, 7), 7.0),  # it should have run on
        ({"waiting": {"reason": "CrashLoopBackOff"}}, _ended(1, 7), 7.0),
        (_ended(1, 9), _ended(1, 7), 9.0),
        (_ended(0, 9), {}, None),  # an init container that has done its work
        (_ended(0, 9), _ended(1, 7), 7.0),
        ({"terminated": {"exitCode": 1}}, {}, None),
        ({"terminated": {"exitCode": 1, "startedAt": None, "finishedAt": None}}, {}, None),
    ],
)
def test_how_long_the_last_run_was(state: Any, before: Any, ran: float | None) -> None:
    raw = {
        "metadata": {"namespace": "ns", "name": "a", "uid": "a"},
        "status": {
            "containerStatuses": [
                {"name": "main", "restartCount": 4, "state": state, "lastState": before}
            ]
        },
    }
    [container] = watched_from_json(raw).containers
    assert (container.ran, container.restarts) == (ran, 4)


@pytest.mark.parametrize(
    ("policy", "state", "before", "ran"),
    [
        (None, _ended(0, 9), _ended(1, 7), None),  # it has done its work, at its second attempt
        (None, _ended(0, 9), _ended(0, 7), None),
        (None, _ended(1, 9), _ended(1, 7), 9.0),
        (None, {"waiting": {"reason": "CrashLoopBackOff"}}, _ended(1, 7), 7.0),
        (None, RUNNING, _ended(1, 7), 7.0),
        ("Always", RUNNING, _ended(1, 7), 7.0),  # a sidecar is to run on
        ("Always", _ended(0, 9), _ended(1, 7), 7.0),
    ],
)
def test_an_init_container_that_has_done_its_work_lengthens_no_trial(
    policy: str | None, state: Any, before: Any, ran: float | None
) -> None:
    status = {"name": "init", "restartCount": 1, "state": state, "lastState": before}
    raw = {
        "metadata": {"namespace": "ns", "name": "a", "uid": "a"},
        "spec": {"initContainers": [{"name": "init", "restartPolicy": policy}]},
        "status": {"initContainerStatuses": [status]},
    }
    [container] = watched_from_json(raw).containers
    assert container.ran == ran


@pytest.mark.parametrize(
    ("ready", "restarts", "interrupted"),
    [(True, (1, 0), False), (True, (2, 0), True), (True, (1, 1), True), (False, (1, 0), True)],
)
def test_a_container_that_was_started_again_was_not_healthy_all_the_time(
    ready: bool, restarts: tuple[int, int], interrupted: bool
) -> None:
    before = watched("a", containers=(Container("main", restarts=1), Container("side")))
    containers = tuple(
        replace(item, restarts=count)
        for item, count in zip(before.containers, restarts, strict=True)
    )
    after = replace(before, ready=ready, containers=containers)
    assert after.interrupted(before) is interrupted
