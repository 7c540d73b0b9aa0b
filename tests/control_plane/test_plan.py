"""What `plan` says beforehand is what the drain does: random clusters, pod by pod.

The short form tries a few seeds; SELFHEAL_LONG=1 tries fifty. Replacements find no place, so
that a budget that is used up stays so, and what waits can be distinguished from what goes.
"""

import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from selfheal_remediator.kube.objects import Json
from tests.control_plane.conftest import Stages
from tests.control_plane.proxy import Proxy
from tests.control_plane.site import Site, moment
from tests.control_plane.test_policies import sicken
from tests.support.waiting import until

SEEDS = range(50 if os.environ.get("SELFHEAL_LONG") == "1" else 4)
SIDE_BY_SIDE = 4
#: How long a drain may take to become what was planned; a difference is counted, not awaited.
SETTLE = 60.0
SYSTEM = "system-cluster-critical"
Classes = dict[str, Counter[str]]


def test_plan_is_what_happens(stages: Stages) -> None:
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        results = list(pool.map(lambda seed: _one(stages, seed), SEEDS))
    pods = sum(sum(classes.total() for classes in plan.values()) for plan, _ in results)
    same = sum(_same(plan, actual) for plan, actual in results)
    kinds = sum((classes for plan, _ in results for classes in plan.values()), Counter[str]())
    sys.stderr.write(
        f"\n{len(results)} clusters, {pods} pods ({dict(kinds)}): "
        f"{same} classed as it happened, {100 * same / pods:.1f} %\n"
    )
    for seed, (plan, actual) in zip(SEEDS, results, strict=True):
        if plan != actual:
            sys.stderr.write(f"seed {seed}: planned {plan}, happened {actual}\n")
    assert len(kinds) >= 3
    assert same >= 0.98 * pods


def _same(plan: Classes, actual: Classes) -> int:
    return sum((plan[group] & actual[group]).total() for group in plan)


def _one(stages: Stages, seed: int) -> tuple[Classes, Classes]:
    with stages(f"plan-{seed}") as site:
        proxy = Proxy(site.account, alone=site.name)
        site.account = proxy.kubeconfig(site.account, site.folder / "proxied.kubeconfig")
        try:
            return _plan_and_run(site, random.Random(seed))
        finally:
            proxy.close()


def _plan_and_run(site: Site, dice: random.Random) -> tuple[Classes, Classes]:
    bad = site.nodes(dice.randint(1, 2))
    others = [site.node(f"other-{number}") for number in range(dice.randint(1, 2))]
    _Populace(site, dice, bad).settle()
    for node in others:
        site.cordon(node)
    for node in bad:
        site.condition(node, "True")
    config = site.config(
        rules=[{"condition": "TestFault", "for": "0s", "action": "drain"}],
        limits={"maxUnavailable": "100%", "maxDraining": 2},
        recovery={"stabilizationWindow": "1h"},
        signal={"enabled": False},
        drain={
            "headroom": False,
            "unmanagedPods": dice.choice(["report", "evict"]),
            "deleteEmptyDir": dice.random() < 0.7,
        },
    )
    pods = {pod["metadata"]["uid"]: pod for node in bad for pod in _all_pods(site, node)}
    found = json.loads(site.launched("plan", *bad, "-o", "json", config=config))
    ways = {
        pod["pod"].partition("/")[2]: _planned(pod) for n in found["nodes"] for pod in n["pods"]
    }
    plan = _classes(pods, lambda pod: ways[pod["metadata"]["name"]])

    process = site.remediator(config)

    def happened() -> Classes:
        there = {pod["metadata"]["uid"]: pod for node in bad for pod in _all_pods(site, node)}
        return _classes(pods, lambda pod: _outcome(pod, there, process.log))

    ends = time.monotonic() + SETTLE
    while (actual := happened()) != plan and time.monotonic() < ends:
        time.sleep(0.25)
    return plan, actual


