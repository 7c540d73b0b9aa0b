"""Steps that other systems carry out, on a real API server: its types, finalizers, preconditions.

The types are those of medik8s and Cluster API by group, kind and scope; of their fields only the
status is watched, so that any is allowed. What their controllers do, the test does.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from selfheal_remediator.actions.machine import MachineStep
from selfheal_remediator.actions.resource import ResourceStep
from selfheal_remediator.actions.step import StepKind, StepOutcome, StepResult, StepRun
from selfheal_remediator.external_steps import MachineSettings, ResourceSettings
from selfheal_remediator.kube.objects import node_from_json
from tests.control_plane.machines import CRDS, machine_type
from tests.control_plane.site import Json, Site
from tests.support.waiting import until

SNR = ("self-node-remediation.medik8s.io", "v1alpha1", "SelfNodeRemediation")
FAR = ("fence-agents-remediation.medik8s.io", "v1alpha1", "FenceAgentsRemediation")
MACHINE_SET = ("cluster.x-k8s.io", "v1beta2", "MachineSet")
MACHINE = ("cluster.x-k8s.io", "v1beta2", "Machine")
FINALIZER = "test.selfheal.dev/operator"
REMEDIATE = "cluster.x-k8s.io/remediate-machine"
#: Nothing is begun before this; the objects of a test are older.
AHEAD = 5.0


def crd(group: str, version: str, kind: str) -> Json:
    """A type without rules for its fields."""
    plural = f"{kind.lower()}s"
    loose = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    served = {
        "name": version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": loose},
        "subresources": {"status": {}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [served],
        },
    }


def collection(site: Site, group: str, version: str, kind: str) -> str:
    """Where the test's objects of a type are."""
    return f"/apis/{group}/{version}/namespaces/{site.name}/{kind.lower()}s"


def served(site: Site, path: str) -> bool:
    """Whether there is something at the path."""
    return site.api.send("GET", path).ok


@pytest.fixture
def site(site: Site) -> Iterator[Site]:
    """A stage on which the types are served."""
    kinds = (SNR, FAR, MACHINE_SET, MACHINE)
    for definition in (crd(*SNR), crd(*FAR), crd(*MACHINE_SET), machine_type()):
        answer = site.api.send("POST", CRDS, body=definition)
        assert answer.ok or answer.status == 409, answer.failure()
    for kind in kinds:
        path = collection(site, *kind)
        until(f"{kind[2]} is served", partial(served, site, path))
    yield site
    for kind in kinds:
        path = collection(site, *kind)
        for raw in site.api.get(path)["items"]:
            one = f"{path}/{raw['metadata']['name']}"
            site.patch(one, {"metadata": {"finalizers": None}})
            site.delete(one)


def until_it_ends(
    site: Site, node: str, new_step: Callable[[], StepKind], reconcile: Callable[[], None]
) -> StepResult:
    """Advance the step, each time by another leader; others act between two calls."""
    began, last = time.time() + AHEAD, node_from_json(site.api.node(node))
    boot_id = last.boot_id
    for _ in range(40):
        found = site.api.send("GET", f"/api/v1/nodes/{node}")
        if found.ok:
            last = node_from_json(found.json())
        run = StepRun(
            node=last,
            rule="1a2b3c4d",
            condition="KernelDeadlock",
            reason="",
            message="",
            occurrence="0123456789abcdef0123-1",
            index=0,
            began=began,
            deadline=began + 600,
            boot_id=boot_id,
            dry_run=False,
        )
        result = new_step().advance(run, began)
        if result.outcome is not StepOutcome.RUNNING:
            return result
        reconcile()
    raise AssertionError(f"it did not end: {result}")


