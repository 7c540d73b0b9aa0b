"""What goes wrong just when the remediator acts, and what needs several things at a time.

Faults at moments of their own (faults.py) seldom meet the few steps between two of its requests, or
each other. A scene waits for one of its writes, or arranges what a rule is about. They have chances
of their own: a seed's other faults are the same with and without them.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from selfheal_remediator.node.annotation import STATE_KEY, Phase
from tests.simulation.cluster import objects
from tests.simulation.cluster.people import Person
from tests.simulation.cluster.store import Backup, Change
from tests.simulation.remediator.faults import PERSON, Schedule
from tests.simulation.remediator.states import cordoned, state_of

#: A field manager that is no person's tool, and a remediator that was uninstalled.
CONTROLLER, UNINSTALLED = "fleet-controller", "gone/remediator"
#: So long (seconds) before faults stop nothing begins any more.
LAST = 60.0
Writes = Callable[[Change], bool]


def add_scenes(made: Schedule) -> None:
    """One or two in most seeds."""
    random = Random(f"{made.world.simulation.seed}/scenes")
    own = Schedule(made.world, made.network, random, made.length, made.entries)
    for _ in range(random.choice((0, 1, 1, 1, 2))):
        when = random.uniform(5.0, made.length * 0.5)
        if random.random() < 0.7:
            _nodes_to_drain(own, when + random.uniform(1.0, 20.0))
        random.choice(_SCENES)(own, when)


# -- when it writes --------------------------------------------------------------------------


def _cordons(change: Change) -> bool:
    return change.key[0] == "nodes" and cordoned(change.new) and not cordoned(change.old)


def _evicts(change: Change) -> bool:
    if change.key[0] != "pods" or change.old is None:
        return False
    ends = change.new is None or change.new["metadata"].get("deletionTimestamp")
    return bool(ends) and not change.old["metadata"].get("deletionTimestamp")


def _begins_drain(change: Change) -> bool:
    if change.key[0] != "nodes" or change.new is None:
        return False
    before = None if change.old is None else state_of(change.old)
    after = state_of(change.new)
    if after is None or after.phase is not Phase.DRAINING:
        return False
    return before is None or before.phase is not Phase.DRAINING


def at_write(
    made: Schedule, when: float, text: str, writes: Writes, do: Callable[[Change], object]
) -> None:
    """Do it once, some steps after the first such write of a replica after that moment."""
    simulation, steps = made.world.simulation, made.random.choice((1, 3, 20))
    replicas = {replica.name for replica in made.world.replicas}
    waiting: list[str] = []

    def changed(change: Change) -> None:
        late = simulation.now > made.length - LAST
        if late or not waiting or change.by not in replicas or not writes(change):
            return
        waiting.clear()
        simulation.record("world", f"{text}, as {change.by} writes {change.key[2]}")

        def act() -> None:
            do(change)

        simulation.at_step(simulation.steps + steps, act)

    made.world.cluster.store.subscribe(changed)
    made.add(when, f"from now on: {text}", lambda: waiting.append(text))


def _replica(made: Schedule, change: Change) -> Any:
    return next(one for one in made.world.replicas if one.name == change.by)


def _killed_at_write(made: Schedule, when: float) -> None:
    writes = made.random.choice((_cordons, _evicts, _begins_drain))
    again = made.random.choice((1.0, 60.0))
    at_write(made, when, "the leader is killed", writes, lambda it: _replica(made, it).kill(again))


def _frozen_at_write(made: Schedule, when: float) -> None:
    writes, seconds = made.random.choice((_cordons, _evicts)), made.random.choice((17.0, 40.0))

    def freeze(change: Change) -> None:
        process = _replica(made, change).process
        if process is not None:
            process.pause(seconds)

    at_write(made, when, f"the leader stands still for {seconds:g} s", writes, freeze)


def _killed_unheard(made: Schedule, when: float) -> None:
    """Its successor has not heard of what it wrote last."""

    def kill(change: Change) -> None:
        _replica(made, change).kill(60.0)

    def behind(change: Change) -> bool:
        if _cordons(change):
            made.world.server.fall_behind(40.0)
            return True
        return False

    at_write(made, when, "the leader is killed, and watches are 40 s late", behind, kill)


def _restored_at_cordon(made: Schedule, when: float) -> None:
    server, store = made.world.server, made.world.cluster.store
    backups: list[Backup] = []
    made.add(when, "etcd is backed up", lambda: backups.append(store.backup()))

    def restore(_: Change) -> None:
        if backups:
            server.restore(backups[0])

    at_write(made, when, "etcd is restored", made.random.choice((_cordons, _evicts)), restore)


def _paused_at_cordon(made: Schedule, when: float) -> None:
    """Watches tell of the Lease as it was before the pause, once it is long known."""
    late, world = made.random.choice((0.0, 25.0)), made.world

    def pause(_: Change) -> None:
        if late:
            world.server.fall_behind(late)
        _command_in(made, 6.0, "pause", "--why", "test")
        _command_in(made, 120.0, "resume")

    at_write(made, when, f"a person pauses it, watches are {late:g} s late", _cordons, pause)
    made.add(made.length, "resume", lambda: made.world.console.run("resume"))


def _command_in(made: Schedule, seconds: float, *arguments: str) -> None:
    def run() -> None:
        made.world.console.run(*arguments)

    made.world.simulation.after(seconds, run)


def _uncordoned_by_controller(made: Schedule, when: float) -> None:
    wait, controller = (
        made.random.choice((1.0, 20.0)),
        Person(made.world.cluster, agent=CONTROLLER, name=CONTROLLER),
    )

    def uncordon(change: Change) -> None:
        def apply() -> None:
            controller.uncordon(change.key[2], applied=True)

        made.world.simulation.after(wait, apply)

    at_write(made, when, f"a controller uncordons the node in {wait:g} s", _cordons, uncordon)


def _daemon_set_at_drain(made: Schedule, when: float) -> None:
    late = objects.daemon_set("kube-system", "late-agent", tolerations=[{"operator": "Exists"}])

    def create(_: Change) -> None:
        if made.world.cluster.store.get("daemonsets", "kube-system", "late-agent") is None:
            made.world.cluster.add(late)

    at_write(made, when, "DaemonSet kube-system/late-agent is made", _begins_drain, create)


def _ignored_at_drain(made: Schedule, when: float) -> None:
    server, seconds = made.world.server, made.random.choice((5.0, 20.0))
    text = f"a webhook makes evictions dry runs for {seconds:g} s"
    at_write(made, when, text, _begins_drain, lambda _: server.evictions_delete_nothing(seconds))


# -- several things at a time ------------------------------------------------------------------


def _nodes_to_drain(made: Schedule, when: float) -> None:
    """The nodes with the most pods are bad one after the other: too slowly for a wave."""
    world, number = made.world, made.random.choice((1, 2, 3))
    apart = made.random.choice((4.0, 25.0, 45.0))
    lasts = made.random.choice((200.0, 600.0, float("inf")))
    kind = made.random.choice(("KernelDeadlock", "KernelDeadlock", "ReadonlyFilesystem"))

    def report(node: str) -> None:
        world.detectors.report(node, kind, "True")
        if lasts != float("inf"):
            world.simulation.after(lasts, lambda: world.detectors.report(node, kind, "False"))

    def begin() -> None:
        nodes = [name for name in world.nodes if not name.startswith("control-")]
        nodes.sort(key=lambda name: -len(world.cluster.store.pods_on(name)))
        for place, node in enumerate(nodes[:number]):
            world.simulation.record("world", f"{node}: {kind} True in {place * apart:g} s")
            world.simulation.after(place * apart, lambda node=node: report(node))  # type: ignore[misc]

    text = f"{kind} on {number} nodes with many pods, {apart:g} s apart, for {lasts:g} s"
    made.add(when, text, begin)


def _most_nodes_silent(made: Schedule, when: float) -> None:
    share, seconds = made.random.choice((0.7, 1.0)), made.random.choice((200.0, 300.0))
    kubelets = made.world.cluster.kubelets

    def lives(node: str, alive: bool) -> None:
        if node in kubelets.of:
            (kubelets.of[node].revive if alive else kubelets.of[node].die)()

    def begin() -> None:
        nodes = made.world.nodes
        for node in nodes[: max(1, round(share * len(nodes)))]:
            lives(node, alive=False)
            made.world.simulation.after(seconds, lambda node=node: lives(node, alive=True))  # type: ignore[misc]

    made.add(when, f"{share:.0%} of the nodes are silent for {seconds:g} s", begin)


def _lists_expire(made: Schedule, when: float) -> None:
    server, seconds = made.world.server, made.random.choice((10.0, 60.0))

    def begin() -> None:
        server.compact()
        server.cut_watches()
        server.expire_lists(seconds)

    made.add(when, f"watches break, and lists are expired for {seconds:g} s", begin)


def _uninstalled(made: Schedule, when: float) -> None:
    """A node has the annotation of a remediator that is gone, and is bad."""
    world, phase = made.world, made.random.choice(("seen", "drained"))
    text = f'{{"v":1,"phase":"{phase}","by":"{UNINSTALLED}","condition":"KernelDeadlock"}}'
    which = made.random.random()

    def begin() -> None:
        nodes = [name for name in world.nodes if not name.startswith("control-")]
        node = nodes[int(which * len(nodes))]
        Person(world.cluster, name=PERSON).annotate("nodes", "", node, **{STATE_KEY: text})
        world.simulation.record("world", f"{node} is {phase} by {UNINSTALLED}")
        world.simulation.after(30.0, lambda: world.detectors.report(node, "KernelDeadlock", "True"))

    made.add(when, f"the annotation of {UNINSTALLED} is on a node", begin)


_SCENES = (
    *(_killed_at_write, _frozen_at_write, _killed_unheard, _restored_at_cordon),
    *(_paused_at_cordon, _uncordoned_by_controller, _daemon_set_at_drain, _ignored_at_drain),
    *(_most_nodes_silent, _lists_expire, _uninstalled, _nodes_to_drain),
)
