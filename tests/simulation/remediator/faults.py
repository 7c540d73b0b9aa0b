"""What goes wrong, by a seed: machines, detectors, people, processes, clocks, the network.

A schedule is made before the run, one entry each; an entry is a line of the story. After the last
one everything that was broken for a while is whole again, so that the world can settle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from selfheal_remediator.node.annotation import EXCLUDE_KEY
from tests.simulation.cluster import faulty_server
from tests.simulation.cluster.messages import Request
from tests.simulation.cluster.people import Person
from tests.simulation.cluster.store import Backup
from tests.simulation.remediator.wire import (
    OF_ANSWERS,
    OF_WATCHES,
    Fault,
    Trouble,
)
from tests.simulation.remediator.world import World

PERSON = "person"


@dataclass(frozen=True, slots=True)
class Happening:
    """One entry of the schedule: when (virtual seconds), for people, what."""

    when: float
    text: str
    do: Callable[[], object]


class Network:
    """What the requests of all processes meet: by chance, more of it in bad hours.

    rate: the share of requests that something is wrong with; down: none gets through.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self.rate = 0.0
        self.down = False

    def disturb(self, request: Request) -> Trouble:
        """See wire.Disturb."""
        if self.down:
            return Trouble(Fault.REFUSED)
        if not self.rate or self._random.random() >= self.rate:
            return Trouble()
        faults = OF_WATCHES if request.watches else OF_ANSWERS
        fault = self._random.choice(faults)
        return Trouble(fault, self._random.choice((0.1, 1.0, 5.0, 20.0, 60.0)))


@dataclass(slots=True)
class Schedule:
    """The entries of one run. excluded, cordoned: what people did, by node."""

    world: World
    network: Network
    random: Random
    length: float
    entries: list[Happening] = field(default_factory=list)

    def add(self, when: float, text: str, do: Callable[[], object]) -> None:
        """One more."""
        self.entries.append(Happening(when, text, do))

    def plan(self) -> None:
        """Hand all entries to the simulation, in their order."""
        for entry in sorted(self.entries, key=lambda entry: entry.when):
            self.world.simulation.at(entry.when, lambda entry=entry: self._happens(entry))  # type: ignore[misc]

    def _happens(self, entry: Happening) -> None:
        self.world.simulation.record("world", entry.text)
        entry.do()


def schedule(world: World, network: Network, length: float) -> Schedule:
    """The faults of the world's seed, all within so many seconds."""
    random = Random(f"{world.simulation.seed}/faults")
    made = Schedule(world, network, random, length)
    kinds = (
        *(_bad_node, _bad_node, _bad_node, _dead_node, _reboot, _deleted_node),
        *(_detector_restarts, _detector_stops, _detector_rollout, _many_at_once, _flapping),
        *(_person_cordons, _person_uncordons, _person_excludes, _pause, _command),
        *(_person_drains, _scaled, _rolled_out),
        *(_killed, _stopped, _frozen, _clock_jumps, _bad_network, _outage),
        *(_server_fault, _server_fault, _stale, _restored),
        *(_pod_unready, _pod_hung, _app_broken, _node_unready, _reconfigured),
    )
    # Some seeds have many faults of few kinds, others a few of all.
    chosen = random.sample(kinds, random.randint(3, len(kinds)))
    for _ in range(random.choice((3, 6, 12, 20))):
        random.choice(chosen)(made, random.uniform(5.0, length * 0.8))
    # In each there is something to do.
    for _ in range(random.choice((1, 2, 4))):
        _bad_for_long(made, random.uniform(5.0, length * 0.7))
    if world.policies:
        for _ in range(random.choice((0, 2, 5))):
            _pod_unready(made, random.uniform(5.0, length * 0.7))
    return made


def _pick(made: Schedule) -> str:
    return made.random.choice(made.world.nodes)


def _until(made: Schedule, when: float) -> float:
    return min(made.length, when + made.random.choice((2.0, 15.0, 70.0, 200.0, 600.0)))


# -- machines and detectors ------------------------------------------------------------------


def _bad_node(made: Schedule, when: float) -> None:
    node, kind = _pick(made), made.random.choice(made.world.detectors.kinds)
    detectors = made.world.detectors
    made.add(when, f"{node}: {kind} True", lambda: detectors.report(node, kind, "True"))
    if made.random.random() < 0.3:
        between = when + made.random.uniform(1, 60)
        text = f"{node}: {kind} True for another reason"
        made.add(between, text, lambda: detectors.report(node, kind, "True", "AnotherFault"))
    if made.random.random() < 0.7:
        made.add(_until(made, when), f"{node}: {kind} False", lambda: _good(made, node, kind))


