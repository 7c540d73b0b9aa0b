"""A cluster by a seed, in which a remediator observes first: a plan is made just before it acts.

So it happens to whoever installs it: nodes are bad, `plan` is read, and then all of it is done.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from selfheal_remediator.config import Config
from selfheal_remediator.node.annotation import EXCLUDE_KEY, Phase, State
from tests.simulation.cluster import conditions, objects
from tests.simulation.cluster.cluster import Cluster
from tests.simulation.cluster.detectors import Detectors
from tests.simulation.cluster.external_systems import REMEDIATE, ClusterApi, Medik8s
from tests.simulation.cluster.kubelets import Behaviour
from tests.simulation.cluster.messages import Json
from tests.simulation.cluster.people import Person
from tests.simulation.cluster.store import Change
from tests.simulation.plans import apps
from tests.simulation.plans.record import Record
from tests.simulation.plans.settings import EXIT, POOL, POOLS, REBOOTS, settings
from tests.simulation.remediator.process import Console, Replica, Surroundings
from tests.simulation.remediator.states import state_of
from tests.simulation.scheduler import Simulation

KINDS = ("KernelDeadlock", "ReadonlyFilesystem", "ContainerRuntimeUnhealthy", "Verified")
#: Virtual seconds: the faults are there, a plan is made, the remediator acts, the end.
FAULTS, PLANNED, ACTS, END = 50.0, 116.0, 120.0, 2400.0
#: When plans are made again, while it acts.
AGAIN = (150.0, 240.0, 420.0, 900.0, 2380.0)
ACTOR = "remediator"


class Scene:
    """See the module. bad: nodes with something to be done. story: what it is made of."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = random = Random(f"{seed}/plans")
        self.simulation = Simulation(seed, detail=False)
        self.story: list[str] = []
        cluster = self.cluster = Cluster(self.simulation)
        self._nodes()
        nodes = sorted(name for name in cluster.kubelets.of if name.startswith("node-"))
        self.bad = sorted(random.sample(nodes, random.choice((2, 3, 4))))
        self.settings = settings(random, ACTS)
        self.story.append(f"configuration {self.settings}")
        self.config = Config.model_validate(self.settings)
        self.luck = Random(f"{seed}/luck")
        cluster.kubelets.behaviour = self._behaviour
        self._systems = Systems(self)
        self._apps = apps.Apps(cluster, random, self.bad, self.story)
        self._apps.add()
        self.record = Record(cluster, ACTOR)
        self.detectors = Detectors(cluster, KINDS)
        around = Surroundings(self.simulation, cluster.api)
        self.replica = Replica(around, ACTOR, self.config)
        self._console = Console(around, self.settings, folder)
        #: The plans, and when they were made; the pods that there were at the first.
        self.plans: list[tuple[float, Json]] = []
        self.pods: list[Json] = []

    def _nodes(self) -> None:
        random = self.random
        cpu = random.choice(("4", "4", "4", "1"))
        for number in range(random.choice((5, 7, 9))):
            pool = random.choice(POOLS)
            self.cluster.add_node(
                f"node-{number}", zone="ab"[number % 2], cpu=cpu, labels={POOL: pool}
            )
            self.story.append(f"node-{number}: pool {pool}, {cpu} CPUs")
        if random.random() < 0.3:
            self.cluster.add_node("control-0", control_plane=True)

    def _behaviour(self, pod: Json) -> Behaviour:
        marks = pod["metadata"].get("annotations") or {}
        if EXIT not in marks:
            return apps.behaviour(pod)
        if REBOOTS not in marks:
            return Behaviour(run=10.0, exit_code=int(marks[EXIT]))
        if marks[REBOOTS] == "true":
            self._systems.reboot(str(pod["spec"]["nodeName"]), 10.0)
        return Behaviour(run=12.0)

    # -- time -----------------------------------------------------------------------------

    def run(self) -> None:
        """All of it; the caller has entered the simulation."""
        at = self.simulation.at
        for name in sorted(self.cluster.kubelets.of):
            self.detectors.start(name)
        self.replica.start()
        for when, do in self._apps.later:
            at(when, partial(_done, do))
        at(FAULTS, self._faults)
        for when in (PLANNED, *AGAIN):
            at(when, partial(self._ask, when))
        at(PLANNED - 0.01, self._keep_pods)
        self.simulation.run(END)

    def _keep_pods(self) -> None:
        self.pods = list(self.cluster.store.all("pods"))

    def _ask(self, when: float) -> None:
        outcome = self._console.run("plan", "-o", "json")

        def shown() -> None:
            assert outcome.status == 0, outcome
            self.plans.append((when, json.loads(outcome.printed)))

        self.simulation.after(3.0 if when == PLANNED else 8.0, shown)

    def _faults(self) -> None:
        random = self.random
        person = Person(self.cluster, name="person")
        for number, node in enumerate(self.bad):
            kind = random.choice((*KINDS[:1] * 4, *KINDS[1:2] * 2, KINDS[2], "request"))
            if kind == "request":
                person.annotate("nodes", "", node, **{"selfheal.dev/drain": "maintenance"})
            else:
                report = partial(self.detectors.report, node, kind, "True")
                self.simulation.after(3.0 * number, report)
            self.story.append(f"{node}: {kind}")
            if random.random() < 0.15:
                self._systems.meddle(node, random)

    @property
    def namespace(self) -> str:
        """The remediator's."""
        return "selfheal"


