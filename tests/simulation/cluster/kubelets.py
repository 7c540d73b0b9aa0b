"""The kubelets: they start, probe and stop pods, report their node, die and boot again.

A kubelet that is dead changes nothing: its pods stay as they were reported, also those that are
being deleted, and its node's Ready goes Unknown by the node controller (node_lifecycle.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.simulation.cluster import conditions, container_states
from tests.simulation.cluster.messages import Json, Simulation, unix
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

    waiting: the reason for which its containers never start. crash: seconds after each start until
    they end with exit_code and are started again.
    """

    start: float = 1.0
    ready: float | None = 1.0
    stop: float | None = 1.0
    run: float | None = None
    exit_code: int = 0
    waiting: str = ""
    crash: float | None = None


class Kubelet:
    """The kubelet of one node. skew: seconds by which its clock is ahead."""

    def __init__(self, kubelets: Kubelets, raw: Json, number: int) -> None:
        self._all, self._raw, self._number = kubelets, raw, number
        self.name = str(raw["metadata"]["name"])
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

    def register(self) -> None:
        """Make the Node, where there is none: only when the kubelet starts, so that a Node that is
        deleted stays away until then (pkg/kubelet/kubelet_node_status.go)."""
        if self._all.store.get("nodes", "", self.name) is None:
            self._all.store.create(self._raw, f"kubelet/{self.name}")

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
        self.register()
        for pod in self._all.store.pods_on(self.name):
            if pod["status"].get("phase") == "Running":
                self._all.edit(pod, self._restarted)
        self.revive()

    def _restarted(self, raw: Json) -> None:
        if raw["spec"]["restartPolicy"] == "Never":
            container_states.finish(raw, self._now, 137)
            return
        container_states.fail(raw, self._now, 137)
        container_states.run(raw, self._now)

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
        if not pod["status"].get("startTime"):
            self._pods += 1
            self._all.edit(pod, self._begin)
        running = pod["status"].get("phase") == "Running"
        wait = 0.0 if running else behaviour.start
        if behaviour.waiting:
            reason = behaviour.waiting
            self._later(pod, wait, lambda raw: container_states.wait(raw, self._now, reason))
            return
        if not running:
            self._later(pod, wait, lambda raw: container_states.run(raw, self._now))
        self._started(pod, behaviour, wait)

    def _begin(self, raw: Json) -> None:
        host = f"192.168.{self._number // 250}.{self._number % 250 + 1}"
        place = f"{self._number // 250}.{self._number % 250}"
        container_states.begin(raw, self._now, host, f"10.{place}.{self._pods % 250 + 1}")

    def _started(self, pod: Stored, behaviour: Behaviour, wait: float) -> None:
        """Its containers start after so long: what comes then."""
        code = behaviour.exit_code
        if behaviour.ready is not None:
            self._later(pod, wait + behaviour.ready, lambda raw: self.make_ready(raw))
        if behaviour.run is not None:
            end = wait + behaviour.run
            self._later(pod, end, lambda raw: container_states.finish(raw, self._now, code))
        if behaviour.crash is not None:
            self._later(pod, wait + behaviour.crash, lambda raw: self._crash(raw, pod, code or 1))

    def _crash(self, raw: Json, pod: Stored, code: int) -> None:
        """The containers end; they start again after a while that grows."""
        restarts = max((i["restartCount"] for i in raw["status"]["containerStatuses"]), default=0)
        container_states.fail(raw, self._now, code)
        wait = container_states.backoff(restarts)
        self._later(pod, wait, lambda again: container_states.run(again, self._now))
        self._started(pod, self._all.behaviour(raw), wait)

    def _later(self, pod: Stored, seconds: float, edit: Callable[[Json], None]) -> None:
        life, uid = self._life, pod["metadata"]["uid"]

        def do() -> None:
            if life == self._life and self.alive and self._doing.get(uid) == "started":
                self._all.edit(pod, edit)

        self._all.simulation.after(seconds, do)

    def make_ready(self, raw: Json, *, is_ready: bool = True) -> None:
        """The readiness probe succeeds, or fails."""
        container_states.ready(raw, self._now, is_ready=is_ready)

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
        kubelet = self.of[name] = Kubelet(self, raw, self._made)
        self._made += 1
        kubelet.register()
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
            self.edit(pod, lambda raw: kubelet.make_ready(raw, is_ready=ready))

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
            if self.of[name].alive:
                self.of[name].register()
                self.of[name].report()
                self.of[name].resync()
