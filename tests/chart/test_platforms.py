"""Platforms with rules of their own: ids that the platform assigns, names of digits."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.pod_security import violations
from tests.chart.rendering import (
    FIXED,
    VERSIONS,
    Helm,
    Manifest,
    Refused,
    Rendering,
    by_kind,
    containers_of,
    pod_specs,
)
from tests.chart.schemas import CUSTOM, problems

IDS = ("runAsUser", "runAsGroup", "fsGroup", "supplementalGroups")
COMPONENTS = ("worker", "remediator", "ollama", "rabbitmq")
WITH_OLLAMA: dict[str, Any] = {
    "model": {"provider": "ollama", "name": "m"},
    "ollama": {"enabled": True, "models": ["m"]},
}


def _set_ids(manifests: list[Manifest]) -> dict[str, list[str]]:
    """Ids that the pods outside the detector's namespace ask for, by owner."""
    found: dict[str, list[str]] = {}
    for owner, spec in pod_specs(manifests):
        if owner["metadata"]["namespace"] != "selfheal":
            continue
        contexts = [spec["securityContext"], *(c["securityContext"] for c in containers_of(spec))]
        ids = [key for context in contexts for key in IDS if key in context]
        if ids:
            found[owner["metadata"]["name"]] = ids
    return found


@pytest.mark.parametrize(
    ("adapt", "flags", "ids"),
    [
        ("auto", ("--api-versions=security.openshift.io/v1",), False),
        ("auto", (), True),
        ("force", (), False),
        ("disabled", ("--api-versions=security.openshift.io/v1",), True),
    ],
)
def test_openshift_assigns_the_ids(
    helm: Helm, adapt: str, flags: tuple[str, ...], ids: bool
) -> None:
    values = {
        **WITH_OLLAMA,
        "global": {"compatibility": {"openshift": {"adaptSecurityContext": adapt}}},
    }
    manifests = helm.render(Rendering.of(values, flags=flags, sets=FIXED))
    assert bool(_set_ids(manifests)) is ids
    for owner, spec in pod_specs(manifests):
        if owner["metadata"]["namespace"] == "selfheal":
            assert violations(spec) == [], owner["metadata"]["name"]


@pytest.mark.parametrize("component", COMPONENTS)
def test_an_id_that_is_null_is_left_out(helm: Helm, component: str) -> None:
    ids = dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"))
    values = {
        **WITH_OLLAMA,
        component: {**WITH_OLLAMA.get(component, {}), "podSecurityContext": ids},
    }
    manifests = helm.render(Rendering.of(values, sets=FIXED))
    assert f"selfheal-{component}" not in _set_ids(manifests)
    others = {f"selfheal-{name}" for name in COMPONENTS} - {f"selfheal-{component}"}
    assert others <= _set_ids(manifests).keys()


@pytest.mark.parametrize("component", COMPONENTS)
def test_security_contexts_can_be_set(helm: Helm, component: str) -> None:
    values = {
        **WITH_OLLAMA,
        component: {
            **WITH_OLLAMA.get(component, {}),
            "podSecurityContext": {"runAsUser": 1234, "supplementalGroups": [7]},
            "securityContext": {"seLinuxOptions": {"level": "s0"}},
        },
    }
    specs = {
        owner["metadata"]["name"]: spec
        for owner, spec in pod_specs(helm.render(Rendering.of(values, sets=FIXED)))
    }
    spec = specs[f"selfheal-{component}"]
    assert spec["securityContext"]["runAsUser"] == 1234
    assert spec["securityContext"]["supplementalGroups"] == [7]
    assert spec["securityContext"]["runAsNonRoot"] is True
    for container in containers_of(spec):
        assert container["securityContext"]["seLinuxOptions"] == {"level": "s0"}


def test_every_pod_asks_for_linux(helm: Helm) -> None:
    values = {**WITH_OLLAMA, "worker": {"nodeSelector": {"pool": "gpu"}}}
    for owner, spec in pod_specs(helm.render(Rendering.of(values, sets=FIXED))):
        assert spec["nodeSelector"]["kubernetes.io/os"] == "linux", owner["metadata"]["name"]
        if owner["metadata"]["name"] == "selfheal-worker":
            assert spec["nodeSelector"]["pool"] == "gpu"


