"""The step `machine`: Cluster API replaces the node's Machine, or remediates it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from selfheal_remediator.actions.machine import MachineStep
from selfheal_remediator.actions.step import StepOutcome, StepResult
from selfheal_remediator.external_steps import MachineSettings
from selfheal_remediator.failures import ApiFailure
from tests.pure.remediator.api_objects import T0
from tests.pure.remediator.steps_world import (
    BEGAN,
    DEADLINE,
    NODE_PATH,
    OCCURRENCE,
    StepsApi,
    client,
    other_boot,
    run_on,
    until_it_ends,
)

API = "cluster.x-k8s.io/v1beta2"
PATH = f"/apis/{API}/namespaces/fleet/machines/m1"
REMEDIATE = "cluster.x-k8s.io/remediate-machine"
OWNER = {
    "apiVersion": API,
    "kind": "MachineSet",
    "name": "workers",
    "uid": "u-set",
    "controller": True,
}
MACHINE: dict[str, Any] = {
    "kind": "Machine",
    "metadata": {
        "name": "m1",
        "namespace": "fleet",
        "uid": "u-m1",
        "creationTimestamp": "1970-01-01T00:00:01Z",
        "ownerReferences": [OWNER],
    },
    "spec": {"providerID": "aws:///i-1"},
    "status": {"nodeRef": {"name": "n1"}, "phase": "Running"},
}


@pytest.fixture
def server() -> Iterator[StepsApi]:
    made = StepsApi()
    made.serve(API, "Machine", "machines")
    node = made.get(NODE_PATH)
    marks = {"cluster.x-k8s.io/machine": "m1", "cluster.x-k8s.io/cluster-namespace": "fleet"}
    node["metadata"]["annotations"] |= marks
    node["spec"]["providerID"] = "aws:///i-1"
    made.put(NODE_PATH, node)
    made.put(PATH, MACHINE)
    yield made
    made.close()


def step(server: StepsApi, mode: str = "delete", **more: str) -> MachineStep:
    found = MachineSettings.model_validate({"mode": mode, **more})
    return MachineStep(client(server), found)


def advance(server: StepsApi, mode: str = "delete", now: float = BEGAN + 1) -> StepResult:
    return step(server, mode).advance(run_on(server), now)


def machine(**parts: Any) -> dict[str, Any]:
    """A Machine with other parts; metadata is merged."""
    made = copy.deepcopy(MACHINE)
    return {**made, **parts, "metadata": {**made["metadata"], **parts.get("metadata", {})}}


class ClusterApi:
    """Deletes the Machine and its Node step by step, and repairs in place what is marked."""

    def __init__(self, server: StepsApi, *, in_place: bool = False) -> None:
        self.server, self.in_place = server, in_place
        server.held.add(PATH)

    def reconcile(self) -> None:
        server = self.server
        if PATH not in server.objects:
            return
        meta = server.objects[PATH]["metadata"]
        marked = REMEDIATE in meta.get("annotations", {})
        if marked and self.in_place:
            other_boot(server)
        elif marked and "deletionTimestamp" not in meta:
            server.change(PATH, metadata={**meta, "deletionTimestamp": T0})
        elif "deletionTimestamp" in meta and NODE_PATH in server.objects:
            server.put(NODE_PATH, None)
        elif "deletionTimestamp" in meta:
            server.put(PATH, None)


# -- delete -----------------------------------------------------------------------------


def test_the_machine_is_deleted_and_the_node_goes_with_it(server: StepsApi) -> None:
    cluster = ClusterApi(server)
    result = until_it_ends(server, lambda: step(server), cluster.reconcile)
    assert (result.outcome, result.message) == (
        StepOutcome.SUCCEEDED,
        "node n1 and its machine are gone",
    )
    assert server.made("DELETE") == [PATH]


def test_it_is_deleted_as_it_was_read(server: StepsApi) -> None:
    seen = server.get(PATH)["metadata"]["resourceVersion"]

    def change(verb: str, _path: str) -> str:
        if verb == "DELETE" and server.get(PATH)["metadata"]["resourceVersion"] == seen:
            server.change(PATH, spec={**MACHINE["spec"], "nodeDrainTimeout": "1m"})
        return ""

    server.disturb = change
    result = advance(server)
    assert (result.message, result.again_after) == ("machine fleet/m1 changed meanwhile", 1.0)
    assert PATH in server.objects
    assert advance(server).message == "machine fleet/m1 is being deleted"
    assert PATH not in server.objects


@pytest.mark.parametrize("trouble", ["refused", "lost"])
@pytest.mark.parametrize("mode", ["delete", "remediate"])
def test_killed_at_any_request_the_end_is_the_same(
    server: StepsApi, mode: str, trouble: str
) -> None:
    def whole() -> StepResult:
        cluster = ClusterApi(server)
        return until_it_ends(server, lambda: step(server, mode), cluster.reconcile)

    def changes() -> list[str]:
        """Of the Machine; the Node says that it was marked."""
        return [p for p in server.made("DELETE") + server.made("PATCH") if p != NODE_PATH]

    begin = server.backup()
    whole()
    requests = len(server.calls)
    assert changes() == [PATH]
    for nth in range(1, requests + 1):
        server.restore(begin)
        server.did.clear()
        left = iter(range(1, 10**6))
        server.disturb = lambda _verb, _path, left=left, nth=nth: (  # type: ignore[misc]
            trouble if next(left) == nth else ""
        )
        assert whole().outcome is StepOutcome.SUCCEEDED, nth
        assert changes() == [PATH], nth


@pytest.mark.parametrize(("mode", "verb"), [("delete", "DELETE"), ("remediate", "PATCH")])
def test_what_a_policy_refuses_is_no_change_of_the_machine(
    server: StepsApi, mode: str, verb: str
) -> None:
    """It would be tried again each second until the step's timeout."""
    said = "ValidatingAdmissionPolicy 'vap' with binding 'vap' denied request: not now"
    status = {"kind": "Status", "code": 422, "message": said, "details": {"causes": [{}]}}
    server.disturb = lambda done, path: json.dumps(status) if done == verb else ""
    with pytest.raises(ApiFailure, match="denied request: not now"):
        advance(server, mode)


