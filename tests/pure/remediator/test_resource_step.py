"""The step `resource`: one object for each occurrence, watched until it ends."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from selfheal_remediator.actions.resource import ResourceStep
from selfheal_remediator.actions.step import StepOutcome, StepResult
from selfheal_remediator.actions.template import object_from
from selfheal_remediator.external_steps import ResourceSettings
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.node.annotation import STEP_OBJECT_KEY
from tests.pure.remediator.steps_world import (
    BEGAN,
    DEADLINE,
    NODE_PATH,
    OCCURRENCE,
    StepsApi,
    client,
    run_on,
    until_it_ends,
)

API = "self-node-remediation.medik8s.io/v1alpha1"
HOME = f"/apis/{API}/namespaces/medik8s/selfnoderemediations"
PATH = f"{HOME}/n1"
TEMPLATE = {
    "apiVersion": API,
    "kind": "SelfNodeRemediation",
    "metadata": {"name": "{node}", "namespace": "medik8s"},
    "spec": {"remediationStrategy": "Automatic"},
}
FENCE_API = "fence-agents-remediation.medik8s.io/v1alpha1"
FENCE = {
    "apiVersion": FENCE_API,
    "kind": "FenceAgentsRemediation",
    "metadata": {"name": "{node}", "namespace": "medik8s"},
    "spec": {"agent": "fence_ipmilan", "sharedparameters": {"--plug": "{node}"}},
}
SUCCEEDED = {"conditions": [{"type": "Succeeded", "status": "True", "reason": "Fenced"}]}
FAILED = {"conditions": [{"type": "Succeeded", "status": "False", "reason": "NodeNotFound"}]}


def settings(**more: Any) -> ResourceSettings:
    given = {
        "template": TEMPLATE,
        "succeeded": {"condition": "Succeeded", "status": True},
        "failed": {"condition": "Succeeded", "status": "False"},
        "cleanUp": True,
    }
    return ResourceSettings.model_validate({**given, **more})


@pytest.fixture
def server() -> Iterator[StepsApi]:
    made = StepsApi()
    made.serve(API, "SelfNodeRemediation", "selfnoderemediations")
    made.serve(FENCE_API, "FenceAgentsRemediation", "fenceagentsremediations")
    made.serve("v1", "Namespace", "namespaces", namespaced=False)
    yield made
    made.close()


def advance(server: StepsApi, found: ResourceSettings, now: float = BEGAN + 1) -> StepResult:
    return ResourceStep(client(server), found).advance(run_on(server), now)


def operator(server: StepsApi, path: str, status: dict[str, Any]) -> Callable[[], None]:
    """Another system, which says so in the object's status as soon as there is one."""

    def reconcile() -> None:
        if path in server.objects and "status" not in server.objects[path]:
            server.change(path, status=status)

    return reconcile


# -- medik8s ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "path"),
    [(TEMPLATE, PATH), (FENCE, f"/apis/{FENCE_API}/namespaces/medik8s/fenceagentsremediations/n1")],
)
def test_a_remediation_is_created_and_removed_when_it_succeeded(
    server: StepsApi, template: dict[str, Any], path: str
) -> None:
    found = settings(template=template)
    result = until_it_ends(
        server, lambda: ResourceStep(client(server), found), operator(server, path, SUCCEEDED)
    )
    assert result.outcome is StepOutcome.SUCCEEDED
    assert server.made("POST") == server.made("DELETE") == [path]
    assert path not in server.objects


def test_a_remediation_that_failed_is_kept(server: StepsApi) -> None:
    advance(server, settings())
    server.change(PATH, status=FAILED)
    result = advance(server, settings())
    assert result.outcome is StepOutcome.FAILED
    assert result.message == (
        "SelfNodeRemediation medik8s/n1 failed and is kept: Succeeded is False (NodeNotFound)"
    )
    assert PATH in server.objects


def test_its_finalizer_is_awaited(server: StepsApi) -> None:
    server.held.add(PATH)
    advance(server, settings())
    server.change(PATH, status=SUCCEEDED)
    assert advance(server, settings()).outcome is StepOutcome.RUNNING
    assert advance(server, settings()).message.endswith("succeeded, and is being removed")
    assert server.made("DELETE") == [PATH]
    server.put(PATH, None)
    assert advance(server, settings()).outcome is StepOutcome.SUCCEEDED


def test_a_removal_that_takes_too_long_does_not_undo_the_success(server: StepsApi) -> None:
    server.held.add(PATH)
    advance(server, settings())
    server.change(PATH, status=SUCCEEDED)
    advance(server, settings())
    assert advance(server, settings(), DEADLINE).outcome is StepOutcome.SUCCEEDED


