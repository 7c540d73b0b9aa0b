"""What each step has to be allowed to do: no more than what it does."""

from __future__ import annotations

from typing import Any

import pytest

from selfheal_remediator.actions.permissions import Right, permissions, plural_of
from selfheal_remediator.external_steps import MachineSettings, ResourceSettings, WebhookSettings

TEMPLATE = {
    "apiVersion": "self-node-remediation.medik8s.io/v1alpha1",
    "kind": "SelfNodeRemediation",
    "metadata": {"name": "{node}", "namespace": "medik8s"},
}


def resource(**more: Any) -> ResourceSettings:
    given = {"template": TEMPLATE, "succeeded": {"condition": "Succeeded"}}
    return ResourceSettings.model_validate({**given, **more})


def test_a_webhook_needs_none() -> None:
    found = WebhookSettings.model_validate({"url": "https://x", "secretFile": "/s"})
    assert permissions(found) == ()


def test_a_resource() -> None:
    group, plural = "self-node-remediation.medik8s.io", "selfnoderemediations"
    assert permissions(resource()) == (Right(group, plural, "medik8s", ("get", "create")),)
    assert permissions(resource(cleanUp=True, plural="others")) == (
        Right(group, "others", "medik8s", ("get", "create", "delete")),
    )
    core = {**TEMPLATE, "apiVersion": "v1", "kind": "ConfigMap"}
    assert permissions(resource(template=core))[0].group == ""


@pytest.mark.parametrize(("mode", "verb"), [("delete", "delete"), ("remediate", "patch")])
def test_a_machine(mode: str, verb: str) -> None:
    found = MachineSettings.model_validate({"mode": mode, "namespace": "fleet"})
    assert permissions(found) == (
        Right("cluster.x-k8s.io", "machines", "fleet", ("get", "list", verb)),
    )


@pytest.mark.parametrize(
    ("kind", "plural"),
    [
        ("Job", "jobs"),
        ("NetworkPolicy", "networkpolicies"),
        ("Ingress", "ingresses"),
        ("Endpoints", "endpoints"),
        ("FenceAgentsRemediation", "fenceagentsremediations"),
    ],
)
def test_a_plural_is_that_which_kubernetes_guesses(kind: str, plural: str) -> None:
    assert plural_of(kind) == plural