def _bad_for_long(made: Schedule, when: float) -> None:
    """One of the three nodes with the most pods, so long that it is drained."""
    world, place = made.world, made.random.choice((0, 1, 2))
    kind = made.random.choice(("KernelDeadlock", "KernelDeadlock", "ReadonlyFilesystem"))
    lasts, excluded = made.random.choice((200.0, 600.0)), made.random.random() < 0.1

    def begin() -> None:
        nodes = sorted(world.nodes, key=lambda name: -len(world.cluster.store.pods_on(name)))
        if not nodes:
            return  # the only machine is away
        node = nodes[min(place, len(nodes) - 1)]
        world.simulation.record("world", f"{node}: {kind} True")
        if excluded:
            person = Person(world.cluster, name=PERSON)
            person.annotate("nodes", "", node, **{EXCLUDE_KEY: "test"})
        world.detectors.report(node, kind, "True")
        world.simulation.after(lasts, lambda: _good(made, node, kind))

    made.add(when, f"{kind} on a node with many pods, for {lasts:g} s", begin)


def _good(made: Schedule, node: str, kind: str) -> None:
    made.world.detectors.report(node, kind, "False")


def _many_at_once(made: Schedule, when: float) -> None:
    kind, detectors = made.random.choice(made.world.detectors.kinds), made.world.detectors
    nodes = [node for node in made.world.nodes if made.random.random() < 0.8]
    within, lasts = made.random.choice((0.5, 5.0, 60.0)), made.random.choice((20.0, 200.0))
    made.add(
        when,
        f"{kind} True on {', '.join(nodes)} within {within:g} s, for {lasts:g} s",
        lambda: detectors.wave(nodes, kind, within, lasts),
    )


def _flapping(made: Schedule, when: float) -> None:
    node, kind = _pick(made), made.random.choice(made.world.detectors.kinds)
    every, times = made.random.choice((2.0, 30.0, 150.0)), made.random.choice((3, 6))
    made.add(
        when,
        f"{node}: {kind} changes every {every:g} s, {times} times",
        lambda: made.world.detectors.flap(node, kind, every, times),
    )


def _detector_rollout(made: Schedule, when: float) -> None:
    made.add(when, "all detectors are replaced", made.world.detectors.rollout)


def _detector_restarts(made: Schedule, when: float) -> None:
    node = _pick(made)
    made.add(when, f"{node}: detector restarts", lambda: made.world.detectors.restart(node))


def _detector_stops(made: Schedule, when: float) -> None:
    node, detectors = _pick(made), made.world.detectors
    made.add(when, f"{node}: detector stops", lambda: detectors.stop(node))
    made.add(made.length, f"{node}: detector starts", lambda: detectors.start(node))


def _dead_node(made: Schedule, when: float) -> None:
    node, kubelets = _pick(made), made.world.cluster.kubelets

    def die() -> None:
        if node in kubelets.of:
            kubelets.of[node].die()

    def live() -> None:
        if node in kubelets.of:
            kubelets.of[node].revive()

    made.add(when, f"{node}: dies", die)
    made.add(_until(made, when), f"{node}: lives again", live)


def _start_detector(made: Schedule, node: str) -> None:
    made.world.detectors.start(node)


def _reboot(made: Schedule, when: float) -> None:
    node, world = _pick(made), made.world

    def reboot() -> None:
        if node in world.cluster.kubelets.of:
            world.cluster.kubelets.of[node].reboot(30.0)
            world.simulation.after(35.0, lambda: _start_detector(made, node))

    made.add(when, f"{node}: reboots", reboot)


def _deleted_node(made: Schedule, when: float) -> None:
    node, world = _pick(made), made.world

    def vanish() -> None:
        if node in world.cluster.kubelets.of:
            world.detectors.stop(node)
            world.cluster.kubelets.vanish(node)
            world.cluster.store.remove(("nodes", "", node), "cloud-controller")

    def join() -> None:
        if node not in world.cluster.kubelets.of:
            world.cluster.add_node(node)
            world.detectors.start(node)

    made.add(when, f"{node}: is deleted", vanish)
    made.add(_until(made, when), f"{node}: is there again, as another machine", join)


# -- people ------------------------------------------------------------------------------------


def _person(made: Schedule) -> Person:
    return Person(made.world.cluster, name=PERSON)


def _person_cordons(made: Schedule, when: float) -> None:
    node, person = _pick(made), _person(made)
    made.add(when, f"a person cordons {node}", lambda: person.cordon(node))
    if made.random.random() < 0.5:
        _person_uncordons(made, _until(made, when), node)


