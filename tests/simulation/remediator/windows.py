"""Maintenance windows of a world: a group of its nodes has hours in which no drain begins."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.simulation.cluster import objects
from tests.simulation.cluster.cluster import Cluster
from tests.simulation.cluster.messages import Json

LABEL, GROUP = "example.com/hours", "night"


def add_windows(
    cluster: Cluster, chance: Random, settings: dict[str, Any], story: list[str]
) -> None:
    """In less than half of the seeds; settings: of the configuration file, changed in place.

    Virtual time begins at midnight. The window is closed once for some minutes, before faults
    stop: clocks that are an hour ahead or behind find it open.
    """
    if chance.random() >= 0.4:
        return
    nodes = [node["metadata"] for node in cluster.store.all("nodes")]
    names = sorted(one["name"] for one in nodes if objects.CONTROL_PLANE not in one["labels"])
    members = [name for name in names if chance.random() < 0.7] or names[:1]
    for name in members:
        cluster.store.change(("nodes", "", name), _join)
    closes = chance.randint(1, 8)
    opens = chance.randint(closes + 3, 14)
    window = {"start": _clock(opens), "end": _clock(closes)}
    outside = {
        "cordon": chance.choice(("allow", "allow", "wait")),
        "startedDrain": chance.choice(("continue", "pause")),
    }
    settings["groups"] = [
        {
            "name": GROUP,
            "nodeSelector": {"matchLabels": {LABEL: GROUP}},
            "maintenanceWindows": [window],
            "outsideWindows": outside,
        }
    ]
    story.append(
        f"{', '.join(members)}: a window from {opens} to {closes} past midnight, {outside}"
    )


def _join(raw: Json) -> None:
    raw["metadata"]["labels"][LABEL] = GROUP


def _clock(minutes: int) -> str:
    return f"00:{minutes:02}"
