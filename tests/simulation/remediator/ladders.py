"""Ladders of a world: the steps of its rules, what their Jobs do to nodes, attached volumes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from selfheal_remediator.actions.job import NODE_ANNOTATION, OCCURRENCE_ANNOTATION
from selfheal_remediator.kube.objects import node_from_json
from selfheal_remediator.node.annotation import Phase, known_state
from tests.simulation.cluster.cluster import Cluster
from tests.simulation.cluster.detectors import Detectors
from tests.simulation.cluster.kubelets import Behaviour
from tests.simulation.cluster.messages import Json
from tests.simulation.cluster.store import Change
from tests.simulation.scheduler import Simulation

#: The label of a step's pods that says what they do: reboot their node, repair it, check it.
DOES, CHECKS = "does", "check"
#: Seconds for which a machine that is rebooted is down, and until its detector runs again.
DOWN, DETECTED = 15.0, 5.0
_STEPS = ("reboot", "fix", "fix", "wait")


def add_ladders(chance: Random, settings: dict[str, Any], story: list[str]) -> bool:
    """Rules that drain get steps in half of the seeds; settings: of the configuration file, changed
    in place. Returns whether they did."""
    rules = [rule for rule in settings["rules"] if rule["action"] == "drain"]
    if chance.random() < 0.5 or not rules:
        return False
    for rule in rules:
        if chance.random() < 0.8:
            rule["then"] = [_step(chance) for _ in range(chance.choice((1, 2, 3)))]
        if chance.random() < 0.4:
            rule["verify"] = _verify(chance)
    settings["limits"]["maxRepairing"] = chance.choice((1, 1, 2))
    settings["drain"]["detachTimeout"] = "60s"
    story.append(f"steps after drains, on {settings['limits']['maxRepairing']} nodes at a time")
    return True


def _step(chance: Random) -> dict[str, Any]:
    does, settle = chance.choice(_STEPS), chance.choice(("5s", "30s"))
    if does == "wait":
        return {"wait": chance.choice(("10s", "40s")), "settle": settle}
    job = _job(does)
    if does == "reboot":
        job["succeededBy"] = "bootID"
    else:
        job["placement"] = chance.choice(("node", "node", "beside"))
    return {"job": job, "timeout": chance.choice(("60s", "120s")), "settle": settle}


def _verify(chance: Random) -> dict[str, Any]:
    if chance.random() < 0.5:
        return {"condition": {"type": "Ready"}, "timeout": "320s"}
    return {"job": _job(CHECKS), "timeout": "60s"}


def _job(does: str) -> dict[str, Any]:
    template = {"metadata": {"labels": {DOES: does}}, "spec": {"containers": [{"name": "main"}]}}
    return {"template": template}


class StepJobs:
    """What the pods of steps do; by chance of their own for each step of an occurrence.

    reliable: each of them does what it should, as when faults have stopped."""

    def __init__(self, simulation: Simulation, cluster: Cluster, detectors: Detectors) -> None:
        self._simulation, self._cluster, self._detectors = simulation, cluster, detectors
        self.reliable = False

    def behaviour(self, pod: Json) -> Behaviour | None:
        """Of a pod that starts, None = it is of no step."""
        marks = pod["metadata"].get("annotations") or {}
        occurrence = marks.get(OCCURRENCE_ANNOTATION)
        if occurrence is None:
            return None
        chance = Random(f"{self._simulation.seed}/step/{occurrence}")
        does, node = pod["metadata"]["labels"][DOES], marks[NODE_ANNOTATION]
        fate, seconds = chance.random(), chance.choice((3.0, 10.0, 30.0))
        if not self.reliable and fate < 0.15:
            return Behaviour()  # it never ends
        if not self.reliable and fate < 0.3:
            return Behaviour(run=seconds, exit_code=1)
        if does == "reboot":
            self._when_running(pod, seconds, lambda: self._reboot(node))
            return Behaviour()
        if does == "fix" and (self.reliable or chance.random() < 0.6):
            self._when_running(pod, seconds, lambda: self._repair(node))
        return Behaviour(run=seconds)

    def _when_running(self, pod: Json, seconds: float, do: Callable[[], None]) -> None:
        meta = pod["metadata"]

        def act() -> None:
            now = self._cluster.store.get("pods", meta["namespace"], meta["name"])
            if now is None or now["metadata"]["uid"] != meta["uid"]:
                return
            kubelet = self._cluster.kubelets.of.get(str(now["spec"].get("nodeName") or ""))
            if now["status"].get("phase") == "Running" and kubelet is not None and kubelet.alive:
                do()

        self._simulation.after(seconds, act)

    def _reboot(self, node: str) -> None:
        kubelet = self._cluster.kubelets.of.get(node)
        if kubelet is None:
            return
        self._simulation.record("world", f"{node}: a step reboots it")
        kubelet.reboot(DOWN)
        self._simulation.after(DOWN + DETECTED, lambda: self._detect(node))

    def _detect(self, node: str) -> None:
        if node in self._cluster.kubelets.of:
            self._detectors.start(node)

    def _repair(self, node: str) -> None:
        for kind in self._detectors.kinds:
            if self._detectors.status(node, kind) == "True":
                self._simulation.record("world", f"{node}: a step repairs it")
                self._detectors.report(node, kind, "False")


class Attachments:
    """Volumes that are attached to nodes: some stay so for a while after the drain began."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._delays: dict[str, float | None] = {}
        cluster.store.subscribe(self._changed)

    def add(self, chance: Random, nodes: list[str], story: list[str]) -> None:
        """On some of the nodes."""
        for node in chance.sample(nodes, min(2, len(nodes))):
            self._delays[node] = chance.choice((3.0, 40.0, None))
            attachment: Json = {
                "kind": "VolumeAttachment",
                "apiVersion": "storage.k8s.io/v1",
                "metadata": {"name": f"csi-{node}"},
                "spec": {"attacher": "model", "nodeName": node, "source": {}},
                "status": {"attached": True},
            }
            self._cluster.store.create(attachment, "attach-detach-controller")
            story.append(f"a volume is attached to {node}, and stays so for {self._delays[node]} s")

    def _changed(self, change: Change) -> None:
        if change.key[0] != "nodes" or change.new is None or change.key[2] not in self._delays:
            return
        state, delay = known_state(node_from_json(change.new)), self._delays[change.key[2]]
        if delay is not None and state is not None and state.phase is Phase.DRAINING:
            del self._delays[change.key[2]]
            self._cluster.simulation.after(delay, lambda: self._detach(change.key[2]))

    def _detach(self, node: str) -> None:
        key = "volumeattachments", "", f"csi-{node}"
        self._cluster.store.remove(key, "attach-detach-controller")

    def detach_all(self) -> None:
        """Faults stop."""
        self._delays.clear()
        for raw in self._cluster.store.all("volumeattachments"):
            self._detach(str(raw["spec"]["nodeName"]))
