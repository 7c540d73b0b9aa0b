"""The Job of a step: where it runs, what it tolerates, and what its settings may say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from selfheal_remediator.actions.job import TAINTS, job_manifest
from selfheal_remediator.kube.objects import HOSTNAME_LABEL, Taint
from selfheal_remediator.ladder import JobSettings
from tests.pure.remediator.builders import node, rule
from tests.pure.remediator.steps_world import DEADLINE, step_run

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


def test_a_ladder_follows_a_drain_only() -> None:
    with pytest.raises(ValidationError, match="then needs action: drain"):
        rule(action="cordon", then=[{"wait": "1m"}])
