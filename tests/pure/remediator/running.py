"""The whole remediator, with its threads, against an API server of the tests' own (FakeApi)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

from kubernetes.client import Configuration

from selfheal_remediator.config import Config
from selfheal_remediator.controller.inbox import Clock
from selfheal_remediator.controller.loop import Remediator
from selfheal_remediator.controller.parts import Identity
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.election import Leader
from selfheal_remediator.kube.events import EventWriter
from selfheal_remediator.kube.lease import PAUSE_KEY
from selfheal_remediator.metrics import Metrics
from selfheal_remediator.node.annotation import STATE_KEY
from selfheal_remediator.threads.pool import Job, Purpose, Workers
from selfheal_remediator.threads.runtime import REAL, Runtime
from tests.pure.remediator.fake_api import FakeApi
from tests.support.waiting import until as until

NODES = "/api/v1/nodes"
PODS = "/api/v1/namespaces/d/pods"
POLICIES = "/apis/selfheal.dev/v1alpha1/namespaces/d/healingpolicies"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/d/leases/selfheal-remediator"
#: The node that tests have go bad.
BAD = f"{NODES}/bad"
#: Only a hang is longer.
PATIENCE = 60.0
#: Seconds that pass at each look of `until_later`: fewer than between any two decisions.
STEP = 0.5
T = TypeVar("T")


def stamp(ago: float) -> str:
    """So many seconds ago, as the API writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - ago))


def node(name: str, status: str, **spec: Any) -> dict[str, Any]:
    """A ready node, made a day ago, whose condition `Fault` has this status."""
    told = {"Ready": "True", "Fault": status}
    conditions = [
        {"type": k, "status": v, "lastTransitionTime": stamp(3600), "lastHeartbeatTime": stamp(0)}
        for k, v in told.items()
    ]
    return {
        "kind": "Node",
        "metadata": {"name": name, "creationTimestamp": stamp(86400), "annotations": {"a": "b"}},
        "spec": spec,
        "status": {"conditions": conditions, "nodeInfo": {"bootID": "1"}},
    }


def pod(name: str, where: str) -> dict[str, Any]:
    """A running pod of a ReplicaSet."""
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r"}
    return {
        "kind": "Pod",
        "metadata": {
            "namespace": "d",
            "name": name,
            "ownerReferences": [{**owner, "controller": True}],
        },
        "spec": {"nodeName": where, "containers": [{"name": "c"}]},
        "status": {"phase": "Running"},
    }


def web_pod(app: str, where: str, ready: str) -> dict[str, Any]:
    """A pod of a controller that is not looked up."""
    raw = pod(f"{app}-{where}", where)
    raw["metadata"] |= {
        "labels": {"app": app},
        "creationTimestamp": stamp(3600),
        "ownerReferences": [
            {"apiVersion": "x/v1", "kind": "Set", "name": app, "uid": app, "controller": True}
        ],
    }
    raw["status"]["conditions"] = [
        {"type": "Ready", "status": ready, "lastTransitionTime": stamp(60)}
    ]
    return raw


def web_policy(app: str, **spec: Any) -> dict[str, Any]:
    """A policy by which the pods of an app count as unhealthy at once."""
    return {
        "kind": "HealingPolicy",
        "metadata": {"name": app, "namespace": "d", "generation": 1},
        "spec": {
            "selector": {"matchLabels": {"app": app}},
            "unhealthyWhen": {"notReadyFor": "1s"},
            "failureThreshold": 1,
            **spec,
        },
    }


def state_of(api: FakeApi) -> dict[str, Any]:
    """What the bad node's annotation says, empty = there is none."""
    text = api.get(BAD)["metadata"]["annotations"].get(STATE_KEY, "{}")
    found: dict[str, Any] = json.loads(text)
    return found


def phase(api: FakeApi) -> str:
    """The bad node's phase as it is written down, empty = none."""
    return str(state_of(api).get("phase", ""))


def turns(api: FakeApi, status: str) -> None:
    """The bad node's condition `Fault` has this status now."""
    with api.changing(BAD) as raw:
        for item in raw["status"]["conditions"]:
            if item["type"] == "Fault":
                item["status"] = status


def leave(api: FakeApi) -> None:
    """Whoever leads is gone."""
    with api.changing(LEASE) as lease:
        lease["spec"]["holderIdentity"] = ""


def pause(api: FakeApi, why: str | None) -> None:
    """Somebody pauses the remediator; None: it continues."""
    with api.changing(LEASE) as lease:
        marks = lease["metadata"].setdefault("annotations", {})
        if why is None:
            del marks[PAUSE_KEY]
        else:
            marks[PAUSE_KEY] = why


