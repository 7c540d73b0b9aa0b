"""What nobody has to do by hand: a hung kernel is rebooted away, a deleted Deployment is back.

Both on the demo's release, with values that a rollback takes back. A machine here is not rebooted
by a command: the Job of the example leaves a file on its node, for which the test boots the node.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from ci import parts
from ci.cluster import Cluster
from ci.demo import pods
from ci.demo.kube import Kube, Object
from ci.demo.mailbox import Mailbox
from ci.demo.world import World
from tests.cluster import kernel_log
from tests.cluster.healing_stage import CHART, MAIN, HealingStage, since

pytestmark = pytest.mark.cluster

EXAMPLE = CHART / "ci" / "reboot-values.yaml"
WORKER = f"{MAIN}-worker"
#: On the node's /var/log, which the Jobs see as /machine.
REBOOT = "reboot-wanted"
#: Within which (seconds) a deleted Deployment is there again with a worker that is ready.
AT_MOST = 60.0
#: The reasons of the Events on a node that is repaired.
SAID = {
    *("Cordoned", "DrainStarted", "DrainSucceeded", "RepairStepStarted", "RepairStepSucceeded"),
    *("VerifyStarted", "VerifySucceeded", "Uncordoned"),
}


@dataclass
class Lab:
    """The demo's release with these values, watched. `revision`: the one before."""

    cluster: Cluster
    stage: HealingStage
    revision: int
    begun: datetime

    def rollback(self) -> None:
        """The release as it was."""
        back = ["rollback", MAIN, str(self.revision), "-n", MAIN]
        self.stage.kube.helm(*back, "--wait", "--timeout", "4m")

    def node(self, name: str) -> Object:
        return self.stage.world["nodes"][name]

    def boot_id(self, node: str) -> str:
        return str(self.node(node)["status"]["nodeInfo"]["bootID"])

    def event_reasons(self, kind: str, name: str) -> set[str]:
        """The reasons of the remediator's Events about an object since these tests began."""
        return {
            event["reason"]
            for event in self.stage.world["events"].values()
            if (event["involvedObject"]["kind"], event["involvedObject"]["name"]) == (kind, name)
            and self.is_new(event)
        }

    def jobs(self, node: str) -> list[Object]:
        """The Jobs of the steps for this node since these tests began, the oldest first."""
        found = [
            job
            for job in self.stage.world["jobs"].values()
            if job["metadata"].get("annotations", {}).get("selfheal.dev/node") == node
            and self.is_new(job)
        ]
        return sorted(found, key=lambda job: str(job["metadata"]["creationTimestamp"]))

    def is_new(self, thing: Object) -> bool:
        created = datetime.fromisoformat(thing["metadata"]["creationTimestamp"])
        return created >= self.begun

    def publish(self, prefix: str, count: int) -> set[str]:
        """Messages `prefix-0` …; their ids."""
        ids = [f"{prefix}-{n}" for n in range(count)]
        self.stage.mailbox.publish([json.dumps({"id": one, "text": "good"}) for one in ids])
        return set(ids)