def test_of_a_node_that_takes_no_note_the_machine_is_not_marked(server: StepsApi) -> None:
    server.disturb = lambda verb, path: "403" if (verb, path) == ("PATCH", NODE_PATH) else ""
    with pytest.raises(ApiFailure):
        advance(server, "remediate")
    assert server.made("PATCH") == []


def test_a_control_plane_replaces_its_machines_too(server: StepsApi) -> None:
    owner = {
        **OWNER,
        "apiVersion": "controlplane.cluster.x-k8s.io/v1beta2",
        "kind": "KubeadmControlPlane",
    }
    server.put(PATH, machine(metadata={"ownerReferences": [owner]}))
    assert advance(server).message == "machine fleet/m1 is being deleted"


@pytest.mark.parametrize("mode", ["delete", "remediate"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ownerReferences": []}, "has no owner that would replace it"),
        ({"ownerReferences": [{**OWNER, "controller": False}]}, "has no owner that would"),
        ({"ownerReferences": [{**OWNER, "kind": "MachinePool"}]}, "belongs to a MachinePool"),
        (
            {"ownerReferences": [{**OWNER, "apiVersion": "x.example/v1"}]},
            "belongs to a MachineSet (x.example/v1), which may not replace it",
        ),
        ({"annotations": {"cluster.x-k8s.io/paused": ""}}, "is paused"),
        ({"annotations": {"cluster.x-k8s.io/skip-remediation": ""}}, "is not to be remediated"),
    ],
)
def test_a_machine_that_nothing_would_replace_is_refused(
    server: StepsApi, mode: str, change: dict[str, Any], said: str
) -> None:
    server.put(PATH, machine(metadata=change))
    result = advance(server, mode)
    assert result.outcome is StepOutcome.FAILED
    assert said in result.message
    assert not server.did


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"status": {"nodeRef": {"name": "n2"}}}, "machine fleet/m1 is that of node n2"),
        ({"spec": {"providerID": "aws:///i-2"}}, "has the providerID aws:///i-2, the node has"),
    ],
)
def test_a_machine_of_another_node_is_never_touched(
    server: StepsApi, change: dict[str, Any], said: str
) -> None:
    server.put(PATH, machine(**change))
    result = advance(server)
    assert result.outcome is StepOutcome.FAILED
    assert said in result.message
    assert not server.did


def test_its_successor_of_the_same_name_is_never_touched(server: StepsApi) -> None:
    server.put(PATH, machine(metadata={"creationTimestamp": "1970-01-01T00:16:41Z"}))
    result = advance(server)
    assert result.message == "machine m1 is gone, node n1 is not yet"
    assert not server.did


def test_after_the_deadline_nothing_is_deleted(server: StepsApi) -> None:
    assert advance(server, now=DEADLINE).outcome is StepOutcome.FAILED
    assert not server.did


@pytest.mark.parametrize(
    ("mode", "said"), [("delete", "deleted"), ("remediate", "marked to be remediated")]
)
def test_nothing_changes_in_dry_run(server: StepsApi, mode: str, said: str) -> None:
    result = step(server, mode).advance(run_on(server, dry_run=True), BEGAN)
    assert result.message == f"machine fleet/m1 would be {said}"
    assert not server.did


# -- which Machine it is ----------------------------------------------------------------


