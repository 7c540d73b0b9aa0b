"""Node pools of a world: groups with limits of their own, one node with GPUs, an autoscaler."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.simulation.cluster import objects
from tests.simulation.cluster.autoscaler import Autoscaler, ClusterAutoscaler, Karpenter
from tests.simulation.cluster.cluster import Cluster
from tests.simulation.cluster.messages import Json

LABEL, GPU = "example.com/pool", "nvidia.com/gpu"
_KINDS: tuple[type[Autoscaler], ...] = (ClusterAutoscaler, Karpenter)


def add_pools(cluster: Cluster, chance: Random, settings: dict[str, Any], story: list[str]) -> None:
    """What a seed adds to a world; settings: of the configuration file, changed in place."""
    nodes = [node["metadata"] for node in cluster.store.all("nodes")]
    names = sorted(one["name"] for one in nodes if objects.CONTROL_PLANE not in one["labels"])
    if chance.random() < 0.25:
        _label(cluster, names, chance.choice((2, 3)))
        limit = chance.choice((1, 1, "50%"))
        settings["limits"] |= {"groupLabel": LABEL, "maxUnavailablePerGroup": limit}
        if chance.random() < 0.5:
            settings["limits"]["maxDrainingPerGroup"] = 1
        story.append(f"pools by the label {LABEL}, {limit} unavailable in each")
    if chance.random() < 0.2:
        _add_gpus(cluster, names[0])
        story.append(f"{names[0]} alone has GPUs, Deployment gpu uses two of them")
    if chance.random() < 0.15:
        made = chance.choice(_KINDS)(cluster, most=len(names) + 3, unneeded=300.0)
        story.append(f"an autoscaler: {made.lease}")


def _label(cluster: Cluster, names: list[str], pools: int) -> None:
    for index, name in enumerate(names):

        def label(raw: Json, pool: str = "xyz"[index % pools]) -> None:
            raw["metadata"]["labels"][LABEL] = pool

        cluster.store.change(("nodes", "", name), label)


def repair(cluster: Cluster) -> None:
    """Faults stop: where a node has GPUs, all get some, so that its pods fit elsewhere, too."""
    nodes = cluster.store.all("nodes")
    if any(GPU in node["status"]["allocatable"] for node in nodes):
        for node in nodes:
            _plug(cluster, node["metadata"]["name"])


def _plug(cluster: Cluster, node: str) -> None:
    def plug(raw: Json) -> None:
        for size in (raw["status"]["capacity"], raw["status"]["allocatable"]):
            size[GPU] = "4"

    cluster.store.change(("nodes", "", node), plug)


def _add_gpus(cluster: Cluster, node: str) -> None:
    _plug(cluster, node)
    cluster.add(objects.deployment("default", "gpu", 2, requests={GPU: "1"}))
