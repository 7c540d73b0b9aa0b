"""Public field reports as small worlds. What was reported there must not happen here.

Nothing is copied from the reports: each world has the same cause in the same order.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfheal_remediator.config import Config
from selfheal_remediator.node.annotation import Phase
from tests.simulation.cluster import objects
from tests.simulation.cluster.cluster import Cluster
from tests.simulation.cluster.detectors import Detectors
from tests.simulation.cluster.faulty_server import FaultyServer
from tests.simulation.cluster.messages import Json
from tests.simulation.remediator.invariants import Watcher
from tests.simulation.remediator.ladders import Attachments, StepJobs
from tests.simulation.remediator.pods import Pods
from tests.simulation.remediator.process import Console, Replica, Surroundings, logged
from tests.simulation.remediator.states import state_of
from tests.simulation.remediator.wire import undisturbed
from tests.simulation.remediator.world import KINDS, World
from tests.simulation.scheduler import Simulation

FAULT = "KernelDeadlock"


@dataclass(slots=True)
class Field:
    """A small world, and what was seen of it. seen: by name, what the timeline noted; samples: by
    name, what it counted, again and again."""

    world: World
    watcher: Watcher
    seen: dict[str, object] = field(default_factory=dict)
    samples: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    @property
    def cluster(self) -> Cluster:
        """Its cluster."""
        return self.world.cluster

    @property
    def now(self) -> float:
        """Virtual time."""
        return self.world.simulation.now

    def at(self, seconds: float, do: Callable[[], object]) -> None:
        """Something happens then."""
        self.world.simulation.at(seconds, lambda: _done(do))

    def report(self, seconds: float, node: str, status: str, reason: str = "") -> None:
        """A detector reports the fault then."""
        self.at(seconds, lambda: self.world.detectors.report(node, FAULT, status, reason))

    def note(self, seconds: float, name: str, what: Callable[[], object]) -> None:
        """Note what something is then."""

        def look() -> None:
            self.seen[name] = what()

        self.at(seconds, look)

    def count(self, seconds: float, name: str, what: Callable[[], int]) -> None:
        """One more sample, then."""
        self.at(seconds, lambda: self.samples[name].append(what()))

    def versions(self, number: int) -> None:
        """Other objects are written so often."""
        for turn in range(number):
            self.cluster.add(objects.lease("default", f"other-{turn}", "x", ""))

    def phase(self, node: str) -> Phase | None:
        """What the node's annotation says."""
        state = state_of(self.cluster.node(node))
        return None if state is None else state.phase

    def cordoned(self, node: str) -> bool:
        """Whether it is cordoned."""
        return bool(self.cluster.node(node)["spec"].get("unschedulable"))

    def events(self, reason: str) -> int:
        """How many Events there are of this kind."""
        return sum(event["reason"] == reason for event in self.cluster.store.all("events"))

    def pods(self, app: str) -> list[Json]:
        """The pods of an application."""
        return self.world.pods.of(app)


def _done(do: Callable[[], object]) -> None:
    do()


@dataclass(frozen=True, slots=True)
class Report:
    """where: project and number; what: what happened there; seconds: how long the world runs;
    timeline: what happens here; wrong: what must not have happened then."""

    where: str
    what: str
    seconds: float
    timeline: Callable[[Field], None]
    wrong: Callable[[Field], Iterator[str]]
    rule: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def run(report: Report) -> list[str]:
    """What is wrong with the run of a report's world; the invariants hold in it too."""
    rule = {"condition": FAULT, "for": "30s", "action": "drain", **report.rule}
    settings = {
        "observeFirst": "0s",
        "rules": [rule],
        "limits": {"maxUnavailable": 1},
        "recovery": {"stabilizationWindow": "60s", "resetStabilizationWindow": "300s"},
        **report.settings,
    }
    with tempfile.TemporaryDirectory() as folder:
        simulation = Simulation(1, detail=False)
        with logged(simulation), simulation:
            made = Field(*_world(simulation, settings, Path(folder)))
            report.timeline(made)
            made.world.start()
            simulation.run(report.seconds)
            found = list(report.wrong(made))
            found += [line for line in simulation.trace if ": unexpected " in line]
    return found


