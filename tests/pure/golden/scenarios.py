"""What can happen to a cluster, as small stories. Each is a function of a World; its name is the
file's name in files/."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.pure.golden.world import BUDGETS, LEASE, MARKER, POLICIES, World
from tests.pure.remediator import deployments
from tests.pure.remediator import restore_world as release
from tests.pure.remediator.running import NODES, PODS, until

RELEASE = f"/api/v1/namespaces/{release.NAMESPACE}/configmaps/{release.CONFIG_MAP}"
WORKERS = f"/apis/apps/v1/namespaces/{release.NAMESPACE}/deployments/r-worker"
SET, WEB = "/apis/apps/v1/namespaces/d/replicasets/r", "/apis/apps/v1/namespaces/d/deployments/web"
SCENARIOS: dict[str, Callable[[World], None]] = {}
DRAIN = {
    "rules": [{"condition": "Fault", "for": 0, "action": "drain"}],
    "drain": {"headroom": False},
}
_ANSWERS = json.loads(
    (Path(__file__).parents[1] / "remediator" / "eviction_answers.json").read_text(encoding="utf-8")
)
ANSWERS = {one["name"]: (one["status"], one["body"]) for one in _ANSWERS}


def scenario(function: Callable[[World], None]) -> Callable[[World], None]:
    """Puts it into the table."""
    SCENARIOS[function.__name__] = function
    return function


def nodes(world: World, *names: str, **more: Any) -> None:
    """Healthy ones."""
    for name in names:
        world.node(name, **more)


def with_limits(**more: Any) -> dict[str, Any]:
    """Only these limits."""
    return {"limits": {"maxUnavailable": "100%", **more}}


def draining(**more: Any) -> dict[str, Any]:
    """As DRAIN, with more settings of the drain."""
    return {**DRAIN, "drain": {"headroom": False, **more}}


# -- cordon, recovery --------------------------------------------------------------------------


@scenario
def cordon_only(world: World) -> None:
    nodes(world, "a", "b")
    with world.running():
        world.node("a", "True")
        world.event("Cordoned")


@scenario
def waits_for_its_duration(world: World) -> None:
    nodes(world, "a", "b")
    with world.running({"rules": [{"condition": "Fault", "for": "2m", "action": "cordon"}]}):
        world.node("a", "True")
        world.settled()
        world.advance(10)
        world.phase("a", "seen")
        world.advance(111)
        world.event("Cordoned")


@scenario
def observe_only(world: World) -> None:
    nodes(world, "a", "b")
    with world.running({"rules": [{"condition": "Fault", "for": 0, "action": "observe"}]}):
        world.node("a", "True")
        world.phase("a", "noted")
        world.node("a", "False")
        world.phase("a", "")


@scenario
def recovery_and_uncordon(world: World) -> None:
    nodes(world, "a", "b")
    with world.running():
        world.node("a", "True")
        world.event("Cordoned")
        world.node("a", "False")
        world.settled()
        world.advance(61)
        world.phase("a", "healed")


@scenario
def flapping(world: World) -> None:
    nodes(world, "a", "b")
    with world.running({"recovery": {"stabilizationWindow": "60s", "maxFlaps": 2}}):
        for number in (1, 2):
            world.node("a", "True")
            world.phase("a", "cordoned")
            world.node("a", "False")
            world.settled()
            world.advance(120)
            if number == 1:
                world.phase("a", "healed")
        world.settled()


@scenario
def latched_rule(world: World) -> None:
    nodes(world, "a", "b")
    rule = {"condition": "Fault", "for": 0, "action": "cordon", "latched": True}
    with world.running({"rules": [rule]}):
        world.node("a", "True")
        world.event("Cordoned")
        world.node("a", "False")
        world.settled()
        world.advance(120)
        world.settled()
        world.node("a", "False", boot_id="2")
        world.settled()
        world.advance(61)
        world.phase("a", "healed")


# -- limits ------------------------------------------------------------------------------------


def _limited(world: World, limit: str, **limits: Any) -> None:
    with world.running(with_limits(**limits)):
        world.node("a", "True")
        world.event("Cordoned")
        world.node("b", "True")
        world.settled()
        world.metric(f'limited_nodes{{limit="{limit}"}}', 1.0)


@scenario
def limit_max_unavailable(world: World) -> None:
    nodes(world, "a", "b", "c")
    _limited(world, "maxUnavailable", maxUnavailable=1)


@scenario
def limit_rate(world: World) -> None:
    nodes(world, "a", "b", "c")
    _limited(world, "rate", rate={"count": 1, "window": "1h"})
    assert "unschedulable" not in world.get(f"{NODES}/b")["spec"]


@scenario
def limit_min_interval(world: World) -> None:
    nodes(world, "a", "b", "c")
    _limited(world, "minInterval", minInterval="10m")


@scenario
def limit_zones(world: World) -> None:
    nodes(world, "a", "b", "c", labels={"topology.kubernetes.io/zone": "z"})
    _limited(world, "zone", maxUnavailablePerZone=1)


@scenario
def limit_of_a_group(world: World) -> None:
    nodes(world, "a", "b", "c", labels={"pool": "gpu"})
    group = {"name": "gpu", "nodeSelector": {"matchLabels": {"pool": "gpu"}}}
    settings = with_limits()
    with world.running({**settings, "groups": [{**group, "limits": {"maxUnavailable": 1}}]}):
        world.node("a", "True", labels={"pool": "gpu"})
        world.event("Cordoned")
        world.node("b", "True", labels={"pool": "gpu"})
        world.metric('limited_nodes{limit="maxUnavailable"}', 1.0)


@scenario
def limit_max_draining(world: World) -> None:
    nodes(world, "a", "b", "c")
    world.pod("p", "a")
    world.answers["p"] = [ANSWERS["pdb"]] * 9
    with world.running({**DRAIN, **with_limits(maxDraining=1)}):
        world.node("a", "True")
        until("it is refused", lambda: world.requested("POST", f"{PODS}/p/eviction"))
        world.node("b", "True")
        world.phase("b", "cordoned")
        world.metric('limited_nodes{limit="maxDraining"}', 1.0)
        world.event("DrainBlocked")


@scenario
def limit_last_schedulable(world: World) -> None:
    nodes(world, "a", "b")  # beside the marker
    with world.running(with_limits(minSchedulable=3)):
        world.node("a", "True")
        world.settled()
        world.metric('limited_nodes{limit="unavailable"}', 1.0)


# -- other people ------------------------------------------------------------------------------


@scenario
def foreign_cordon(world: World) -> None:
    nodes(world, "a", "b")
    world.node("a", spec={"unschedulable": True})
    with world.running():
        world.node("a", "True")
        world.settled()


@scenario
def excluded(world: World) -> None:
    nodes(world, "b", "c")
    world.node("a", annotations={"selfheal.dev/exclude": "forensics"})
    world.node("l", labels={"selfheal.dev/exclude": "true"})
    with world.running():
        world.node("a", "True")
        world.node("l", "True")
        world.settled()


@scenario
def pause_and_resume(world: World) -> None:
    nodes(world, "a", "b")
    with world.running():
        pause = {"metadata": {"annotations": {"selfheal.dev/paused": "upgrade"}}}
        world.change(LEASE, lambda raw: raw["metadata"].update(pause["metadata"]))
        world.metric("paused", 1.0)
        world.node("a", "True")
        world.settled()
        world.change(LEASE, lambda raw: raw["metadata"].update(annotations={}))
        world.metric("paused", 0.0)
        world.event("Cordoned")


@scenario
def a_human_uncordons(world: World) -> None:
    nodes(world, "a", "b")
    with world.running():
        world.node("a", "True")
        world.event("Cordoned")
        world.change(f"{NODES}/a", lambda raw: raw["spec"].pop("unschedulable"))
        world.phase("a", "cancelled")


@scenario
def conflict_on_patch(world: World) -> None:
    nodes(world, "a", "b")
    with world.running():
        label = {"changed": "meanwhile"}

        def meanwhile() -> None:
            world.change(f"{NODES}/a", lambda raw: raw["metadata"]["labels"].update(label))

        world.before_next_patch(meanwhile)
        world.node("a", "True")
        world.event("Cordoned")


@scenario
def conflict_of_a_recovery(world: World) -> None:
    nodes(world, "a", "b")
    with world.running():
        world.before_next_patch(lambda: world.node("a", "False"))
        world.node("a", "True")
        world.settled()


# -- modes -------------------------------------------------------------------------------------


@scenario
def dry_run(world: World) -> None:
    nodes(world, "a", "b")
    world.pod("p", "a")
    with world.running({**DRAIN, "mode": "dryRun"}):
        world.node("a", "True")
        world.event("DrainSucceeded")


@scenario
def observe_first(world: World) -> None:
    nodes(world, "a", "b")
    with world.running({"observeFirst": "10m"}):
        world.event("Observing")
        world.node("a", "True")
        world.event("Cordoned")
        world.advance(601)
        world.event("Enforcing")
        world.phase("a", "cordoned")
        world.event("Cordoned", 2)


# -- drain -------------------------------------------------------------------------------------


def _refused(world: World, answer: str, **more: Any) -> None:
    """An eviction of `p` is refused once, and then reported."""
    nodes(world, "a", "b")
    world.pod("p", "a")
    world.answers["p"] = [ANSWERS[answer]] * more.pop("times", 99)
    with world.running(draining(**more)):
        world.node("a", "True")
        until("it is refused", lambda: world.requested("POST", f"{PODS}/p/eviction"))
        world.settled()
        world.advance(1.5)
        world.event("DrainBlocked")


@scenario
def cordon_and_drain(world: World) -> None:
    nodes(world, "a", "b")
    world.pod("p", "a")
    world.pod("q", "a")
    world.pod("other", "b")
    with world.running(DRAIN):
        world.node("a", "True")
        world.event("DrainSucceeded")
        world.node("a", "False")
        world.settled()
        world.advance(61)
        world.phase("a", "healed")


@scenario
def drain_on_request(world: World) -> None:
    nodes(world, "a", "b")
    world.pod("p", "a")
    with world.running(DRAIN):
        world.node("a", annotations={"selfheal.dev/drain": "new disk"})
        world.event("DrainSucceeded")
        withdrawn = "selfheal.dev/drain"
        world.change(f"{NODES}/a", lambda raw: raw["metadata"]["annotations"].pop(withdrawn))
        world.event("Uncordoned")
        world.settled()


@scenario
def lifecycle_conditions(world: World) -> None:
    nodes(world, "a", "b")
    world.pod("p", "a")
    with world.running(draining(lifecycleConditions=True, delay="10s")):
        world.node("a", "True")
        until("it is said", lambda: "SelfhealDraining" in json.dumps(world.get(f"{NODES}/a")))
        world.settled()
        world.advance(11)
        world.event("DrainSucceeded")
        until("it is said", lambda: "SelfhealDrained" in json.dumps(world.get(f"{NODES}/a")))
        world.settled()


@scenario
def taint_instead_of_a_cordon(world: World) -> None:
    nodes(world, "a", "b")
    world.pod("p", "a")
    with world.running({**DRAIN, "taint": {"key": "example.com/bad", "cordon": False}}):
        world.node("a", "True")
        world.event("DrainSucceeded")
        world.change(f"{NODES}/a", lambda raw: raw["spec"].pop("taints"))
        world.event("RemediationCancelled")
        world.settled()


@scenario
def refused_by_a_budget(world: World) -> None:
    _refused(world, "pdb")


@scenario
def refused_by_several_budgets(world: World) -> None:
    _refused(world, "multi-pdb")


@scenario
def refused_while_a_budget_is_processed(world: World) -> None:
    _refused(world, "pdb-processing")


@scenario
def refused_by_a_failing_server(world: World) -> None:
    nodes(world, "a", "b")
    world.pod("p", "a")
    fails = [True]
    world.trouble = lambda verb, path: "500" if path.endswith("/eviction") and fails else ""
    with world.running(DRAIN):
        world.node("a", "True")
        until("it failed", lambda: world.requested("POST", f"{PODS}/p/eviction"))
        world.settled()
        world.advance(1.5)
        world.event("DrainBlocked")
        fails.clear()
        world.advance(60)
        world.event("DrainSucceeded")


@scenario
def a_budget_opens(world: World) -> None:
    nodes(world, "a", "b")
    world.pod("p", "a")
    spec = {"selector": {"matchLabels": {"app": "web"}}}
    status = {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}
    meta = {"name": "web", "namespace": "d", "generation": 1}
    shut = {"metadata": meta, "spec": spec, "status": {**status, "observedGeneration": 1}}
    world.put(f"{BUDGETS}/web", shut)
    world.answers["p"] = [ANSWERS["pdb"]]
    with world.running(DRAIN):
        world.node("a", "True")
        until("it is refused", lambda: world.requested("POST", f"{PODS}/p/eviction"))
        world.settled()
        world.change(f"{BUDGETS}/web", lambda raw: raw["status"].update(disruptionsAllowed=1))
        world.event("DrainSucceeded")


@scenario
def surge_that_fails(world: World) -> None:
    """A budget never lets the only pod go: its Deployment is rolled out. No new pod is ready."""
    nodes(world, "a", "b")
    world.pod("p", "a")
    spec = {"selector": {"matchLabels": {"app": "web"}}}
    status = {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}
    meta = {"name": "web", "namespace": "d", "generation": 1}
    world.put(f"{BUDGETS}/web", {"metadata": meta, "spec": spec, "status": status})
    world.change(f"{BUDGETS}/web", lambda raw: raw["status"].update(observedGeneration=1))
    world.put(SET, deployments.replica_set(namespace="d", name="r", uid="r"))
    world.put(WEB, deployments.deployment(meta={"namespace": "d"}))
    world.answers["p"] = [ANSWERS["pdb"]] * 9
    with world.running(draining(surge=True)):
        world.node("a", "True")
        world.event("SurgeStarted", 2)
        stuck = {"status": "False", "reason": "ProgressDeadlineExceeded"}
        failed = {"replicas": 2, "conditions": [{"type": "Progressing", **stuck}]}
        world.change(WEB, lambda raw: raw["metadata"].update(generation=4))
        world.change(WEB, lambda raw: raw["status"].update(failed, observedGeneration=4))
        world.advance(6)
        world.event("SurgeUndone", 2)
        world.settled()


@scenario
def accepted_without_deletion(world: World) -> None:
    nodes(world, "a", "b")
    world.pod("p", "a")
    world.kept.add("p")
    with world.running(DRAIN):
        world.node("a", "True")
        until("it is asked", lambda: world.requested("POST", f"{PODS}/p/eviction"))
        world.settled()
        world.advance(6)
        world.settled()
        world.advance(2)
        world.event("DrainBlocked")
        world.kept.clear()
        world.advance(12)
        world.event("DrainSucceeded")


@scenario
def waves_and_a_stuck_pod(world: World) -> None:
    """The higher wave does not wait for a pod of the lower one that does not end."""
    nodes(world, "a", "b")
    world.pod("low", "a", priority=0)
    world.pod("high", "a", priority=1000)
    world.slow.add("low")
    with world.running(DRAIN):
        world.node("a", "True")
        until("the first goes", lambda: world.requested("POST", f"{PODS}/low/eviction"))
        world.settled()
        world.advance(65)
        world.gone("high")


@scenario
def daemon_set_recreated(world: World) -> None:
    """The pod of a DaemonSet that is not there any more goes; the one of a living one stays."""
    nodes(world, "a", "b")
    sets = "/apis/apps/v1/namespaces/d/daemonsets"
    world.put(f"{sets}/agent", {"metadata": {"name": "agent", "namespace": "d", "uid": "agent"}})
    world.put(f"{sets}/old", {"metadata": {"name": "old", "namespace": "d", "uid": "anew"}})
    world.pod("agent", "a", owner=("apps/v1", "DaemonSet", "agent"))
    world.pod("old", "a", owner=("apps/v1", "DaemonSet", "old"))
    with world.running(DRAIN):
        world.node("a", "True")
        world.event("DrainSucceeded")


def _deadline(world: World, on_deadline: str) -> None:
    nodes(world, "a", "b")
    world.pod("p", "a")
    world.answers["p"] = [ANSWERS["pdb"]] * 99
    with world.running(draining(deadline="10m", onDeadline=on_deadline)):
        world.node("a", "True")
        until("it is refused", lambda: world.requested("POST", f"{PODS}/p/eviction"))
        world.settled()
        world.advance(601)
        world.event("DrainDeadlinePassed")
        if on_deadline == "delete":
            world.event("DrainSucceeded")


@scenario
def deadline_wait(world: World) -> None:
    _deadline(world, "wait")


@scenario
def deadline_report(world: World) -> None:
    _deadline(world, "report")


@scenario
def deadline_delete(world: World) -> None:
    _deadline(world, "delete")


@scenario
def returned_pods(world: World) -> None:
    nodes(world, "a", "b")
    world.pod("p", "a")
    with world.running(DRAIN):
        world.node("a", "True")
        world.event("DrainSucceeded")
        world.settled()
        world.pod("back", "a")
        world.gone("back")
        world.event("PodsOnDrainedNode")


@scenario
def no_headroom(world: World) -> None:
    small = {"cpu": "1", "memory": "1Gi", "pods": "10"}
    nodes(world, "a", "b", allocatable=small)
    world.node(MARKER, allocatable=small)
    world.pod("p", "a", requests={"cpu": "4", "memory": "1Gi"})
    with world.running({**DRAIN, "drain": {"autoscaler": "absent"}}):
        world.node("a", "True")
        world.event("NoHeadroom")


# -- leaders -----------------------------------------------------------------------------------


def _drained_by_another(world: World, since: float = 60) -> None:
    begun = int(world.clock() - since)
    state = {"v": 1, "phase": "draining", "by": "d/selfheal-remediator", "condition": "Fault"}
    state |= {"status": "True", "action": "drain", "firstSeen": begun, "since": begun}
    state["drainStarted"] = begun
    world.node("a", "True", spec={"unschedulable": True},
               annotations={"selfheal.dev/state": json.dumps(state)})  # fmt: skip


@scenario
def takeover_during_a_drain(world: World) -> None:
    nodes(world, "b")
    world.lease("")
    _drained_by_another(world)
    world.pod("p", "a")
    with world.running(DRAIN):
        world.event("DrainSucceeded")


@scenario
def lost_leadership(world: World) -> None:
    nodes(world, "a", "b")
    lease = {"duration": "600s", "renewInterval": "100ms", "renewDeadline": "400s"}
    with world.running({"lease": lease}, lead=False):
        world.metric("leader", 1.0)
        world.node("a", "True")
        world.event("Cordoned")
        world.change(LEASE, lambda raw: raw["spec"].update(holderIdentity="another_1"))
        world.metric("leader", 0.0)
        world.node("b", "True")
        world.turns()


@scenario
def stopped_for_an_uninstall(world: World) -> None:
    nodes(world, "a", "b")
    with world.running():
        until_when = {"selfheal.dev/stopped-until": world.stamp(-3600)}
        world.change(LEASE, lambda raw: raw["metadata"].update(annotations=until_when))
        world.turns()
        world.node("a", "True")
        world.turns()
        world.change(LEASE, lambda raw: raw["metadata"].update(annotations={}))
        world.event("Cordoned")


@scenario
def restore_of_etcd(world: World) -> None:
    nodes(world, "a", "b")
    with world.running():
        backup = world.backup()
        world.node("a", "True")
        world.event("Cordoned")
        for _ in range(50):
            world.node("b", "False")
        world.restore(backup)
        world.node("a", "True")
        world.event("Cordoned")
        until("it is cordoned again", lambda: bool(world.state("a")))


# -- pods --------------------------------------------------------------------------------------


def healing(**more: Any) -> dict[str, Any]:
    """Policies are heeded; the rules are about pods of several owners on one node."""
    rules = [{"condition": "PodsHung", "for": 0, "action": "drain"}]
    return {
        "rules": rules,
        "policies": {"evaluationInterval": "1s"},
        "drain": {"headroom": False},
        **more,
    }


def _owned(world: World, app: str, where: str, ready: str = "True") -> None:
    """A pod of a controller that is not looked up."""
    world.pod(f"{app}-{where}", where, labels={"app": app}, ready=ready, owner=("x/v1", "Set", app))


@scenario
def hung_pod_is_restarted(world: World) -> None:
    nodes(world, "a", "b")
    world.policy("web")
    for where in ("a", "b"):
        _owned(world, "web", where)
    with world.running(healing()):
        world.status("web", "Healthy")
        _owned(world, "web", "a", "False")
        world.gone("web-a")
        world.event("HealingTriggered")


@scenario
def paused_policy(world: World) -> None:
    nodes(world, "a", "b")
    world.policy("web", paused=True)
    _owned(world, "web", "a", "False")
    _owned(world, "web", "b")
    with world.running(healing()):
        world.status("web", "Paused")


@scenario
def degraded_policy(world: World) -> None:
    """It cannot be read by this version."""
    nodes(world, "a", "b")
    world.policy("web", unhealthyWhen={"notReadyFor": "soon"})
    with world.running(healing()):
        world.status("web", "Degraded")


@scenario
def pods_of_two_owners_on_one_node(world: World) -> None:
    """The node is at fault: no policy restarts them, the rule drains it."""
    nodes(world, "a", "b")
    for app in ("web", "api"):
        world.policy(app)
        for where in ("a", "b"):
            _owned(world, app, where)
        world.answers[f"{app}-a"] = [ANSWERS["pdb"]]  # they are there for the policies to see
    with world.running(healing()):
        world.status("web", "Healthy")
        world.status("api", "Healthy")
        with world.news:
            for app in ("web", "api"):
                _owned(world, app, "a", "False")
        world.event("HealingThrottled", 8)
        world.settled()
        world.advance(1.5)
        world.event("DrainBlocked")
        world.advance(65)
        world.gone("web-a", "api-a")
        world.event("DrainSucceeded")


@scenario
def stopped_rollout(world: World) -> None:
    """A rollout keeps a pod from being restarted, until it makes no progress any more."""
    nodes(world, "a", "b")
    world.policy("web")
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d"}
    apps = "/apis/apps/v1/namespaces/d"
    meta = {"name": "r", "namespace": "d", "uid": "r"}
    meta_owned = {**meta, "ownerReferences": [{**owner, "controller": True}]}
    world.put(f"{apps}/replicasets/r", {"metadata": meta_owned, "spec": {"replicas": 2}})
    rolls = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 1}
    world.put(f"{apps}/deployments/web", {
        "metadata": {"name": "web", "namespace": "d", "uid": "d", "generation": 1},
        "spec": {"replicas": 2}, "status": rolls})  # fmt: skip
    for where in ("a", "b"):
        world.pod(f"web-{where}", where)
    with world.running(healing()):
        world.status("web", "Healthy")
        world.pod("web-a", "a", ready="False")
        world.status("web", "Throttled", "rollout")
        world.settled()
        world.advance(601)
        world.event("RolloutStuck")
        world.gone("web-a")
        world.event("HealingTriggered")


@scenario
def policy_of_one_that_is_gone(world: World) -> None:
    nodes(world, "a", "b")
    world.policy("web")
    _owned(world, "web", "a")
    with world.running(healing()):
        world.status("web", "Healthy")
        world.put(f"{POLICIES}/web", None)
        world.settled()
        _owned(world, "web", "a", "False")
        world.settled()


# -- objects of the release --------------------------------------------------------------------


def restoring(world: World, **more: Any) -> dict[str, Any]:
    """A release whose ConfigMap has a Deployment and a Service; both exist."""
    service = release.manifest("Service", "r-ollama")
    for path, raw in (
        (RELEASE, release.config_map(release.deployment(), service)),
        (WORKERS, release.deployment()),
        (f"/api/v1/namespaces/{release.NAMESPACE}/services/r-ollama", service),
    ):
        world.put(path, raw)
    settings = {"enabled": True, "configMap": release.CONFIG_MAP, **more}
    return {"policies": {"enabled": False}, "restore": settings}


def _shown(world: World, line: str) -> None:
    """Wait until `/metrics` shows it, without letting time pass."""

    def shown() -> bool:
        world.turns()
        return f"selfheal_remediator_{line}\n" in world.made.metrics.render().decode()

    until(line, shown)


@scenario
def deleted_deployment(world: World) -> None:
    """It is made again, and owned by the ConfigMap for two minutes."""
    nodes(world, "a")
    with world.running(restoring(world)):
        until("it is listed", lambda: world.requested("GET", WORKERS.rpartition("/")[0]))
        world.quiet()
        world.put(WORKERS, None)
        _shown(world, "restore_missing_objects 1.0")
        world.advance(11)
        world.event("Restored")
        _shown(world, "restore_missing_objects 0.0")
        world.advance(121)
        until("it is free", lambda: not world.get(WORKERS)["metadata"]["ownerReferences"])


@scenario
def changed_deployment(world: World) -> None:
    """It is reported, and then corrected where that is wanted."""
    nodes(world, "a")
    with world.running(restoring(world, correctDrift=True)):
        until("it is listed", lambda: world.requested("GET", WORKERS.rpartition("/")[0]))
        world.quiet()
        world.put(WORKERS, release.deployment("other:1", replicas=0))

        def corrected() -> bool:
            world.advance(6)
            return bool(world.get(WORKERS)["spec"] == release.deployment()["spec"])

        until("it is corrected", corrected)
        world.event("Corrected")


@scenario
def release_of_argo_cd(world: World) -> None:
    """It restores by itself."""
    nodes(world, "a")
    values = restoring(world)
    with world.running(values):
        world.change(
            RELEASE,
            lambda raw: raw["metadata"]["annotations"].update(
                {"argocd.argoproj.io/tracking-id": "x"}
            ),
        )
        world.event("RestoreOff")
        world.put(WORKERS, None)
        world.settled()
        world.advance(1000)
