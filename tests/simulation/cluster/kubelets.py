"""The kubelets: they start, probe and stop pods, report their node, die and boot again.

A kubelet that is dead changes nothing: its pods stay as they were reported, also those that are
being deleted, and its node's Ready goes Unknown by the node controller (node_lifecycle.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.simulation.cluster import conditions
from tests.simulation.cluster.messages import Json, Simulation, stamp, unix
from tests.simulation.cluster.objects import node as node_object
from tests.simulation.cluster.resources import Key
from tests.simulation.cluster.store import Change, Store, Stored

#: nodeStatusReportFrequency: a status that has not changed is written so often (seconds).
REPORT_EVERY = 300.0
_HEALTHY = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID"),
    ("Ready", "True", "KubeletReady"),
)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a pod behaves. Seconds from bound to running, from running to ready (None = never),
    from deletion to gone (None = it hangs in Terminating), from running to its end (None = never).
    """

    start: float = 1.0
    ready: float | None = 1.0
    stop: float | None = 1.0
    run: float | None = None
    exit_code: int = 0


class Kubelet:
    """The kubelet of one node. skew: seconds by which its clock is ahead."""

    def __init__(self, kubelets: Kubelets, name: str, number: int) -> None:
        self._all, self.name, self._number = kubelets, name, number
        self.alive = True
        self.skew = 0.0
        self.boots = 1
        self._died_at = 0.0
        self._life = 0
        self._pods = 0
        #: What it does with each pod, by uid: started, stopping.
        self._doing: dict[str, str] = {}

    @property
    def renewed_at(self) -> float:
        """Virtual time of its last sign of life (it renews its Lease every ten seconds)."""
        return self._all.simulation.now if self.alive else self._died_at

    @property
    def _now(self) -> float:
        return self._all.store.clock() + self.skew

    # -- the node -----------------------------------------------------------------------

    def report(self) -> None:
        """Write the node's status."""

        def status(raw: Json) -> None:
            raw["status"].setdefault("nodeInfo", {})["bootID"] = f"boot-{self.name}-{self.boots}"
            for kind, state, reason in _HEALTHY:
                now = self._now
                conditions.put(raw, kind, state, now, reason=reason, heartbeat=True)

        self._all.store.change(("nodes", "", self.name), status, f"kubelet/{self.name}")

    def keep_reporting(self, life: int | None = None) -> None:
        """Report now and every five minutes, until it dies."""
        life = self._life if life is None else life
        if life == self._life and self.alive and self._all.of.get(self.name) is self:
            self.report()
            self._all.simulation.after(REPORT_EVERY, lambda: self.keep_reporting(life))

    def die(self) -> None:
        """Nothing is reported or done from now on."""
        if self.alive:
            self.alive, self._died_at = False, self._all.simulation.now
            self._life += 1

    def revive(self) -> None:
        """It runs again, its containers never stopped."""
        if not self.alive:
            self.alive = True
            self._doing.clear()
            self.keep_reporting()
            self.resync()

    def reboot(self, seconds: float) -> None:
        """The machine is down for so long; then its boot ID is new, and its containers start."""
        self.die()
        life = self._life
        self._all.simulation.after(seconds, lambda: self._booted(life))

    def _booted(self, life: int) -> None:
        if life != self._life or self._all.of.get(self.name) is not self:
            return
        self.boots += 1
        for pod in self._all.store.pods_on(self.name):
            if pod["status"].get("phase") == "Running":
                self._all.edit(pod, self._restarted)
        self.revive()

    def _restarted(self, raw: Json) -> None:
        if raw["spec"]["restartPolicy"] == "Never":
            _terminated(raw, 137, "Error", self._now)
            return
        conditions.put(raw, "Ready", "False", self._now, reason="ContainersNotReady")
        for item in raw["status"].get("containerStatuses") or ():
            item |= {"ready": False, "restartCount": item["restartCount"] + 1}
            item["state"] = {"running": {"startedAt": stamp(self._now)}}
            ended = {"exitCode": 137, "reason": "Error", "finishedAt": stamp(self._now)}
            item["lastState"] = {"terminated": ended}

    # -- its pods -----------------------------------------------------------------------

    def resync(self) -> None:
        """Handle all its pods."""
        for pod in self._all.store.pods_on(self.name):
            self.handle(pod)

    def handle(self, pod: Stored) -> None:
        """A pod has come or changed."""
        if not self.alive:
            return
        uid, meta = pod["metadata"]["uid"], pod["metadata"]
        if meta.get("deletionTimestamp") is not None:
            self._stop(pod)
        elif pod["status"].get("phase") in ("Succeeded", "Failed"):
            self._doing[uid] = "ended"
        elif uid not in self._doing:
            self._doing[uid] = "started"
            self._start(pod)

    def _start(self, pod: Stored) -> None:
        behaviour = self._all.behaviour(pod)
        running = pod["status"].get("phase") == "Running"
        wait = 0.0 if running else behaviour.start
        if not running:
            self._later(pod, wait, self._run)
        if behaviour.ready is not None:
            self._later(pod, wait + behaviour.ready, lambda raw: self.make_ready(raw))
        if behaviour.run is not None:
            code = behaviour.exit_code
            self._later(pod, wait + behaviour.run, lambda raw: self._end(raw, code))

    def _later(self, pod: Stored, seconds: float, edit: Callable[[Json], None]) -> None:
        life, uid = self._life, pod["metadata"]["uid"]

        def do() -> None:
            if life == self._life and self.alive and self._doing.get(uid) == "started":
                self._all.edit(pod, edit)

        self._all.simulation.after(seconds, do)

    def _run(self, raw: Json) -> None:
        now, status = self._now, raw["status"]
        self._pods += 1
        status["phase"] = "Running"
        status["startTime"] = stamp(now)
        status["hostIP"] = f"192.168.{self._number // 250}.{self._number % 250 + 1}"
        status["podIP"] = f"10.{self._number // 250}.{self._number % 250}.{self._pods % 250 + 1}"
        conditions.put(raw, "Initialized", "True", now)
        conditions.put(raw, "ContainersReady", "False", now, reason="ContainersNotReady")
        conditions.put(raw, "Ready", "False", now, reason="ContainersNotReady")
        status["containerStatuses"] = [
            {
                "name": container["name"],
                "image": container.get("image", ""),
                "ready": False,
                "started": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": stamp(now)}},
                "lastState": {},
            }
            for container in raw["spec"]["containers"]
        ]

    def make_ready(self, raw: Json, status: str = "True") -> None:
        """The readiness probe succeeds, or fails."""
        reason = "" if status == "True" else "ContainersNotReady"
        for kind in ("ContainersReady", "Ready"):
            conditions.put(raw, kind, status, self._now, reason=reason)
        for item in raw["status"].get("containerStatuses") or ():
            item["ready"] = status == "True"

    def _end(self, raw: Json, code: int) -> None:
        reason = "Completed" if code == 0 else "Error"
        _terminated(raw, code, reason, self._now)

    def _stop(self, pod: Stored) -> None:
        """Stop its containers, within its grace; then the object goes."""
        meta = pod["metadata"]
        uid, behaviour = meta["uid"], self._all.behaviour(pod)
        mark = f"stopping {meta.get('deletionGracePeriodSeconds')}"
        if self._doing.get(uid) == mark or behaviour.stop is None:
            return
        self._doing[uid] = mark
        left = max(0.0, unix(meta["deletionTimestamp"]) - self._all.store.clock())
        grace = min(left, float(meta.get("deletionGracePeriodSeconds") or 0))
        life = self._life

        def stopped() -> None:
            if life == self._life and self.alive and self._doing.get(uid) == mark:
                del self._doing[uid]
                self._all.gone(pod, self.name)

        self._all.simulation.after(min(behaviour.stop, grace), stopped)


