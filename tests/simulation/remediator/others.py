"""What other systems do in a world, by a seed: marks on nodes, claims beside them, finalizers on
pods, and a rollout of the remediator with other values.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from selfheal_remediator.config import Config
from selfheal_remediator.quantities import Amount
from tests.simulation.cluster.autoscaler import DISRUPTED, TO_BE_DELETED
from tests.simulation.cluster.external_systems import (
    CAPI_NAMESPACE,
    KURED,
    MEDIK8S_NAMESPACE,
    ClusterApi,
    Kured,
    Medik8s,
)
from tests.simulation.cluster.messages import Json
from tests.simulation.cluster.people import Person
from tests.simulation.remediator.faults import PERSON, Schedule
from tests.simulation.remediator.invariants import budget
from tests.simulation.remediator.process import Replica
from tests.simulation.remediator.states import control_plane
from tests.simulation.remediator.world import World

FINALIZER = "example.com/backup"
MARKS = (TO_BE_DELETED, DISRUPTED)
#: Seconds after which no process runs with the values from before a rollout.
_ROLLED_OUT = 150.0


def add_others(made: Schedule) -> None:
    """Add what a seed has of them to its schedule."""
    chance = Random(f"{made.world.simulation.seed}/others")
    if chance.random() < 0.5:
        return
    kinds = (_removed, _rebooted, _maintained, _machine, _finalizer, _other_values)
    chosen = chance.sample(kinds, chance.randint(1, 3))
    for kind in chosen:
        kind(made, chance, chance.uniform(5.0, made.length * 0.7))


def repair(world: World) -> None:
    """Faults stop: no finalizer keeps a pod, and other systems have ended what a restored etcd says
    that they are doing."""
    store = world.cluster.store
    for pod in store.all("pods", "default"):
        _release(world, pod)
    if not store.restores:
        return
    for node in store.all("nodes"):
        if KURED in (node["metadata"].get("annotations") or {}):
            person = Person(world.cluster, name=PERSON)
            person.annotate("nodes", "", node["metadata"]["name"], **{KURED: None})
    for lease in store.all("leases", MEDIK8S_NAMESPACE):
        store.remove(("leases", MEDIK8S_NAMESPACE, lease["metadata"]["name"]), "medik8s")
    for machine in store.all("machines", CAPI_NAMESPACE):
        ClusterApi(world.cluster).remediated(machine["status"]["nodeRef"]["name"])


# -- marks and claims ------------------------------------------------------------------------


def _there(made: Schedule, node: str, do: Callable[[], object]) -> Callable[[], None]:
    """Do it if the machine is there."""

    def begin() -> None:
        cluster = made.world.cluster
        if node in cluster.kubelets.of and cluster.store.get("nodes", "", node) is not None:
            do()

    return begin


def _removed(made: Schedule, chance: Random, when: float) -> None:
    """An autoscaler marks a node, and changes its mind, or ends the machine."""
    world, node = made.world, chance.choice(made.world.nodes)
    key, ends = chance.choice(MARKS), chance.random() < 0.5
    later = chance.choice((30.0, 120.0, 400.0))
    place = "nodes", "", node

    def mark(raw: Json) -> None:
        taints = raw["spec"].setdefault("taints", [])
        taints.append({"key": key, "effect": "NoSchedule"})

    def unmark(raw: Json) -> None:
        taints = raw["spec"].get("taints") or []  # a restored etcd may know of none
        raw["spec"]["taints"] = [one for one in taints if one["key"] != key]

    def end() -> None:
        if not ends:
            world.cluster.store.change(place, unmark, "autoscaler")
            return
        world.detectors.stop(node)
        world.cluster.kubelets.vanish(node)
        world.cluster.store.remove(place, "autoscaler")

    def begin() -> None:
        world.cluster.store.change(place, mark, "autoscaler")
        uid = world.cluster.node(node)["metadata"]["uid"]
        world.simulation.after(later, _if_same(world, node, uid, end))
        _bad_meanwhile(world, node)

    made.add(when, f"{node}: an autoscaler puts the taint {key} on it", _there(made, node, begin))


def _bad_meanwhile(world: World, node: str) -> None:
    """It has a fault of its own while another system changes it."""
    world.detectors.report(node, "KernelDeadlock", "True")
    world.simulation.after(300.0, lambda: world.detectors.report(node, "KernelDeadlock", "False"))


def _if_same(world: World, node: str, uid: str, do: Callable[[], None]) -> Callable[[], None]:
    def check() -> None:
        raw = world.cluster.store.get("nodes", "", node)
        if raw is not None and raw["metadata"]["uid"] == uid and node in world.cluster.kubelets.of:
            do()

    return check


def _rebooted(made: Schedule, chance: Random, when: float) -> None:
    node, kured = chance.choice(made.world.nodes), Kured(made.world.cluster)

    def booted() -> None:
        made.world.detectors.start(node)

    def begin() -> None:
        kured.reboot(node)
        _bad_meanwhile(made.world, node)
        made.world.simulation.after(100.0, booted)

    made.add(when, f"{node}: kured reboots it", _there(made, node, begin))


def _maintained(made: Schedule, chance: Random, when: float) -> None:
    node, medik8s = chance.choice(made.world.nodes), Medik8s(made.world.cluster)
    seconds = chance.choice((60.0, 400.0))
    text = f"{node}: medik8s maintains it for {seconds:g} s"
    made.add(when, text, _there(made, node, lambda: medik8s.maintain(node, seconds)))


def _machine(made: Schedule, chance: Random, when: float) -> None:
    """Cluster API remediates a machine, or deletes it."""
    api, node = ClusterApi(made.world.cluster), chance.choice(made.world.nodes)
    api.adopt(node)
    seconds, deletes = chance.choice((30.0, 200.0)), chance.random() < 0.5

    def begin() -> None:
        if deletes:
            made.world.simulation.after(seconds, lambda: made.world.detectors.stop(node))
            api.delete(node, seconds)
        else:
            api.remediate(node, seconds)

    what = "deletes" if deletes else "remediates"
    made.add(when, f"{node}: Cluster API {what} its machine", _there(made, node, begin))


# -- pods and values -------------------------------------------------------------------------


def _finalizer(made: Schedule, chance: Random, when: float) -> None:
    """The pods of an application have a finalizer for a while, by which they outlive their end."""
    world, app = made.world, f"app-{chance.choice((0, 0, 1))}"
    seconds = chance.choice((60.0, 300.0))

    def hold(raw: Json) -> None:
        raw["metadata"]["finalizers"] = [FINALIZER]

    def begin() -> None:
        held = [pod for pod in world.pods.of(app) if not pod["metadata"].get("deletionTimestamp")]
        for pod in held:
            world.cluster.store.change(("pods", "default", pod["metadata"]["name"]), hold)

    def end() -> None:
        for pod in world.pods.of(app):
            _release(world, pod)

    made.add(when, f"{app}: its pods get a finalizer", begin)
    made.add(min(made.length, when + seconds), f"{app}: its finalizers are removed", end)


def _release(world: World, pod: Json) -> None:
    def release(raw: Json) -> None:
        raw["metadata"].pop("finalizers", None)

    if FINALIZER in (pod["metadata"].get("finalizers") or ()):
        world.cluster.store.change(("pods", "default", pod["metadata"]["name"]), release)


def _other_values(made: Schedule, chance: Random, when: float) -> None:
    """The remediator is rolled out with another limit, one replica after the other."""
    world = made.world
    amount = chance.choice((Amount(1, False), Amount(2, False), Amount(50, True)))

    def begin() -> None:
        before = world.config
        limits = before.limits.model_copy(update={"max_unavailable": amount})
        after = before.model_copy(update={"limits": limits})
        _expect(world, before, after)
        for number, replica in enumerate(world.replicas):
            replica.config = after
            world.simulation.after(10.0 * number, lambda one=replica: _restart(one))  # type: ignore[misc]

    unit = "%" if amount.percent else ""
    text = f"the remediator is rolled out with maxUnavailable {amount.number:g}{unit}"
    made.add(when, text, begin)


def _expect(world: World, before: Config, after: Config) -> None:
    """While replicas have different values, the larger limit is what holds."""

    def expect() -> None:
        world.config = after

    nodes = [one for one in world.cluster.store.all("nodes") if not control_plane(one)]
    if budget(after, len(nodes)) >= budget(before, len(nodes)):
        expect()
    else:
        world.simulation.after(_ROLLED_OUT, expect)


def _restart(replica: Replica) -> None:
    if replica.remediator is not None:
        replica.stop(1.0)
    elif replica.runs:
        replica.kill(1.0)
