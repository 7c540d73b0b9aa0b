"""The Job of a step: where it runs, what it tolerates, what its settings may say, and that it is
created once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from selfheal_remediator.actions.job import TAINTS, JobStep, job_manifest
from selfheal_remediator.actions.step import StepOutcome, StepResult
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.objects import HOSTNAME_LABEL, Taint
from selfheal_remediator.ladder import JobSettings
from tests.pure.remediator.builders import node, rule
from tests.pure.remediator.steps_world import (
    BEGAN,
    DEADLINE,
    NODE_PATH,
    StepsApi,
    client,
    other_boot,
    run_on,
    step_run,
)

TEMPLATE = {"spec": {"containers": [{"name": "c"}]}}


def manifest(now: float = DEADLINE - 60, **settings: Any) -> dict[str, Any]:
    taints = (Taint("example.com/broken", "", "NoExecute"),)
    about = replace(node("n1"), labels={HOSTNAME_LABEL: "host-1"}, taints=taints)
    job = JobSettings.model_validate({"template": TEMPLATE, **settings})
    return job_manifest("name", job, step_run(about), now)


def test_on_the_node_it_tolerates_whatever_the_node_has() -> None:
    spec = manifest()["spec"]
    pod = spec["template"]["spec"]
    assert pod["nodeName"] == "n1"
    assert {one["key"] for one in pod["tolerations"]} == {*TAINTS, "example.com/broken"}
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (0, 60)


def test_beside_it_runs_on_any_other_node() -> None:
    pod = manifest(placement="beside")["spec"]["template"]["spec"]
    assert "nodeName" not in pod
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    [term] = pod["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"]
    [field], [label] = term["matchFields"], term["matchExpressions"]
    assert (field["operator"], field["values"]) == ("NotIn", ["n1"])
    assert (label["operator"], label["values"]) == ("NotIn", ["host-1"])


def test_a_job_that_reboots_is_not_retried() -> None:
    with pytest.raises(ValidationError, match="backoffLimit must be 0"):
        JobSettings.model_validate(
            {"template": TEMPLATE, "succeededBy": "bootID", "backoffLimit": 1}
        )


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ([], "template.metadata is \\[\\], and no mapping"),
        ({"labels": ["a"]}, "template.metadata.labels is no mapping"),
        ({"labels": {"a": 1}}, "template.metadata.labels.a is 1, and no text"),
        ({"annotations": {"a b": ""}}, "'a b' is not the key of a label or annotation; allowed"),
    ],
)
def test_labels_that_no_pod_can_have_are_refused(metadata: Any, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        JobSettings.model_validate({"template": {**TEMPLATE, "metadata": metadata}})


def test_metadata_may_be_left_out() -> None:
    for metadata in (None, {}, {"labels": None}):
        made = manifest(template={**TEMPLATE, "metadata": metadata})
        assert made["spec"]["template"]["metadata"]["labels"] == made["metadata"]["labels"]


def test_a_ladder_follows_a_drain_only() -> None:
    with pytest.raises(ValidationError, match="then needs action: drain"):
        rule(action="cordon", then=[{"wait": "1m"}])


# -- created once ----------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[StepsApi]:
    made = StepsApi()
    yield made
    made.close()


def advanced(server: StepsApi, **settings: Any) -> StepResult:
    """By a leader that knows nothing."""
    job = JobSettings.model_validate({"template": TEMPLATE, **settings})
    return JobStep(client(server), job).advance(run_on(server), BEGAN + 5)


def test_a_job_that_was_deleted_by_hand_is_not_created_again(server: StepsApi) -> None:
    """The node would be rebooted a second time."""
    assert advanced(server).outcome is StepOutcome.RUNNING
    [path] = server.made("POST")
    server.put(path, None)
    result = advanced(server)
    assert result.outcome is StepOutcome.FAILED
    assert "was deleted" in result.message
    assert server.made("POST") == [path]


def test_a_job_that_was_made_again_by_hand_is_not_that_of_the_step(server: StepsApi) -> None:
    advanced(server)
    [path] = server.made("POST")
    other = server.get(path)
    complete = {"conditions": [{"type": "Complete", "status": "True"}]}
    meta = {**other["metadata"], "uid": "another"}
    server.put(path, {**other, "metadata": meta, "status": complete})
    result = advanced(server)
    assert result.outcome is StepOutcome.FAILED
    assert "not of this step" in result.message


def test_the_boot_id_still_shows_what_a_deleted_job_did(server: StepsApi) -> None:
    """It may have begun the reboot: the next step would hit a node that is starting."""
    advanced(server, succeededBy="bootID")
    [path] = server.made("POST")
    server.put(path, None)
    result = advanced(server, succeededBy="bootID")
    assert result.outcome is StepOutcome.RUNNING
    assert "was deleted" in result.message
    other_boot(server)
    assert advanced(server, succeededBy="bootID").outcome is StepOutcome.SUCCEEDED
    assert server.made("POST") == [path]


def once_created(server: StepsApi, trouble: str) -> None:
    """The Node cannot be changed any more once the Job is there."""

    def disturb(verb: str, path: str) -> str:
        noted = (verb, path) == ("PATCH", NODE_PATH)
        return trouble if noted and server.made("POST") else ""

    server.disturb = disturb


def test_on_a_node_that_takes_no_note_no_job_is_created(server: StepsApi) -> None:
    """A policy forbids it: whoever leads next would create each Job that was deleted again."""
    server.disturb = lambda verb, path: "403" if (verb, path) == ("PATCH", NODE_PATH) else ""
    for _ in range(2):
        with pytest.raises(ApiFailure):
            advanced(server)
    assert server.made("POST") == []
    server.disturb = lambda verb, path: ""
    assert advanced(server).outcome is StepOutcome.RUNNING


def test_a_leader_that_died_before_it_created_the_job_leaves_that_to_the_next(
    server: StepsApi,
) -> None:
    server.disturb = lambda verb, path: "refused" if verb == "POST" else ""
    with pytest.raises(ApiFailure):
        advanced(server)
    assert server.made("PATCH") == [NODE_PATH]
    server.disturb = lambda verb, path: ""
    assert advanced(server).outcome is StepOutcome.RUNNING
    assert len(server.made("POST")) == 1


def test_a_job_that_could_not_be_noted_is_noted_later(server: StepsApi) -> None:
    once_created(server, "503")
    with pytest.raises(ApiFailure):
        advanced(server)
    [path] = server.made("POST")
    server.disturb = lambda verb, path: ""
    assert advanced(server).outcome is StepOutcome.RUNNING
    server.put(path, None)
    assert advanced(server).outcome is StepOutcome.FAILED
    assert server.made("POST") == [path]


def test_an_end_is_seen_without_a_note(server: StepsApi) -> None:
    once_created(server, "403")
    with pytest.raises(ApiFailure):
        advanced(server)
    [path] = server.made("POST")
    complete = {"conditions": [{"type": "Complete", "status": "True"}]}
    server.put(path, {**server.get(path), "status": complete})
    assert advanced(server).outcome is StepOutcome.SUCCEEDED
