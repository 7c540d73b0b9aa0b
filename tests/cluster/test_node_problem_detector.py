"""The real node-problem-detector on real nodes: what it reads in a log, its restart, its death; a
reboot. Nodes have a log of their own each, so that no test writes into the machine's.
"""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ci import images, parts
from ci.cluster import Cluster, ClusterError, Spec
from ci.cluster.machine import check_root
from ci.demo import pods
from ci.demo.kube import Kube, Object
from ci.demo.world import NeverHappened, World
from selfheal_remediator.node.annotation import STATE_KEY
from tests.cluster import kernel_log

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        os.environ.get("SELFHEAL_LONG") != "1", reason="SELFHEAL_LONG=1: a cluster of its own"
    ),
]

CHART = Path(__file__).parents[2] / "chart"
NAME = "detector-test"
RELEASE = NAMESPACE = "selfheal"
DETECTORS = "selfheal-node-problem-detector"
#: The `for` of the rules whose detector dies before it is over.
LATE = "60s"
_PATIENCE = 240.0


def _check(condition: str) -> Object:
    """A check that is bad while a file is there, as users write them."""
    name = condition.lower()
    path = f"/plugins/{name}/check.sh"
    script = f'#!/bin/sh\n[ ! -e /var/log/{name} ] || {{ echo "it is there"; exit 1; }}\n'
    permanent = {"type": "permanent", "condition": condition, "reason": "There", "path": path}
    good = {"type": condition, "reason": "NotThere", "message": "well"}
    often = {"invoke_interval": "1s", "timeout": "1s", "max_output_length": 80, "concurrency": 1}
    config: dict[str, Any] = {"plugin": "custom", "pluginConfig": often, "source": name}
    config |= {"conditions": [good], "rules": [permanent]}
    return {"config": config, "scripts": {"check.sh": script}}


VALUES: Object = {
    "worker": {"enabled": False},
    "rabbitmq": {"enabled": False},
    "nodeProblemDetector": {
        "heartbeatPeriod": "5s",
        "systemLogMonitors": {
            "readonly-monitor": None,
            "kernel-monitor": kernel_log.MONITOR,
        },
        "customPlugins": {"checked": _check("Checked"), "slow": _check("Slow")},
    },
    "remediator": {
        "externalConditions": ["Other"],
        "config": {
            "observeFirst": "0s",
            "rules": [
                {"condition": "KernelDeadlock", "for": "2s", "action": "drain", "latched": True},
                {"condition": "Checked", "for": "2s", "action": "cordon"},
                {"condition": "Slow", "for": LATE, "action": "cordon"},
                {"condition": "Other", "for": LATE, "action": "cordon"},
            ],
            "limits": {"maxUnavailable": 2},
            "recovery": {
                "stabilizationWindow": "5s",
                "resetStabilizationWindow": "5s",
                "maxFlaps": 1000,
            },
            "drain": {"headroom": False},
        },
    },
}
for _rule in VALUES["remediator"]["config"]["rules"]:
    _rule |= {"status": ["True"], "heartbeat": None if _rule["condition"] == "Other" else "20s"}


@dataclass
class Lab:
    """The cluster with the release, watched."""

    cluster: Cluster
    kube: Kube
    world: World

    def until(self, what: str, condition: Callable[[], object]) -> None:
        """Wait for it; when it never comes, the remediators' last messages are shown too."""
        try:
            self.world.until(what, lambda: condition() or None, _PATIENCE)
        except NeverHappened as error:
            labels = "app.kubernetes.io/component=remediator"
            words = ["logs", "-n", NAMESPACE, "-l", labels, "--tail=30", "--prefix"]
            raise AssertionError(f"{error}\n{self.kube.kubectl(*words)}") from error

    # -- nodes

    def file(self, node: str, name: str) -> Path:
        """A file of the node's /var/log, as it is called on this machine."""
        return kernel_log.file(self.cluster, node, name)

    def node(self, name: str) -> Object:
        return self.world["nodes"][name]

    def condition(self, node: str, kind: str) -> Object:
        """A condition of the node, {} while it has none of that type."""
        found = self.node(node)["status"]["conditions"]
        return next((item for item in found if item["type"] == kind), {})

    def says(self, node: str, kind: str, status: str) -> bool:
        return bool(self.condition(node, kind).get("status") == status)

    def cordoned(self, node: str) -> bool:
        return pods.is_cordoned(self.node(node))

    def phase(self, node: str) -> str:
        text = self.node(node)["metadata"].get("annotations", {}).get(STATE_KEY)
        return str(json.loads(text)["phase"]) if text else ""

    def events(self, node: str) -> list[str]:
        """Reasons of the remediator's Events about the node."""
        return [
            event["reason"]
            for event in self.world["events"].values()
            if event["involvedObject"]["name"] == node
        ]

    # -- detectors

    def detector(self, node: str) -> Object | None:
        """The node's detector, None while it has none that is ready."""
        found = pods.labelled(self.world["pods"].values(), RELEASE, "node-problem-detector")
        return next(
            (p for p in found if pods.node_of(p) == node and pods.is_ready(p)),
            None,
        )

    def restart_detector(self, node: str) -> None:
        """Another one in its place, ready."""
        old = self.detector(node)
        assert old is not None
        self.kube.kubectl("delete", "pod", old["metadata"]["name"], "-n", DETECTORS)
        uid = old["metadata"]["uid"]
        self.until(
            f"another detector on {node}",
            lambda: (new := self.detector(node)) and new["metadata"]["uid"] != uid,
        )


