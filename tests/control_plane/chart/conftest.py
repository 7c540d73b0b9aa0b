"""A control plane with two KWOK nodes, KEDA's types, and a namespace that enforces `restricted`."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ci.cluster import Cluster, ClusterError, control_plane_only, kwok
from ci.parts import PartsError, ensure

CHART = Path(__file__).resolve().parents[3] / "chart"
#: Another name lets two runs work side by side.
_APART = os.environ.get("SELFHEAL_TEST_CLUSTER")
CLUSTER = f"{_APART}-chart" if _APART else "chart-tests"
#: The broker's volume is made by hand here, in no storage class.
BY_HAND = "--set=rabbitmq.persistence.storageClass=-"
#: Its namespace takes long to go; most tests are not about it.
NO_DETECTOR = "--set=nodeProblemDetector.enabled=false"


@dataclass
class Site:
    """A cluster and a Helm that talks to it."""

    cluster: Cluster
    helm_binary: Path
    home: Path
    namespace: str

    def helm(self, *arguments: str, fails: bool = False) -> str:
        """What Helm prints on stdout, or, when it is to fail, on stderr."""
        done = subprocess.run(
            [self.helm_binary, *arguments],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "KUBECONFIG": str(self.cluster.kubeconfig),
            },
            capture_output=True,
            text=True,
            timeout=180,
        )
        as_expected = (done.returncode != 0) == fails
        assert as_expected, f"{done.stdout}{done.stderr}\n{self._looks()}"
        return done.stderr if fails else done.stdout

    def _looks(self) -> str:
        """What there is in the namespace, and what was said of it."""
        kinds = ("pods,pvc,statefulsets,jobs", "events", "pv")
        commands = [["get", kind, "-n", self.namespace, "-o", "wide"] for kind in kinds]
        return "\n".join(self.cluster.kubectl(*command) for command in commands)

    def apply(self, command: str, *arguments: str, detector: bool = False) -> str:
        """`helm install` or `upgrade` of the chart, waiting until all is ready."""
        fixed = ["--wait", "--timeout", "90s", BY_HAND, *([] if detector else [NO_DETECTOR])]
        return self.helm(command, "selfheal", str(CHART), "-n", self.namespace, *fixed, *arguments)

    def get(self, what: str) -> list[dict[str, Any]]:
        """Objects of a kind, in the release's namespace or of the whole cluster."""
        text = self.cluster.kubectl("get", what, "-n", self.namespace, "-o", "json")
        found: list[dict[str, Any]] = json.loads(text)["items"]
        return found

    def pods(self) -> dict[str, str]:
        """The release's pods that are not on their way out, uid → component."""
        return {
            p["metadata"]["uid"]: p["metadata"]["labels"]["app.kubernetes.io/component"]
            for p in self.get("pods")
            if "deletionTimestamp" not in p["metadata"]
        }

    def password(self) -> str:
        """The generated password of the broker's user, as it is in the Secret."""
        [secret] = [s for s in self.get("secret") if s["metadata"]["name"] == "selfheal-rabbitmq"]
        return str(secret["data"]["password"])


@pytest.fixture(scope="module")
def chart_cluster(unavailable: Callable[[str], None]) -> Iterator[Cluster]:
    """A control plane with KEDA's types and two nodes whose pods are ready at once."""
    try:
        crds = ensure(["keda-config"])["keda-config"] / "crd" / "bases"
        cluster = control_plane_only(CLUSTER, kwok_nodes=0)
        cluster.down()  # of a run that was killed: it has objects
        with cluster:
            for name in ("node-a", "node-b"):
                node = kwok.node(name)
                node["spec"].pop("taints", None)
                cluster.kubectl("create", "-f", "-", input=json.dumps(node))
            cluster.kubectl("apply", "--server-side", "-f", str(crds))
            yield cluster
    except (ClusterError, PartsError) as error:
        unavailable(f"no control plane: {error}")
        raise


@pytest.fixture
def site(chart_cluster: Cluster, tmp_path: Path) -> Iterator[Site]:
    """A new namespace that enforces Pod Security `restricted`, and a volume for its broker."""
    chosen = os.environ.get("SELFHEAL_TEST_HELM")
    helm = Path(chosen) if chosen else ensure(["helm"])["helm"]
    site = Site(chart_cluster, helm, tmp_path, f"chart-{next(_numbers)}")
    for made in (_namespace(site.namespace), _volume(site.namespace)):
        chart_cluster.kubectl("create", "-f", "-", input=yaml.safe_dump(made))
    yield site
    for release in json.loads(site.helm("list", "-n", site.namespace, "-o", "json")):
        # Its own namespace for the detector must be gone before another release makes it again.
        # No kubelet runs the Job of the hook here.
        site.helm("uninstall", release["name"], "-n", site.namespace, "--wait=legacy", "--no-hooks")


_numbers = itertools.count(1)


def _namespace(name: str) -> dict[str, Any]:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _volume(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "2Gi"},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/nowhere"},
        },
    }
