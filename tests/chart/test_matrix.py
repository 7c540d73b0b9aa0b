"""Every case of chart/ci/ on every supported Kubernetes: valid, whole, and safe."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.chart.rendering import (
    CASES,
    CLUSTERS,
    PARTS,
    Helm,
    Manifest,
    by_kind,
    containers,
    containers_of,
    environment,
    on_cluster,
    pod_specs,
    workloads,
)
from tests.chart.schemas import problems

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

every_case = pytest.mark.parametrize("case", CASES)


@pytest.mark.parametrize("case", PARTS)
def test_lints_without_a_warning(helm: Helm, case: str) -> None:
    done = helm.lint(CASES[case])
    assert done.returncode == 0, done.stdout + done.stderr


@every_case
@pytest.mark.parametrize(("version", "groups"), CLUSTERS)
def test_is_what_the_api_server_knows(
    helm: Helm, crds: tuple[Path, ...], case: str, version: str, groups: str
) -> None:
    manifests = helm.render(on_cluster(case, version, groups))
    assert manifests
    assert [p for m in manifests for p in problems(m, version, crds)] == []


def test_a_wrong_field_is_found(helm: Helm, crds: tuple[Path, ...]) -> None:
    """The checks above can fail."""
    deployment = dict(by_kind(helm.case("default"), "Deployment")["selfheal-worker"])
    deployment["spec"] = {**deployment["spec"], "replica": 1}
    assert "replica" in "".join(problems(deployment, "1.34", crds))
    scaled = dict(by_kind(helm.case("default"), "ScaledObject")["selfheal-worker"])
    scaled["spec"] = {**scaled["spec"], "minReplicas": 1}
    assert "minReplicas" in "".join(problems(scaled, "1.34", crds))
    policy = dict(by_kind(helm.case("default"), "HealingPolicy")["selfheal-worker"])
    policy["spec"] = {**policy["spec"], "failureThreshold": 0}
    assert "failureThreshold" in "".join(problems(policy, "1.34", crds))


@every_case
def test_names_are_unique_and_valid(helm: Helm, case: str) -> None:
    manifests = helm.case(case)
    names = [(m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in manifests]
    assert len(names) == len(set(names))
    for _, _, name in names:
        assert DNS_LABEL.fullmatch(name), name


@every_case
def test_every_object_says_what_it_belongs_to(helm: Helm, case: str) -> None:
    for manifest in helm.case(case):
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "selfheal"
        assert labels["app.kubernetes.io/instance"] == "selfheal"
        assert labels["app.kubernetes.io/component"]
        assert labels["helm.sh/chart"].startswith("selfheal-")


@every_case
def test_what_pods_refer_to_is_there(helm: Helm, case: str) -> None:
    """Config maps and accounts are the chart's own; secrets and classes are its own or named in
    the case."""
    manifests = helm.case(case)
    known = {(m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in manifests}
    given = " ".join(path.read_text(encoding="utf-8") for path in CASES[case])
    for owner, spec in pod_specs(manifests):
        namespace = owner["metadata"]["namespace"]
        assert ("ServiceAccount", namespace, spec["serviceAccountName"]) in known
        for kind, name in _references(spec):
            assert (kind, namespace, name) in known or (kind == "Secret" and name in given), name
        rank = spec.get("priorityClassName", "")
        assert ("PriorityClass", None, rank) in known or rank in given, rank


def _references(spec: Manifest) -> list[tuple[str, str]]:
    found = []
    for volume in spec["volumes"]:
        for source in [volume, *volume.get("projected", {}).get("sources", [])]:
            if "configMap" in source:
                found.append(("ConfigMap", source["configMap"]["name"]))
            if "secret" in source:
                secret = source["secret"]
                found.append(("Secret", secret.get("secretName", secret.get("name"))))
    for container in containers_of(spec):
        for variable in container.get("env", []):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference:
                found.append(("Secret", reference["name"]))
    return found


@every_case
def test_mounts_and_ports_are_declared(helm: Helm, case: str) -> None:
    for owner, spec in pod_specs(helm.case(case)):
        claims = owner["spec"].get("volumeClaimTemplates", [])
        volumes = {v["name"] for v in spec["volumes"]}
        volumes |= {c["metadata"]["name"] for c in claims}
        for container in containers_of(spec):
            assert {m["name"] for m in container["volumeMounts"]} <= volumes
            ports = {p["name"] for p in container.get("ports", [])} | {8080}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                check = container.get(probe, {})
                for how in ("httpGet", "tcpSocket"):
                    if how in check:
                        assert check[how]["port"] in ports


@every_case
def test_every_file_that_a_variable_names_is_mounted(helm: Helm, case: str) -> None:
    assert _without_a_mount(helm.case(case)) == []


def test_a_test_pod_has_what_its_worker_needs(helm: Helm) -> None:
    """A private certificate authority, a model in the process, the room for it."""
    volume = {"name": "brought", "persistentVolumeClaim": {"claimName": "models"}}
    mount = {"name": "brought", "mountPath": "/brought"}
    resources = {"requests": {"memory": "6Gi"}, "limits": {"memory": "8Gi"}}
    worker = {
        "extraEnv": [{"name": "SSL_CERT_FILE", "value": "/brought/ca.crt"}],
        "extraVolumes": [volume],
        "extraVolumeMounts": [mount],
        "resources": resources,
    }
    model = {"provider": "llamacpp", "name": "/brought/model.gguf"}
    manifests = helm.template(values={"model": model, "worker": worker})
    assert _without_a_mount(manifests) == []
    spec = by_kind(manifests, "Pod")["selfheal-test-pipeline"]["spec"]
    [beside] = spec["initContainers"]
    assert volume in spec["volumes"]
    assert mount in beside["volumeMounts"]
    assert beside["resources"] == resources | {"requests": {"cpu": "100m", "memory": "6Gi"}}


def _without_a_mount(manifests: list[Manifest]) -> list[str]:
    """Absolute paths in variables that are under no mount of their container."""
    found = []
    for owner, spec in pod_specs(manifests):
        for container in containers_of(spec):
            places = [m["mountPath"].rstrip("/") + "/" for m in container["volumeMounts"]]
            for name, value in environment(container).items():
                # A virtual host is no path, and a folder of models may be in the image.
                if name in {"AMQP_VHOST", "OLLAMA_MODELS"} or not str(value).startswith("/"):
                    continue
                if not any(f"{value}/".startswith(place) for place in places):
                    found.append(f"{owner['metadata']['name']}: {name}={value}")
    return found


@every_case
def test_selectors_find_their_own_pods_only(helm: Helm, case: str) -> None:
    manifests = helm.case(case)
    pods = [(m, m["spec"]["template"]["metadata"]["labels"]) for m in workloads(manifests)]
    tests = [(m, m["metadata"]["labels"]) for m in manifests if m["kind"] == "Pod"]
    for manifest in manifests:
        wanted = _selector(manifest)
        if wanted is None:
            continue
        found = [m for m, labels in pods + tests if wanted.items() <= labels.items()]
        kinds = {m["metadata"]["labels"]["app.kubernetes.io/component"] for m in found}
        assert len(kinds) == 1, f"{manifest['kind']} {manifest['metadata']['name']}"
        assert len(found) == 1 or kinds == {"helm-test"}
        for made in found:
            assert made["metadata"]["namespace"] == manifest["metadata"]["namespace"]


def _selector(manifest: Manifest) -> dict[str, str] | None:
    if manifest["kind"] == "Service":
        selector: dict[str, str] = manifest["spec"]["selector"]
        return selector
    if manifest["kind"] == "NetworkPolicy":
        return dict(manifest["spec"]["podSelector"]["matchLabels"])
    chosen = manifest.get("spec", {}).get("selector")
    return chosen["matchLabels"] if isinstance(chosen, dict) else None


@every_case
def test_services_and_monitors_name_ports_that_exist(helm: Helm, case: str) -> None:
    manifests = helm.case(case)
    ports = {
        m["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]: {
            p["name"] for c in containers(m["spec"]["template"]) for p in c.get("ports", [])
        }
        for m in workloads(manifests)
    }
    for manifest in manifests:
        component = manifest["metadata"]["labels"]["app.kubernetes.io/component"]
        if manifest["kind"] == "Service":
            assert {p["targetPort"] for p in manifest["spec"]["ports"]} <= ports[component]
        if manifest["kind"] == "NetworkPolicy":
            named = {p["port"] for p in _allowed(manifest, "ingress") if isinstance(p["port"], str)}
            assert named <= ports.get(component, set())
        if manifest["kind"] == "PodMonitor":
            wanted = {e["port"] for e in manifest["spec"]["podMetricsEndpoints"]}
            assert wanted <= ports[component]


def _allowed(policy: Manifest, way: str) -> list[Manifest]:
    return [port for rule in policy["spec"].get(way, []) for port in rule["ports"]]


@every_case
def test_a_deployment_has_one_autoscaler_or_a_number(helm: Helm, case: str) -> None:
    manifests = helm.case(case)
    scaled = [
        m["spec"]["scaleTargetRef"]["name"]
        for m in manifests
        if m["kind"] in {"ScaledObject", "HorizontalPodAutoscaler"}
    ]
    assert len(scaled) == len(set(scaled))
    for name, deployment in by_kind(manifests, "Deployment").items():
        assert ("replicas" in deployment["spec"]) == (name not in scaled), name
    assert set(scaled) <= by_kind(manifests, "Deployment").keys()


@every_case
def test_no_disruption_budget_can_block_a_drain(helm: Helm, case: str) -> None:
    for budget in by_kind(helm.case(case), "PodDisruptionBudget").values():
        assert "minAvailable" not in budget["spec"]
        assert str(budget["spec"]["maxUnavailable"]) not in {"0", "0%"}
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@pytest.mark.parametrize("case", ["production", "gpu"])
def test_with_network_policies_every_pod_of_the_release_has_one(helm: Helm, case: str) -> None:
    manifests = helm.case(case)
    covered = {
        p["metadata"]["labels"]["app.kubernetes.io/component"]
        for p in by_kind(manifests, "NetworkPolicy").values()
        if p["spec"]["policyTypes"] == ["Ingress", "Egress"]
    }
    assert covered == {
        owner["metadata"]["labels"]["app.kubernetes.io/component"]
        for owner, _ in pod_specs(manifests)
        if owner["metadata"]["namespace"] == "selfheal"
    }


def test_network_policies_let_through_what_must_pass(helm: Helm) -> None:
    """KEDA to the management API, clients to the broker, Prometheus and remediator to workers."""
    policies = by_kind(helm.template("networkPolicy.enabled=true"), "NetworkPolicy")
    assert _who(policies["selfheal-rabbitmq"], "ingress") == {
        ("worker", "amqp"),
        ("topology", "amqp"),
        ("helm-test", "amqp"),
        ("every pod here", "amqp"),
        ("keda", "management"),
        ("monitoring", "prometheus"),
    }
    assert _who(policies["selfheal-rabbitmq"], "egress") == set()
    assert _who(policies["selfheal-worker"], "ingress") == {
        ("monitoring", "http"),
        ("remediator", "http"),
    }
    assert _who(policies["selfheal-worker"], "egress") == {
        ("kube-system", 53),
        ("rabbitmq", "amqp"),
    }
    assert _who(policies["selfheal-node-problem-detector"], "ingress") == {
        ("monitoring", "metrics")
    }
    assert _who(policies["selfheal-helm-test"], "ingress") == set()
    assert _who(policies["selfheal-helm-test"], "egress") == {
        ("kube-system", 53),
        ("rabbitmq", "amqp"),
        ("anywhere", 443),
        ("anywhere", 6443),
    }
    assert _who(policies["selfheal-remediator"], "egress") == {
        ("kube-system", 53),
        ("anywhere", 443),
        ("anywhere", 6443),
        ("worker", "http"),
    }


def test_the_remediator_reaches_workers_of_other_releases(helm: Helm) -> None:
    """One asks for the progress of all; a release without one lets it in."""
    both = by_kind(helm.template("networkPolicy.enabled=true"), "NetworkPolicy")
    [asks] = [
        peer
        for rule in both["selfheal-remediator"]["spec"]["egress"]
        for peer in rule.get("to", [])
        if "namespaceSelector" in peer and "podSelector" in peer
    ]
    second = by_kind(
        helm.template("networkPolicy.enabled=true", "remediator.enabled=false", release="other"),
        "NetworkPolicy",
    )["other-selfheal-worker"]
    [asked] = [
        peer for rule in second["spec"]["ingress"] for peer in rule["from"] if "podSelector" in peer
    ]
    assert asks["namespaceSelector"] == asked["namespaceSelector"] == {}
    assert _selects(asks, "worker", "other")
    assert _selects(asked, "remediator", "selfheal")
    [own] = [
        peer
        for rule in both["selfheal-worker"]["spec"]["ingress"]
        for peer in rule["from"]
        if "podSelector" in peer
    ]
    assert _selects(own, "remediator", "selfheal")
    assert not _selects(own, "remediator", "other")


def test_the_remediator_may_ask_other_pods_where_values_say_so(helm: Helm) -> None:
    rule = {"to": [{"podSelector": {"matchLabels": {"app": "batch"}}}], "ports": [{"port": 9000}]}
    values = {"networkPolicy": {"enabled": True, "progressTo": [rule]}}
    policies = by_kind(helm.template(values=values), "NetworkPolicy")
    assert rule in policies["selfheal-remediator"]["spec"]["egress"]


def _selects(peer: Manifest, component: str, release: str) -> bool:
    labels = {
        "app.kubernetes.io/name": "selfheal",
        "app.kubernetes.io/instance": release,
        "app.kubernetes.io/component": component,
    }
    return bool(peer["podSelector"]["matchLabels"].items() <= labels.items())


@pytest.mark.parametrize(
    ("url", "port"),
    [("http://llm:8000/v1", 8000), ("https://llm.example/v1", 443), ("http://llm", 80)],
)
def test_workers_may_reach_the_port_of_the_model_server(helm: Helm, url: str, port: int) -> None:
    model = ("model.provider=openai", "model.name=m", f"model.baseUrl={url}")
    policies = by_kind(helm.template("networkPolicy.enabled=true", *model), "NetworkPolicy")
    assert ("anywhere", port) in _who(policies["selfheal-worker"], "egress")


def _who(policy: Manifest, way: str) -> set[tuple[str, str | int]]:
    found = set()
    for rule in policy["spec"].get(way, []):
        for peer in rule.get("from" if way == "ingress" else "to", [{}]):
            for port in rule["ports"]:
                found.add((_peer(peer), port["port"]))
    return found


def _peer(peer: Manifest) -> str:
    if peer.get("namespaceSelector"):
        return str(peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"])
    if "podSelector" in peer:
        labels = peer["podSelector"].get("matchLabels", {})
        return str(labels.get("app.kubernetes.io/component", "every pod here"))
    return "anywhere"


@every_case
def test_no_variable_is_given_twice(helm: Helm, case: str) -> None:
    """Server-side apply refuses a list with two entries of one name."""
    for owner, spec in pod_specs(helm.case(case)):
        for container in containers_of(spec):
            names = [variable["name"] for variable in container.get("env", [])]
            assert len(names) == len(set(names)), owner["metadata"]["name"]


def test_helm_test_has_queues_of_its_own(helm: Helm) -> None:
    """It takes nobody's messages and nobody's answers."""
    manifests = helm.template("queue.name=q", "queue.results=answers", "queue.deadLetters=dead")
    pod = by_kind(manifests, "Pod")["selfheal-test-pipeline"]
    for container in containers_of(pod["spec"]):
        variables = environment(container)
        assert variables["QUEUE_NAME"] == "q.helm-test"
        assert variables["RESULTS_QUEUE"] == "q.helm-test.results"
        assert variables["DLQ_NAME"] == "q.helm-test.dead-letters"
