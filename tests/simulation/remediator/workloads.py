"""The applications of a world: owners of all kinds, budgets, policies."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.simulation.cluster import objects
from tests.simulation.cluster.cluster import Cluster
from tests.simulation.cluster.messages import Json

_TOLERATES_ALL = {"operator": "Exists"}


def add_workloads(
    cluster: Cluster, random: Random, backoffs: Random, story: list[str]
) -> dict[str, Json]:
    """Owners of all kinds, some with budgets: none, loose, tight, impossible, two on one pod.

    Returns the policies' specs by application.
    """
    policies = {}
    for index in range(random.choice((1, 2, 2, 4, 6))):
        name = f"app-{index}"
        spec = _add(cluster, random, name, backoffs.choice(("5s", "60s")), story)
        if spec is not None:
            policies[name] = spec
            story.append(f"HealingPolicy {name}: {spec}")
    if random.random() < 0.5:
        cluster.add(objects.daemon_set("kube-system", "agent", tolerations=[_TOLERATES_ALL]))
        story.append("DaemonSet kube-system/agent")
    for index in range(random.choice((0, 0, 0, 2))):
        cluster.add(objects.job("default", f"job-{index}", completions=3))
        cluster.add(objects.pod("default", f"bare-{index}", {"app": f"bare-{index}"}))
        story.append(f"Job job-{index}, pod bare-{index} of nobody")
    return policies


def _add(
    cluster: Cluster, random: Random, name: str, backoff: str, story: list[str]
) -> Json | None:
    """One application; returns the spec of its policy, None = it has none."""
    replicas = random.choice((1, 2, 3, 6, 10))
    spec: dict[str, Any] = {}
    if random.random() < 0.1:
        spec["tolerations"] = [_TOLERATES_ALL]
    if random.random() < 0.15:
        spec["terminationGracePeriodSeconds"] = random.choice((5, 120))
    if random.random() < 0.15:
        spec["volumes"] = [{"name": "data", "emptyDir": {}}]
    if random.random() < 0.05:
        node = sorted(cluster.kubelets.of)[0]
        cluster.add(objects.volume(f"volume-{name}", node))
        cluster.add(objects.claim("default", f"claim-{name}", f"volume-{name}"))
        spec["volumes"] = objects.claimed(f"claim-{name}")
    make = random.choice((objects.deployment, objects.deployment, objects.stateful_set))
    cluster.add(make("default", name, replicas, **spec))
    budgets = _budgets(name, replicas, random)
    for budget in budgets:
        cluster.add(budget)
    limits = [budget["spec"] for budget in budgets]
    story.append(f"{make.__name__} {name}: {replicas} replicas, {spec}, budgets {limits}")
    return _policy(cluster, random, name, backoff)


def _policy(cluster: Cluster, random: Random, name: str, backoff: str) -> Json | None:
    if random.random() < 0.5:
        return None
    pick = random.choice
    unhealthy: Json = {"notReadyFor": pick(("10s", "30s"))}
    more: Json = {
        "failureThreshold": pick((1, 2, 3)),
        "restart": {
            "backoff": backoff,
            "maxBackoff": "60s",
            "maxPerHour": pick((1, 2, 6)),
        },
    }
    if random.random() < 0.5:
        unhealthy["waitingReasons"] = ["CrashLoopBackOff"]
    if random.random() < 0.4:
        unhealthy["noProgressFor"] = "60s"
        more["progress"] = {"port": 8080}
    policy = objects.healing_policy("default", name, {"app": name}, unhealthy, **more)
    cluster.add(policy)
    spec: Json = policy["spec"]
    return spec


def _budgets(name: str, replicas: int, random: Random) -> list[Json]:
    selector = {"app": name}
    one: dict[str, Any] = random.choice(
        (
            {"maxUnavailable": 1},
            {"minAvailable": max(0, replicas - 1)},
            {"minAvailable": replicas},
            {"maxUnavailable": "34%"},
        )
    )
    which = random.random()
    if which < 0.4:
        return []
    budgets = [objects.budget("default", name, selector, **one)]
    if which > 0.93:
        budgets.append(objects.budget("default", f"{name}-too", selector, maxUnavailable=1))
    return budgets