@pytest.fixture(scope="module")
def lab(
    unavailable: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    """Three nodes, of which two may be held at once, the chart, and two pods that can move."""
    try:
        check_root()
    except ClusterError as error:
        unavailable(str(error))
    programs = parts.ensure(["kubectl", "helm"])
    values = tmp_path_factory.mktemp("detector") / "values.yaml"
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster(NAME, Spec(nodes=3, addons=("coredns",))))
        kube = Kube(str(programs["kubectl"]), str(programs["helm"]), cluster.kubeconfig)
        ours = ["--field-selector", "reportingComponent=selfheal-remediator"]
        selections = {
            "pods": ["pods", "--all-namespaces"],
            "nodes": ["nodes"],
            "events": ["events", "-n", "default", *ours],
        }
        world = stack.enter_context(World(kube, selections))
        made = Lab(cluster, kube, world)
        for node in cluster.nodes:
            kernel_log.file(cluster, node).touch()
        values.write_text(yaml.safe_dump(_with_images(cluster)))
        kube.kubectl("create", "namespace", NAMESPACE)
        kube.helm("install", RELEASE, str(CHART), "-n", NAMESPACE, "-f", str(values))
        _deploy(kube)
        for node in cluster.nodes:
            made.until(f"{node} is evaluated", lambda node=node: made.says(node, "Slow", "False"))  # type: ignore[misc]
            made.until(f"a detector on {node}", lambda node=node: made.detector(node))  # type: ignore[misc]
        yield made


def _with_images(cluster: Cluster) -> Object:
    built = images.ensure(["remediator", "node-problem-detector"])
    keys = {"remediator": "remediator", "node-problem-detector": "nodeProblemDetector"}
    values: Object = json.loads(json.dumps(VALUES))
    for name, key in keys.items():
        cluster.load(built[name].archive)
        repository, _, tag = built[name].ref.rpartition(":")
        values[key]["image"] = {"repository": repository, "tag": tag}
    return values


def _deploy(kube: Kube) -> None:
    labels = {"app": "web"}
    spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname"}
    spread |= {"whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": labels}}
    pod = {
        "containers": [{"name": "pause", "image": images.ensure(["pause"])["pause"].ref}],
        "terminationGracePeriodSeconds": 1,
        "topologySpreadConstraints": [spread],
    }
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    made = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": spec,
    }
    kube.kubectl("apply", "-f", "-", input=json.dumps(made))
    kube.kubectl("wait", "--for=condition=Available", "deployment/web", "--timeout=120s")