@pytest.mark.parametrize(
    ("strategy", "rendered"),
    [
        (
            {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
            {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
        ),
        ({"type": "Recreate"}, {"type": "Recreate"}),
    ],
)
def test_the_workers_strategy_can_be_set(
    helm: Helm, strategy: dict[str, Any], rendered: dict[str, Any]
) -> None:
    manifests = helm.render(Rendering.of({"worker": {"strategy": strategy}}, sets=FIXED))
    assert by_kind(manifests, "Deployment")["selfheal-worker"]["spec"]["strategy"] == rendered


@pytest.mark.parametrize(
    ("component", "variable"),
    [("worker", "QUEUE_NAME"), ("remediator", "POD_NAME"), ("ollama", "OLLAMA_HOST")],
)
def test_a_variable_is_given_once(helm: Helm, component: str, variable: str) -> None:
    extra = {"extraEnv": [{"name": variable, "value": "x"}]}
    values = {**WITH_OLLAMA, component: {**WITH_OLLAMA.get(component, {}), **extra}}
    with pytest.raises(Refused, match=rf"{component}\.extraEnv sets {variable}, which is set alr"):
        helm.render(Rendering.of(values, sets=FIXED))


def test_names_of_digits_stay_text(helm: Helm) -> None:
    """A release, Secret, class or claim may be called 123456, which YAML takes for a number."""
    name = "123456"
    values = {
        "fullnameOverride": name,
        "imagePullSecrets": [name],
        "nodeProblemDetector": {"namespace": name},
        "dashboards": {"enabled": True, "namespace": name},
        "alerts": {"enabled": True},
        "metrics": {"podMonitor": {"enabled": True}},
        "networkPolicy": {"enabled": True},
        "model": {"provider": "ollama", "name": name, "existingSecret": name, "secretKey": name},
        "models": {
            name: {
                "provider": "openai",
                "name": name,
                "baseUrl": "http://m",
                "existingSecret": name,
            }
        },
        "worker": {"priorityClassName": name},
        "ollama": {
            "enabled": True,
            "models": [name],
            "runtimeClassName": name,
            "persistence": {"enabled": True, "existingClaim": name},
        },
        "rabbitmq": {"enabled": False},
        "broker": {
            "host": name,
            "managementUrl": "https://broker:15671/",
            "existingSecret": name,
            "tls": {
                "enabled": True,
                "existingSecret": name,
                "caKey": name,
                "certKey": name,
                "keyKey": name,
            },
        },
    }
    rendering = Rendering.of(
        values,
        release=name,
        sets=FIXED,
        flags=("--api-versions=keda.sh/v1alpha1", "--api-versions=monitoring.coreos.com/v1"),
    )
    wrong = [
        problem
        for manifest in helm.render(rendering)
        if manifest["apiVersion"].partition("/")[0] not in CUSTOM
        for problem in problems(manifest, VERSIONS[-1], ())
    ]
    assert wrong == []
    for manifest in helm.render(rendering):
        assert _numbers_of(manifest, name) == [], manifest["kind"]


def _numbers_of(node: Any, name: str, path: str = "") -> list[str]:
    """Where the name stands as a number."""
    if isinstance(node, dict):
        return [
            found
            for key, item in node.items()
            for found in _numbers_of(item, name, f"{path}.{key}")
        ]
    if isinstance(node, list):
        return [found for item in node for found in _numbers_of(item, name, path)]
    return [path] if node == int(name) and not isinstance(node, bool) else []


def test_a_named_namespace_is_created_only_when_set_and_then_kept(helm: Helm) -> None:
    """Rendered it would be taken over, made `privileged`, and deleted with all that is in it."""

    def namespaces(*sets: str) -> dict[str, Manifest]:
        return by_kind(helm.template(*FIXED, *sets), "Namespace")

    named = "nodeProblemDetector.namespace=monitoring"
    create = "nodeProblemDetector.createNamespace"
    assert namespaces(named) == {}
    assert namespaces(named, f"{create}=false") == {}
    assert namespaces(f"{create}=false") == {}
    assert namespaces("nodeProblemDetector.enabled=false", f"{create}=true") == {}
    assert namespaces("nodeProblemDetector.namespace=selfheal", f"{create}=true") == {}
    made = namespaces(named, f"{create}=true")["monitoring"]["metadata"]
    assert made["annotations"] == {"helm.sh/resource-policy": "keep"}
    [own] = namespaces().values()
    assert own["metadata"]["name"] == "selfheal-node-problem-detector"
    assert namespaces(f"{create}=true").keys() == {own["metadata"]["name"]}


def _egress(helm: Helm, values: dict[str, Any], *flags: str) -> dict[str, list[Manifest]]:
    """The rules of the way out, by policy."""
    values = {**WITH_OLLAMA, **values}
    values["networkPolicy"] = {"enabled": True, **values.get("networkPolicy", {})}
    policies = by_kind(helm.template(*FIXED, values=values, flags=flags), "NetworkPolicy")
    return {name: policy["spec"].get("egress", []) for name, policy in policies.items()}


def _namespaces(rule: Manifest) -> list[str]:
    return [
        peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for peer in rule.get("to", [])
        if peer.get("namespaceSelector")
    ]


OPENSHIFT = {"compatibility": {"openshift": {"adaptSecurityContext": "force"}}}


@pytest.mark.parametrize(
    ("values", "ports", "places"),
    [
        ({}, {53}, ["kube-system"]),
        ({"global": OPENSHIFT}, {53, 5353}, ["kube-system", "openshift-dns"]),
        ({"networkPolicy": {"dnsPorts": [5300]}}, {5300}, ["kube-system"]),
        (
            {"global": OPENSHIFT, "networkPolicy": {"dnsPorts": [5300]}},
            {5300},
            ["kube-system", "openshift-dns"],
        ),
    ],
)
def test_names_are_asked_where_and_on_which_port_the_platform_has_them(
    helm: Helm, values: dict[str, Any], ports: set[int], places: list[str]
) -> None:
    asked = 0
    for name, rules in _egress(helm, values).items():
        for rule in rules:
            if "kube-system" in _namespaces(rule):
                asked += 1
                assert _namespaces(rule) == places, name
                both = {(p["port"], p["protocol"]) for p in rule["ports"]}
                assert both == {(port, kind) for port in ports for kind in ("UDP", "TCP")}
    # The broker calls nobody, and the detector's own calls are left open.
    assert asked == len([name for name, rules in _egress(helm, values).items() if rules])


def test_the_model_server_pulls_from_where_the_values_say(helm: Helm) -> None:
    def rules(**policy: Any) -> list[Manifest]:
        return _egress(helm, {"networkPolicy": policy})["selfheal-ollama"][1:]

    extra = {"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 3128}]}
    assert rules() == [{"ports": [{"port": 443}]}]
    assert rules(ollamaPorts=[5000]) == [{"ports": [{"port": 5000}]}]
    assert rules(ollamaPorts=[]) == []
    assert rules(ollamaPorts=[], ollamaExtraEgress=[extra]) == [extra]


def test_a_broker_given_as_a_uri_may_have_another_port(helm: Helm) -> None:
    values = {
        "rabbitmq": {"enabled": False},
        "broker": {"existingSecret": "b", "secretKeys": {"uri": "uri"}, "port": 30671},
        "autoscaling": {"mode": "none"},
    }
    for name in ("selfheal-worker", "selfheal-topology"):
        rules = _egress(helm, values)[name]
        assert {"ports": [{"port": 5671}, {"port": 5672}, {"port": 30671}]} in rules


def test_a_critical_class_has_a_quota_that_lets_it_in(helm: Helm) -> None:
    """GKE refuses these classes outside of kube-system without one."""

    def quotas(values: dict[str, Any]) -> dict[str, list[str]]:
        found = {}
        for manifest in helm.template(*FIXED, values={**WITH_OLLAMA, **values}):
            if manifest["kind"] == "ResourceQuota":
                [selected] = manifest["spec"]["scopeSelector"]["matchExpressions"]
                assert (selected["scopeName"], selected["operator"]) == ("PriorityClass", "In")
                assert manifest["spec"]["hard"].keys() == {"pods"}
                found[manifest["metadata"]["namespace"]] = selected["values"]
        return found

    cluster, node = "system-cluster-critical", "system-node-critical"
    both = {
        "remediator": {"priorityClassName": cluster},
        "nodeProblemDetector": {"priorityClassName": node},
    }
    assert quotas({}) == {}
    assert quotas({"remediator": {"priorityClassName": "high"}}) == {}
    assert quotas(both) == {"selfheal": [cluster], "selfheal-node-problem-detector": [node]}
    assert quotas({**both, "criticalPods": {"resourceQuota": False}}) == {}
    one = {**both, "nodeProblemDetector": {"priorityClassName": node, "namespace": "selfheal"}}
    assert quotas(one) == {"selfheal": [cluster, node]}
    there = {"nodeProblemDetector": {"priorityClassName": node, "namespace": "kube-system"}}
    assert quotas(there) == {}
    for key in ("worker", "rabbitmq"):
        assert quotas({key: {"priorityClassName": node}}) == {"selfheal": [node]}
    off = {"remediator": {"enabled": False, "priorityClassName": cluster}}
    assert quotas(off) == {}