def _person_uncordons(made: Schedule, when: float, node: str = "") -> None:
    node, person = node or _pick(made), _person(made)
    made.add(when, f"a person uncordons {node}", lambda: person.uncordon(node))


def _person_drains(made: Schedule, when: float) -> None:
    node, person = _pick(made), _person(made)
    made.add(when, f"a person drains {node}", lambda: person.drain(node, timeout=60.0))


def _workload(made: Schedule) -> tuple[str, str] | None:
    """Any Deployment or StatefulSet: its resource and name."""
    store = made.world.cluster.store
    all_of_them = [
        (plural, raw["metadata"]["name"])
        for plural in ("deployments", "statefulsets")
        for raw in store.all(plural, "default")
    ]
    return made.random.choice(all_of_them) if all_of_them else None


def _scaled(made: Schedule, when: float) -> None:
    chosen, person, replicas = _workload(made), _person(made), made.random.choice((0, 1, 3, 8))
    if chosen is not None:
        plural, name = chosen
        text = f"{plural} {name} is scaled to {replicas}"
        made.add(when, text, lambda: person.scale(plural, "default", name, replicas))


def _rolled_out(made: Schedule, when: float) -> None:
    chosen, person = _workload(made), _person(made)
    if chosen is not None:
        plural, name = chosen
        text = f"{plural} {name} is rolled out"
        made.add(when, text, lambda: person.restart(plural, "default", name))


def _person_excludes(made: Schedule, when: float) -> None:
    node = _pick(made)
    made.add(when, f"exclude {node}", lambda: _command_run(made, "exclude", node, "--why", "test"))
    end = _until(made, when)
    made.add(end, f"include {node}", lambda: _command_run(made, "include", node))


def _pause(made: Schedule, when: float) -> None:
    made.add(when, "pause", lambda: _command_run(made, "pause", "--why", "test"))
    made.add(_until(made, when), "resume", lambda: _command_run(made, "resume"))
    made.add(made.length, "resume", lambda: _command_run(made, "resume"))


def _command(made: Schedule, when: float) -> None:
    node = _pick(made)
    arguments = made.random.choice((("plan",), ("status",), ("uncordon", node), ("plan", node)))
    made.add(when, " ".join(arguments), lambda: _command_run(made, *arguments))


def _command_run(made: Schedule, *arguments: str) -> None:
    made.world.console.run(*arguments)


# -- pods ------------------------------------------------------------------------------------


def _app(made: Schedule) -> str:
    """One with a policy, if there is one."""
    apps = sorted(made.world.policies) or ["app-0"]
    return made.random.choice(apps)


def _pod_unready(made: Schedule, when: float) -> None:
    app, which, pods = _app(made), made.random.random(), made.world.pods

    def begin() -> None:
        found = pods.of(app)
        if found:
            pods.break_ready(found[int(which * len(found))])

    made.add(when, f"{app}: a pod is not ready any more", begin)


def _pod_hung(made: Schedule, when: float) -> None:
    app, which, pods = _app(made), made.random.random(), made.world.pods

    def begin() -> None:
        found = pods.of(app)
        if found:
            pods.hang(found[int(which * len(found))])

    made.add(when, f"{app}: a pod makes no progress any more", begin)


def _node_unready(made: Schedule, when: float) -> None:
    """A node's own fault, which its pods show."""
    node, world = _pick(made), made.world

    def begin() -> None:
        for pod in world.cluster.store.pods_on(node):
            if pod["metadata"]["namespace"] == "default":
                world.pods.break_ready(pod)

    made.add(when, f"{node}: no pod is ready any more", begin)


def _app_broken(made: Schedule, when: float) -> None:
    app, pods = _app(made), made.world.pods
    how = made.random.choice(("crashing", "unready", "stuck"))
    broken: set[str] = getattr(pods, how)

    def begin() -> None:
        broken.add(app)
        if how == "unready":
            for pod in pods.of(app):
                pods.break_ready(pod)

    def end() -> None:
        broken.discard(app)
        pods.unwell[app] = made.world.simulation.now

    made.add(when, f"{app}: its pods are {how}", begin)
    made.add(_until(made, when), f"{app}: its new pods work again", end)


def _reconfigured(made: Schedule, when: float) -> None:
    """The same file is read again, as after any change of the ConfigMap."""
    world = made.world

    def reload() -> None:
        for replica in world.replicas:
            remediator = replica.remediator
            if remediator is not None:
                remediator.reconfigure(replica.config)

    made.add(when, "the configuration is read again", reload)


# -- processes and the network -------------------------------------------------------------------