class Kubelets:
    """All of them. behaviour: of a pod, asked when it starts and when it is to stop."""

    def __init__(self, simulation: Simulation, store: Store) -> None:
        self.simulation, self.store = simulation, store
        self.of: dict[str, Kubelet] = {}
        self.behaviour: Callable[[Json], Behaviour] = lambda _: Behaviour()
        self._made = 0
        store.subscribe(self._changed)
        store.on_restore(self._restored)

    def register(self, raw: Json) -> Kubelet:
        """A machine joins: its Node is made, or its status written."""
        name = raw["metadata"]["name"]
        kubelet = self.of[name] = Kubelet(self, name, self._made)
        self._made += 1
        if self.store.get("nodes", "", name) is None:
            self.store.create(raw, f"kubelet/{name}")
        kubelet.keep_reporting()
        kubelet.resync()
        return kubelet

    def join(self, name: str, **more: object) -> Kubelet:
        """A machine of this name joins; more: see objects.node."""
        return self.register(node_object(name, **more))  # type: ignore[arg-type]

    def vanish(self, name: str) -> None:
        """The machine is gone for good; its Node stays until somebody deletes it."""
        kubelet = self.of.pop(name)
        kubelet.die()

    def set_ready(self, namespace: str, name: str, *, ready: bool) -> None:
        """A pod's readiness probe begins to fail or to succeed."""
        pod = self.store.get("pods", namespace, name)
        if pod is None:
            return
        kubelet = self.of.get(str(pod["spec"].get("nodeName") or ""))
        if kubelet is not None and kubelet.alive:
            self.edit(pod, lambda raw: kubelet.make_ready(raw, "True" if ready else "False"))

    def release(self, namespace: str, name: str) -> None:
        """A pod that hangs in Terminating ends after all."""
        pod = self.store.get("pods", namespace, name)
        if pod is not None:
            self.gone(pod, str(pod["spec"].get("nodeName")))

    def edit(self, pod: Stored, edit: Callable[[Json], None]) -> None:
        """Edit a pod's status, if it still is this pod."""
        key: Key = "pods", pod["metadata"]["namespace"], pod["metadata"]["name"]
        now = self.store.get(*key)
        if now is not None and now["metadata"]["uid"] == pod["metadata"]["uid"]:
            self.store.change(key, edit, f"kubelet/{pod['spec'].get('nodeName')}")

    def gone(self, pod: Stored, node: str) -> None:
        """A pod's containers have stopped: the object goes, unless it has finalizers."""

        def finished(raw: Json) -> None:
            if raw["metadata"].get("deletionTimestamp") is not None:
                raw["metadata"]["deletionGracePeriodSeconds"] = 0

        key: Key = "pods", pod["metadata"]["namespace"], pod["metadata"]["name"]
        now = self.store.get(*key)
        if now is not None and now["metadata"]["uid"] == pod["metadata"]["uid"]:
            self.store.change(key, finished, f"kubelet/{node}")

    def _changed(self, change: Change) -> None:
        if change.key[0] != "pods" or change.new is None:
            return
        kubelet = self.of.get(str(change.new["spec"].get("nodeName") or ""))
        if kubelet is not None:
            kubelet.handle(change.new)

    def _restored(self) -> None:
        """etcd went back in time: each kubelet sees its pods as they are now."""
        for name in sorted(self.of):
            if self.store.get("nodes", "", name) is None:
                self.store.create(node_object(name), f"kubelet/{name}")
            if self.of[name].alive:
                self.of[name].report()
                self.of[name].resync()


def _terminated(raw: Json, code: int, reason: str, now: float) -> None:
    raw["status"]["phase"] = "Succeeded" if code == 0 else "Failed"
    conditions.put(raw, "Ready", "False", now, reason="PodCompleted")
    for item in raw["status"].get("containerStatuses") or ():
        ended = {"exitCode": code, "reason": reason, "finishedAt": stamp(now)}
        item |= {"ready": False, "started": False, "state": {"terminated": ended}}
