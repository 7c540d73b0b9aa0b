"""The faults: each strikes, lasts, and is lifted; what it chooses, it chooses by the seed."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from ci.chaos import invariants
from ci.chaos.stage import Object, Stage
from ci.cluster import ClusterError, processes
from ci.cluster.network import CONTROL_PLANE
from ci.demo import pods

Fault = Callable[[Stage, random.Random], None]
_LASTS = 20.0
_PATIENCE = 180.0
_DETECTORS = "selfheal-node-problem-detector"
_FREEZE = (
    "for p in /proc/[0-9]*; do if tr '\\0' ' ' <$p/cmdline | grep -q '[s]elfheal-worker run';"
    " then kill -STOP ${p#/proc/}; fi; done"
)


def _one(stage: Stage, found: Callable[[], Sequence[Object]], chance: random.Random) -> Object:
    """One of the pods, once there is any."""
    stage.world.until("a pod to strike", lambda: bool(found()), _PATIENCE)
    return chance.choice(found())


def _node(stage: Stage, chance: random.Random) -> str:
    return chance.choice(stage.cluster.nodes)


def worker_killed(stage: Stage, chance: random.Random) -> None:
    stage.kill(_one(stage, lambda: stage.component("worker"), chance))


def worker_frozen(stage: Stage, chance: random.Random) -> None:
    pod = _one(stage, lambda: stage.component("worker"), chance)
    stage.execute(pod, "sh", "-c", _FREEZE)


def model_hangs(stage: Stage, chance: random.Random) -> None:
    """In one worker, for so long that its probe gives it up."""
    pod = _one(stage, lambda: stage.component("worker"), chance)
    stage.execute(pod, "touch", "/tmp/hang")
    time.sleep(_LASTS)
    name = f"{stage.namespace}/{pod['metadata']['name']}"
    # A frozen container may be on its way to be replaced: the file is its pod's, not its own.
    _again(lambda: name not in stage.world["pods"] or stage.execute(pod, "rm", "-f", "/tmp/hang"))


def leader_killed(stage: Stage, chance: random.Random) -> None:
    lease = stage.kube.get("lease", f"{stage.release}-remediator", "-n", stage.namespace)
    holder = str(lease["spec"].get("holderIdentity") or "").partition("_")[0]
    leading = [p for p in stage.component("remediator") if p["metadata"]["name"] == holder]
    stage.kill(
        leading[0] if leading else _one(stage, lambda: stage.component("remediator"), chance)
    )


def broker_killed(stage: Stage, chance: random.Random) -> None:
    stage.kill(_one(stage, lambda: stage.component("rabbitmq"), chance))


def broker_disk_full(stage: Stage, chance: random.Random) -> None:
    """The broker's own limit is set above what is free: it blocks every publisher."""
    pod = _one(stage, lambda: stage.component("rabbitmq"), chance)
    stage.execute(pod, "rabbitmqctl", "set_disk_free_limit", "100000GB")
    time.sleep(_LASTS)
    stage.execute(pod, "rabbitmqctl", "set_disk_free_limit", "50MB")


def api_server_killed(stage: Stage, _: random.Random) -> None:
    _stopped(stage, "kube-apiserver", kill=True)
    stage.cluster.wait_api()


def etcd_restarted(stage: Stage, chance: random.Random) -> None:
    _stopped(stage, "etcd", kill=chance.random() < 0.5, seconds=5.0)
    stage.cluster.wait_api()


def kubelet_stopped(stage: Stage, chance: random.Random) -> None:
    _stopped(stage, f"{_node(stage, chance)}-kubelet", kill=False)


def containerd_stopped(stage: Stage, chance: random.Random) -> None:
    _stopped(stage, f"{_node(stage, chance)}-containerd", kill=True)


def _stopped(stage: Stage, part: str, *, kill: bool, seconds: float = _LASTS) -> None:
    stage.cluster.stop(part, kill=kill)
    time.sleep(seconds)
    stage.cluster.start(part)


def node_cut_off(stage: Stage, chance: random.Random) -> None:
    """The node's wire at the switch: neither API server nor other node is reached."""
    name = _node(stage, chance)
    # With the longer one the node counts as lost, and its pods are on their way out.
    seconds = chance.choice([_LASTS, 60.0])
    _link(stage, name, "down")
    time.sleep(seconds)
    _link(stage, name, "up")