@pytest.mark.parametrize(
    "change", [{}, {"status": {}}], ids=["by its nodeRef", "by its providerID"]
)
def test_without_annotations_the_machine_is_found(server: StepsApi, change: dict[str, Any]) -> None:
    node = server.get(NODE_PATH)
    node["metadata"]["annotations"] = {"selfheal.dev/state": "{}"}
    server.put(NODE_PATH, node)
    other = machine(metadata={"name": "m2"}, spec={}, status={"nodeRef": {"name": "n2"}})
    server.put(PATH.replace("m1", "m2"), other)
    server.put(PATH, machine(**change))
    assert advance(server).message == "machine fleet/m1 is being deleted"
    assert server.made("DELETE") == [PATH]


def test_a_node_without_a_machine(server: StepsApi) -> None:
    node = server.get(NODE_PATH)
    node["metadata"]["annotations"] = {}
    server.put(NODE_PATH, node)
    server.put(PATH, None)
    result = advance(server)
    assert result.outcome is StepOutcome.FAILED
    assert result.message == "no machine belongs to node n1"


def test_only_the_namespace_of_the_settings_counts(server: StepsApi) -> None:
    result = step(server, namespace="other").advance(run_on(server), BEGAN)
    assert result.message == "machine m1 is gone, node n1 is not yet"
    assert not server.did


def test_without_cluster_api(server: StepsApi) -> None:
    del server.objects["/apis/cluster.x-k8s.io"]
    result = advance(server)
    assert result.outcome is StepOutcome.FAILED
    assert result.message == "Cluster API is not installed in this cluster"


# -- remediate --------------------------------------------------------------------------


def test_a_machine_is_marked_and_replaced(server: StepsApi) -> None:
    cluster = ClusterApi(server)
    result = until_it_ends(server, lambda: step(server, "remediate"), cluster.reconcile)
    assert result.outcome is StepOutcome.SUCCEEDED
    assert not server.made("DELETE")


def test_a_machine_is_repaired_in_place(server: StepsApi) -> None:
    cluster = ClusterApi(server, in_place=True)
    result = until_it_ends(server, lambda: step(server, "remediate"), cluster.reconcile)
    assert result.outcome is StepOutcome.SUCCEEDED
    assert result.message == "machine fleet/m1 was remediated: the node has another boot id"
    assert server.get(PATH)["metadata"]["annotations"] == {}


def test_the_mark_says_whose_it_is_and_whether_anybody_reads_it(server: StepsApi) -> None:
    advance(server, "remediate")
    assert server.get(PATH)["metadata"]["annotations"] == {REMEDIATE: OCCURRENCE}
    assert advance(server, "remediate").message == (
        "machine fleet/m1 is marked to be remediated; no MachineHealthCheck has checked it yet"
    )
    checked = {"conditions": [{"type": "HealthCheckSucceeded", "status": "False"}]}
    server.change(PATH, status={**MACHINE["status"], **checked})
    assert advance(server, "remediate").message == "machine fleet/m1 is marked to be remediated"


def test_after_the_deadline_the_mark_is_removed(server: StepsApi) -> None:
    advance(server, "remediate")
    result = advance(server, "remediate", DEADLINE)
    assert result.outcome is StepOutcome.FAILED
    assert result.message == "machine fleet/m1 was not remediated in time"
    assert server.get(PATH)["metadata"]["annotations"] == {}
    assert advance(server, "remediate", DEADLINE) == result


def test_a_mark_of_somebody_else_stays(server: StepsApi) -> None:
    server.put(PATH, machine(metadata={"annotations": {REMEDIATE: "by hand"}}))
    assert advance(server, "remediate").outcome is StepOutcome.RUNNING
    run = run_on(server)
    other_boot(server)
    assert run.boot_id != run_on(server).node.boot_id
    assert advance(server, "remediate").outcome is StepOutcome.SUCCEEDED
    assert not server.did


def test_a_mark_that_somebody_removes_is_not_set_again(server: StepsApi) -> None:
    """It would be remediated a second time, or against a person's will."""
    advance(server, "remediate")
    advance(server, "remediate")
    annotations = server.get(PATH)["metadata"]["annotations"]
    assert annotations.pop(REMEDIATE) == OCCURRENCE
    server.put(PATH, machine(metadata={"annotations": annotations}))
    result = advance(server, "remediate")
    assert result.outcome is StepOutcome.RUNNING
    assert "not marked" in result.message
    assert REMEDIATE not in server.get(PATH)["metadata"]["annotations"]
    late = advance(server, "remediate", DEADLINE)
    assert late.outcome is StepOutcome.FAILED
    other_boot(server)
    assert advance(server, "remediate").outcome is StepOutcome.SUCCEEDED
