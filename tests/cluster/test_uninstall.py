"""The last of the demo's release: its uninstall uncordons the node that it holds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from ci import parts
from ci.cluster import Cluster
from ci.demo import pods
from ci.demo.kube import Kube, Object
from ci.demo.world import World
from selfheal_remediator.node.annotation import STATE_KEY

pytestmark = pytest.mark.cluster

CHART = Path(__file__).parents[2] / "chart"
NAMESPACE = RELEASE = "selfheal"
DETECTORS = "selfheal-node-problem-detector"
_PATIENCE = 240.0


@dataclass
class Lab:
    """The demo's release, watched."""

    kube: Kube
    world: World

    def until(self, what: str, condition: Callable[[], object]) -> None:
        self.world.until(what, lambda: condition() or None, _PATIENCE)

    def component(self, name: str) -> list[Object]:
        return pods.labelled(self.world["pods"].values(), RELEASE, name)

    def phase(self, node: str) -> str:
        text = self.world["nodes"][node]["metadata"].get("annotations", {}).get(STATE_KEY)
        return str(json.loads(text)["phase"]) if text else ""

    def detector(self, node: str) -> str:
        """The name of the node's detector that is ready, empty while there is none."""
        found = [p for p in self.component("node-problem-detector") if pods.node_of(p) == node]
        return next((p["metadata"]["name"] for p in found if pods.is_ready(p)), "")

    def fault(self, node: str) -> None:
        """The detector says that DemoFault is there, while its pod lives."""
        self.until(f"a detector on {node}", lambda: self.detector(node))
        touch = ["exec", self.detector(node), "--", "touch", "/faults/demo"]
        self.kube.kubectl("-n", DETECTORS, *touch)


@pytest.fixture
def lab(cluster: Cluster, tmp_path: Path) -> Iterator[Lab]:
    """The release; a cluster that is not the tests' own gets it back."""
    programs = parts.ensure(["kubectl", "helm"])
    kube = Kube(str(programs["kubectl"]), str(programs["helm"]), cluster.kubeconfig)
    values = tmp_path / "values.json"
    values.write_text(kube.helm("get", "values", RELEASE, "-n", NAMESPACE, "-o", "json"))
    selections = {"pods": ["pods", "--all-namespaces"], "nodes": ["nodes"]}
    with ExitStack() as stack:
        yield Lab(kube, stack.enter_context(World(kube, selections)))
        if os.environ.get("SELFHEAL_TEST_CLUSTER"):
            release = [RELEASE, str(CHART), "-n", NAMESPACE, "-f", str(values)]
            kube.helm("install", *release, "--wait", "--timeout", "4m")


def test_an_uninstall_leaves_a_drained_node_schedulable_and_without_our_annotation(
    lab: Lab,
) -> None:
    """While the node is still bad: who uncordons it too early would see it cordoned again."""
    lab.until("two nodes", lambda: len(lab.world["nodes"]) > 1)
    lab.until("a ready broker", lambda: any(map(pods.is_ready, lab.component("rabbitmq"))))
    [broker] = lab.component("rabbitmq")
    node, *_ = sorted(lab.world["nodes"].keys() - {pods.node_of(broker)})
    lab.fault(node)
    lab.until(f"{node} is drained", lambda: lab.phase(node) == "drained")
    assert pods.is_cordoned(lab.world["nodes"][node])

    # Helm 4's watcher sometimes ends before the namespace does: helm/helm#31766.
    lab.kube.helm("uninstall", RELEASE, "-n", NAMESPACE, "--wait=legacy", "--timeout", "4m")

    left = {each["metadata"]["name"]: each for each in lab.kube.items("nodes")}
    assert pods.condition(left[node], "DemoFault") == "True"
    assert [name for name, each in left.items() if pods.is_cordoned(each)] == []
    marks = {key for each in left.values() for key in each["metadata"].get("annotations", {})}
    assert [mark for mark in marks if "selfheal" in mark] == []
    # The node controller takes its taint away after the cordon.
    lab.until("no taint", lambda: not lab.world["nodes"][node]["spec"].get("taints"))
    # Helm waits for the Deployment, whose pods may still be ending.
    lab.until("no remediator is left", lambda: not lab.component("remediator"))
    jobs = [one["metadata"]["name"] for one in lab.kube.items("jobs", "-n", NAMESPACE)]
    assert [name for name in jobs if "uninstall" in name] == []