def test_what_a_log_says_keeps_the_node_cordoned_until_it_is_booted_again(lab: Lab) -> None:
    """Nothing ever turns a log-based condition False but its detector's restart, which proves
    nothing."""
    bad, other, _ = lab.cluster.nodes
    kernel_log.write(lab.cluster, bad, kernel_log.HUNG)
    lab.until("the detector has read it", lambda: lab.says(bad, "KernelDeadlock", "True"))
    lab.until(f"{bad} is empty", lambda: lab.phase(bad) == "drained")
    assert lab.cordoned(bad)
    assert pods.to_move(lab.world["pods"].values(), bad) == []
    boot = lab.node(bad)["status"]["nodeInfo"]["bootID"]

    lab.restart_detector(bad)
    lab.until("it has forgotten", lambda: lab.says(bad, "KernelDeadlock", "False"))
    # The other node goes bad and well meanwhile, by a condition that is no log's: when that one is
    # uncordoned, a stabilization window has passed on both.
    lab.file(other, "checked").touch()
    lab.until(f"{other} is held", lambda: lab.cordoned(other))
    lab.file(other, "checked").unlink()
    lab.until(f"{other} is uncordoned", lambda: not lab.cordoned(other))
    assert (lab.cordoned(bad), lab.phase(bad)) == (True, "drained")
    assert "Uncordoned" not in lab.events(bad)

    lab.cluster.reboot(bad)
    lab.until(f"{bad} is uncordoned", lambda: not lab.cordoned(bad))
    assert lab.node(bad)["status"]["nodeInfo"]["bootID"] != boot
    lab.until("it is said", lambda: "Uncordoned" in lab.events(bad))
    lab.until("a detector again", lambda: lab.detector(bad))


def test_a_node_is_not_uncordoned_while_its_detector_restarts(lab: Lab) -> None:
    """A detector that begins calls everything good before it has looked."""
    bad = lab.cluster.nodes[1]
    lab.file(bad, "checked").touch()
    lab.until(f"{bad} is held", lambda: lab.cordoned(bad))
    before = lab.events(bad).count("Uncordoned")
    transition = lab.condition(bad, "Checked")["lastTransitionTime"]
    lab.restart_detector(bad)
    lab.until(
        "the new one has looked",
        lambda: (
            lab.says(bad, "Checked", "True")
            and lab.condition(bad, "Checked")["lastTransitionTime"] != transition
        ),
    )
    assert lab.cordoned(bad)
    assert lab.events(bad).count("Uncordoned") == before
    lab.file(bad, "checked").unlink()
    lab.until(f"{bad} is uncordoned", lambda: not lab.cordoned(bad))


def test_what_a_dead_detector_left_behind_is_not_believed(lab: Lab) -> None:
    """Its condition stays True for ever; nobody stands behind it any more, and that is said."""
    control, bad, _ = lab.cluster.nodes
    lab.file(bad, "slow").touch()
    lab.until("the detector has seen it", lambda: lab.says(bad, "Slow", "True"))
    away = {"spec": {"template": {"spec": {"nodeSelector": {"nowhere": "at-all"}}}}}
    daemon_set = f"daemonset/{DETECTORS}"
    lab.kube.kubectl("patch", daemon_set, "-n", DETECTORS, "-p", json.dumps(away))
    lab.until("no detector lives", lambda: not any(map(lab.detector, lab.cluster.nodes)))
    # A rule with the same `for` begins later on the other node: when it acts, both times are over.
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    entry = {"type": "Other", "status": "True", "reason": "Test", "message": "by a test"}
    entry |= {"lastTransitionTime": now, "lastHeartbeatTime": now}
    status = json.dumps({"status": {"conditions": [entry]}})
    lab.kube.kubectl("patch", "node", control, "--subresource=status", "-p", status)
    lab.until(f"{control} is held", lambda: lab.cordoned(control))
    assert lab.says(bad, "Slow", "True")
    assert not lab.cordoned(bad)
    assert _metric(lab, 'signal_rejected_nodes{cause="stale-heartbeat"}') == 1
    said = lab.kube.kubectl(
        *("exec", "-n", NAMESPACE, f"deployment/{RELEASE}-remediator", "--"),
        *("selfheal-remediator", "plan", bad),
    )
    assert "a bad condition whose detector is silent: ignored" in said


def _metric(lab: Lab, line: str) -> float:
    """A metric of the remediator that leads: the others' are 0."""
    found = pods.labelled(lab.world["pods"].values(), RELEASE, "remediator")
    return max(_metric_of(lab, pod, line) for pod in found if pods.is_ready(pod))


def _metric_of(lab: Lab, pod: Object, line: str) -> float:
    with (
        lab.kube.forward(NAMESPACE, f"pod/{pod['metadata']['name']}", 8080) as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer,
    ):
        lines = answer.read().decode().splitlines()
    told = dict(text.rpartition(" ")[::2] for text in lines)
    return float(told.get(f"selfheal_remediator_{line}", "0"))