def _classes(pods: dict[str, Json], way: Callable[[Json], str]) -> Classes:
    """How many pods of each owner fare how: pods of one owner are interchangeable."""
    found: Classes = {}
    for pod in pods.values():
        owners = pod["metadata"].get("ownerReferences") or ()
        group = next((o["name"] for o in owners if o["kind"] == "ReplicaSet"), "")
        found.setdefault(group or pod["metadata"]["name"], Counter())[way(pod)] += 1
    return found


def _planned(pod: dict[str, Any]) -> str:
    if pod["reason"] == "terminating":
        return "terminating"
    if pod["fate"] != "evict" or pod["waits"].startswith("wave"):
        return "untouched"
    return "waits" if pod["waits"] or pod["server"] else "goes"


def _outcome(pod: Json, there: dict[str, Json], log: str) -> str:
    meta = pod["metadata"]
    if "deletionTimestamp" in meta:
        return "terminating"
    if meta["uid"] not in there or "deletionTimestamp" in there[meta["uid"]]["metadata"]:
        return "goes"
    refused = f"{meta['namespace']}/{meta['name']} not evicted:" in log
    return "waits" if refused else "untouched"


def _all_pods(site: Site, node: str) -> list[Json]:
    query = {"fieldSelector": f"spec.nodeName={node}"}
    items: list[Json] = site.api.get(f"/api/v1/namespaces/{site.name}/pods", query)["items"]
    return items