def _killed(made: Schedule, when: float) -> None:
    replica = made.random.choice(made.world.replicas)
    again = made.random.choice((1.0, 10.0, 60.0))
    simulation, steps = made.world.simulation, made.random.choice((0, 5, 60))

    def kill() -> None:
        """Between any two steps of its threads, soon."""
        if not steps:
            replica.kill(again)
        else:
            simulation.at_step(simulation.steps + steps, lambda: replica.kill(again))

    made.add(when, f"{replica.name} is killed", kill)


def _stopped(made: Schedule, when: float) -> None:
    replica = made.random.choice(made.world.replicas)
    again = made.random.choice((1.0, 10.0))
    made.add(when, f"{replica.name} gets SIGTERM", lambda: replica.stop(again))


def _frozen(made: Schedule, when: float) -> None:
    replica = made.random.choice(made.world.replicas)
    seconds = made.random.choice((1.0, 8.0, 12.0, 17.0, 40.0))

    def freeze() -> None:
        if replica.process is not None:
            replica.process.pause(seconds)

    made.add(when, f"{replica.name} stands still for {seconds:g} s", freeze)


def _clock_jumps(made: Schedule, when: float) -> None:
    replica = made.random.choice(made.world.replicas)
    seconds = made.random.choice((-3600.0, -5.0, 5.0, 3600.0))

    def jump() -> None:
        if replica.process is not None:
            replica.process.clock_jump(seconds)

    made.add(when, f"{replica.name}: its clock jumps by {seconds:g} s", jump)


def _bad_network(made: Schedule, when: float) -> None:
    rate, network = made.random.choice((0.02, 0.1, 0.3)), made.network

    def begin() -> None:
        network.rate = rate

    def end() -> None:
        network.rate = 0.0

    made.add(when, f"{rate:.0%} of the requests are disturbed", begin)
    made.add(_until(made, when), "no request is disturbed", end)


def _outage(made: Schedule, when: float) -> None:
    network = made.network

    def begin() -> None:
        network.down = True

    def end() -> None:
        network.down = False

    made.add(when, "the API server is away", begin)
    made.add(min(made.length, when + made.random.choice((3.0, 20.0, 90.0))), "it is back", end)


# -- the server ------------------------------------------------------------------------------------


def _server_fault(made: Schedule, when: float) -> None:
    server, seconds = made.world.server, made.random.choice((2.0, 20.0, 90.0))
    evictions = faulty_server.evictions
    faults: dict[str, Callable[[], None]] = {
        "the server throttles": lambda: server.throttle(seconds, retry_after=2),
        "evictions are throttled": lambda: server.throttle(seconds, evictions),
        "the server answers 500": lambda: server.fail(seconds),
        "writes answer 504 and take effect": lambda: server.fail(
            seconds, 504, faulty_server.writes, after_it_took_effect=True
        ),
        "the token is refused": lambda: server.refuse_token(seconds),
        "lists are expired": lambda: server.expire_lists(seconds),
        "somebody changes each object first": lambda: server.interfere(
            seconds, faulty_server.of("nodes")
        ),
        "a webhook makes evictions dry runs": lambda: server.evictions_delete_nothing(seconds),
        "a webhook denies evictions": lambda: server.deny(seconds),
        "a webhook denies evictions with 429": lambda: server.deny(seconds, code=429),
        "a policy denies evictions": lambda: server.deny_by_policy(seconds),
        "a webhook of evictions is away": lambda: server.webhook_unreachable(seconds),
    }
    name = made.random.choice(sorted(faults))
    made.add(when, f"{name} for {seconds:g} s", faults[name])


def _stale(made: Schedule, when: float) -> None:
    """Sieve's stale and unobserved states."""
    server, seconds = made.world.server, made.random.choice((1.0, 10.0, 40.0))
    if made.random.random() < 0.5:
        made.add(when, f"watches are {seconds:g} s late", lambda: server.fall_behind(seconds))
    else:
        text = f"watches are silent for {seconds:g} s, and then begin again"
        made.add(when, text, lambda: server.skip_states(seconds))
    if made.random.random() < 0.3:
        made.add(when + seconds, "history is compacted", server.compact)


def _restored(made: Schedule, when: float) -> None:
    server, store = made.world.server, made.world.cluster.store
    backups: list[Backup] = []
    made.add(when, "etcd is backed up", lambda: backups.append(store.backup()))
    later = min(made.length, when + made.random.choice((5.0, 60.0, 200.0)))

    def restore() -> None:
        if backups:  # both entries are kept where a failing world is made smaller
            server.restore(backups[0])

    made.add(later, "etcd is restored", restore)
