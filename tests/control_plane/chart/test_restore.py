"""Deleted objects of a release come back on a real API server, under real Helm; an uninstall at any
moment leaves nothing.

The short form tries the moments that differ most; SELFHEAL_LONG=1 tries each one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from tests.control_plane.proxy import Proxy
from tests.control_plane.site import Remediator
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.control_plane

LONG = os.environ.get("SELFHEAL_LONG") == "1"
WORKER = "selfheal-worker"
#: Seconds; as short as it may be.
GRACE = 5.0
ON = (
    "remediator.config.restore.enabled=true",
    f"remediator.config.restore.gracePeriod={GRACE:g}s",
    *("remediator.config.observeFirst=0s", "rabbitmq.persistence.enabled=false"),
    "remediator.uninstall.uncordon=false",
)
KINDS = (
    "deployments,replicasets,statefulsets,pods,services,pdb,sa,roles,rolebindings,"
    "scaledobjects,triggerauthentications,hpa"
)


def account(site: Site, folder: Path) -> Path:
    """A kubeconfig of the release's account."""
    token = ("create", "token", "selfheal-remediator", "-n", site.namespace)
    access = yaml.safe_load(site.cluster.kubeconfig.read_text())
    access["users"] = [{"name": "us", "user": {"token": site.cluster.kubectl(*token).strip()}}]
    for context in access["contexts"]:
        context["context"]["user"] = "us"
    kubeconfig = folder / "account.kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(access))
    return kubeconfig


class Held:
    """Holds a client's requests that are like the pattern until they are let through.

    answered: they have reached the API server, and the client does not know yet.
    """

    def __init__(self, pattern: str, *, answered: bool = False) -> None:
        self._pattern, self._answered = re.compile(pattern), answered
        self._proxy: Proxy | None = None
        self.reached, self.let_through = Event(), Event()

    def administrator(self, site: Site, folder: Path) -> Path:
        """A kubeconfig by which requests are held, with all rights: those of the release's account
        end during an uninstall, and would hide what is done without a right to it."""
        self._proxy = Proxy(site.cluster.kubeconfig, self._before, self._after)
        return self._proxy.kubeconfig(site.cluster.kubeconfig, folder / "held.kubeconfig")

    def close(self) -> None:
        self.let_through.set()
        if self._proxy is not None:
            self._proxy.close()

    def _before(self, number: int) -> bool:
        if not self._answered:
            self._hold(number)
        return True

    def _after(self, number: int) -> None:
        if self._answered:
            self._hold(number)

    def _hold(self, number: int) -> None:
        assert self._proxy is not None
        if self._pattern.match(self._proxy.seen[number - 1]):
            self.reached.set()
            self.let_through.wait(PATIENCE)


@contextmanager
def holding(pattern: str, *, answered: bool = False) -> Iterator[Held]:
    held = Held(pattern, answered=answered)
    try:
        yield held
    finally:
        held.close()


@contextmanager
def remediating(
    site: Site, launcher: Launcher, folder: Path, access: Path | None = None
) -> Iterator[Remediator]:
    """A remediator with the release's configuration, and with its account or this access."""
    maps = {m["metadata"]["name"]: m["data"] for m in site.get("configmaps")}
    config = folder / "remediator.yaml"
    config.write_text(maps["selfheal-remediator"]["remediator.yaml"])
    kubeconfig = access or account(site, folder)
    log = folder / "remediator.log"
    process = Remediator(launcher, config, kubeconfig, site.namespace, log)
    try:
        process.says("leading as")
        yield process
    finally:
        process.terminate()
        # An uninstall took the right to release it; held, it keeps the next remediator read-only.
        site.cluster.kubectl("delete", "leases", "--all", "-n", site.namespace)


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


def kept(site: Site) -> list[dict[str, Any]]:
    """The objects that are restored, as the chart renders them."""
    maps = {m["metadata"]["name"]: m["data"] for m in site.get("configmaps")}
    objects: list[dict[str, Any]] = json.loads(maps["selfheal-restore"]["objects.json"])
    return objects


def delete_all(site: Site, objects: Sequence[dict[str, Any]]) -> None:
    """As somebody does by hand."""
    names = [f"{o['kind']}/{o['metadata']['name']}" for o in objects]
    site.cluster.kubectl("delete", *names, "-n", site.namespace)


