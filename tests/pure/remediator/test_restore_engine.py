"""When an object is made again, released and corrected; and for what reasons it is not."""

from __future__ import annotations

from typing import Any, cast

import pytest

from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.restore.drift import differences, settings_of
from selfheal_remediator.restore.engine import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    SETTLED,
    Restoring,
    Task,
)
from selfheal_remediator.restore.errand import Outcome, carry_out
from selfheal_remediator.restore.notices import Notice, Notices
from selfheal_remediator.restore.release import release_from_json
from tests.pure.remediator.restore_world import Api, World, config_map, deployment, manifest

NOW, GRACE = 1e9, 10.0
WORKER = "Deployment/r-worker"
SERVICE = manifest("Service", "r-ollama")


def stage(*objects: Any, config: Any = None, correct: bool = False) -> tuple[World, Restoring]:
    """What exists, as a leader knows it; the release has a Deployment and a Service."""
    world = World(*objects, config=config or config_map(deployment(A="1"), SERVICE))
    restoring = Restoring(GRACE, correct, world.release(), world.live(), {"Deployment", "Service"})
    return world, restoring


def tasks(restoring: Restoring, now: float) -> list[tuple[Task, str]]:
    return [(action.task, action.wanted.key) for action in restoring.decide(now)]


def test_an_object_is_made_again_after_the_grace_period() -> None:
    _, restoring = stage(SERVICE)
    assert tasks(restoring, NOW) == []
    assert restoring.missing() == 1
    assert restoring.wake(NOW) == NOW + GRACE
    assert tasks(restoring, NOW + GRACE - 1) == []
    assert tasks(restoring, NOW + GRACE) == [(Task.RESTORE, WORKER)]


def test_the_grace_period_begins_again_after_the_object_was_there() -> None:
    world, restoring = stage(SERVICE)
    restoring.decide(NOW)
    world.make(deployment())
    restoring.live = world.live()
    restoring.decide(NOW + 8)
    restoring.live = {}
    restoring.decide(NOW + 9)
    assert tasks(restoring, NOW + GRACE) == []


def test_what_was_not_listed_is_not_missing() -> None:
    _, restoring = stage()
    restoring.listed = {"Service"}
    restoring.decide(NOW)
    assert tasks(restoring, NOW + GRACE) == [(Task.RESTORE, "Service/r-ollama")]


def test_an_object_is_made_again_once_at_a_time_and_then_after_growing_pauses() -> None:
    _, restoring = stage(SERVICE)
    restoring.decide(NOW)
    now, pauses = NOW + GRACE, []
    for _ in range(9):
        [action] = restoring.decide(now)
        restoring.began(action)
        assert tasks(restoring, now + 1e6) == []
        restoring.ended(action, now, dry_run=False)
        begun = now
        while not tasks(restoring, now):
            now = restoring.wake(now)
        pauses.append(now - begun)
    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE


def test_a_dry_run_is_made_once() -> None:
    _, restoring = stage(SERVICE)
    restoring.decide(NOW)
    [action] = restoring.decide(NOW + GRACE)
    restoring.began(action)
    restoring.ended(action, NOW + GRACE, dry_run=True)
    assert tasks(restoring, NOW + 1e6) == []


def test_a_dry_run_of_freeing_an_object_is_made_once() -> None:
    world, restoring = stage(config=config_map(deployment()))
    restoring.decide(NOW)
    [action] = restoring.decide(NOW + GRACE)
    carry_out(cast(KubernetesApi, Api(world)), action, None)
    restoring.ended(action, NOW + GRACE, dry_run=False)
    restoring.live = world.live()
    restoring.decide(NOW + GRACE)
    [action] = restoring.decide(NOW + GRACE + SETTLED)
    restoring.began(action)
    restoring.ended(action, NOW + GRACE + SETTLED, dry_run=True)
    assert tasks(restoring, NOW + 1e6) == []


