"""What one pod shows, and what is made of several observations of it."""

from dataclasses import replace
from typing import Any

import pytest

from selfheal_remediator.healing.pod_health import (
    LONG_START,
    Cause,
    Container,
    Health,
    Reading,
    Stall,
    diagnose,
    observe,
    stalled,
    watched_from_json,
)
from selfheal_remediator.healing.policy import Symptoms
from tests.pure.remediator.healing_world import NOW, watched

ALL = Symptoms(
    not_ready_for=60.0,
    waiting_reasons=frozenset({"CrashLoopBackOff", "CreateContainerConfigError"}),
    terminated_non_zero=True,
    terminating_for=600.0,
    no_progress_for=60.0,
)
NONE = Symptoms()


def container(**more: Any) -> Container:
    """A running one."""
    return replace(Container("main", running_since=NOW - 3500), **more)


def waiting(reason: str, **more: Any) -> Container:
    """One that waits."""
    return Container("main", waiting=reason, **more)


CASES = [
    ("well", {}, ALL, Health.HEALTHY, ""),
    ("not ready", {"ready": False}, ALL, Health.UNHEALTHY, "NotReady"),
    ("not ready, not asked for", {"ready": False}, NONE, Health.DEGRADED, "NotReady"),
    ("finished", {"phase": "Succeeded", "ready": False}, ALL, Health.FINISHED, "Succeeded"),
    ("failed", {"phase": "Failed", "ready": False}, ALL, Health.FINISHED, "Failed"),
    ("leaving", {"deletion": NOW + 5, "ready": False}, ALL, Health.LEAVING, "Terminating"),
    (
        "crashing",
        {"ready": False, "containers": (waiting("CrashLoopBackOff", exit_code=1),)},
        ALL,
        Health.UNHEALTHY,
        "CrashLoopBackOff",
    ),
    (
        "crashing, not asked for",
        {"ready": False, "containers": (waiting("CrashLoopBackOff"),)},
        NONE,
        Health.DEGRADED,
        "CrashLoopBackOff",
    ),
    (
        "no image: a restart brings none",
        {"phase": "Pending", "ready": False, "containers": (waiting("ImagePullBackOff"),)},
        ALL,
        Health.DEGRADED,
        "ImagePullBackOff",
    ),
    (
        "no image, and listed all the same",
        {"phase": "Pending", "ready": False, "containers": (waiting("ImagePullBackOff"),)},
        Symptoms(waiting_reasons=frozenset({"ImagePullBackOff"})),
        Health.UNHEALTHY,
        "ImagePullBackOff",
    ),
    (
        "its configuration is missing",
        {
            "phase": "Pending",
            "ready": False,
            "containers": (waiting("CreateContainerConfigError"),),
        },
        ALL,
        Health.UNHEALTHY,
        "CreateContainerConfigError",
    ),
    (
        "killed for its memory: crashing is not the cause",
        {
            "ready": False,
            "containers": (
                waiting(
                    "CrashLoopBackOff", exit_code=137, exit_reason="OOMKilled", memory_limit="64Mi"
                ),
            ),
        },
        ALL,
        Health.DEGRADED,
        "OOMKilled",
    ),
    (
        "ended with an error",
        {"ready": False, "containers": (Container("main", exit_code=3, exit_reason="Error"),)},
        ALL,
        Health.UNHEALTHY,
        "ExitCode",
    ),
    (
        "ended well",
        {"containers": (container(), Container("once", exit_code=0, exit_reason="Completed"))},
        ALL,
        Health.HEALTHY,
        "",
    ),
    (
        "being made",
        {
            "phase": "Pending",
            "ready": False,
            "containers": (waiting("ContainerCreating"),),
            "created": NOW - LONG_START,
        },
        ALL,
        Health.BEGINNING,
        "Starting",
    ),
    (
        "being made for longer than anything takes",
        {
            "phase": "Pending",
            "ready": False,
            "containers": (waiting("ContainerCreating"),),
            "created": NOW - LONG_START - 1,
        },
        ALL,
        Health.DEGRADED,
        "ContainerCreating",
    ),
    (
        "its model still loads",
        {
            "ready": False,
            "containers": (
                container(running_since=NOW - 120, started=False, startup_budget=300.0),
            ),
        },
        ALL,
        Health.BEGINNING,
        "Starting",
    ),
    (
        "its startup probe should have ended it",
        {
            "ready": False,
            "containers": (
                container(running_since=NOW - 400, started=False, startup_budget=300.0),
            ),
        },
        ALL,
        Health.UNHEALTHY,
        "NotReady",
    ),
    (
        "no node for it",
        {
            "phase": "Pending",
            "ready": False,
            "node": "",
            "waits_for_node": "0/3 nodes",
            "containers": (),
        },
        ALL,
        Health.DEGRADED,
        "Unschedulable",
    ),
]