# -- once -------------------------------------------------------------------------------


class KilledAt:
    """The leader dies at the nth request that reaches the server, before or after its answer."""

    def __init__(self, nth: int, trouble: str) -> None:
        self.left, self.trouble = nth, trouble

    def __call__(self, _verb: str, _path: str) -> str:
        self.left -= 1
        return self.trouble if self.left == 0 else ""


@pytest.mark.parametrize("trouble", ["refused", "lost"])
def test_killed_at_any_request_it_is_created_once(server: StepsApi, trouble: str) -> None:
    def whole() -> StepResult:
        found = settings()
        return until_it_ends(
            server, lambda: ResourceStep(client(server), found), operator(server, PATH, SUCCEEDED)
        )

    begin = server.backup()
    whole()
    requests = len(server.calls)
    assert requests >= 10
    for nth in range(1, requests + 1):
        server.restore(begin)
        server.did.clear()
        server.disturb = KilledAt(nth, trouble)
        assert whole().outcome is StepOutcome.SUCCEEDED, nth
        assert server.made("POST") == server.made("DELETE") == [PATH], nth


def test_an_object_of_another_occurrence_is_left_alone(server: StepsApi) -> None:
    other = {"metadata": {"name": "n1", "labels": {"selfheal.dev/occurrence": "other-0"}}}
    server.put(PATH, other)
    result = advance(server, settings())
    assert result.outcome is StepOutcome.FAILED
    assert "exists already and is of occurrence other-0" in result.message
    server.put(PATH, {"metadata": {"name": "n1"}})
    assert "is not of this remediator" in advance(server, settings()).message
    assert not server.did


def test_what_another_deletes_is_not_created_again(server: StepsApi) -> None:
    advance(server, settings())
    server.put(PATH, None)
    result = advance(server, settings())
    assert result.outcome is StepOutcome.FAILED
    assert "was deleted before it was seen to succeed" in result.message
    assert server.made("POST") == [PATH]


def test_what_a_killed_leader_created_is_not_created_again_either(server: StepsApi) -> None:
    server.disturb = lambda verb, _path: "lost" if verb == "POST" else ""
    with pytest.raises(ApiFailure):
        advance(server, settings())
    assert advance(server, settings()).outcome is StepOutcome.RUNNING
    server.put(PATH, None)
    assert advance(server, settings()).outcome is StepOutcome.FAILED
    assert server.made("POST") == [PATH]


def test_on_a_node_that_takes_no_note_nothing_is_created(server: StepsApi) -> None:
    server.disturb = lambda verb, path: "403" if (verb, path) == ("PATCH", NODE_PATH) else ""
    with pytest.raises(ApiFailure):
        advance(server, settings())
    assert server.made("POST") == []


def test_the_next_occurrence_creates_it_again(server: StepsApi) -> None:
    advance(server, settings())
    server.put(PATH, None)
    next_one = replace(run_on(server), occurrence="next-0")
    result = ResourceStep(client(server), settings()).advance(next_one, BEGAN)
    assert result.outcome is StepOutcome.RUNNING
    assert server.made("POST") == [PATH, PATH]
    assert server.get(NODE_PATH)["metadata"]["annotations"][STEP_OBJECT_KEY] == "next-0 created"


def test_nothing_is_created_after_the_deadline(server: StepsApi) -> None:
    assert advance(server, settings(), DEADLINE).outcome is StepOutcome.FAILED
    assert not server.did


def test_what_ended_before_the_deadline_counts(server: StepsApi) -> None:
    advance(server, settings(cleanUp=False))
    assert advance(server, settings(cleanUp=False), DEADLINE).outcome is StepOutcome.FAILED
    server.change(PATH, status=SUCCEEDED)
    assert advance(server, settings(cleanUp=False), DEADLINE).outcome is StepOutcome.SUCCEEDED
    assert PATH in server.objects


def test_nothing_changes_in_dry_run(server: StepsApi) -> None:
    result = ResourceStep(client(server), settings()).advance(run_on(server, dry_run=True), BEGAN)
    assert result.message == "SelfNodeRemediation medik8s/n1 would be created"
    assert not server.did


def test_a_missing_right_is_tried_again(server: StepsApi) -> None:
    server.disturb = lambda verb, _path: "403" if verb == "POST" else ""
    with pytest.raises(ApiFailure):
        advance(server, settings())


