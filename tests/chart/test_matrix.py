"""Every case of chart/ci/ on every supported Kubernetes: valid, whole, and safe."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.chart.rendering import CASES, Helm, Manifest, by_kind, containers, workloads
from tests.chart.schemas import problems

KUBERNETES = ["1.31", "1.32", "1.33", "1.34"]
GROUPS = {
    "no API groups": [],
    "KEDA and the Prometheus operator": [
        "--api-versions=keda.sh/v1alpha1",
        "--api-versions=monitoring.coreos.com/v1",
    ],
}
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

every_case = pytest.mark.parametrize("case", CASES)


@every_case
def test_lints_without_a_warning(helm: Helm, case: str) -> None:
    done = helm.lint(CASES[case])
    assert done.returncode == 0, done.stdout + done.stderr


@every_case
@pytest.mark.parametrize(
    ("version", "groups"),
    [(version, "KEDA and the Prometheus operator") for version in KUBERNETES]
    + [("1.34", "no API groups")],
)
def test_is_what_the_api_server_knows(
    helm: Helm, crds: Path, case: str, version: str, groups: str
) -> None:
    flags = [f"--kube-version={version}.0", *GROUPS[groups]]
    manifests = helm.case(case, flags=flags)
    assert manifests
    assert [p for m in manifests for p in problems(m, version, crds)] == []


def test_a_wrong_field_is_found(helm: Helm, crds: Path) -> None:
    """The checks above can fail."""
    deployment = dict(by_kind(helm.case("default"), "Deployment")["selfheal-worker"])
    deployment["spec"] = {**deployment["spec"], "replica": 1}
    assert "replica" in "".join(problems(deployment, "1.34", crds))
    scaled = dict(by_kind(helm.case("default"), "ScaledObject")["selfheal-worker"])
    scaled["spec"] = {**scaled["spec"], "minReplicas": 1}
    assert "minReplicas" in "".join(problems(scaled, "1.34", crds))


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
    """Config maps and accounts are the chart's own; secrets are its own or named in the case."""
    manifests = helm.case(case)
    known = {(m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in manifests}
    given = " ".join(path.read_text(encoding="utf-8") for path in CASES[case])
    for workload in workloads(manifests):
        namespace = workload["metadata"]["namespace"]
        spec = workload["spec"]["template"]["spec"]
        assert ("ServiceAccount", namespace, spec["serviceAccountName"]) in known
        for kind, name in _references(spec):
            assert (kind, namespace, name) in known or (kind == "Secret" and name in given), name


def _references(spec: Manifest) -> list[tuple[str, str]]:
    found = []
    for volume in spec["volumes"]:
        for source in [volume, *volume.get("projected", {}).get("sources", [])]:
            if "configMap" in source:
                found.append(("ConfigMap", source["configMap"]["name"]))
            if "secret" in source:
                secret = source["secret"]
                found.append(("Secret", secret.get("secretName", secret.get("name"))))
    for container in spec["containers"]:
        for variable in container.get("env", []):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference:
                found.append(("Secret", reference["name"]))
    return found


@every_case
def test_mounts_and_ports_are_declared(helm: Helm, case: str) -> None:
    for workload in workloads(helm.case(case)):
        template = workload["spec"]["template"]
        claims = workload["spec"].get("volumeClaimTemplates", [])
        volumes = {v["name"] for v in template["spec"]["volumes"]}
        volumes |= {c["metadata"]["name"] for c in claims}
        for container in containers(template):
            assert {m["name"] for m in container["volumeMounts"]} <= volumes
            ports = {p["name"] for p in container.get("ports", [])}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                check = container.get(probe, {})
                for how in ("httpGet", "tcpSocket"):
                    if how in check:
                        assert check[how]["port"] in ports


@every_case
def test_selectors_find_their_own_pods_only(helm: Helm, case: str) -> None:
    manifests = helm.case(case)
    pods = [(m, m["spec"]["template"]["metadata"]["labels"]) for m in workloads(manifests)]
    for manifest in manifests:
        wanted = _selector(manifest)
        if wanted is None:
            continue
        found = [m for m, labels in pods if wanted.items() <= labels.items()]
        assert len(found) == 1, f"{manifest['kind']} {manifest['metadata']['name']}"
        [workload] = found
        assert workload["metadata"]["namespace"] == manifest["metadata"]["namespace"]


def _selector(manifest: Manifest) -> dict[str, str] | None:
    if manifest["kind"] == "Service":
        selector: dict[str, str] = manifest["spec"]["selector"]
        return selector
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
        if manifest["kind"] == "PodMonitor":
            wanted = {e["port"] for e in manifest["spec"]["podMetricsEndpoints"]}
            assert wanted <= ports[component]


@every_case
def test_at_most_one_autoscaler(helm: Helm, case: str) -> None:
    manifests = helm.case(case)
    scalers = [*by_kind(manifests, "ScaledObject"), *by_kind(manifests, "HorizontalPodAutoscaler")]
    assert len(scalers) <= 1
    worker = by_kind(manifests, "Deployment").get("selfheal-worker")
    if worker is not None:
        assert ("replicas" in worker["spec"]) == (not scalers)


@every_case
def test_no_disruption_budget_can_block_a_drain(helm: Helm, case: str) -> None:
    for budget in by_kind(helm.case(case), "PodDisruptionBudget").values():
        assert "minAvailable" not in budget["spec"]
        assert str(budget["spec"]["maxUnavailable"]) not in {"0", "0%"}
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
