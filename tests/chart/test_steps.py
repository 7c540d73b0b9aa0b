"""Steps that other systems carry out: what the chart lets users set, grants and opens for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from selfheal_remediator.actions.permissions import permissions as rights_of
from selfheal_remediator.config import Config, parse_config
from selfheal_remediator.ladder import Step
from selfheal_remediator.run import permissions
from tests.chart.rendering import Helm, Manifest, by_kind

Values = dict[str, Any]
#: Namespace (empty = in the whole cluster), API group, resource, verb.
Grants = set[tuple[str, str, str, str]]

EXAMPLES = ("cluster-api", "medik8s", "webhook")
WEBHOOK: Values = {"url": "https://tickets.example.com/new", "secretFile": "/etc/tickets/secret"}
DONE: Values = {"condition": "Succeeded"}


def _object(kind: str, api: str = "example.com/v1", namespace: str = "ops", **more: Any) -> Values:
    template = {"apiVersion": api, "kind": kind, "metadata": {"name": "{node}"}}
    if namespace:
        template = {**template, "metadata": {"name": "{node}", "namespace": namespace}}
    return {"resource": {"template": template, "succeeded": DONE, **more}}


def _rule(*steps: Values) -> Values:
    return {"condition": "KernelDeadlock", "action": "drain", "then": list(steps)}


def _values(*steps: Values, grouped: Sequence[Values] = ()) -> Values:
    config: Values = {"rules": [_rule(*steps)]}
    if grouped:
        config["groups"] = [{"name": "gpu", "nodeSelector": {}, "rules": [_rule(*grouped)]}]
    return {"remediator": {"config": config}}


def _granted(manifests: Sequence[Manifest]) -> Grants:
    """What the remediator may do, by the roles that are bound to it."""
    [account] = (m for m in manifests if _is(m, "ServiceAccount"))
    found: Grants = set()
    places = [m["metadata"]["namespace"] for m in manifests if _is(m, "Role")]
    assert len(places) == len(set(places))
    for role in (m for m in manifests if _is(m, "Role", "ClusterRole")):
        meta = role["metadata"]
        if "rbac.authorization.k8s.io/aggregate-to-view" in meta["labels"]:
            continue
        bindings = by_kind(
            [m for m in manifests if m["metadata"].get("namespace") == meta.get("namespace")],
            f"{role['kind']}Binding",
        )
        binding = bindings[meta["name"]]
        assert binding["roleRef"]["kind"] == role["kind"]
        assert binding["roleRef"]["name"] == meta["name"]
        [subject] = binding["subjects"]
        assert subject["name"] == account["metadata"]["name"]
        assert subject["namespace"] == "selfheal"
        found |= {
            (meta.get("namespace", ""), group, resource, verb)
            for rule in role["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }
    return found


def _is(manifest: Manifest, *kinds: str) -> bool:
    component = manifest["metadata"]["labels"]["app.kubernetes.io/component"]
    return component == "remediator" and manifest["kind"] in kinds


def _needed(config: Config) -> Grants:
    """What the steps need, as the program says it."""
    steps = [step.machine or step.resource for rule in config.all_rules for step in rule.then]
    rights = [right for step in steps if step is not None for right in rights_of(step)]
    return {(one.namespace, one.group, one.resource, verb) for one in rights for verb in one.verbs}


def _config(manifests: Sequence[Manifest]) -> Config:
    text = by_kind(manifests, "ConfigMap")["selfheal-remediator"]["data"]["remediator.yaml"]
    return parse_config(text, "the chart's")


def _check_rights(manifests: Sequence[Manifest], without: Sequence[Manifest]) -> Grants:
    """The chart grants what the steps need and no more, and all that the start checks."""
    config, granted = _config(manifests), _granted(manifests)
    needed = _needed(config)
    attachments = ("", "storage.k8s.io", "volumeattachments", "list")
    assert granted == _granted(without) | needed | {attachments}
    for item in permissions(config, "selfheal", "selfheal-remediator"):
        resource = f"{item.resource}/{item.subresource}" if item.subresource else item.resource
        wanted = (item.group, resource, item.verb)
        assert {("", *wanted), (item.namespace, *wanted)} & granted, str(item)
    checked = permissions(config, "selfheal", "selfheal-remediator")
    assert needed <= {(one.namespace, one.group, one.resource, one.verb) for one in checked}
    assert len(checked) == len(set(checked))
    return needed


MACHINE: Values = {"machine": {"mode": "delete", "namespace": "fleet"}}


@pytest.mark.parametrize(
    "values",
    [
        _values({"webhook": WEBHOOK}),
        _values({"machine": {"mode": "delete"}}),
        _values({"machine": {"mode": "remediate", "namespace": "fleet"}}, grouped=[MACHINE]),
        _values(_object("NetworkPolicy", api="networking.k8s.io/v1", cleanUp=True)),
        _values(_object("Ingress"), _object("Ingress"), _object("Endpoints", api="v1")),
        _values({"wait": "1m"}, grouped=[_object("Fish", plural="fish"), MACHINE]),
        _values(_object("ConfigMap", "v1", "selfheal"), _object("Namespace", "v1", "")),
    ],
)
def test_the_chart_grants_just_what_the_steps_need(helm: Helm, values: Values) -> None:
    """In the namespaces of the steps, from the rules of groups as well."""
    _check_rights(helm.template(values=values), helm.case("default"))


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_has_the_rights_that_it_needs(helm: Helm, example: str) -> None:
    needed = _check_rights(helm.case(example), helm.case("remediator-only"))
    assert bool(needed) == (example != "webhook")


def test_a_remediator_without_steps_has_rights_in_its_own_namespace_only(helm: Helm) -> None:
    assert {place for place, *_ in _granted(helm.case("default"))} == {"", "selfheal"}
    without = {"remediator": {"enabled": False, **_values(MACHINE)["remediator"]}}
    assert not any(_is(m, "Role", "RoleBinding") for m in helm.template(values=without))


@pytest.mark.parametrize(
    "step",
    [
        {"machine": {"mode": "delete"}, "webhook": WEBHOOK},
        {"machine": {"mode": "replace"}},
        {"machine": {"mode": "delete", "name": "one"}},
        {"webhook": {**WEBHOOK, "urlFile": "/etc/tickets/url"}},
        {"webhook": {"secretFile": "/etc/tickets/secret"}},
        {"webhook": {"url": "https://tickets.example.com"}},
        {"webhook": {**WEBHOOK, "url": "tickets.example.com"}},
        {"webhook": {**WEBHOOK, "method": "PUT"}},
        {"webhook": {**WEBHOOK, "requestTimeout": "31s"}},
        {"webhook": {**WEBHOOK, "requestTimeout": "500ms"}},
        _object("fish"),
        _object("Fish", api="example.com"),
        _object("Fish", namespace="{node}"),
        _object("Fish", plural="Fishes"),
        _object("Fish", failed={"path": "status.phase"}),
        _object("Fish", failed={"path": "status.phase", "values": ["x"], "status": "True"}),
        _object("Fish", failed={"path": "a", "values": ["x"], "condition": "Ready"}),
        _object("Fish", labels={}),
        {"resource": {"template": {"apiVersion": "v1", "kind": "Fish"}, "succeeded": DONE}},
        {
            "resource": {
                "template": {
                    "apiVersion": "v1",
                    "kind": "Fish",
                    "metadata": {"name": "a", "labels": {"selfheal.dev/occurrence": "b"}},
                },
                "succeeded": DONE,
            }
        },
    ],
)
def test_helm_refuses_a_step_that_the_program_would_refuse(helm: Helm, step: Values) -> None:
    """In a rule and in the rule of a group."""
    with pytest.raises(ValidationError):
        Step.model_validate(step)
    assert "remediator" in helm.refusal(values=_values({"wait": "1m"}, grouped=[step]))


def test_all_that_a_step_can_say_is_taken(helm: Helm) -> None:
    webhook = {
        "urlFile": "/etc/tickets/url",
        "secretFile": "/etc/tickets/secret",
        "caFile": "/etc/tickets/ca.crt",
        "labels": ["topology.kubernetes.io/zone"],
        "requestTimeout": "30s",
    }
    ended = {"path": "status.done", "values": [True, "yes", 1]}
    failed = {"condition": "Failed", "status": "Unknown"}
    thing = _object("Fish", plural="fish", succeeded=ended, failed=failed, cleanUp=True)
    steps = _config(helm.template(values=_values({"webhook": webhook}, thing))).rules[0].then
    assert [step.kind for step in steps] == ["webhook", "resource"]
    assert steps[1].resource is not None
    assert steps[1].resource.succeeded.values == ("true", "yes", "1")


@pytest.mark.parametrize(
    ("steps", "ports"),
    [
        ([{"wait": "1m"}], []),
        ([{"webhook": WEBHOOK}], [443]),
        ([{"webhook": {**WEBHOOK, "url": "http://tickets.example.com/"}}], [80]),
        ([{"webhook": {**WEBHOOK, "url": "https://[2001:db8::1]:8443/a:80"}}], [8443]),
        ([{"webhook": {"urlFile": "/etc/tickets/url", "secretFile": "/s"}}], [443]),
    ],
)
def test_the_network_policy_lets_the_remediator_reach_the_server_of_a_webhook(
    helm: Helm, steps: list[Values], ports: list[int]
) -> None:
    def egress(values: Values) -> list[Values]:
        manifests = helm.template("networkPolicy.enabled=true", values=values)
        found: list[Values] = by_kind(manifests, "NetworkPolicy")["selfheal-remediator"]["spec"][
            "egress"
        ]
        return found

    before, after = egress({}), egress(_values(*steps, grouped=steps))
    assert after == [*before, *([{"ports": [{"port": port} for port in ports]}] if ports else [])]