# -- the kind ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"apiVersion": "x.example/v1"}, "(x.example/v1) is not installed in this cluster"),
        ({"kind": "Other"}, "Other (self-node-remediation.medik8s.io/v1alpha1) is not installed"),
        ({"metadata": {"name": "a"}}, "needs template.metadata.namespace"),
        (
            {"apiVersion": "v1", "kind": "Namespace"},
            "Namespace has no namespace: remove template.metadata.namespace",
        ),
    ],
)
def test_a_kind_that_cannot_be_created_is_explained(
    server: StepsApi, change: dict[str, Any], said: str
) -> None:
    result = advance(server, settings(template={**TEMPLATE, **change}))
    assert result.outcome is StepOutcome.FAILED
    assert said in result.message


# -- the template -----------------------------------------------------------------------


def test_placeholders_are_values_only(server: StepsApi) -> None:
    node = server.get(NODE_PATH)
    server.put(NODE_PATH, {**node, "spec": {**node["spec"], "providerID": "aws:///{node}: [x]"}})
    template = copy.deepcopy(TEMPLATE)
    template["spec"] = {
        "{node}": "{providerID}",
        "list": ["{nodeUID} {bootID}", 7, None],
        "shell": "${NODE} ${node} {",
    }
    advance(server, settings(template=template))
    found = server.get(PATH)
    assert found["spec"] == {
        "{node}": "aws:///{node}: [x]",
        "list": ["u-n1 b-1", 7, None],
        "shell": "${NODE} ${node} {",
    }
    assert found["metadata"]["labels"]["selfheal.dev/occurrence"] == OCCURRENCE


def test_a_node_without_a_provider_id(server: StepsApi) -> None:
    template = {**TEMPLATE, "spec": {"id": "{providerID}"}}
    result = advance(server, settings(template=template))
    assert (result.outcome, result.message) == (StepOutcome.FAILED, "node n1 has no providerID")


def test_a_template_is_never_changed() -> None:
    found = settings()
    before = copy.deepcopy(found.template)
    object_from(found, {"node": "n2"}, "o-1")
    assert found.template == before


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ({"phase": "Done"}, StepOutcome.SUCCEEDED),
        ({"phase": True}, StepOutcome.SUCCEEDED),
        ({"phase": "Working"}, StepOutcome.RUNNING),
        ({"phase": ["Done"]}, StepOutcome.RUNNING),
        ({"phase": {"Done": "Done"}}, StepOutcome.RUNNING),
        ({}, StepOutcome.RUNNING),
        ("Done", StepOutcome.RUNNING),
        ({"error": "2"}, StepOutcome.FAILED),
        ({"error": 2, "phase": "Done"}, StepOutcome.FAILED),
    ],
)
def test_a_field_says_how_it_ended(server: StepsApi, status: Any, outcome: StepOutcome) -> None:
    found = settings(
        succeeded={"path": "status.phase", "values": ["Done", True]},
        failed={"path": "status.error", "values": [2]},
        cleanUp=False,
    )
    advance(server, found)
    server.change(PATH, status=status)
    assert advance(server, found).outcome is outcome


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"template": {**TEMPLATE, "apiVersion": "x"}}, "template.apiVersion is missing"),
        ({"template": {**TEMPLATE, "apiVersion": "{node}/v1"}}, "template.apiVersion is missing"),
        ({"template": {**TEMPLATE, "kind": ""}}, "template.kind is missing"),
        ({"template": {**TEMPLATE, "metadata": {}}}, "template.metadata.name is missing"),
        (
            {"template": {**TEMPLATE, "metadata": {"name": "a", "generateName": "b"}}},
            "template.metadata.generateName is not allowed",
        ),
        (
            {"template": {**TEMPLATE, "metadata": {"name": "a", "namespace": "{node}"}}},
            "may not vary",
        ),
        (
            {"template": {**TEMPLATE, "spec": [{"a": "{nodeName}"}]}},
            "{nodeName} is no placeholder; allowed are {node}, {nodeUID}",
        ),
        (
            {
                "template": {
                    **TEMPLATE,
                    "metadata": {"name": "a", "labels": {"selfheal.dev/occurrence": "x"}},
                }
            },
            "labels without selfheal.dev/occurrence",
        ),
        ({"succeeded": {}}, "either path and values, or condition"),
        ({"succeeded": {"path": "a"}}, "either path and values, or condition"),
        ({"succeeded": {"path": "a", "values": ["b"], "condition": "c"}}, "either path and"),
        ({"failed": {"path": "a", "values": ["b"], "status": "True"}}, "status belongs to"),
    ],
)
def test_wrong_settings_are_explained(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        settings(**wrong)
    assert said in raised.value.errors()[0]["msg"]