def _world(simulation: Simulation, settings: dict[str, Any], folder: Path) -> tuple[World, Watcher]:
    cluster = Cluster(simulation)
    for number in range(4):
        cluster.add_node(f"node-{number}")
    pods, server = Pods(cluster), FaultyServer(cluster.api)
    around = Surroundings(simulation, server, undisturbed, pods.progress)
    config = Config.model_validate(settings)
    detectors = Detectors(cluster, KINDS)
    world = World(
        *(simulation, cluster, server, detectors, config, around),
        replicas=[Replica(around, f"remediator-{number}", config) for number in range(2)],
        console=Console(around, settings, folder),
        pods=pods,
        policies={},
        steps=StepJobs(simulation, cluster, detectors),
        attachments=Attachments(cluster),
        wide=False,
        skew=0.0,
    )
    return world, Watcher.of(world)


# -- what must not happen ------------------------------------------------------------------------


def wanted(**values: object) -> Callable[[Field], Iterator[str]]:
    """What was noted is something else."""

    def wrong(made: Field) -> Iterator[str]:
        for name, value in values.items():
            if made.seen.get(name) != value:
                yield f"{name}: {made.seen.get(name)} instead of {value}"

    return wrong


def _two_reasons(made: Field) -> None:
    """Two checks fail in turn, and each moves the transition time."""
    for turn in range(12):
        made.report(10.0 + 10.0 * turn, "node-1", "True", ("Error101", "Error4")[turn % 2])
    made.note(60.0, "cordoned", lambda: made.cordoned("node-1"))


def _restart_resets(made: Field) -> None:
    """The detector restarts while the fault is there, and finds it again after a minute."""
    made.report(10.0, "node-1", "True")
    made.at(100.0, lambda: made.world.detectors.restart("node-1"))
    made.report(165.0, "node-1", "True")
    made.note(160.0, "cordoned before", lambda: made.cordoned("node-1"))
    made.note(500.0, "cordoned after", lambda: made.cordoned("node-1"))


def _never_reset(made: Field) -> None:
    """A condition of a log is never good again, until its detector restarts: that alone is none
    of a recovery, a reboot is."""
    made.report(10.0, "node-1", "True")
    made.at(200.0, lambda: made.world.detectors.restart("node-1"))
    made.note(600.0, "cordoned without a reboot", lambda: made.cordoned("node-1"))
    made.at(610.0, lambda: made.cluster.kubelets.of["node-1"].reboot(30.0))
    made.at(650.0, lambda: made.world.detectors.restart("node-1"))
    made.note(1200.0, "cordoned after it", lambda: made.cordoned("node-1"))


def _latched_until_restart(made: Field) -> None:
    """The agent reports a fault that is over until it is restarted itself: its good news count
    once it had time to check again."""
    made.report(10.0, "node-1", "True")
    made.at(400.0, lambda: made.world.detectors.restart("node-1"))
    made.note(600.0, "cordoned soon after", lambda: made.cordoned("node-1"))
    made.note(900.0, "cordoned at last", lambda: made.cordoned("node-1"))


def _broken_set(made: Field) -> None:
    """A StatefulSet's update crashes, and the set waits for that pod even after the rollback."""
    made.cluster.add(objects.stateful_set("default", "web", 2))
    unhealthy: Json = {"waitingReasons": ["CrashLoopBackOff"]}
    policy = objects.healing_policy("default", "web", {"app": "web"}, unhealthy)
    policy["spec"] |= {"failureThreshold": 1, "restart": {"maxPerHour": 6}}
    made.cluster.add(policy)
    made.world.policies["web"] = policy["spec"]
    made.at(30.0, lambda: made.world.pods.crashing.add("web"))
    made.at(31.0, lambda: _rollout(made))
    made.at(120.0, made.world.pods.crashing.clear)
    made.note(2400.0, "ready", lambda: sum(_ready(pod) for pod in made.pods("web")))


def _rollout(made: Field) -> None:
    def edit(raw: Json) -> None:
        raw["spec"]["template"]["metadata"]["annotations"] = {"version": "2"}

    made.cluster.store.change(("statefulsets", "default", "web"), edit, "person")


def _ready(pod: Json) -> bool:
    return any(
        one["type"] == "Ready" and one["status"] == "True"
        for one in pod["status"].get("conditions") or ()
    )


def _local_volume(made: Field) -> None:
    """A volume is on one node by a key of its own: its pod could start nowhere else."""

    def label(raw: Json) -> None:
        name = raw["metadata"]["name"]
        raw["metadata"]["labels"]["topology.topolvm.io/node"] = name

    for number in range(4):
        made.cluster.store.change(("nodes", "", f"node-{number}"), label)
    key = "topology.topolvm.io/node"
    made.cluster.add(objects.volume("disk", "node-1", key))
    made.cluster.add(objects.claim("default", "disk", "disk"))
    made.cluster.add(objects.deployment("default", "db", 1, volumes=objects.claimed("disk")))
    made.note(20.0, "before", lambda: _uids(made, "db"))
    made.report(30.0, "node-1", "True")
    made.note(400.0, "phase", lambda: made.phase("node-1"))
    made.note(401.0, "stays", lambda: _uids(made, "db") == made.seen["before"])


