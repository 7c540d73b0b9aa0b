"""The type HealingPolicy in a release's life: Helm adds it once, and never touches it again."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ci.cluster import Cluster
from tests.control_plane.chart.conftest import BY_HAND, CHART, NO_DETECTOR, Site

pytestmark = pytest.mark.control_plane

CRD = "healingpolicies.selfheal.dev"
FILE = CHART / "crds" / "healingpolicy.yaml"
OLLAMA = CHART / "ci" / "ollama-values.yaml"


@pytest.fixture
def unknown(chart_cluster: Cluster) -> Iterator[None]:
    """The API server does not know the type; afterwards it does."""
    _remove_type(chart_cluster)
    yield
    _apply_type(chart_cluster, FILE)


def _remove_type(cluster: Cluster) -> None:
    cluster.kubectl("delete", "crd", CRD, "--ignore-not-found", "--timeout=30s")


def _apply_type(cluster: Cluster, file: Path) -> None:
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(file))
    cluster.kubectl("wait", "--for=condition=Established", f"crd/{CRD}", "--timeout=30s")


def _policies(site: Site) -> dict[str, Any]:
    return {p["metadata"]["name"]: p["spec"] for p in site.get("healingpolicies")}


def test_an_install_brings_the_type_and_the_policies(site: Site, unknown: None) -> None:
    site.apply("install", "-f", str(OLLAMA))
    made = _policies(site)
    assert made.keys() == {"selfheal-worker", "selfheal-ollama"}
    # As the API server keeps it: defaults are in, nothing that was rendered is lost.
    assert made["selfheal-worker"]["unhealthyWhen"]["noProgressFor"] == "120s"
    assert made["selfheal-worker"]["progress"] == {"port": "http", "path": "/progress"}
    columns = site.cluster.kubectl("get", "hp", "-n", site.namespace).splitlines()[0].split("  ")
    assert [c.strip() for c in columns if c.strip()] == [
        *("NAME", "HEALTHY", "DESIRED", "LAST HEAL", "STATE"),
    ]


def test_without_the_type_an_upgrade_says_how_to_get_it(site: Site, unknown: None) -> None:
    """As from a version of the chart that had none."""
    site.apply("install", "--set=healingPolicies.enabled=false", "--skip-crds")
    said = site.helm(
        *("upgrade", "selfheal", str(CHART), "-n", site.namespace, BY_HAND, NO_DETECTOR), fails=True
    )
    assert "does not know HealingPolicies" in said
    assert "kubectl apply --server-side -f chart/crds/" in said
    assert "healingPolicies.enabled=false" in said
    _apply_type(site.cluster, FILE)
    site.apply("upgrade")
    assert _policies(site).keys() == {"selfheal-worker"}


def test_an_install_that_skips_the_type_works_and_says_so(site: Site, unknown: None) -> None:
    said = site.apply("install", "--skip-crds")
    assert "does not know HealingPolicies" in said


def test_an_upgrade_leaves_an_old_type_and_applying_the_new_one_keeps_the_policies(
    site: Site, unknown: None, tmp_path: Path
) -> None:
    """The old type knows no `terminatingFor` and has no column for the state."""
    old = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    [version] = old["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    when = spec["unhealthyWhen"]
    del when["properties"]["terminatingFor"]
    [rule] = when["x-kubernetes-validations"]
    rule["rule"] = rule["rule"].replace("has(self.terminatingFor) || ", "")
    version["additionalPrinterColumns"] = version["additionalPrinterColumns"][:2]
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    (chart / "crds" / FILE.name).write_text(yaml.safe_dump(old), encoding="utf-8")
    fixed = ("-n", site.namespace, BY_HAND, NO_DETECTOR)
    # An unknown field: Helm 4 sends what the type does not know, the API server drops it.
    drop = "--set=worker.healingPolicy.unhealthyWhen.terminatingFor=null"
    site.helm("install", "selfheal", str(chart), *fixed, drop)
    mine = {
        "apiVersion": "selfheal.dev/v1alpha1",
        "kind": "HealingPolicy",
        "metadata": {"name": "mine", "namespace": site.namespace},
        "spec": {
            "selector": {"matchLabels": {"app": "mine"}},
            "unhealthyWhen": {"notReadyFor": "5m"},
        },
    }
    site.cluster.kubectl("create", "-f", "-", input=json.dumps(mine))
    status = {"status": {"restarts": 7, "state": "Healthy"}}
    site.cluster.kubectl(
        *("patch", "hp", "mine", "-n", site.namespace, "--subresource=status", "--type=merge"),
        *("-p", json.dumps(status)),
    )
    before = _resource_of(site.cluster)
    site.helm("upgrade", "selfheal", str(CHART), *fixed, drop)
    assert _resource_of(site.cluster) == before
    uids = {p["metadata"]["uid"] for p in site.get("healingpolicies")}
    assert len(uids) == 2

    _apply_type(site.cluster, FILE)
    assert _resource_of(site.cluster) != before
    assert {p["metadata"]["uid"] for p in site.get("healingpolicies")} == uids
    [kept] = [p for p in site.get("healingpolicies") if p["metadata"]["name"] == "mine"]
    assert kept["status"]["restarts"] == 7
    _until_columns(site.cluster, site.namespace)
    site.helm("upgrade", "selfheal", str(CHART), *fixed)
    assert _policies(site)["selfheal-worker"]["unhealthyWhen"]["terminatingFor"] == "10m"


def _resource_of(cluster: Cluster) -> Any:
    return json.loads(cluster.kubectl("get", "crd", CRD, "-o", "json"))["spec"]


def _until_columns(cluster: Cluster, namespace: str) -> None:
    """The API server serves a changed type a moment after it took the change."""
    until = time.monotonic() + 30
    while "STATE" not in cluster.kubectl("get", "hp", "-n", namespace):
        assert time.monotonic() < until, "the new columns are not served"
        time.sleep(0.2)


def test_an_uninstall_takes_the_release_s_policies_and_hangs_on_nothing(
    site: Site, unknown: None
) -> None:
    site.apply("install")
    other = {
        "apiVersion": "selfheal.dev/v1alpha1",
        "kind": "HealingPolicy",
        "metadata": {"name": "another", "namespace": site.namespace},
        "spec": {
            "selector": {"matchLabels": {"app": "another"}},
            "unhealthyWhen": {"waitingReasons": ["CrashLoopBackOff"]},
        },
    }
    site.cluster.kubectl("create", "-f", "-", input=json.dumps(other))
    site.helm(
        "uninstall",
        "selfheal",
        "--no-hooks",
        "-n",
        site.namespace,
        "--wait=legacy",
        "--timeout=60s",
    )
    assert _policies(site).keys() == {"another"}
    # Nobody is left who could take a finalizer away; the type and its objects go nevertheless.
    _remove_type(site.cluster)


def test_what_the_chart_lets_through_the_api_server_takes(site: Site) -> None:
    """By its rules in CEL too: the worker's policy alone, against the server, nothing kept."""
    _apply_type(site.cluster, FILE)
    for value in (
        "worker.healingPolicy.healthThreshold=50%",
        "worker.healingPolicy.unhealthyWhen.noProgressFor=1h30m",
        "worker.healingPolicy.unhealthyWhen.noProgressFor=",
        "worker.healingPolicy.unhealthyWhen.terminatingFor=null",
        "worker.healingPolicy.restart.backoff=5m",
        "worker.healingPolicy.restart.gracePeriod=1s",
        "worker.healingPolicy.restart.maxPerHour=60",
        "worker.healingPolicy.paused=true",
    ):
        rendered = site.helm(
            *("template", "selfheal", str(CHART), "-n", site.namespace, f"--set={value}"),
            *("--kube-version=1.34.0", "--show-only=templates/healingpolicies/worker.yaml"),
        )
        site.cluster.kubectl("create", "--dry-run=server", "-f", "-", input=rendered)
