"""What a team adds of its own: to pods, to accounts, to the workers' way out."""

from __future__ import annotations

import json
import re

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


def test_the_model_server_has_a_runtime_class_when_set(helm: Helm) -> None:
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


def _pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The metadata of every pod that is made, by what makes it; Jobs without their hash."""
    found = {m["metadata"]["name"]: m["metadata"] for m in manifests if m["kind"] == "Pod"}
    for made in workloads(manifests):
        name = re.sub(r"-[0-9a-f]{8,10}$", "", made["metadata"]["name"])
        found[f"{made['kind']}/{name}"] = made["spec"]["template"]["metadata"]
    return found


JOBS = {
    "topology": {"Job/selfheal-topology", "Job/selfheal-rabbitmq-passwords"},
    "helmTest": {"selfheal-test-pipeline", "selfheal-test-remediator"},
    "remediator.uninstall": {"Job/selfheal-remediator-uninstall"},
}


@pytest.mark.parametrize("key", JOBS)
def test_pods_of_jobs_and_tests_take_labels_and_annotations(helm: Helm, key: str) -> None:
    values: Manifest = {
        "podLabels": {"team": "a"},
        "podAnnotations": {"sidecar.istio.io/inject": "false"},
    }
    for part in reversed(key.split(".")):
        values = {part: values}
    pods = _pods(helm.template(values=values))
    assert {name for name, one in pods.items() if one["labels"].get("team") == "a"} == JOBS[key]
    annotated = "sidecar.istio.io/inject"
    assert {name for name, one in pods.items() if annotated in one.get("annotations", {})} == JOBS[
        key
    ]
    if key == "helmTest":
        for name in JOBS[key]:
            assert pods[name]["annotations"]["helm.sh/hook"] == "test"


def test_every_pod_can_have_a_label_that_a_policy_requires(helm: Helm) -> None:
    labels = {"podLabels": {"team": "a"}}
    values: Manifest = {
        "model": MODEL,
        "ollama": {**OLLAMA, **labels},
        "remediator": {**labels, "uninstall": labels},
        **dict.fromkeys(("worker", "rabbitmq", "nodeProblemDetector"), labels),
        **dict.fromkeys(("topology", "helmTest"), labels),
    }
    pods = _pods(helm.template(values=values))
    assert [name for name, one in pods.items() if one["labels"].get("team") != "a"] == []


def test_two_releases_have_dashboards_of_two_uids_and_titles(helm: Helm) -> None:
    """Grafana stops loading where two have one; links lead to the release's own."""

    def boards(release: str, *flags: str) -> list[Manifest]:
        maps = by_kind(helm.template(release=release, flags=flags), "ConfigMap")
        texts = {
            file: json.loads(text)
            for name, one in maps.items()
            if "-dashboard-" in name
            for file, text in one["data"].items()
        }
        assert {f"{board['uid']}.json" for board in texts.values()} == texts.keys()
        return list(texts.values())

    releases = (
        boards("selfheal"),
        boards("feedback"),
        boards("selfheal", "--namespace=other"),
        boards("feedback", "--namespace=other"),
    )
    for key in ("uid", "title"):
        found = [board[key] for release in releases for board in release]
        assert len(found) == len(set(found)) == 16
    for release in releases:
        uids = {board["uid"] for board in release}
        assert max(map(len, uids)) <= 40
        for board in release:
            links = {link["url"].removeprefix("/d/") for link in board["links"]}
            assert links == uids - {board["uid"]}
    assert {board["uid"] for board in releases[0]} == {
        f"selfheal-{name}" for name in ("overview", "worker", "model", "remediation")
    }


def test_an_alert_leads_to_the_dashboard_of_its_release(helm: Helm) -> None:
    values = {"alerts": {"enabled": True, "grafanaUrl": "https://g.example"}}
    manifests = helm.template(release="feedback", values=values, flags=GROUPS[OPERATORS])
    [rules] = by_kind(manifests, "PrometheusRule").values()
    linked = set(re.findall(r"https://g\.example/d/([a-z0-9-]+)\?", json.dumps(rules)))
    maps = by_kind(manifests, "ConfigMap")
    files = {f for name, one in maps.items() if "-dashboard-" in name for f in one["data"]}
    assert linked
    assert {f"{uid}.json" for uid in linked} <= files
