"""The configuration of a cluster whose plan is compared with what happens, by a seed."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.simulation.cluster.messages import EPOCH, stamp

Settings = dict[str, Any]
#: The label of the nodes' pools, and the annotations by which a ladder's Job behaves.
POOL = "example.com/pool"
EXIT, REBOOTS = "simulation/exit", "simulation/reboots"
POOLS = ("a", "b", "c")
KEPT_OWNER = "apps.kruise.io/DaemonSet"
#: Minutes after the beginning at which a maintenance window opens, and how long it is open.
WINDOWS = ((-60, 600), (5, 10), (9, 30), (360, 60))


def settings(random: Random, observes: float) -> Settings:
    """Of the configuration file. observes: observeFirst, in seconds."""
    pick = random.choice
    found: Settings = {
        "observeFirst": f"{observes:g}s",
        "rules": rules(random),
        "limits": _limits(random),
        "groups": [_group(random, number) for number in range(pick((0, 0, 1, 2)))],
        "signal": {"enabled": random.random() < 0.2},
        "recovery": {"stabilizationWindow": "20s", "resetStabilizationWindow": "40s"},
        "drain": _drain(random),
        "policies": {"enabled": False},
    }
    if random.random() < 0.3:
        found["taint"] = {"key": "example.com/cordoned", "cordon": random.random() < 0.5}
    return found


def rules(random: Random) -> list[Settings]:
    """What is drained at once with a ladder, what later, and what is not drained."""
    pick = random.choice
    first: Settings = {"condition": "KernelDeadlock", "for": "5s", "action": "drain"}
    if random.random() < 0.8:
        first["then"] = [_step(random) for _ in range(random.randint(2, 5))]
    if random.random() < 0.5:
        first["verify"] = pick(({"condition": {"type": "Verified"}}, {"job": _job(random)}))
        first["verify"]["timeout"] = "1m"
    return [
        first,
        {
            "condition": "ReadonlyFilesystem",
            "for": pick(("5s", "5s", "100s")),
            "action": pick(("drain", "drain", "cordon")),
        },
        {
            "condition": "ContainerRuntimeUnhealthy",
            "for": "5s",
            "action": pick(("observe", "cordon")),
        },
    ]


def _job(random: Random) -> Settings:
    marks = {EXIT: random.choice(("0", "0", "1"))}
    container = {"name": "job", "image": "job:1"}
    return {"template": {"metadata": {"annotations": marks}, "spec": {"containers": [container]}}}


def _step(random: Random) -> Settings:
    kind = random.choice(("job", "job", "reboot", "machine", "resource", "webhook", "wait"))
    more: Settings = {"timeout": random.choice(("40s", "2m")), "settle": "20s"}
    match kind:
        case "job":
            job = _job(random) | {"placement": random.choice(("node", "beside"))}
            return {"job": job, **more}
        case "reboot":
            job = _job(random)
            marks = {REBOOTS: random.choice(("true", "true", "false"))}
            job["template"]["metadata"]["annotations"] |= marks
            return {"job": {**job, "succeededBy": "bootID"}, **more}
        case "machine":
            return {"machine": {"mode": random.choice(("remediate", "delete"))}, **more}
        case "resource":
            meta = {"name": "{node}-{occurrence}", "namespace": "selfheal"}
            template = {
                "apiVersion": "self-node-remediation.medik8s.io/v1alpha1",
                "kind": "SelfNodeRemediation",
                "metadata": meta,
            }
            shown = {"succeeded": {"condition": "Succeeded"}, "failed": {"condition": "Failed"}}
            return {"resource": {"template": template, **shown}, **more}
        case "webhook":
            # The secret is not there: it fails when its time is over.
            hook = {"url": "https://tickets.example.com/new", "secretFile": "/nowhere/secret"}
            return {"webhook": hook, **more}
    return {"wait": random.choice(("20s", "1m"))}


def _limits(random: Random) -> Settings:
    pick = random.choice
    limits: Settings = {
        "maxUnavailable": pick((1, "50%", "100%", "100%", "100%")),
        "maxDraining": pick((1, 2, 4)),
        "maxRepairing": pick((1, 2)),
    }
    if random.random() < 0.15:
        limits["maxUnavailablePerZone"] = 1
    if random.random() < 0.15:
        limits["minInterval"] = "3m"
    if random.random() < 0.15:
        limits["rate"] = {"count": 1, "window": "4m"}
    if random.random() < 0.15:
        limits["minSchedulable"] = pick((2, 4))
    return limits


def _group(random: Random, number: int) -> Settings:
    pick, pools = random.choice, random.sample(POOLS, random.choice((1, 2)))
    chosen = {"key": POOL, "operator": "In", "values": pools}
    group: Settings = {
        "name": f"group-{number}",
        "nodeSelector": {"matchExpressions": [chosen]},
        "mode": pick(("enforce",) * 6 + ("observe",)),
    }
    if random.random() < 0.5:
        group["limits"] = {"maxUnavailable": pick((1, 2)), "maxDraining": pick((0, 1, 2))}
    if random.random() < 0.4:
        opens, minutes = pick(WINDOWS)
        group["maintenanceWindows"] = [
            {"start": stamp(EPOCH + 60 * opens)[11:16], "duration": f"{minutes}m"}
        ]
        group["outsideWindows"] = {
            "cordon": pick(("allow", "wait")),
            "startedDrain": pick(("continue", "pause")),
        }
    if random.random() < 0.25:
        group["rules"] = rules(random)
    return group


def _drain(random: Random) -> Settings:
    pick = random.choice
    return {
        "delay": pick(("0s", "0s", "30s")),
        "deadline": "30m",
        "order": pick(("critical", "priority")),
        "headroom": random.random() < 0.7,
        "deleteEmptyDir": random.random() < 0.6,
        "unmanagedPods": pick(("report", "evict")),
        "keepOwners": pick(([], [KEPT_OWNER])),
        "surge": random.random() < 0.7,
        "lifecycleConditions": random.random() < 0.2,
        "waitForCompletion": {"max": pick(("0s", "3m", "6m"))},
    }
