"""What a team adds of its own: to pods, to accounts, to the workers' way out."""

from __future__ import annotations

import pytest

from tests.chart.rendering import GROUPS, OPERATORS, Helm, Manifest, by_kind, workloads

OLLAMA = {"enabled": True, "models": ["m"]}
MODEL = {"provider": "ollama", "name": "m"}
#: Values of a component → its pods' component.
COMPONENTS = {
    "worker": "worker",
    "rabbitmq": "rabbitmq",
    "ollama": "ollama",
    "remediator": "remediator",
    "nodeProblemDetector": "node-problem-detector",
}


def _with(helm: Helm, key: str, added: Manifest) -> list[Manifest]:
    """A release with every component, one of them with more values."""
    values: Manifest = {"model": MODEL, "ollama": OLLAMA}
    values[key] = values.get(key, {}) | added
    return helm.template(values=values)


def _pod_labels(manifests: list[Manifest]) -> dict[str, dict[str, str]]:
    """The pods' labels, by component."""
    labels = [m["spec"]["template"]["metadata"]["labels"] for m in workloads(manifests)]
    return {one["app.kubernetes.io/component"]: one for one in labels}


@pytest.mark.parametrize("key", COMPONENTS)
def test_labels_are_added_to_the_pods_of_one_component(helm: Helm, key: str) -> None:
    manifests = _with(helm, key, {"podLabels": {"team": "a"}})
    labels = _pod_labels(manifests)
    assert {part for part, one in labels.items() if one.get("team") == "a"} == {COMPONENTS[key]}
    assert "a" not in [
        m["spec"].get("selector", {}).get("matchLabels", {}).get("team")
        for m in workloads(manifests)
    ]


def test_the_worker_of_helm_test_has_the_labels_of_workers(helm: Helm) -> None:
    """A cloud that gives its identity by a label gives it there too; its own labels stay."""
    added = {"azure.workload.identity/use": "true", "app.kubernetes.io/part-of": "shop"}
    manifests = _with(helm, "worker", {"podLabels": added})
    assert added.items() <= _pod_labels(manifests)["worker"].items()
    labels = by_kind(manifests, "Pod")["selfheal-test-pipeline"]["metadata"]["labels"]
    assert labels["azure.workload.identity/use"] == "true"
    assert labels["app.kubernetes.io/part-of"] == "selfheal"
    assert labels["app.kubernetes.io/component"] == "helm-test"


def test_a_label_that_is_given_twice_is_there_once(helm: Helm) -> None:
    """Strict readers of YAML refuse a second one. What selects an object finds it."""
    monitors = {"podMonitor": {"enabled": True, "labels": {"release": "prometheus"}}}
    values = {"commonLabels": {"release": "feelings", "team": "a"}, "metrics": monitors}
    manifests = helm.template(values=values, flags=GROUPS[OPERATORS])
    for manifest in manifests:
        labels = manifest["metadata"]["labels"]
        selected = manifest["kind"] == "PodMonitor"
        assert labels["release"] == ("prometheus" if selected else "feelings")
        assert labels["team"] == "a"
        assert labels["app.kubernetes.io/part-of"] == "selfheal"


@pytest.mark.parametrize("key", ["worker", "ollama", "remediator"])
def test_an_account_takes_annotations(helm: Helm, key: str) -> None:
    role = {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/r"}
    accounts = by_kind(
        _with(helm, key, {"serviceAccount": {"annotations": role}}), "ServiceAccount"
    )
    annotated = {name for name, one in accounts.items() if "annotations" in one["metadata"]}
    assert annotated == {f"selfheal-{key}"}
    assert accounts[f"selfheal-{key}"]["metadata"]["annotations"] == role


def test_the_model_server_has_a_runtime_class_when_told(helm: Helm) -> None:
    def pod(added: Manifest) -> Manifest:
        server = by_kind(_with(helm, "ollama", added), "Deployment")["selfheal-ollama"]
        found: Manifest = server["spec"]["template"]["spec"]
        return found

    assert "runtimeClassName" not in pod({})
    assert pod({"runtimeClassName": "nvidia"})["runtimeClassName"] == "nvidia"


def test_workers_may_go_where_values_say_and_nobody_else(helm: Helm) -> None:
    rule = {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 4317}]}
    policies = by_kind(
        _with(helm, "networkPolicy", {"enabled": True, "extraEgress": [rule]}), "NetworkPolicy"
    )
    # `helm test` runs a worker.
    assert {name for name, one in policies.items() if rule in one["spec"].get("egress", [])} == {
        "selfheal-worker",
        "selfheal-helm-test",
    }
