"""Snapshots of the status page: a night as on call sees one, and the largest that there can be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from selfheal_remediator.status_page.snapshot import (
    MOST_ROWS,
    Counts,
    DrainRow,
    EventRow,
    Level,
    NodeRow,
    PolicyRow,
    Role,
    Rows,
    Snapshot,
    WorkloadRow,
)

#: 2026-03-14T02:11:00Z
NOW = 1773454260.0
_POD = "selfheal-remediator-7c9f8b6d5-x2x4q"
T = TypeVar("T")


def rows(*shown: T, total: int = 0) -> Rows[T]:
    """These, of so many."""
    return Rows(shown, total or len(shown))


NODES = (
    NodeRow(
        *("ip-10-0-44-121.eu-central-1.compute.internal", "repair_failed", Level.BAD, NOW - 7300),
        "KernelDeadlock True: AUFSUmountHung; step 2 of 2 (job reboot) was its last",
        "",
    ),
    NodeRow(
        *("ip-10-0-12-7.eu-central-1.compute.internal", "draining", Level.WARNING, NOW - 540),
        "ReadonlyFilesystem True: FilesystemIsReadOnly",
        "",
    ),
    NodeRow(
        *("ip-10-0-31-200.eu-central-1.compute.internal", "cordoned", Level.WARNING, NOW - 300),
        "KubeletUnhealthy True: KubeletUnhealthy",
        "maxDraining: 1 drains, allowed 1",
    ),
    NodeRow(
        *("ip-10-0-9-18.eu-central-1.compute.internal", "wants-cordon", Level.WARNING, NOW - 200),
        "Ready is Unknown (NodeStatusUnknown) for 3m20s",
        "maxUnavailable: 3 of 30 nodes cordoned, allowed 3",
    ),
    NodeRow("gpu-a100-2", "excluded", Level.NORMAL, 0.0, "excluded: disk is being replaced", ""),
)
DRAINS = (
    DrainRow(
        node="ip-10-0-12-7.eu-central-1.compute.internal",
        since=NOW - 540,
        deadline=NOW + 1260,
        gone=11,
        left=3,
        staying=1,
        state="makes no progress",
        level=Level.WARNING,
        blockers="PDB shop/checkout needs 3, has 3 (2: shop/checkout-5d8f-abcde, "
        "shop/checkout-5d8f-fghij); stay: has no controller (drain.unmanagedPods)",
    ),
)
POLICIES = (
    PolicyRow(
        *("shop/checkout", "GaveUp", Level.BAD, 1, 3, 6, NOW - 1500),
        "6 restarts within an hour, allowed 6: Deployment checkout is left to a person",
    ),
    PolicyRow("selfheal/selfheal-worker", "Healing", Level.WARNING, 3, 4, 1, NOW - 45, ""),
    PolicyRow("search/indexer", "Healthy", Level.NORMAL, 12, 12, 0, 0.0, ""),
)
WORKLOADS = (
    WorkloadRow(
        *("shop/Deployment checkout", "shop/checkout", 3, 3, 2, Level.BAD),
        "6 restarts within an hour, allowed 6",
    ),
    WorkloadRow(
        *("selfheal/Deployment selfheal-worker", "selfheal/selfheal-worker", 4, 4, 1, Level.BAD),
        "a pod is being restarted",
    ),
    WorkloadRow("search/Deployment indexer", "search/indexer", 12, 12, 0, Level.NORMAL, ""),
)
EVENTS = (
    EventRow(
        *(NOW - 45, "HealingRestarted", "Deployment selfheal/selfheal-worker"),
        "selfheal-worker-6f7d-q9x2z is evicted: no progress for 20s while 8 messages are in flight",
        warning=False,
    ),
    EventRow(
        *(NOW - 120, "DrainBlocked", "Node ip-10-0-12-7.eu-central-1.compute.internal"),
        "PDB shop/checkout needs 3, has 3 (2: shop/checkout-5d8f-abcde, shop/checkout-5d8f-fghij)",
        warning=True,
    ),
    EventRow(
        *(NOW - 540, "Cordoned", "Node ip-10-0-12-7.eu-central-1.compute.internal"),
        "ReadonlyFilesystem is True (FilesystemIsReadOnly) for 1m: cordoned, will be drained",
        warning=True,
        problem="refused: 403 Forbidden",
    ),
)

NIGHT = Snapshot(
    at=NOW - 2,
    installation="selfheal/selfheal-remediator",
    process=f"{_POD}_8d3a2f10-6a53-4c61-9a94-0d2b7f0c5a11",
    role=Role.LEADER,
    leader=f"{_POD}_8d3a2f10-6a53-4c61-9a94-0d2b7f0c5a11",
    dry_run="",
    stopped="",
    events_since=NOW - 190000,
    counts=Counts(
        nodes=30,
        cordoned=3,
        allowed=3,
        states=(
            *(("ok", 25), ("repair_failed", 1), ("draining", 1), ("cordoned", 1)),
            *(("wants-cordon", 1), ("excluded", 1)),
        ),
        limited=(("maxDraining", 1), ("maxUnavailable", 1)),
    ),
    nodes=rows(*NODES),
    drains=rows(*DRAINS),
    policies=rows(*POLICIES),
    workloads=rows(*WORKLOADS),
    events=rows(*EVENTS),
)
#: Nothing to report.
QUIET = replace(
    NIGHT,
    counts=Counts(nodes=30, cordoned=0, allowed=3, states=(("ok", 30),)),
    nodes=Rows(),
    drains=Rows(),
    policies=Rows(),
    workloads=Rows(),
    events=Rows(),
)
#: A replica that does not lead, of a paused installation, whose main loop is stuck.
STANDBY = replace(
    QUIET,
    at=NOW - 95,
    process="selfheal-remediator-7c9f8b6d5-k8s7v_f",
    role=Role.STANDBY,
    stopped="paused: the network team replaces a switch",
    counts=Counts(nodes=30, states=(("ok", 28), ("draining", 1), ("cordoned", 1))),
    nodes=rows(*NODES[1:3]),
    policies_known=False,
)


def largest(text: str, nodes: int, shown: int = MOST_ROWS) -> Snapshot:
    """Of a cluster of so many nodes, all of them bad, where each text is this one. shown: rows of
    each table."""
    number = 2**31
    many: dict[str, Any] = {
        "nodes": NodeRow(text, text, Level.BAD, NOW, text, text),
        "drains": DrainRow(text, NOW, NOW, number, number, number, text, Level.BAD, text),
        "policies": PolicyRow(text, text, Level.BAD, number, number, number, NOW, text),
        "workloads": WorkloadRow(text, text, number, number, number, Level.BAD, text),
        "events": EventRow(NOW, text, text, text, warning=True, problem=text),
    }
    tables: dict[str, Any] = {name: Rows((row,) * shown, nodes) for name, row in many.items()}
    states = ((text, number),) * 25
    return replace(
        NIGHT,
        installation=text,
        process=text,
        leader=text,
        dry_run=text,
        stopped=text,
        counts=Counts(nodes, nodes, nodes, states, states),
        **tables,
    )