class _Populace:
    """Pods of all kinds, drawn by lot."""

    def __init__(self, site: Site, dice: random.Random, bad: list[str]) -> None:
        self._site, self._dice, self._bad = site, dice, bad
        self._pods = f"/api/v1/namespaces/{site.name}/pods"
        made = site.create(
            f"/api/v1/namespaces/{site.name}/configmaps", {"metadata": {"name": "operator"}}
        )
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "operator"}
        owner = {**reference, "uid": made["metadata"]["uid"], "controller": True}
        self._owned = {"ownerReferences": [owner]}
        self._budgets: dict[str, str] = {}
        for number in range(dice.randint(1, 3)):
            self._deployment(f"web-{number}")
        if dice.random() < 0.5:
            site.daemon_set("agent")
        kinds = sorted(name for name in dir(self) if name.startswith(("_a_", "_an_")))
        for number in range(dice.randint(2, 8)):
            kind = dice.choice(kinds)
            getattr(self, kind)(
                f"{kind.split('_', 2)[2].replace('_', '-')}-{number}", dice.choice(bad)
            )

    def settle(self) -> None:
        """Until every budget counts what is there."""
        for name, app in self._budgets.items():
            until(f"{name} counts", partial(self._counted, name, app))

    def _counted(self, name: str, app: str) -> bool:
        path = f"/apis/policy/v1/namespaces/{self._site.name}/poddisruptionbudgets/{name}"
        status = self._site.api.get(path).get("status") or {}
        ready = sum(_ready(pod) for pod in self._site.pods(app=app))
        return status.get("currentHealthy") == ready and bool(status.get("observedGeneration"))

    def _budget(self, name: str, app: str, **spec: Any) -> None:
        self._site.budget(name, app, **spec)
        self._budgets[name] = app

    def _deployment(self, name: str) -> None:
        dice, replicas = self._dice, self._dice.randint(1, 5)
        more = {"priorityClassName": SYSTEM} if dice.random() < 0.25 else {}
        self._site.deployment(name, replicas, **more)
        budget: Json = dice.choice(
            [
                {},
                {"maxUnavailable": dice.randint(0, 2)},
                {"minAvailable": dice.randint(1, replicas)},
                {"maxUnavailable": "50%"},
            ]
        )
        if budget:
            self._budget(name, name, **budget)
        if dice.random() < 0.3:
            for pod in self._site.pods(app=name)[: dice.randint(1, 2)]:
                self._unready(pod["metadata"]["name"])

    def _unready(self, pod: str) -> None:
        condition = {"type": "Ready", "status": "False", "reason": "ByATest"}
        body = {"status": {"conditions": [condition]}}
        self._site.patch(f"{self._pods}/{pod}/status", body, "strategic-merge-patch")

    def _pod(self, name: str, node: str, **more: Any) -> None:
        metadata = {**self._owned, **more.pop("metadata", {})}
        self._site.pod(name, node, metadata=metadata, **more)

    def _a_plain_pod(self, name: str, node: str) -> None:
        self._pod(name, node)

    def _a_bare_pod(self, name: str, node: str) -> None:
        self._site.pod(name, node)

    def _a_kept_pod(self, name: str, node: str) -> None:
        self._pod(name, node, annotations={"selfheal.dev/evict": "false"})

    def _a_scratch_pod(self, name: str, node: str) -> None:
        self._pod(name, node, volumes=[{"name": "s", "emptyDir": {}}])

    def _a_static_pod(self, name: str, node: str) -> None:
        self._site.pod(name, node, annotations={"kubernetes.io/config.mirror": "x"})

    def _a_pinned_pod(self, name: str, node: str) -> None:
        self._pod(name, node, nodeSelector={"kubernetes.io/hostname": node})

    def _a_system_pod(self, name: str, node: str) -> None:
        self._pod(name, node, priorityClassName=SYSTEM)

    def _a_finished_pod(self, name: str, node: str) -> None:
        self._pod(name, node, restartPolicy="Never")
        self._site.patch(f"{self._pods}/{name}/status", {"status": {"phase": "Succeeded"}})

    def _a_stuck_pod(self, name: str, node: str) -> None:
        self._pod(name, node, metadata={"finalizers": ["selfheal.dev/test"]})
        self._site.delete(f"{self._pods}/{name}")

    def _a_guarded_pod(self, name: str, node: str) -> None:
        self._pod(name, node, metadata={"labels": {"app": name}})
        self._budget(name, name, minAvailable=1)

    def _an_unready_guarded_pod(self, name: str, node: str) -> None:
        self._a_guarded_pod(name, node)
        self._unready(name)

    def _a_pod_with_two_budgets(self, name: str, node: str) -> None:
        self._pod(name, node, metadata={"labels": {"app": name}})
        for number in ("1", "2"):
            self._budget(f"{name}-{number}", name, minAvailable=0)

    def _a_pod_with_a_local_volume(self, name: str, node: str) -> None:
        volume = f"{self._site.name}-{name}"
        host = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
        claim = {"namespace": self._site.name, "name": name}
        spec = {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "local": {"path": "/nowhere"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [host]}]}},
            "claimRef": claim,
            "storageClassName": "",
        }
        path = "/api/v1/persistentvolumes"
        self._site.create(path, {"metadata": {"name": volume}, "spec": spec})
        wanted = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "volumeName": volume,
            "storageClassName": "",
        }
        path = f"/api/v1/namespaces/{self._site.name}/persistentvolumeclaims"
        self._site.create(path, {"metadata": {"name": name}, "spec": wanted})
        self._pod(
            name,
            node,
            volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": name}}],
        )


def _ready(pod: Json) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def test_a_budget_that_keeps_pods_that_are_not_ready_is_named(site: Site) -> None:
    """They serve nobody, and a drain would wait for them; AlwaysAllow lets them go."""
    site.nodes(2)
    site.deployment("web", 2)
    site.budget("web-pdb", "web", maxUnavailable=1)
    bad = site.busiest()
    config = site.config()
    site.condition(bad, "True", lastTransitionTime=moment(600))
    sicken(site, min(site.names(bad)))

    def plan() -> str:
        result = site.command("plan", bad, config=config)
        assert result.returncode == 0, result.stderr
        return result.stdout

    keeps = f"PDB {site.name}/web-pdb keeps pods that are not ready (unhealthyPodEvictionPolicy)"
    assert keeps in plan()
    site.change_budget("web-pdb", unhealthyPodEvictionPolicy="AlwaysAllow")
    assert "keeps pods that are not ready" not in plan()
