"""Hung and broken pods heal on a real cluster, and what is only waiting is left alone.

All the faults are there at once, made by the fixture `stage`; each test then waits for its own.
The remediator is the demo's, with its ordinary ten seconds between two looks.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

import pytest

from ci import parts
from ci.cluster import Cluster, processes
from ci.demo import pods
from ci.demo.kube import Kube, Object
from ci.demo.mailbox import Mailbox
from ci.demo.world import World
from tests.cluster.healing_stage import MAIN, NAMESPACE, HealingStage, names, since

pytestmark = pytest.mark.cluster

#: Seconds for which workers are without their model.
AWAY_FOR = 1800.0 if os.environ.get("SELFHEAL_LONG") == "1" else 60.0
#: Seconds for which pods load theirs.
LOADS_FOR = 120.0
NO_PROGRESS_FOR = 20.0
NOT_READY_FOR = 10.0
#: From the last progress to the last answer, beside `noProgressFor`: three looks, grace, start.
AT_MOST = 45.0
HANG = "/tmp/hang"
MESSAGES = 40
CONCURRENCY = 4
WAITING = 12  # messages for workers whose model is away
#: Releases of workers, by what happens to them.
RELEASES = {
    # Its own liveness probe, which finds a call past its deadline, shall have no part in it.
    "hung": (
        *("model.deadlineSeconds=600", f"faults.modelHangFile={HANG}"),
        "worker.healingPolicy.enabled=false",
    ),
    # It needs somebody else to see that it is frozen, and ends soon after it was asked to.
    "frozen": (
        *("worker.livenessProbe.failureThreshold=10000", "worker.shareProcessNamespace=true"),
        *("model.deadlineSeconds=5", "worker.healingPolicy.enabled=false"),
    ),
    # With the policy that the chart makes.
    "away": (
        *(
            "model.provider=ollama",
            "model.name=tiny:1b",
            f"model.baseUrl=http://model.{NAMESPACE}:11434",
        ),
        *("model.deadlineSeconds=5", "worker.healingPolicy.unhealthyWhen.noProgressFor=15s"),
    ),
}


@dataclass
class Begun:
    """What was done to whom. Times are Unix seconds."""

    stage: HealingStage
    hung: Object = field(default_factory=dict)
    frozen: Object = field(default_factory=dict)
    crashed: Object = field(default_factory=dict)
    unready: Object = field(default_factory=dict)
    frozen_at: float = 0.0
    crashed_at: float = 0.0
    unready_at: float = 0.0
    away_at: float = 0.0
    others: dict[str, set[str]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def stage(cluster: Cluster) -> Iterator[HealingStage]:
    """Pods that are healthy: three releases of workers, and small ones of our own."""
    programs = parts.ensure(["kubectl", "helm"])
    kube = Kube(str(programs["kubectl"]), str(programs["helm"]), cluster.kubeconfig)
    ours = ["--field-selector", "reportingComponent=selfheal-remediator"]
    selections = {
        "pods": ["pods", "--all-namespaces"],
        "nodes": ["nodes"],
        "policies": ["healingpolicies", "--all-namespaces"],
        "events": ["events", "--all-namespaces", *ours],
    }
    with ExitStack() as stack:
        patched = stack.enter_context(pytest.MonkeyPatch.context())
        patched.setenv("QUEUE_NAME", "hung")
        world = stack.enter_context(World(kube, selections))
        mailbox = Mailbox(kube, MAIN, MAIN, world.changed)
        values = json.loads(kube.helm("get", "values", MAIN, "-n", MAIN, "-o", "json"))
        image = values["worker"]["image"]
        found = HealingStage(kube, world, mailbox, (image["repository"], image["tag"]))
        kube.kubectl("create", "namespace", NAMESPACE)
        try:
            _furnish(found)
            stack.enter_context(mailbox.reading())
            yield found
        finally:
            for release in RELEASES:
                kube.helm("uninstall", release, "-n", MAIN, "--ignore-not-found")
            kube.kubectl("delete", "namespace", NAMESPACE, "--timeout=120s")
            kube.kubectl("delete", "hp", "hung", "frozen", "-n", MAIN, "--ignore-not-found")


def _furnish(stage: HealingStage) -> None:
    with ThreadPoolExecutor() as pool:
        begun = [
            pool.submit(stage.model),
            pool.submit(stage.app, "crash"),
            pool.submit(stage.app, "control"),
            pool.submit(stage.app, "loading", LOADING="yes"),
            *(pool.submit(stage.install, name, *sets) for name, sets in RELEASES.items()),
        ]
    for one in begun:
        one.result()
    for name in RELEASES:
        stage.until(f"workers of {name}", partial(_are_two, stage.ready_workers, name))
    for name in ("crash", "control"):
        stage.until(f"pods of {name}", partial(_are_two, stage.ready_apps, name))
    _write_policies(stage)


def _are_two(ready: Callable[[str], Sized], name: str) -> bool:
    return len(ready(name)) == 2


def _write_policies(stage: HealingStage) -> None:
    worker = {"app.kubernetes.io/component": "worker"}
    stage.policy(
        "hung",
        MAIN,
        worker | {"app.kubernetes.io/instance": "hung"},
        failureThreshold=2,
        unhealthyWhen={"noProgressFor": f"{NO_PROGRESS_FOR:.0f}s"},
        progress={"port": "http"},
        restart={"gracePeriod": "5s"},
    )
    stage.policy(
        "frozen",
        MAIN,
        worker | {"app.kubernetes.io/instance": "frozen"},
        failureThreshold=2,
        unhealthyWhen={"notReadyFor": f"{NOT_READY_FOR:.0f}s"},
    )
    stage.policy(
        "crash",
        NAMESPACE,
        {"app": "crash"},
        unhealthyWhen={"waitingReasons": ["CrashLoopBackOff"]},
    )
    for name in ("loading", "control"):
        stage.policy(
            name,
            NAMESPACE,
            {"app": name},
            failureThreshold=2,
            unhealthyWhen={"notReadyFor": "5s"},
        )


@pytest.fixture(scope="module")
def begun(stage: HealingStage) -> Begun:
    """Every fault, one after the other within seconds."""
    found = Begun(stage)
    for release in RELEASES:
        found.others[release] = {pod["metadata"]["uid"] for pod in stage.workers(release)}
    stage.kube.kubectl("-n", NAMESPACE, "scale", "deployment/model", "--replicas=0")
    # Gone, not going: one that still answers would have the messages before anybody misses it.
    stage.until("the model is gone", lambda: not stage.apps("model", leaving=True))
    found.away_at = time.time()
    # A worker finds out that its model is away when it has something to ask it.
    lines = "".join(json.dumps({"id": f"away-{n}", "text": "good"}) + "\n" for n in range(WAITING))
    stage.exec(stage.ready_workers("away")[0], f"echo '{lines}' | selfheal-worker publish -")
    found.crashed, found.crashed_at = stage.ready_apps("crash")[0], time.time()
    stage.spoil(found.crashed, "broken")
    found.unready, found.unready_at = stage.ready_apps("control")[0], time.time()
    stage.spoil(found.unready, "unready")
    found.frozen, found.frozen_at = stage.ready_workers("frozen")[0], time.time()
    stage.freeze(found.frozen)
    _hang(found)
    return found


def _hang(begun: Begun) -> None:
    """Two workers answer; then one hangs, in the middle of as many messages as it may take."""
    stage = begun.stage
    begun.hung = stage.ready_workers("hung")[0]
    _publish(stage, "well", MESSAGES)
    stage.until("all are answered", lambda: len(stage.mailbox.answered("well-")) == MESSAGES)
    stage.exec(begun.hung, f"touch {HANG}")
    _publish(stage, "held", MESSAGES)


def _publish(stage: HealingStage, prefix: str, count: int) -> None:
    stage.mailbox.publish(
        [json.dumps({"id": f"{prefix}-{n}", "text": "good"}) for n in range(count)]
    )


def test_the_messages_of_a_hung_worker_are_answered_by_another(
    begun: Begun, say: Callable[[str], None]
) -> None:
    """Its HTTP lives, and says that work is in flight and none of it is finished."""
    stage, hung = begun.stage, begun.hung
    uid = hung["metadata"]["uid"]

    def answered() -> int:
        return len(stage.mailbox.answered("held-"))

    stage.until("another answers the rest", lambda: answered() >= MESSAGES - CONCURRENCY)
    told = stage.progress(hung)
    assert (told["in_flight"], told["ready"]) == (CONCURRENCY, True)
    assert answered() == MESSAGES - CONCURRENCY
    # It has done all that came before these.
    last = time.time() - told["oldest_age"]

    def replaced() -> bool:
        there = {pod["metadata"]["uid"] for pod in stage.ready_workers("hung")}
        return len(there - {uid}) == 2

    stage.until("a worker in its place is ready", replaced)
    ready_after = since(last)
    stage.until("every message is answered", lambda: answered() == MESSAGES)
    answered_after = since(last)
    say(
        f"a hung worker, noProgressFor {NO_PROGRESS_FOR:.0f} s: from its last progress to its"
        f" replacement ready {ready_after:.1f} s, to its {CONCURRENCY} messages answered by"
        f" another {answered_after:.1f} s"
    )
    assert max(ready_after, answered_after) <= NO_PROGRESS_FOR + AT_MOST
    [other] = begun.others["hung"] - {uid}
    assert other in {pod["metadata"]["uid"] for pod in stage.ready_workers("hung")}
    assert sum(pods.restarts(pod) for pod in stage.workers("hung")) == 0
    stage.until(
        "the policy has counted it", lambda: stage.status(f"{MAIN}/hung").get("restarts") == 1
    )
    stage.until(
        "the owner's Events tell of it",
        lambda: (
            {"HealingTriggered", "HealingSucceeded"}
            <= set(stage.event_reasons("Deployment", "hung-selfheal-worker"))
        ),
    )


def test_a_frozen_worker_without_a_liveness_probe_is_replaced(
    begun: Begun, say: Callable[[str], None]
) -> None:
    stage = begun.stage
    uid = begun.frozen["metadata"]["uid"]
    stage.until(
        "a worker in its place is ready",
        lambda: len({p["metadata"]["uid"] for p in stage.ready_workers("frozen")} - {uid}) == 2,
    )
    say(
        f"a frozen worker, notReadyFor {NOT_READY_FOR:.0f} s:"
        f" replaced {since(begun.frozen_at):.1f} s after it froze"
    )
    assert begun.others["frozen"] - {uid} <= {
        pod["metadata"]["uid"] for pod in stage.ready_workers("frozen")
    }


def test_a_pod_that_crashes_again_and_again_is_recreated(
    begun: Begun, say: Callable[[str], None]
) -> None:
    """What is wrong lies in its own volume, so that only a new pod is healthy."""
    stage = begun.stage
    name = begun.crashed["metadata"]["name"]
    stage.until(
        "another pod in its place",
        lambda: len(names(stage.ready_apps("crash")) - {name}) == 2,
    )
    say(f"a pod in CrashLoopBackOff: replaced {since(begun.crashed_at):.1f} s after it broke")
    stage.until(
        "the Events tell of it",
        lambda: (
            {"HealingTriggered", "HealingSucceeded"}
            <= set(stage.event_reasons("Deployment", "crash"))
        ),
    )
    assert stage.status(f"{NAMESPACE}/crash")["restarts"] == 1


def test_pods_of_a_frozen_node_agent_are_left_to_the_rules_for_nodes(
    begun: Begun, cluster: Cluster, say: Callable[[str], None]
) -> None:
    """A restart there could not be confirmed; the pods are still well when the agent is back."""
    stage, policy = begun.stage, f"{NAMESPACE}/control"
    stage.until("what was broken is healed", lambda: _healed(stage))
    node = _without_broker(stage, stage.ready_apps("control"))
    there = names([pod for pod in stage.apps("control") if pods.node_of(pod) == node])
    before, restarts = _managed(stage), stage.status(policy)["restarts"]
    begun_at = time.time()
    with _frozen(cluster, f"{node}-kubelet"):
        stage.until(
            "its pods count as unready", lambda: not there & names(stage.ready_apps("control"))
        )
        unready_after = since(begun_at)
        # They are unhealthy beyond doubt then, and it is their node for which nothing is done.
        stage.until(
            "they are left alone",
            lambda: f"node {node}: it is not ready" in stage.status(policy)["message"],
        )
        alone_after = since(begun_at)
    gone_on_at = time.time()
    stage.until("all are healthy again", lambda: _healed(stage))
    say(
        f"a frozen node agent: its pods unready after {unready_after:.1f} s, left alone as the"
        f" node's after {alone_after:.1f} s, healthy {since(gone_on_at):.1f} s after it continued"
    )
    assert _managed(stage) == before
    assert stage.status(policy)["restarts"] == restarts
    assert "HealingThrottled" in stage.event_reasons("Deployment", "control")


def test_a_pod_that_still_loads_its_model_is_left_alone(
    begun: Begun, say: Callable[[str], None]
) -> None:
    """One that has started and is not ready for as long is replaced; that is the control."""
    stage = begun.stage
    loading = names(stage.apps("loading"))
    unready = begun.unready["metadata"]["name"]
    stage.until(
        "the control is replaced",
        lambda: len(names(stage.ready_apps("control")) - {unready}) == 2,
    )
    since_when = max(_running_since(pod) for pod in stage.apps("loading"))
    _wait_until(stage, since_when + LOADS_FOR)
    assert names(stage.apps("loading")) == loading
    assert stage.status(f"{NAMESPACE}/loading").get("restarts", 0) == 0
    assert sum(pods.restarts(pod) for pod in stage.apps("loading")) == 0
    say(f"pods that load their model for {since(since_when):.0f} s: 0 restarts")
    for pod in stage.apps("loading"):
        stage.exec(pod, "rm /data/loading")
    stage.until("they have loaded", lambda: len(stage.ready_apps("loading")) == 2)
    assert names(stage.ready_apps("loading")) == loading


def test_workers_without_a_model_hinder_no_drain(begun: Begun, say: Callable[[str], None]) -> None:
    """All are unready, so their budget allows no disruption of ready ones; the drain passes."""
    stage = begun.stage
    stage.until("all are unready", lambda: not stage.ready_workers("away"))
    assert {p["metadata"]["uid"] for p in stage.workers("away")} == begun.others["away"]
    node = _without_broker(stage, stage.workers("away"))
    begun_at = time.time()
    detector = _detector(stage, node)
    stage.exec(detector, "touch /faults/demo")
    stage.until(f"{node} is cordoned", lambda: pods.is_cordoned(stage.world["nodes"][node]))
    stage.until(
        f"{node} is empty",
        lambda: not pods.to_move(stage.world["pods"].values(), node),
    )
    say(f"a node with unready workers: drained {since(begun_at):.1f} s after its fault")
    stage.exec(detector, "rm /faults/demo")
    stage.until(f"{node} is uncordoned", lambda: not pods.is_cordoned(stage.world["nodes"][node]))


def test_workers_without_a_model_are_not_restarted(
    begun: Begun, say: Callable[[str], None]
) -> None:
    """Those on the other node have been without it from the beginning."""
    stage = begun.stage
    stage.until("both are there", lambda: len(stage.workers("away")) == 2)
    before = names(stage.workers("away"))
    _wait_until(stage, begun.away_at + AWAY_FOR)
    lasted = since(begun.away_at)
    assert names(stage.workers("away")) == before
    assert stage.ready_workers("away") == []
    assert sum(pods.restarts(pod) for pod in stage.workers("away")) == 0
    assert stage.status(f"{MAIN}/away-selfheal-worker").get("restarts", 0) == 0
    assert stage.event_reasons("Deployment", "away-selfheal-worker") == []
    say(f"no model for {lasted:.0f} s: 0 restarts")
    stage.kube.kubectl("-n", NAMESPACE, "scale", "deployment/model", "--replicas=1")
    stage.until("the model is back, and so are they", lambda: len(stage.ready_workers("away")) == 2)
    read = f"selfheal-worker results --expect {WAITING} --timeout 60 -o json >/dev/null"
    stage.exec(stage.ready_workers("away")[0], read)


def _without_broker(stage: HealingStage, found: list[Object]) -> str:
    """A node with some of these pods, and without the broker."""
    broker = {
        pods.node_of(pod) for pod in pods.labelled(stage.world["pods"].values(), MAIN, "rabbitmq")
    }
    return next(node for pod in found if (node := pods.node_of(pod)) not in broker)


def _healed(stage: HealingStage) -> bool:
    """Whether the policies say that what was broken is healthy."""
    healed = (f"{NAMESPACE}/control", f"{NAMESPACE}/crash", f"{MAIN}/frozen")
    return all(stage.status(policy).get("state") == "Healthy" for policy in healed)


def _managed(stage: HealingStage) -> set[str]:
    """Pods that count as unready when their node does, by which their policies judge them."""
    apps = [pod for name in ("control", "crash", "loading") for pod in stage.apps(name)]
    return names([*apps, *stage.workers("frozen")])


def _running_since(pod: Object) -> float:
    [container] = pod["status"]["containerStatuses"]
    return datetime.fromisoformat(container["state"]["running"]["startedAt"]).timestamp()


@contextmanager
def _frozen(cluster: Cluster, part: str) -> Iterator[None]:
    """SIGSTOP: it answers nobody, and continues afterwards as if nothing had been."""
    process = processes.pid(cluster.layout, part)
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def _detector(stage: HealingStage, node: str) -> Object:
    found = pods.labelled(stage.world["pods"].values(), MAIN, "node-problem-detector")
    return next(pod for pod in found if pods.node_of(pod) == node)


def _wait_until(stage: HealingStage, moment: float) -> None:
    stage.until("enough time has passed", lambda: time.time() >= moment, 3600.0)