@pytest.mark.parametrize(
    ("pod", "symptoms", "health", "name"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_what_a_pod_shows(
    pod: dict[str, Any], symptoms: Symptoms, health: Health, name: str
) -> None:
    found = diagnose(watched("p", **pod), symptoms, None, NOW)
    assert (found.health, found.name) == (health, name)
    assert (found.cause is Cause.NONE) is (health is not Health.UNHEALTHY)


def test_memory_is_reported_with_its_limit() -> None:
    item = waiting("CrashLoopBackOff", exit_code=137, exit_reason="OOMKilled", memory_limit="64Mi")
    found = diagnose(watched("p", ready=False, containers=(item,)), ALL, None, NOW)
    assert "its peak reached its limit of 64Mi" in found.detail


@pytest.mark.parametrize(
    ("age", "ready", "health"),
    [(59.0, True, Health.HEALTHY), (60.0, True, Health.UNHEALTHY), (60.0, False, Health.UNHEALTHY)],
)
def test_work_that_stands_still(age: float, ready: bool, health: Health) -> None:
    stall = Stall(NOW - age, NOW, 4)
    found = diagnose(watched("p", ready=ready), ALL, stall, NOW + 5)
    assert found.health is health
    assert found.cause is Cause.NO_PROGRESS


def test_time_without_an_answer_is_no_stall() -> None:
    stall = Stall(NOW - 59, NOW, 4)  # asked at NOW; since then nobody answered
    assert diagnose(watched("p"), ALL, stall, NOW + 100).health is Health.HEALTHY


@pytest.mark.parametrize(
    ("before", "mark", "reading", "since"),
    [
        # Nothing in flight; waiting for something else.
        (None, 0.0, Reading(0, 500.0, 7.0), None),
        (None, 0.0, Reading(3, 500.0, 7.0, 500.0, waits=True), None),
        # The first message after a long idle night: it is as old as itself.
        (None, 0.0, Reading(1, 9999.0, 7.0, 2.0), NOW - 2),
        # Others were finished meanwhile: the last progress counts.
        (None, 0.0, Reading(8, 3.0, 7.0, 80.0), NOW - 3),
        # No age reported: since it was first seen in flight with this very last progress.
        (None, 0.0, Reading(1, 9999.0, 7.0), NOW),
        (Stall(NOW - 50, NOW - 10, 1), 7.0, Reading(1, 9999.0, 7.0), NOW - 50),
        (Stall(NOW - 50, NOW - 10, 1), 6.0, Reading(1, 5.0, 7.0), NOW),
    ],
)
def test_since_when_work_stands_still(
    before: Stall | None, mark: float, reading: Reading, since: float | None
) -> None:
    found = stalled(before, mark, reading, NOW)
    assert (found.since if found else None) == since


def test_observations_in_a_row_count_and_anything_else_begins_again() -> None:
    unhealthy = diagnose(watched("p", ready=False, ready_changed=NOW), ALL, None, NOW)
    is_healthy = diagnose(watched("p"), ALL, None, NOW)
    observation = observe(None, unhealthy, NOW, regular=True)
    observation = observe(
        observation, unhealthy, NOW + 5, regular=False
    )  # a change in between is no look
    observation = observe(observation, unhealthy, NOW + 10, regular=True)
    assert (observation.failed, observation.since) == (2, NOW)
    assert not observation.certain(2, NOW + 59)
    assert not observation.certain(3, NOW + 60)
    assert observation.certain(2, NOW + 60)
    observation = observe(
        observe(observation, is_healthy, NOW + 70, regular=False), unhealthy, NOW + 71, regular=True
    )
    assert (observation.failed, observation.since) == (1, NOW + 71)


def test_progress_between_two_observations_begins_again() -> None:
    observation = None
    for number in range(5):
        now = NOW + 10 * number
        found = diagnose(watched("p"), ALL, Stall(now - 8, now, 1), now)
        observation = observe(observation, found, now, regular=True)
        assert observation.failed == 1


def test_a_first_observation_trusts_a_predecessors_note_before_the_pods_clock() -> None:
    unhealthy = diagnose(watched("p", ready=False, ready_changed=NOW - 300), ALL, None, NOW)
    assert observe(None, unhealthy, NOW, regular=True).since == NOW - 300
    assert observe(None, unhealthy, NOW, regular=True, noted=NOW - 40).since == NOW - 40
    ahead = diagnose(watched("p", ready=False, ready_changed=NOW + 99), ALL, None, NOW)
    assert observe(None, ahead, NOW, regular=True).since == NOW


def test_a_pod_is_trimmed_from_what_the_api_says() -> None:
    probe = {"periodSeconds": 5, "failureThreshold": 60}
    raw = {
        "metadata": {
            "name": "w-1",
            "namespace": "ns",
            "uid": "u",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [
                {
                    "kind": "ReplicaSet",
                    "name": "w",
                    "uid": "r",
                    "apiVersion": "apps/v1",
                    "controller": True,
                }
            ],
            "annotations": {"selfheal.dev/evict": "false"},
        },
        "spec": {
            "nodeName": "n",
            "containers": [
                {
                    "name": "main",
                    "ports": [{"name": "http", "containerPort": 8080}],
                    "startupProbe": probe,
                    "resources": {"limits": {"memory": "1Gi"}},
                }
            ],
        },
        "status": {
            "phase": "Running",
            "podIP": "10.1.2.3",
            "conditions": [
                {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:10Z"}
            ],
            "containerStatuses": [
                {
                    "name": "main",
                    "started": False,
                    "state": {"running": {"startedAt": "2026-01-01T00:00:05Z"}},
                    "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
                }
            ],
        },
    }
    pod = watched_from_json(raw)
    assert (pod.owner_uid, pod.ports, pod.address, pod.kept) == (
        "r",
        {"http": 8080},
        "10.1.2.3",
        True,
    )
    [item] = pod.containers
    assert (item.started, item.startup_budget, item.memory_limit) == (False, 300.0, "1Gi")
    assert (item.waiting, item.exit_code) == ("", None)  # it runs: what was before is over