@pytest.fixture(scope="module")
def lab(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The release upgraded to these values, and at the end as it was."""
    programs = parts.ensure(["kubectl", "helm"])
    kube = Kube(str(programs["kubectl"]), str(programs["helm"]), cluster.kubeconfig)
    ours = ["--field-selector", "reportingComponent=selfheal-remediator"]
    selections = {
        "pods": ["pods", "--all-namespaces"],
        "nodes": ["nodes"],
        "jobs": ["jobs", "-n", MAIN],
        "events": ["events", "--all-namespaces", *ours],
    }
    values = json.loads(kube.helm("get", "values", MAIN, "-n", MAIN, "-o", "json"))
    [*_, last] = json.loads(kube.helm("history", MAIN, "-n", MAIN, "-o", "json"))
    image = (values["worker"]["image"]["repository"], values["worker"]["image"]["tag"])
    folder = tmp_path_factory.mktemp("repair")
    files = _files(folder, values, _values(":".join(image)))
    with ExitStack() as stack:
        world = stack.enter_context(World(kube, selections))
        mailbox = Mailbox(kube, MAIN, MAIN, world.changed)
        begun = datetime.now(UTC).replace(microsecond=0)
        found = Lab(
            cluster, HealingStage(kube, world, mailbox, image), int(last["revision"]), begun
        )
        for node in cluster.nodes:
            kernel_log.file(cluster, node).touch()
            kernel_log.file(cluster, node, REBOOT).unlink(missing_ok=True)
        made = ["-l", "app.kubernetes.io/managed-by=selfheal-remediator"]
        stack.callback(kube.kubectl, "delete", "jobs", "-n", MAIN, *made)
        stack.callback(found.rollback)
        kube.helm("upgrade", MAIN, str(CHART), "-n", MAIN, *files, "--wait", "--timeout", "4m")
        stack.enter_context(mailbox.reading())
        yield found


def _files(folder: Path, *values: Object) -> list[str]:
    """The arguments of helm with these values."""
    paths = [folder / f"{number}.yaml" for number in range(len(values))]
    for path, content in zip(paths, values, strict=True):
        path.write_text(yaml.safe_dump(content))
    return [word for path in paths for word in ("--values", str(path))]


def _values(image: str) -> Object:
    """The example's rule, with an image that is here and a machine that can be rebooted here."""
    [rule, *_] = yaml.safe_load(EXAMPLE.read_text())["remediator"]["config"]["rules"]
    [step] = rule["then"]
    machine = {"name": "machine", "hostPath": {"path": "/var/log"}}
    mounted = {"image": image, "volumeMounts": [{"name": "machine", "mountPath": "/machine"}]}
    reboot = step["job"]["template"]["spec"]
    [container] = reboot["containers"]
    # As with a command that reboots, the node goes away under the container.
    container |= {**mounted, "command": ["sh", "-c", f"touch /machine/{REBOOT} && sleep 600"]}
    container["securityContext"] |= {"runAsUser": 0}
    reboot["volumes"] = [machine]
    check = {"name": "check", **mounted, "command": ["test", "!", "-e", f"/machine/{REBOOT}"]}
    template = {"spec": {"containers": [check], "volumes": [machine]}}
    rule |= {"for": "2s", "verify": {"job": {"template": template}, "timeout": "2m"}}
    return {
        "nodeProblemDetector": {"systemLogMonitors": {"kernel-monitor": kernel_log.MONITOR}},
        "remediator": {
            "config": {
                "rules": [rule],
                "recovery": {"stabilizationWindow": "5s", "resetStabilizationWindow": "5s"},
                "restore": {"enabled": True, "gracePeriod": "5s"},
            }
        },
    }


def test_a_deleted_deployment_of_workers_is_back_and_no_message_is_lost(
    lab: Lab, say: Callable[[str], None]
) -> None:
    stage = lab.stage
    dead_letters = len(stage.mailbox.dead_letters())
    # Another run on this cluster may have left results.
    before, without = (f"{name}-{lab.revision}" for name in ("before", "without"))
    published = lab.publish(before, 120)
    stage.until(
        "messages flow", lambda: stage.mailbox.answered(before) and stage.ready_workers(MAIN)
    )
    old = {_owner(pod) for pod in stage.workers(MAIN)}
    deleted = time.time()
    stage.kube.kubectl("delete", "deployment", WORKER, "-n", MAIN, "--wait=false")
    published |= lab.publish(without, 40)
    stage.until(
        "another worker is ready",
        lambda: {_owner(pod) for pod in stage.ready_workers(MAIN)} - old,
    )
    took = since(deleted)
    stage.until("all are answered", lambda: published <= stage.mailbox.answered(""))
    say(
        f"a deleted Deployment: a worker is ready {took:.1f} s later;"
        f" {len(published)} published, lost 0"
    )
    assert took <= AT_MOST
    assert len(stage.mailbox.dead_letters()) == dead_letters
    stage.until(
        "the Event tells of it", lambda: "Restored" in lab.event_reasons("Deployment", WORKER)
    )


def _owner(pod: Object) -> str:
    """The uid of its ReplicaSet, which goes with the Deployment."""
    [owner] = pod["metadata"]["ownerReferences"]
    return str(owner["uid"])


def test_a_hung_kernel_is_rebooted_verified_and_the_node_uncordoned_by_itself(
    lab: Lab, say: Callable[[str], None]
) -> None:
    """The chart's own example: all that the test does is what a kernel and a machine do."""
    stage = lab.stage
    broker = {
        pods.node_of(pod) for pod in pods.labelled(stage.world["pods"].values(), MAIN, "rabbitmq")
    }
    bad, *_ = sorted(set(lab.cluster.nodes) - broker)
    booted, wanted = lab.boot_id(bad), kernel_log.file(lab.cluster, bad, REBOOT)
    broken = time.time()
    kernel_log.write(lab.cluster, bad, kernel_log.HUNG)

    stage.until(f"{bad} is to be rebooted", wanted.exists)
    assert pods.is_cordoned(lab.node(bad))
    assert pods.condition(lab.node(bad), "KernelDeadlock") == "True"
    [reboot] = lab.jobs(bad)
    left = pods.to_move(stage.world["pods"].values(), bad)
    name = reboot["metadata"]["name"]
    assert [pod["metadata"]["labels"].get("job-name") for pod in left] == [name]
    wanted.unlink()
    lab.cluster.reboot(bad)

    stage.until(f"{bad} is uncordoned", lambda: not pods.is_cordoned(lab.node(bad)))
    say(f"a hung kernel: the node is rebooted, verified, uncordoned {since(broken):.1f} s later")
    assert lab.boot_id(bad) != booted
    # Each step was run once. Jobs are watched by another process than nodes.
    stage.until(
        "the check's Job is seen to be complete",
        lambda: any(pods.condition(job, "Complete") == "True" for job in lab.jobs(bad)[1:]),
    )
    first, _ = lab.jobs(bad)
    assert first["metadata"]["uid"] == reboot["metadata"]["uid"]
    stage.until("it is all said", lambda: lab.event_reasons("Node", bad) >= SAID)
    assert not lab.event_reasons("Node", bad) & {"RepairStepFailed", "VerifyFailed", "RepairFailed"}


def test_a_rollback_to_a_release_without_restoring_leaves_what_was_restored(lab: Lab) -> None:
    """What is made again is owned by the ConfigMap for two minutes, and that goes."""
    there = lab.stage.kube.get("deployment", WORKER, "-n", MAIN)
    lab.rollback()
    assert (
        lab.stage.kube.items(
            "configmaps", "-n", MAIN, f"--field-selector=metadata.name={MAIN}-restore"
        )
        == []
    )
    left = lab.stage.kube.get("deployment", WORKER, "-n", MAIN)["metadata"]
    assert (left["uid"], left.get("ownerReferences")) == (there["metadata"]["uid"], None)
