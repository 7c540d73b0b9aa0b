"""Where the chart is installed: each platform's rules, on the oldest and the newest Kubernetes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.chart.pod_security import violations
from tests.chart.rendering import (
    CHART,
    FIXED,
    VERSIONS,
    Helm,
    Manifest,
    by_kind,
    containers_of,
    environment,
    pod_specs,
    workloads,
)
from tests.chart.schemas import problems

Values = dict[str, Any]

OPERATORS = (
    *("keda.sh/v1alpha1", "keda.sh/v1alpha1/ScaledObject"),
    *("monitoring.coreos.com/v1", "autoscaling.k8s.io/v1"),
)
ON_OPENSHIFT = ("security.openshift.io/v1", "route.openshift.io/v1")
#: Argo CD and Flux's own `build` say which kinds there are, and let no template look.
KINDS = ("v1", "v1/Secret", "v1/Namespace", "apps/v1", "apps/v1/Deployment")
OLLAMA: Values = {
    "model": {"provider": "ollama", "name": "m"},
    "ollama": {"enabled": True, "models": ["m"]},
}
#: What production clusters have everywhere.
COMMON: Values = {
    **OLLAMA,
    "networkPolicy": {"enabled": True},
    "metrics": {"podMonitor": {"enabled": True}},
    "alerts": {"enabled": True},
    "verticalPodAutoscaler": {"enabled": True},
}
COMPONENTS = ("worker", "rabbitmq", "ollama", "remediator", "nodeProblemDetector")
LONGEST = "the-longest-name-that-helm-allows-for-a-release-0123x"


def _with(key: str, *components: str, **values: Any) -> Values:
    """These values of several components."""
    return {component: {key: values} for component in components}


def _merged(*parts: Values) -> Values:
    found: Values = {}
    for part in parts:
        for key, value in part.items():
            both = isinstance(value, dict) and isinstance(found.get(key), dict)
            found[key] = _merged(found[key], value) if both else value
    return found


def _openshift(manifests: Sequence[Manifest]) -> None:
    for owner, spec in _of_release(manifests):
        for context in [spec["securityContext"], *(c["securityContext"] for c in _all(spec))]:
            assert not {"runAsUser", "runAsGroup", "fsGroup"} & context.keys(), owner
    text = json.dumps([m for m in manifests if m["kind"] == "NetworkPolicy"])
    assert "openshift-dns" in text
    assert "5353" in text


def _gke(manifests: Sequence[Manifest]) -> None:
    assert not by_kind(manifests, "DaemonSet")
    [quota] = by_kind(manifests, "ResourceQuota").values()
    ranks = {spec.get("priorityClassName", "") for _, spec in pod_specs(manifests)}
    critical = {rank for rank in ranks if rank.startswith("system-")}
    assert critical == set(quota["spec"]["scopeSelector"]["matchExpressions"][0]["values"])


def _eks(manifests: Sequence[Manifest]) -> None:
    account = by_kind(manifests, "ServiceAccount")["selfheal-worker"]
    assert "eks.amazonaws.com/role-arn" in account["metadata"]["annotations"]
    [broker] = by_kind(manifests, "StatefulSet").values()
    assert broker["spec"]["volumeClaimTemplates"][0]["spec"]["storageClassName"] == "gp3"


def _aks(manifests: Sequence[Manifest]) -> None:
    assert not by_kind(manifests, "DaemonSet")
    for owner, spec in _of_release(manifests):
        if owner["metadata"]["name"] in {"selfheal-worker", "selfheal-test-pipeline"}:
            template = owner if owner["kind"] == "Pod" else owner["spec"]["template"]
            assert template["metadata"]["labels"]["azure.workload.identity/use"] == "true"
            assert spec["tolerations"]


def _air_gapped(manifests: Sequence[Manifest]) -> None:
    for owner, spec in pod_specs(manifests):
        assert spec["imagePullSecrets"] == [{"name": "mirror"}], owner["metadata"]["name"]
        for container in containers_of(spec):
            assert container["image"].startswith("mirror.example.com:5000/")
    clients = {"selfheal-worker": 0, "selfheal-ollama": 0, "selfheal-test-pipeline": 0}
    for owner, spec in pod_specs(manifests):
        for container in containers_of(spec):
            if "SSL_CERT_FILE" in (found := environment(container)):
                _trusts(spec, container, found)
                clients[owner["metadata"]["name"]] += 1
    # The container that pulls the models, and the server after it.
    assert clients == {"selfheal-worker": 1, "selfheal-ollama": 2, "selfheal-test-pipeline": 1}
    ports = by_kind(manifests, "NetworkPolicy")["selfheal-ollama"]["spec"]["egress"]
    assert {"ports": [{"port": 443}]} not in ports


def _trusts(spec: Manifest, container: Manifest, variables: dict[str, Any]) -> None:
    """The file that the variables name is that key of the ConfigMap."""
    path = variables["SSL_CERT_FILE"]
    assert variables["REQUESTS_CA_BUNDLE"] == path
    [volume] = [v for v in spec["volumes"] if v["name"] == "ca"]
    [mount] = [m for m in container["volumeMounts"] if m["name"] == "ca"]
    [item] = volume["configMap"]["items"]
    assert (volume["configMap"]["name"], item["key"]) == ("private-ca", "root.pem")
    assert path == f"{mount['mountPath']}/{item['path']}"


def _arm(manifests: Sequence[Manifest]) -> None:
    for owner, spec in pod_specs(manifests):
        assert spec["nodeSelector"]["kubernetes.io/arch"] == "arm64", owner["metadata"]["name"]


def _ipv6(manifests: Sequence[Manifest]) -> None:
    for service in by_kind(manifests, "Service").values():
        # What the cluster has, and nothing of one family alone.
        assert not {"ipFamilies", "ipFamilyPolicy", "clusterIP"} & service["spec"].keys()
    policy = by_kind(manifests, "NetworkPolicy")["selfheal-worker"]["spec"]["egress"]
    assert {"ports": [{"port": 8000}]} in policy
    _every_address(manifests)


def _every_address(manifests: Sequence[Manifest]) -> None:
    """What listens to 0.0.0.0 cannot be reached where there is IPv6 alone."""
    assert "0.0.0.0" not in json.dumps([m for m in manifests if m["kind"] != "ConfigMap"])


def _argo_cd(manifests: Sequence[Manifest]) -> None:
    """No object of the sync is a hook; a Job that is there already is never changed."""
    hooks = [m for m in manifests if "helm.sh/hook" in m["metadata"].get("annotations", {})]
    assert {h["metadata"]["annotations"]["helm.sh/hook"] for h in hooks} <= {"test", "pre-delete"}
    for name in by_kind(manifests, "Job"):
        assert name.endswith("-uninstall") or name.rpartition("-")[2].isalnum()
    secret = by_kind(manifests, "Secret")["selfheal-rabbitmq"]
    assert not {"password", "monitor-password"} & secret["stringData"].keys()


def _nothing(_: Sequence[Manifest]) -> None:
    """Nothing but what holds everywhere."""


@dataclass(frozen=True)
class Platform:
    """Values and API groups of a platform, and what holds only there."""

    values: Values
    holds: Callable[[Sequence[Manifest]], None] = _nothing
    groups: tuple[str, ...] = OPERATORS
    release: str = "selfheal"
    sets: tuple[str, ...] = FIXED
    flags: tuple[str, ...] = field(default=())


OFF: Values = {"enabled": False}
PLATFORMS = {
    "plain": Platform({}, groups=()),
    "all of it": Platform(COMMON),
    "OpenShift": Platform(
        _merged(COMMON, {"nodeProblemDetector": OFF}), _openshift, (*OPERATORS, *ON_OPENSHIFT)
    ),
    "GKE": Platform(
        _merged(
            COMMON,
            {
                "nodeProblemDetector": OFF,
                "remediator": {"priorityClassName": "system-cluster-critical"},
                "networkPolicy": {"dnsTo": [{"ipBlock": {"cidr": "169.254.20.10/32"}}]},
            },
        ),
        _gke,
    ),
    "EKS": Platform(
        _merged(
            COMMON,
            {
                "worker": {"serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "a"}}},
                "rabbitmq": {"persistence": {"storageClass": "gp3"}},
                "remediator": {"config": {"limits": {"groupLabel": "eks.amazonaws.com/nodegroup"}}},
            },
        ),
        _eks,
    ),
    "AKS": Platform(
        _merged(
            COMMON,
            {
                "nodeProblemDetector": OFF,
                "worker": {
                    "podLabels": {"azure.workload.identity/use": "true"},
                    "tolerations": [
                        {
                            "key": "kubernetes.azure.com/scalesetpriority",
                            "operator": "Equal",
                            "value": "spot",
                            "effect": "NoSchedule",
                        }
                    ],
                },
            },
        ),
        _aks,
    ),
    "air-gapped": Platform(
        _merged(
            COMMON,
            {
                "global": {
                    "imageRegistry": "mirror.example.com:5000",
                    "imagePullSecrets": ["mirror"],
                },
                "ollama": {"modelsInImage": "/models"},
                "networkPolicy": {"ollamaPorts": []},
                "model": {"ca": {"existingConfigMap": "private-ca", "key": "root.pem"}},
            },
        ),
        _air_gapped,
    ),
    "ARM": Platform(
        _merged(
            COMMON,
            _with("nodeSelector", *COMPONENTS, **{"kubernetes.io/arch": "arm64"}),
        ),
        _arm,
    ),
    "IPv6": Platform(
        {
            "networkPolicy": {
                "enabled": True,
                "metricsFrom": [{"ipBlock": {"cidr": "fd00::/8"}}],
            },
            "model": {"provider": "openai", "name": "m", "baseUrl": "http://[fd00::1]:8000/v1"},
        },
        _ipv6,
    ),
    "IPv6, a model server in the release": Platform(COMMON, _every_address),
    "Argo CD": Platform(COMMON, _argo_cd, (*OPERATORS, *KINDS), sets=()),
    "Argo CD, a Secret of one's own": Platform(
        _merged(COMMON, {"rabbitmq": {"auth": {"existingSecret": "broker"}}}),
        groups=(*OPERATORS, *KINDS),
        sets=(),
    ),
    "Flux": Platform(COMMON, groups=(*OPERATORS, *KINDS), flags=("--is-upgrade",)),
    "a name of 53 characters": Platform(COMMON, release=LONGEST),
}


def _all(spec: Manifest) -> list[Manifest]:
    return containers_of(spec)


def _of_release(manifests: Sequence[Manifest]) -> list[tuple[Manifest, Manifest]]:
    """What makes pods in the release's namespace, with their spec."""
    return [
        (owner, spec)
        for owner, spec in pod_specs(manifests)
        if owner["metadata"]["namespace"] == "selfheal"
    ]


