"""kube-score has nothing against the chart but what is named here, with the reason."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator

import pytest
import yaml

from ci.parts import PartsError, ensure
from tests.chart.rendering import CASES, CLUSTERS, Helm, Manifest, by_kind, on_cluster

ALL = "everything"
#: Check → objects (without the release's name) → why it is right as it is.
EXCEPTIONS: dict[str, dict[str, str]] = {
    "container-image-pull-policy": {
        ALL: "a value (…image.pullPolicy); images are named by version or digest and never change",
    },
    "container-resources": {
        ALL: "memory has a limit, CPU by default not: a throttled worker only answers later",
    },
    "container-ephemeral-storage-request-and-limit": {
        ALL: "root file systems are read-only and logs are the kubelet's to rotate; by …resources",
    },
    "container-security-context-privileged": {
        "node-problem-detector": "reads /dev/kmsg, in a namespace of its own",
    },
    "container-security-context-user-group-id": {
        "node-problem-detector": "reads /dev/kmsg, in a namespace of its own",
        "rabbitmq": "999 is the user of the public image, to whom its folders belong",
    },
    "deployment-has-host-podantiaffinity": {
        ALL: "topology spread constraints do it, and leave no replica Pending",
    },
    "horizontalpodautoscaler-replicas": {
        ALL: "one is enough where nobody asks; …minReplicas",
    },
    "pod-networkpolicy": {
        "node-problem-detector": "only its callers are limited: its checks may look anywhere",
    },
    "pod-probes-identical": {
        "node-problem-detector": "it has one page; liveness takes longer to give up",
        "ollama": "a server that infers still talks; liveness takes longer to give up",
        "rabbitmq": "a TCP connect costs nothing; liveness takes longer to give up",
    },
    "statefulset-has-servicename": {
        "rabbitmq": "a single broker has no peers to find; its Service is the clients' one",
    },
}
#: Check → reason, for one case alone.
OF_CASE = {
    "openshift": {
        "container-security-context-user-group-id": "OpenShift assigns them",
    }
}
OK = 10

Score = Callable[[list[Manifest]], Iterator[tuple[str, str]]]


@pytest.fixture(scope="module")
def score(unavailable: Callable[[str], None]) -> Score:
    """What kube-score says of manifests: (check, object's name without the release's)."""
    try:
        program = ensure(["kube-score"])["kube-score"]
    except PartsError as error:
        unavailable(f"no kube-score: {error}")
        raise

    def run(manifests: list[Manifest]) -> Iterator[tuple[str, str]]:
        done = subprocess.run(
            [program, "score", "--kubernetes-version=v1.34", "--output-format=json", "-"],
            input=yaml.dump_all(manifests, Dumper=yaml.CSafeDumper),
            capture_output=True,
            text=True,
        )
        assert done.stdout, done.stderr
        for scored in json.loads(done.stdout):
            for check in scored["checks"]:
                if check["grade"] < OK and not check["skipped"]:
                    yield check["check"]["id"], scored["object_meta"]["name"][len("selfheal-") :]

    return run


@pytest.fixture(scope="module")
def found(helm: Helm, score: Score) -> dict[str, set[tuple[str, str]]]:
    """All that is said of each case, its network policies made."""
    return {case: set(score(helm.render(on_cluster(case, *CLUSTERS[-2])))) for case in CASES}


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_reported_but_what_is_named(
    found: dict[str, set[tuple[str, str]]], case: str
) -> None:
    unnamed = {
        f"{check}: {name}"
        for check, name in found[case]
        if check not in OF_CASE.get(case, {}) and not EXCEPTIONS.get(check, {}).keys() & {ALL, name}
    }
    assert unnamed == set()


def test_every_exception_is_needed(found: dict[str, set[tuple[str, str]]]) -> None:
    said = set.union(*found.values())
    for check, objects in EXCEPTIONS.items():
        for name in objects:
            assert any(one == check and name in (ALL, of) for one, of in said), (check, name)


def test_what_is_wrong_is_reported(helm: Helm, score: Score) -> None:
    manifests = [dict(m) for m in helm.case("default")]
    manifests.remove(by_kind(manifests, "PodDisruptionBudget")["selfheal-worker"])
    assert ("deployment-has-poddisruptionbudget", "worker") in set(score(manifests))