def _uids(made: Field, app: str) -> list[str]:
    return [str(pod["metadata"]["uid"]) for pod in made.pods(app)]


def _dry_run_webhook(made: Field) -> None:
    """A webhook makes each eviction a dry run, which is accepted, and deletes the pod later."""
    made.cluster.add(objects.deployment("default", "web", 4))
    made.at(5.0, lambda: made.world.server.evictions_delete_nothing(150.0))
    made.report(10.0, "node-1", "True")
    made.note(120.0, "drained too soon", lambda: made.phase("node-1") is Phase.DRAINED)
    made.note(600.0, "phase", lambda: made.phase("node-1"))


def _restored(made: Field) -> None:
    """etcd goes back in time and catches up before the next watch has said anything."""
    store, backups = made.cluster.store, list[Any]()
    made.at(50.0, lambda: backups.append(store.backup()))
    made.report(60.0, "node-1", "True")
    made.at(120.0, lambda: made.world.server.restore(backups[0]))
    made.at(121.0, lambda: made.versions(400))
    made.note(240.0, "cordoned", lambda: made.cordoned("node-1"))


def _foreign_cordon(made: Field) -> None:
    """A person has cordoned a node, which then becomes bad and good again."""

    def cordon(raw: Json) -> None:
        raw["spec"]["unschedulable"] = True

    made.at(5.0, lambda: made.cluster.store.change(("nodes", "", "node-1"), cordon, "person"))
    made.report(10.0, "node-1", "True")
    made.report(200.0, "node-1", "False")
    made.note(600.0, "cordoned", lambda: made.cordoned("node-1"))


def _returning(made: Field) -> None:
    """Pods that tolerate everything are put on the node again and again."""
    tolerations = [{"operator": "Exists"}]
    made.cluster.add(objects.deployment("default", "web", 4, tolerations=tolerations))
    made.report(10.0, "node-1", "True")
    made.note(600.0, "loop", lambda: made.watcher.broken is not None)


REPORTS: Sequence[Report] = (
    Report(
        "kubernetes-sigs/karpenter#2833",
        "two failing checks move the transition time in turn: the node is never repaired",
        70.0,
        _two_reasons,
        wanted(cordoned=True),
    ),
    Report(
        "kubernetes/node-problem-detector#304",
        "all conditions are False after a restart of the detector, until it has checked again",
        600.0,
        _restart_resets,
        wanted(**{"cordoned before": True, "cordoned after": True}),
    ),
    Report(
        "kubernetes/node-problem-detector#215",
        "a condition that a log line has set is never reset",
        1300.0,
        _never_reset,
        wanted(**{"cordoned without a reboot": True, "cordoned after it": False}),
        rule={"latched": True},
    ),
    Report(
        "aws/eks-node-monitoring-agent#250",
        "a condition stays bad after the fault is over, until the agent is restarted",
        1000.0,
        _latched_until_restart,
        wanted(**{"cordoned soon after": True, "cordoned at last": False}),
    ),
    Report(
        "kubernetes/kubernetes#67250",
        "a StatefulSet waits for a broken pod, though its template is good again",
        2500.0,
        _broken_set,
        wanted(ready=2),
    ),
    Report(
        "topolvm/topolvm#41",
        "an evicted pod cannot start anywhere else, as its volume is on that node",
        500.0,
        _local_volume,
        wanted(stays=True),
    ),
    Report(
        "foriequal0/pod-graceful-drain#13",
        "an eviction is accepted and changed into a dry run, so that nothing is deleted",
        700.0,
        _dry_run_webhook,
        wanted(**{"drained too soon": False, "phase": Phase.DRAINED}),
    ),
    Report(
        "kubernetes/kubernetes#107457",
        "a watch misses what changed after a restore of etcd",
        300.0,
        _restored,
        wanted(cordoned=True),
    ),
    Report(
        "NVIDIA/NVSentinel#1424",
        "a node that somebody else had cordoned is uncordoned with the recovery",
        700.0,
        _foreign_cordon,
        wanted(cordoned=True),
    ),
    Report(
        "kubernetes-sigs/descheduler#424",
        "pods are evicted again and again from the node that they are put on again",
        700.0,
        _returning,
        wanted(loop=False),
    ),
)