GITOPS = [
    ("annotations", "argocd.argoproj.io/tracking-id", "Argo CD"),
    ("labels", "argocd.argoproj.io/instance", "Argo CD"),
    ("labels", "kustomize.toolkit.fluxcd.io/name", "Flux"),
    ("labels", "helm.toolkit.fluxcd.io/name", "Flux"),
]


@pytest.mark.parametrize(("place", "key", "tool"), GITOPS)
@pytest.mark.parametrize("on", ["the ConfigMap", "another object"])
def test_what_a_gitops_tool_manages_is_left_to_it(place: str, key: str, tool: str, on: str) -> None:
    made = config_map(deployment(), SERVICE)
    service = manifest("Service", "r-ollama")
    marked = made if on == "the ConfigMap" else service
    marked["metadata"][place] = {**marked["metadata"].get(place, {}), key: "x"}
    _, restoring = stage(service, config=made)
    restoring.decide(NOW)
    assert tasks(restoring, NOW + GRACE) == []
    assert tool in restoring.off()
    assert key in restoring.off()


def test_what_helm_did_not_install_is_left_alone() -> None:
    _, restoring = stage(config=config_map(deployment(), annotations={}))
    restoring.decide(NOW)
    assert tasks(restoring, NOW + GRACE) == []
    assert "meta.helm.sh/release-name" in restoring.off()


@pytest.mark.parametrize("config", [None, config_map(deployment(), deletionTimestamp="x")])
def test_nothing_is_made_without_a_config_map(config: Any) -> None:
    _, restoring = stage()
    restoring.release = config and release_from_json(config)
    restoring.decide(NOW)
    assert tasks(restoring, NOW + GRACE) == []