def _done(do: Callable[[], object]) -> None:
    do()


class Systems:
    """Who repairs nodes for the steps of ladders, and who keeps the remediator away from nodes."""

    def __init__(self, scene: Scene) -> None:
        self._scene, self._cluster = scene, scene.cluster
        scene.cluster.api.custom.add("selfnoderemediations")
        self._machines = ClusterApi(scene.cluster)
        self._medik8s = Medik8s(scene.cluster)
        luck, nodes = scene.luck, sorted(scene.cluster.kubelets.of)
        #: After which step a node is healthy, None = after none.
        self.repaired_by = {node: luck.choice((1, 1, 2, 3, None, None)) for node in nodes}
        self.verifies = {node: luck.random() < 0.7 for node in nodes}
        self._rebooting: set[str] = set()
        self._said: set[str] = set()
        if luck.random() < 0.6:
            for node in nodes:
                self._machines.adopt(node)
                if luck.random() < 0.7:
                    self._own(node)
        scene.cluster.store.subscribe(self._changed)

    def _own(self, node: str) -> None:
        owner = {"apiVersion": "cluster.x-k8s.io/v1beta1", "kind": "MachineSet", "name": "set"}

        def edit(raw: Json) -> None:
            raw["metadata"]["ownerReferences"] = [{**owner, "uid": "set", "controller": True}]

        self._cluster.store.change(("machines", "capi", f"machine-{node}"), edit, "capi")

    def meddle(self, node: str, random: Random) -> None:
        """Somebody keeps the remediator away from the node."""
        person, how = Person(self._cluster, name="person"), random.randrange(4)
        match how:
            case 0:
                person.annotate("nodes", "", node, **{EXCLUDE_KEY: "forensics"})
            case 1:
                person.cordon(node)
            case 2:
                self._medik8s.maintain(node, 9000.0, duration=9000)
            case 3:
                marks = {"weave.works/kured-reboot-in-progress": "now"}
                person.annotate("nodes", "", node, **marks)
        self._scene.story.append(f"{node}: somebody else, {how}")

    def reboot(self, node: str, after: float) -> None:
        """The machine boots again, whatever asked for it; its detector finds what there is."""
        if node in self._rebooting:
            return
        self._rebooting.add(node)
        self._scene.simulation.after(after, lambda: self._boots(node))

    def _boots(self, node: str) -> None:
        kubelet, detectors = self._cluster.kubelets.of.get(node), self._scene.detectors
        if kubelet is None:
            return
        bad = {kind: one.status for kind, one in detectors.of[node].findings.items()}
        kubelet.reboot(20.0)

        def up() -> None:
            self._rebooting.discard(node)
            if node not in self._cluster.kubelets.of:
                return
            detectors.start(node)
            for kind, status in bad.items():
                if status == "True":
                    self._scene.simulation.after(3.0, partial(detectors.report, node, kind, "True"))

        self._scene.simulation.after(22.0, up)

    def _changed(self, change: Change) -> None:
        if change.new is None:
            return
        plural, name = change.key[0], change.key[2]
        if plural == "nodes":
            self._repaired(name, state_of(change.new))
        elif plural == "selfnoderemediations" and change.old is None:
            shown = self._scene.luck.choice(("Succeeded", "Succeeded", "Failed", ""))
            if shown:
                self._scene.simulation.after(15.0, partial(self._show, change.key, shown))
        elif plural == "machines":
            self._machine(change.new)

    def _show(self, key: Any, kind: str) -> None:
        now = self._cluster.store.clock()
        self._cluster.store.change(key, lambda raw: conditions.put(raw, kind, "True", now))

    def _machine(self, raw: Json) -> None:
        meta = raw["metadata"]
        node = meta["name"].removeprefix("machine-")
        marked = REMEDIATE in (meta.get("annotations") or {})
        if meta.get("deletionTimestamp") and f"delete {node}" not in self._said:
            self._said.add(f"delete {node}")
            self._scene.detectors.stop(node)
            self._machines.delete(node, 20.0)
        elif marked and f"mark {node}" not in self._said:
            self._said.add(f"mark {node}")
            self.reboot(node, 15.0)

    def _repaired(self, node: str, state: State | None) -> None:
        """The step that helps has succeeded."""
        if state is None or state.phase is not Phase.REPAIRING or not state.step_ended:
            return
        mark = f"repaired {node}"
        if state.step_failed or state.steps != self.repaired_by[node] or mark in self._said:
            return
        self._said.add(mark)
        detectors = self._scene.detectors
        self._scene.simulation.after(4.0, partial(detectors.report, node, state.condition, "False"))
        if self.verifies[node]:
            self._scene.simulation.after(30.0, partial(detectors.report, node, "Verified", "True"))


__all__ = ["ACTS", "END", "PLANNED", "Scene", "objects"]