def kubeconfig(server: FakeApi, folder: Path) -> str:
    """A file by which commands reach the server; its path."""
    access = {
        "clusters": [{"name": "c", "cluster": {"server": server.url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(access))
    return str(path)


def at_once(config: Config) -> Config:
    """The configuration without a time of only observing, unless it names one."""
    if "observe_first" in config.model_fields_set:
        return config
    return config.model_copy(update={"observe_first": 0.0})


class MovableClock(Clock):
    """A clock that a test moves."""

    def advance(self, seconds: float) -> None:
        """So much later from now on."""
        self._offset += seconds


class StillClock(MovableClock):
    """A clock that a test alone moves: however slow the machine is, no time passes by itself."""

    def __init__(self) -> None:
        super().__init__()
        began = self._monotonic()
        self._monotonic = lambda: began


def advance(remediator: Remediator, seconds: float) -> None:
    """Move the clock by which the remediator decides."""
    assert isinstance(remediator.clock, MovableClock)
    remediator.clock.advance(seconds)


def until_later(remediator: Remediator, what: str, look: Callable[[], T], step: float = STEP) -> T:
    """As `until`, for what the remediator's own time has to pass: so many seconds at each look.

    The main loop has its turn after each step, so that it decides in between as it would. While
    calls are under way, and news of the server, no time passes but the machine's: else the slower
    the machine, the longer each would take. What a test's `disturb` holds is not waited for.
    """
    assert isinstance(remediator, AtOnce)

    def later() -> T:
        found = look()
        if not found and remediator.at_rest():
            advance(remediator, step)
            turn = threading.Event()
            remediator.post(turn.set)
            turn.wait(PATIENCE)
        return found

    return until(what, later)


def until_at_rest(remediator: Remediator) -> None:
    """Until no call is under way: what a test switches now is switched for the next one."""
    assert isinstance(remediator, AtOnce)
    until("no call is under way", remediator.at_rest)


class CountedWorkers(Workers):
    """Knows how many jobs wait, and how many are under way."""

    def __init__(self, limit: int, *, runtime: Runtime = REAL) -> None:
        super().__init__(limit, runtime=runtime)
        self.waiting = self.under_way = 0
        self._lock = threading.Lock()

    def submit(self, job: Job, purpose: Purpose = Purpose.NODES, key: str = "") -> None:
        """As that of all workers."""

        def counted() -> None:
            self._add(-1, 1)
            try:
                job()
            finally:
                self._add(0, -1)

        self._add(1, 0)
        super().submit(counted, purpose, key)

    def _add(self, waiting: int, under_way: int) -> None:
        with self._lock:
            self.waiting += waiting
            self.under_way += under_way


class AtOnce(Remediator):
    """Acts from its first start, unless a test says otherwise. Knows whether it waits for calls."""

    def __init__(self, server: FakeApi, *parts: Any) -> None:
        made: list[CountedWorkers] = []

        def workers(limit: int, *, runtime: Runtime = REAL) -> CountedWorkers:
            made.append(CountedWorkers(limit, runtime=runtime))
            return made[-1]

        with patch("selfheal_remediator.controller.parts.Workers", workers):
            super().__init__(*parts)
        self._server, [self._workers] = server, made

    def at_rest(self) -> bool:
        """Whether nothing is under way between it and the server."""
        return self._server.at_rest(self._workers.under_way, self._workers.waiting)

    def reconfigure(self, config: Config) -> None:
        super().reconfigure(at_once(config))


@contextmanager
def running(
    server: FakeApi, config: Config, clock: Callable[[], float] | None = None
) -> Iterator[AtOnce]:
    """The real thing, connected to the server; it must end when it is asked to.

    clock: seconds since the epoch by which it decides, else one that `advance` moves.
    """
    access = Configuration()
    access.host = server.url
    api = KubernetesApi(access, "d", config.api, dry_run=config.dry_run)

    def leader_of(
        on_change: Callable[[bool], None], on_annotations: Callable[[Mapping[str, str]], None]
    ) -> Leader:
        watch = api.lease("d", config.lease.name)
        return Leader(api, watch, config.lease, "d", "me_1", on_change, on_annotations)

    events = EventWriter(api, "me_1", lambda _: None)
    metrics = Metrics(restores=config.restore.enabled)
    identity = Identity("d/selfheal-remediator")
    clock = clock or MovableClock()
    made = AtOnce(server, at_once(config), api, leader_of, events, metrics, identity, clock)
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.stop()
        thread.join(PATIENCE)
    assert not thread.is_alive()