def test_what_is_made_is_as_helm_makes_it_and_owned_by_the_config_map_for_a_time() -> None:
    fields: dict[str, Any] = {"f:data": {}}
    writers = [
        {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:metadata": {}}},
        {"manager": "terraform-provider-helm", "operation": "Apply", "fieldsV1": fields},
    ]
    world, restoring = stage(config=config_map(deployment(), managedFields=writers))
    restoring.decide(NOW)
    [action] = restoring.decide(NOW + GRACE)
    result = carry_out(cast(KubernetesApi, Api(world)), action, None)
    assert result.outcome is Outcome.DONE
    assert world.managers == {"terraform-provider-helm"}
    made = world.objects[WORKER]
    assert made["spec"] == deployment()["spec"]
    meta = made["metadata"]
    assert meta["labels"]["app.kubernetes.io/managed-by"] == "Helm"
    assert meta["annotations"] == {
        "meta.helm.sh/release-name": "r",
        "meta.helm.sh/release-namespace": "d",
    }
    assert [owner["uid"] for owner in meta["ownerReferences"]] == ["cm-1"]
    assert result.uid == meta["uid"]

    restoring.ended(action, NOW + GRACE, dry_run=False)
    restoring.live = world.live()
    made_at = NOW + GRACE
    assert tasks(restoring, made_at) == []
    assert tasks(restoring, made_at + SETTLED - 1) == []
    [action] = restoring.decide(made_at + SETTLED)
    assert action.task is Task.RELEASE
    assert carry_out(cast(KubernetesApi, Api(world)), action, None).outcome is Outcome.DONE
    assert "ownerReferences" not in world.objects[WORKER]["metadata"]


def test_an_object_stays_owned_while_its_config_map_goes() -> None:
    world, restoring = stage(config=config_map(deployment()))
    restoring.decide(NOW)
    [action] = restoring.decide(NOW + GRACE)
    carry_out(cast(KubernetesApi, Api(world)), action, None)
    restoring.live = world.live()
    restoring.ended(action, NOW, dry_run=False)
    restoring.decide(NOW)
    [action] = restoring.decide(NOW + SETTLED)
    world.config = None
    assert carry_out(cast(KubernetesApi, Api(world)), action, None).outcome is Outcome.OVERTAKEN
    world.collect_garbage()
    assert world.objects == {}


def test_a_dry_run_changes_nothing() -> None:
    world, restoring = stage()
    world.dry_run = True
    restoring.decide(NOW)
    for action in restoring.decide(NOW + GRACE):
        assert carry_out(cast(KubernetesApi, Api(world)), action, None).outcome is Outcome.DRY_RUN
    assert world.objects == {}


DRIFTS = [
    (deployment("evil:1", A="1"), ["image"], "image evil:1 instead of worker:1"),
    (deployment(replicas=0, A="1"), ["replicas"], "0 replicas instead of 2"),
    (deployment(A="2"), ["environment"], "variable A of container worker has another value"),
    (deployment(), ["environment"], "variable A of container worker is missing"),
    (deployment(A="1", B="secret"), ["environment"], "variable B of container worker was added"),
]


@pytest.mark.parametrize(("changed", "fields", "text"), DRIFTS)
def test_drift_is_reported_after_the_grace_period(
    changed: Any, fields: list[str], text: str
) -> None:
    _, restoring = stage(changed, SERVICE)
    restoring.decide(NOW)
    assert restoring.drift(NOW) == {}
    found = restoring.drift(NOW + GRACE)[WORKER]
    assert [difference.field for difference in found] == fields
    assert text in found[0].text
    assert "secret" not in str(found)
    assert tasks(restoring, NOW + GRACE) == []


@pytest.mark.parametrize(("changed", "fields", "text"), DRIFTS)
def test_drift_is_corrected_where_that_is_wanted(
    changed: Any, fields: list[str], text: str
) -> None:
    world, restoring = stage(changed, SERVICE, correct=True)
    restoring.decide(NOW)
    actions = restoring.decide(NOW + GRACE)
    if "added" in text:
        assert actions == []  # an apply would leave it
        return
    [action] = actions
    assert action.task is Task.CORRECT
    uid = world.objects[WORKER]["metadata"]["uid"]
    assert carry_out(cast(KubernetesApi, Api(world)), action, None).outcome is Outcome.DONE
    assert world.objects[WORKER]["spec"] == deployment(A="1")["spec"]
    assert world.objects[WORKER]["metadata"]["uid"] == uid
    assert "ownerReferences" not in world.objects[WORKER]["metadata"]


ADDED = deployment(A="1", B="2")
ARGO = manifest("Service", "r-ollama")
ARGO["metadata"]["annotations"] = {"argocd.argoproj.io/tracking-id": "x"}


@pytest.mark.parametrize(
    ("changed", "service", "corrected"),
    [
        (deployment("evil:1", A="1"), SERVICE, True),
        (deployment("evil:1", A="1"), ARGO, False),
        (ADDED, SERVICE, False),
    ],
)
def test_drift_is_said_to_be_corrected_only_where_it_is(
    changed: Any, service: Any, corrected: bool
) -> None:
    _, restoring = stage(changed, service, correct=True)
    restoring.decide(NOW)
    told: list[Notice] = []
    Notices(told.append).observed(restoring, restoring.drift(NOW + GRACE))
    assert bool(tasks(restoring, NOW + GRACE)) == corrected
    [text] = [notice.text for notice in told if notice.reason == "Drifted"]
    assert ("what the release has is set again" in text) == corrected


def test_replicas_of_an_autoscaler_are_no_drift() -> None:
    wanted, live = settings_of(deployment(replicas=None)), settings_of(deployment(replicas=7))
    assert differences(wanted, live) == ()


def test_what_the_api_server_completes_is_no_drift() -> None:
    def of(source: Any) -> Any:
        raw = deployment()
        variable = {"name": "POD", "valueFrom": source}
        raw["spec"]["template"]["spec"]["containers"][0]["env"] = [variable]
        return settings_of(raw)

    rendered = of({"fieldRef": {"fieldPath": "metadata.name"}})
    live = of({"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}})
    assert differences(rendered, live) == ()
