"""Deleted objects of a release come back on a real API server, under real Helm; an uninstall at any
moment leaves nothing. The remediator runs with the account of the release."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import yaml

from ci.parts import ensure
from tests.control_plane.chart.conftest import BY_HAND, CHART, NO_DETECTOR, Site
from tests.control_plane.launcher import Launcher
from tests.control_plane.site import Remediator
from tests.support.waiting import until

pytestmark = pytest.mark.control_plane

WORKER = "selfheal-worker"
ON = (
    *("remediator.config.restore.enabled=true", "remediator.config.restore.gracePeriod=5s"),
    *("remediator.config.observeFirst=0s", "rabbitmq.persistence.enabled=false"),
    "remediator.uninstall.uncordon=false",
)
KINDS = "deployments,services,pdb,sa,scaledobjects,triggerauthentications,hpa"


@contextmanager
def remediating(site: Site, launcher: Launcher, folder: Path) -> Iterator[Remediator]:
    """A remediator with the release's account and configuration."""
    maps = {m["metadata"]["name"]: m["data"] for m in site.get("configmaps")}
    config = folder / "remediator.yaml"
    config.write_text(maps["selfheal-remediator"]["remediator.yaml"])
    account = ("create", "token", "selfheal-remediator", "-n", site.namespace)
    access = yaml.safe_load(site.cluster.kubeconfig.read_text())
    access["users"] = [{"name": "us", "user": {"token": site.cluster.kubectl(*account).strip()}}]
    for context in access["contexts"]:
        context["context"]["user"] = "us"
    kubeconfig = folder / "account.kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(access))
    log = folder / "remediator.log"
    process = Remediator(launcher, config, kubeconfig, site.namespace, log)
    try:
        process.says("leading as")
        yield process
    finally:
        process.terminate()  # a Lease that is held keeps the next test's remediator read-only


def helm_of(site: Site, version: str) -> Site:
    """The same, with this Helm."""
    return replace(site, helm_binary=ensure([version])[version])


def helm(site: Site, command: str, *settings: str) -> None:
    """Install or upgrade, without waiting."""
    chart = (command, "selfheal", str(CHART), "-n", site.namespace, BY_HAND, NO_DETECTOR)
    site.helm(*chart, *(f"--set={one}" for one in (*ON, *settings)))


def worker(site: Site) -> dict[str, Any] | None:
    found = [d for d in site.get("deployments") if d["metadata"]["name"] == WORKER]
    return found[0] if found else None


def delete(site: Site, what: str) -> None:
    site.cluster.kubectl("delete", what, WORKER, "-n", site.namespace)


@pytest.mark.parametrize(("first", "second"), [("helm", "helm3"), ("helm3", "helm")])
def test_a_deleted_deployment_comes_back_and_both_helms_upgrade_it(
    site: Site, launcher: Launcher, tmp_path: Path, first: str, second: str
) -> None:
    helm(helm_of(site, first), "install")
    before = worker(site)
    assert before is not None
    with remediating(site, launcher, tmp_path):
        delete(site, "deployment")
        delete(site, "scaledobject")
        after = until("the Deployment is back", lambda: worker(site))
        assert after is not None
        until("the ScaledObject is back", lambda: site.get("scaledobjects"))
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["spec"] == {**before["spec"], "replicas": after["spec"]["replicas"]}
    for what in ("labels", "annotations"):
        wanted = before["metadata"][what]
        wanted.pop("deployment.kubernetes.io/revision", None)
        assert wanted.items() <= after["metadata"][what].items()
    [owner] = after["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("ConfigMap", "selfheal-restore")

    for version, tag in ((first, "2"), (second, "3"), (first, "4")):
        helm(helm_of(site, version), "upgrade", f"worker.image.tag={tag}")
        upgraded = worker(site)
        assert upgraded is not None
        [container] = upgraded["spec"]["template"]["spec"]["containers"]
        assert container["image"].endswith(f":{tag}")
    last = helm_of(site, first)
    helm(last, "upgrade", "autoscaling.mode=none", "worker.replicas=3")
    assert site.get("scaledobjects") == []
    last.helm("rollback", "selfheal", "1", "-n", site.namespace)
    assert [o["metadata"]["name"] for o in site.get("scaledobjects")] == [WORKER]


#: Seconds after the deletion: within the grace period, when it ends, when all is back.
@pytest.mark.parametrize(
    ("version", "after"),
    [("helm", 1.0), ("helm", 5.0), ("helm", 5.3), ("helm3", 5.1), ("helm3", 9.0)],
)
def test_an_uninstall_at_any_moment_leaves_nothing(
    site: Site, launcher: Launcher, tmp_path: Path, version: str, after: float
) -> None:
    chosen = helm_of(site, version)
    helm(chosen, "install")
    with remediating(site, launcher, tmp_path) as process:
        delete(site, "deployment")
        delete(site, "pdb")
        Event().wait(after)
        chosen.helm("uninstall", "selfheal", "--no-hooks", "-n", site.namespace)
        until("all of it is gone", lambda: left(site) == set())
        Event().wait(8.0)  # longer than the grace period
        assert left(site) == set(), process.log
    helm(chosen, "install")


def left(site: Site) -> set[str]:
    found = {f"{o['kind']}/{o['metadata']['name']}" for o in site.get(KINDS)}
    return found - {"ServiceAccount/default"}