def _render(helm: Helm, platform: Platform, version: str) -> list[Manifest]:
    groups = [f"--api-versions={group}" for group in platform.groups]
    return helm.template(
        *platform.sets,
        values=platform.values,
        release=platform.release,
        flags=[f"--kube-version={version}.0", *groups, *platform.flags],
    )


def _sound(manifests: Sequence[Manifest], version: str, crds: tuple[Path, ...]) -> None:
    """What holds everywhere."""
    assert [p for m in manifests for p in problems(m, version, crds)] == []
    names = [(m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in manifests]
    assert len(names) == len(set(names))
    assert max(len(m["metadata"]["name"]) for m in manifests if m["kind"] == "Job") <= 63
    for owner, spec in _of_release(manifests):
        assert violations(spec) == [], owner["metadata"]["name"]
        for container in containers_of(spec):
            variables = [variable["name"] for variable in container.get("env", [])]
            assert len(variables) == len(set(variables)), owner["metadata"]["name"]


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
@pytest.mark.parametrize("name", PLATFORMS)
def test_a_platform_takes_what_is_rendered_for_it(
    helm: Helm, crds: tuple[Path, ...], name: str, version: str
) -> None:
    platform = PLATFORMS[name]
    manifests = _render(helm, platform, version)
    _sound(manifests, version, crds)
    platform.holds(manifests)


#: Two pipelines with one block of values, as people write it.
UMBRELLA = """
x-common: &common
  remediator: {enabled: false}
  nodeProblemDetector: {enabled: false}
  networkPolicy: {enabled: true}
reviews:
  <<: *common
  queue: {name: reviews}
tickets:
  <<: *common
  x-workers: &workers {cpu: 200m, memory: 256Mi}
  queue: {name: tickets}
  worker: {resources: {requests: *workers}}
"""


def _umbrella(folder: Path) -> Path:
    umbrella = folder / "umbrella"
    shutil.copytree(CHART, umbrella / "charts" / "selfheal")
    needed = [
        {"name": "selfheal", "version": ">=0.0.0", "alias": alias}
        for alias in ("reviews", "tickets")
    ]
    about = {"apiVersion": "v2", "name": "umbrella", "version": "1.0.0", "dependencies": needed}
    (umbrella / "Chart.yaml").write_text(json.dumps(about))
    (umbrella / "values.yaml").write_text(UMBRELLA)
    return umbrella


@pytest.mark.parametrize("release", ["acme", LONGEST])
@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
def test_an_umbrella_chart_has_it_twice(
    helm: Helm, crds: tuple[Path, ...], tmp_path: Path, version: str, release: str
) -> None:
    chart = _umbrella(tmp_path)
    flags = [f"--kube-version={version}.0", *(f"--api-versions={group}" for group in OPERATORS)]
    for sets in ((), tuple(f"{a}.{one}" for a in ("reviews", "tickets") for one in FIXED)):
        manifests = helm.template(*sets, chart=chart, release=release, flags=flags)
        _sound(manifests, version, crds)
        pods = [m["spec"]["template"]["metadata"]["labels"] for m in workloads(manifests)]
        for service in by_kind(manifests, "Service").values():
            selector = service["spec"]["selector"]
            assert sum(selector.items() <= labels.items() for labels in pods) == 1
        queues = {
            environment(c).get("QUEUE_NAME")
            for _, s in pod_specs(manifests)
            for c in containers_of(s)
        }
        assert {"reviews", "tickets"} <= queues


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("selfheal", "selfheal"), ("tickets", "selfheal")),
        (("selfheal", "selfheal"), ("selfheal", "other")),
        ((f"{LONGEST[:-1]}a", "selfheal"), (f"{LONGEST[:-1]}b", "selfheal")),
    ],
)
def test_two_releases_in_one_cluster_share_no_object(
    helm: Helm,
    crds: tuple[Path, ...],
    version: str,
    first: tuple[str, str],
    second: tuple[str, str],
) -> None:
    values = _merged(COMMON, {"remediator": OFF, "nodeProblemDetector": OFF})
    made: list[set[tuple[str, str | None, str]]] = []
    for (release, namespace), given in ((first, COMMON), (second, values)):
        manifests = helm.template(
            values=given,
            release=release,
            flags=[
                *(f"--api-versions={group}" for group in OPERATORS),
                f"--kube-version={version}.0",
                f"--namespace={namespace}",
            ],
        )
        assert [p for m in manifests for p in problems(m, version, crds)] == []
        made.append(
            {(m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in manifests}
        )
    assert not made[0] & made[1]
