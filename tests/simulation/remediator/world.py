"""A cluster by a seed: its machines, applications, budgets, and the remediator's configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from selfheal_remediator.config import Config
from tests.simulation.cluster.cluster import Cluster
from tests.simulation.cluster.detectors import Detectors
from tests.simulation.cluster.faulty_server import FaultyServer
from tests.simulation.cluster.messages import Json
from tests.simulation.remediator.drain_habits import add_habits, behaviour
from tests.simulation.remediator.ladders import Attachments, StepJobs, add_ladders
from tests.simulation.remediator.pods import Pods
from tests.simulation.remediator.pools import add_pools
from tests.simulation.remediator.process import Console, Replica, Surroundings
from tests.simulation.remediator.windows import add_windows
from tests.simulation.remediator.wire import Disturb
from tests.simulation.remediator.workloads import add_workloads
from tests.simulation.scheduler import Simulation

#: The conditions of its detectors. The rules are about some of them.
KINDS = ("KernelDeadlock", "ReadonlyFilesystem", "ContainerRuntimeUnhealthy")
#: So many seeds in a row have plain worlds, then as many have wide ones, and so on.
BLOCK = 150


@dataclass(slots=True)
class World:
    """See the module. policies: their specs, by application; wide: see `is_wide`; skew: seconds by
    which the replicas' clocks differ; story: what it is made of, for people."""

    simulation: Simulation
    cluster: Cluster
    server: FaultyServer
    detectors: Detectors
    config: Config
    around: Surroundings
    replicas: list[Replica]
    console: Console
    pods: Pods
    policies: dict[str, Json]
    steps: StepJobs
    attachments: Attachments
    wide: bool
    skew: float
    story: list[str] = field(default_factory=list)

    @property
    def nodes(self) -> list[str]:
        """The names of the machines that are there."""
        return sorted(self.cluster.kubelets.of)

    def start(self) -> None:
        """Start the detectors and the replicas."""
        for name in self.nodes:
            self.detectors.start(name)
        for replica in self.replicas:
            replica.start()


def is_wide(seed: int) -> bool:
    """Whether the seed's world may have ladders, windows, requests, habits of drains, and very few
    nodes.

    The others are as they were without these, and so is what they find (docs/simulation.md). Of
    300 seeds in a row 150 are wide."""
    return seed // BLOCK % 2 == 1


def build(simulation: Simulation, disturb: Disturb, folder: Path) -> World:
    """The world of the simulation's seed."""
    random = simulation.random
    cluster = Cluster(simulation)
    story: list[str] = []
    wide = is_wide(simulation.seed)
    few = Random(f"{simulation.seed}/few") if wide else None
    _add_nodes(cluster, random, few, story)
    policies = add_workloads(cluster, random, Random(f"{simulation.seed}/backoffs"), story)
    pods = Pods(cluster)
    settings = configuration(random)
    add_pools(cluster, Random(f"{simulation.seed}/pools"), settings, story)
    of_ladders = Random(f"{simulation.seed}/ladders")
    has_ladders = wide and add_ladders(of_ladders, settings, story)
    if wide:
        add_windows(cluster, Random(f"{simulation.seed}/windows"), settings, story)
        add_habits(cluster, Random(f"{simulation.seed}/habits"), settings, story)
    config = Config.model_validate(settings)
    story.append(f"configuration {settings}")
    server = FaultyServer(cluster.api)
    around = Surroundings(simulation, server, disturb, pods.progress)
    skews = [0.0, 0.0] if random.random() < 0.7 else [random.uniform(-20, 20) for _ in range(2)]
    replicas = [
        Replica(around, f"remediator-{number}", config, skew=skew)
        for number, skew in enumerate(skews[: random.choice((1, 2, 2))])
    ]
    story.append(f"{len(replicas)} replicas, clocks ahead by {[round(s, 1) for s in skews]} s")
    console = Console(around, settings, folder)
    detectors = Detectors(cluster, KINDS)
    steps, attachments = StepJobs(simulation, cluster, detectors), Attachments(cluster)
    pods.others = lambda pod: behaviour(pod, steps)
    if has_ladders and of_ladders.random() < 0.4:
        attachments.add(of_ladders, sorted(cluster.kubelets.of), story)
    return World(
        *(simulation, cluster, server, detectors, config, around, replicas, console),
        pods=pods,
        policies=policies,
        steps=steps,
        attachments=attachments,
        wide=wide,
        skew=max(skews) - min(skews),
        story=story,
    )


def _add_nodes(cluster: Cluster, random: Random, few: Random | None, story: list[str]) -> None:
    """few: of the chance that there are one or two only."""
    number, zones = random.choice((3, 4, 6, 8, 12, 16)), random.choice((1, 1, 2, 3))
    if few is not None and few.random() < 0.1:
        number = few.choice((1, 2))
    controllers = random.choice((0, 0, 1, 3))
    for index in range(number):
        cluster.add_node(f"node-{index:02}", zone="abc"[index % zones])
    for index in range(controllers):
        cluster.add_node(f"control-{index}", zone="abc"[index % zones], control_plane=True)
    story.append(f"{number} nodes in {zones} zones, {controllers} control-plane nodes")


def configuration(random: Random) -> dict[str, Any]:
    """A configuration file: what the fields may be is in config.py and the README."""
    pick = random.choice
    rules: list[dict[str, Any]] = [
        {
            "condition": "KernelDeadlock",
            "for": pick(("0s", "10s", "60s")),
            "action": pick(("drain", "drain", "cordon")),
            "latched": pick((False, False, True)),
        },
        {
            "condition": "ReadonlyFilesystem",
            "for": pick(("0s", "30s", "120s")),
            "action": pick(("drain", "drain", "cordon", "observe")),
        },
        {"condition": "Ready", "status": ["False", "Unknown"], "for": "2m", "action": "cordon"},
    ]
    if random.random() < 0.5:
        rules.append({"condition": "ContainerRuntimeUnhealthy", "for": "20s", "action": "drain"})
    return {
        "mode": "dryRun" if random.random() < 0.05 else "enforce",
        "observeFirst": pick(("0s", "0s", "0s", "60s")),
        "rules": rules,
        "limits": _limits(random),
        "signal": {"enabled": pick((True, False))},
        "recovery": {
            "stabilizationWindow": pick(("10s", "60s", "120s")),
            "resetStabilizationWindow": "120s",
            "maxFlaps": pick((2, 3, 5)),
        },
        "drain": {
            "deadline": pick(("60s", "300s", "600s")),
            "onDeadline": pick(("wait", "report", "delete")),
            "headroom": pick((True, True, False)),
        },
    }


def _limits(random: Random) -> dict[str, Any]:
    pick = random.choice
    limits: dict[str, Any] = {
        "maxUnavailable": pick((1, 2, "10%", "25%", "50%", "100%")),
        "maxDraining": pick((1, 1, 2, 4)),
    }
    if random.random() < 0.2:
        limits["maxUnavailablePerZone"] = pick((1, "50%"))
    if random.random() < 0.2:
        limits["minInterval"] = "30s"
    if random.random() < 0.2:
        limits["rate"] = {"count": pick((1, 3)), "window": "120s"}
    if random.random() < 0.2:
        limits["minSchedulable"] = pick((0, 2, 4))
    return limits