_ANY = "/apis/[^/]+/[^/]+/namespaces/[^/]+"
#: The remediator's requests at which the release is uninstalled: by what is held, and whether it
#: has reached the API server.
MOMENTS = {
    "the deletion is not seen": (rf"GET {_ANY}/deployments\?.*watch=true", False),
    "the grace period is over": (rf"GET {_ANY}/deployments\?.*metadata.name", False),
    "its ConfigMap is about to be read": (r"GET .*/configmaps/selfheal-restore(\?|$)", False),
    "its ConfigMap was read": (r"GET .*/configmaps/selfheal-restore(\?|$)", True),
    "the Deployment is about to be made": (rf"PATCH {_ANY}/deployments/", False),
    "the Deployment is made": (rf"PATCH {_ANY}/deployments/", True),
    "the ServiceAccount is made": (r"PATCH .*/serviceaccounts/", True),
    "the budget is made": (rf"PATCH {_ANY}/poddisruptionbudgets/", True),
    "the ScaledObject is made": (rf"PATCH {_ANY}/scaledobjects/", True),
    "the TriggerAuthentication is made": (rf"PATCH {_ANY}/triggerauthentications/", True),
}
#: With which Helm, at which moment, and whether the ConfigMap is deleted before all else.
CASES = [
    ("helm", "its ConfigMap was read", False),
    ("helm3", "the Deployment is made", True),
]
EVERY_CASE = [
    *(("helm", moment, False) for moment in MOMENTS),
    ("helm3", "the Deployment is about to be made", False),
    ("helm3", "the Deployment is made", True),
    ("helm", "the Deployment is about to be made", True),
    ("helm", "the ScaledObject is made", True),
]


@pytest.mark.parametrize(("version", "moment", "config_map_first"), EVERY_CASE if LONG else CASES)
def test_an_uninstall_at_any_moment_leaves_nothing(
    site: Site,
    launcher: Launcher,
    tmp_path: Path,
    version: str,
    moment: str,
    config_map_first: bool,
) -> None:
    chosen = helm_of(site, version)
    helm(chosen, "install")
    objects = kept(site)
    pattern, answered = MOMENTS[moment]
    unseen = moment == "the deletion is not seen"
    with (
        holding(pattern, answered=answered) as held,
        remediating(site, launcher, tmp_path, held.administrator(site, tmp_path)) as process,
    ):
        if unseen:  # its watch has begun, and says nothing
            assert held.reached.wait(PATIENCE), process.log
        delete_all(site, [o for o in objects if o["kind"] == "Deployment"] if unseen else objects)
        assert held.reached.wait(PATIENCE), process.log
        if config_map_first:
            site.cluster.kubectl("delete", "configmap", "selfheal-restore", "-n", site.namespace)
        chosen.helm("uninstall", "selfheal", "--no-hooks", "-n", site.namespace)
        held.let_through.set()
        nothing_comes_back(site, process)
    helm(chosen, "install")


@pytest.mark.parametrize("version", ["helm", "helm3"] if LONG else ["helm"])
def test_an_uninstall_that_takes_longer_than_the_grace_period_leaves_nothing(
    site: Site, launcher: Launcher, tmp_path: Path, version: str
) -> None:
    """Helm has deleted the Deployments and is held before the account's rights and the ConfigMap:
    the remediator makes the Deployment again meanwhile."""
    chosen = helm_of(site, version)
    helm(chosen, "install")
    before = worker(site)
    assert before is not None

    def back() -> bool:
        now = worker(site)
        return now is not None and now["metadata"]["uid"] != before["metadata"]["uid"]

    with (
        remediating(site, launcher, tmp_path, site.cluster.kubeconfig) as process,
        holding(r"DELETE .*/rolebindings/") as held,
        ThreadPoolExecutor(1) as pool,
    ):
        access = ("--kubeconfig", str(held.administrator(site, tmp_path)))
        order = ("uninstall", "selfheal", "--no-hooks", "-n", site.namespace, *access)
        uninstalled = pool.submit(chosen.helm, *order)
        try:
            until("the Deployment is back", back)
        finally:
            held.let_through.set()
        uninstalled.result()
        nothing_comes_back(site, process)


def nothing_comes_back(site: Site, process: Remediator) -> None:
    """All is gone, and the remediator, which knows that, makes nothing again."""
    until("all of it is gone", lambda: left(site) == set())
    until("nothing is to be restored", lambda: process.metric("restore_missing_objects") == 0)
    Event().wait(GRACE + 1.0)  # a deletion may be seen only now
    assert left(site) == set(), process.log
    assert "read-only" not in process.log  # or it could not have made anything


def left(site: Site) -> set[str]:
    found = {f"{o['kind']}/{o['metadata']['name']}" for o in site.get(KINDS)}
    return found - {"ServiceAccount/default"}