@pytest.mark.parametrize("kind", [SNR, FAR], ids=["SelfNodeRemediation", "FenceAgents"])
def test_a_remediation_of_medik8s(site: Site, kind: tuple[str, str, str]) -> None:
    node, group = site.node("a"), kind[0]
    template = {
        "apiVersion": f"{group}/{kind[1]}",
        "kind": kind[2],
        "metadata": {"name": "{node}", "namespace": site.name},
        "spec": {"remediationStrategy": "Automatic"},
    }
    settings = ResourceSettings.model_validate(
        {"template": template, "succeeded": {"condition": "Succeeded"}, "cleanUp": True}
    )
    path = f"{collection(site, *kind)}/{node}"
    uids: set[str] = set()

    def reconcile() -> None:
        """The operator: a finalizer first, then it fences, and last it cleans up."""
        answer = site.api.send("GET", path)
        if not answer.ok:
            return
        raw = answer.json()
        uids.add(raw["metadata"]["uid"])
        if "deletionTimestamp" in raw["metadata"]:
            site.patch(path, {"metadata": {"finalizers": None}})
        elif not raw["metadata"].get("finalizers"):
            site.patch(path, {"metadata": {"finalizers": [FINALIZER]}})
        else:
            fenced = {"type": "Succeeded", "status": "True", "reason": "FencingCompleted"}
            site.patch(f"{path}/status", {"status": {"conditions": [fenced]}})

    result = until_it_ends(site, node, lambda: ResourceStep(site.api, settings), reconcile)
    assert result.outcome is StepOutcome.SUCCEEDED
    assert result.message == f"{kind[2]} {site.name}/{node} succeeded, and was removed"
    assert len(uids) == 1
    assert site.api.send("GET", path).status == 404


def machine_of(site: Site, node: str) -> str:
    """A Machine of the node, owned by a MachineSet (else it would be garbage); returns its path."""
    version = f"{MACHINE[0]}/{MACHINE[1]}"
    owner = site.create(
        collection(site, *MACHINE_SET),
        {"apiVersion": version, "kind": "MachineSet", "metadata": {"name": "workers"}},
    )
    reference = {
        "apiVersion": version,
        "kind": "MachineSet",
        "name": "workers",
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }
    meta = {"name": "m1", "ownerReferences": [reference], "finalizers": [FINALIZER]}
    path = collection(site, *MACHINE)
    site.create(path, {"apiVersion": version, "kind": "Machine", "metadata": meta})
    status = {"nodeRef": {"name": node}, "phase": "Running"}
    site.patch(f"{path}/m1/status", {"status": status})
    marks = {"cluster.x-k8s.io/machine": "m1", "cluster.x-k8s.io/cluster-namespace": site.name}
    site.patch(f"/api/v1/nodes/{node}", {"metadata": {"annotations": marks}})
    return f"{path}/m1"


def machine_step(site: Site, mode: str) -> Callable[[], StepKind]:
    settings = MachineSettings.model_validate({"mode": mode})
    return lambda: MachineStep(site.api, settings)


@pytest.mark.parametrize("mode", ["delete", "remediate"])
def test_a_machine_is_replaced(site: Site, mode: str) -> None:
    node = site.node("a")
    path = machine_of(site, node)

    def reconcile() -> None:
        """Cluster API: deletes what is marked; the Node goes before its Machine."""
        raw: dict[str, Any] = site.api.get(path)
        if "deletionTimestamp" not in raw["metadata"]:
            assert REMEDIATE in raw["metadata"]["annotations"]
            site.delete(path)
        elif site.api.send("GET", f"/api/v1/nodes/{node}").ok:
            site.delete(f"/api/v1/nodes/{node}")
        else:
            site.patch(path, {"metadata": {"finalizers": None}})

    result = until_it_ends(site, node, machine_step(site, mode), reconcile)
    assert result.outcome is StepOutcome.SUCCEEDED
    assert result.message == f"node {node} and its machine are gone"


def test_a_machine_is_repaired_in_place(site: Site) -> None:
    node = site.node("a")
    path = machine_of(site, node)

    def reconcile() -> None:
        """An external remediation: the node comes up again, by another boot."""
        assert REMEDIATE in site.api.get(path)["metadata"]["annotations"]
        booted = {"status": {"nodeInfo": {"bootID": "another"}}}
        site.patch(f"/api/v1/nodes/{node}/status", booted)

    result = until_it_ends(site, node, machine_step(site, "remediate"), reconcile)
    assert result.outcome is StepOutcome.SUCCEEDED
    assert REMEDIATE not in (site.api.get(path)["metadata"].get("annotations") or {})