def _link(stage: Stage, name: str, state: str) -> None:
    layout = stage.cluster.layout
    command = [*processes.enter(layout, CONTROL_PLANE), "ip", "link", "set", name, state]
    done = processes.run(layout, command)
    if done.returncode:
        raise ClusterError(f"{name} {state}: {done.stderr}")


def condition_of_the_future(stage: Stage, chance: random.Random) -> None:
    """A writer whose clock is an hour ahead reports a node as bad, and later as healthy."""
    name = _node(stage, chance)
    ahead = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    _say(stage, name, "True", ahead)
    time.sleep(_LASTS)
    _say(stage, name, "False", ahead)


def _say(stage: Stage, name: str, status: str, at: str) -> None:
    condition = {
        "type": "ChaosClock",
        "status": status,
        "reason": "Chaos",
        "message": "a clock that is ahead",
        "lastTransitionTime": at,
        "lastHeartbeatTime": at,
    }
    patch = json.dumps({"status": {"conditions": [condition]}})
    stage.kube.kubectl("patch", "node", name, "--subresource=status", "-p", patch)


def detector_killed(stage: Stage, chance: random.Random) -> None:
    stage.kill(_one(stage, lambda: stage.component("node-problem-detector"), chance))


def keda_killed(stage: Stage, chance: random.Random) -> None:
    stage.kill(_one(stage, lambda: stage.pods_named("keda", "keda-operator"), chance))


def nodes_fail_in_turn(stage: Stage, chance: random.Random) -> None:
    """Each node gets a real fault through its detector, is drained, and is uncordoned."""
    names = list(stage.cluster.nodes)
    chance.shuffle(names)
    for name in names:
        there = stage.component
        detector = _one(
            stage,
            lambda: [p for p in there("node-problem-detector") if pods.node_of(p) == name],  # noqa: B023
            chance,
        )
        stage.execute(detector, "touch", "/faults/demo")
        _until_node(stage, name, lambda node: invariants.phase(node) == "drained")
        stage.execute(detector, "rm", "-f", "/faults/demo")
        _until_node(stage, name, lambda node: not pods.is_cordoned(node))


def drained_by_a_human(stage: Stage, chance: random.Random) -> None:
    """`kubectl drain`, and the cordon stays theirs until they take it back."""
    name = _node(stage, chance)
    stage.by_hand.add(name)
    try:
        stage.kube.kubectl(
            *("drain", name, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s")
        )
        time.sleep(_LASTS / 2)
        if not pods.is_cordoned(stage.kube.get("node", name)):
            stage.seen.append(f"{name}, which a human had cordoned, was uncordoned")
    finally:
        _again(lambda: stage.kube.kubectl("uncordon", name))
        stage.by_hand.discard(name)


def upgraded_and_rolled_back(stage: Stage, _: random.Random) -> None:
    """Another model delay and log level: every worker and the remediator are replaced, twice."""
    changed = ["--set=faults.modelDelay=0.2", "--set=remediator.logLevel=debug"]
    where = ["--namespace", stage.namespace, "--wait", "--timeout", "4m"]
    upgrade = ["upgrade", stage.release, *stage.install, *changed, *where]
    stage.kube.helm(*upgrade)
    stage.kube.helm("rollback", stage.release, *where)


def _until_node(stage: Stage, name: str, well: Callable[[Object], bool]) -> None:
    stage.world.until(
        f"{name} comes so far",
        lambda: name in stage.world["nodes"] and well(stage.world["nodes"][name]),
        _PATIENCE,
    )


def _again(act: Callable[[], object], seconds: float = 60.0) -> None:
    """Until it succeeds: what is lifted may be hard to reach just then."""
    until = time.monotonic() + seconds
    while True:
        try:
            act()
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(1.0)
        else:
            return


FAULTS: Mapping[str, Fault] = {
    "worker killed": worker_killed,
    "worker frozen": worker_frozen,
    "model hangs": model_hangs,
    "remediator leader killed": leader_killed,
    "broker killed": broker_killed,
    "broker's disk full": broker_disk_full,
    "API server killed": api_server_killed,
    "etcd restarted": etcd_restarted,
    "kubelet stopped": kubelet_stopped,
    "containerd stopped": containerd_stopped,
    "node's network cut": node_cut_off,
    "condition of the future": condition_of_the_future,
    "detector killed": detector_killed,
    "KEDA operator killed": keda_killed,
    "nodes fail in turn": nodes_fail_in_turn,
    "node drained by a human": drained_by_a_human,
    "upgrade and rollback": upgraded_and_rolled_back,
}
