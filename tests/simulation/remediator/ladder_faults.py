"""What goes wrong around the steps of ladders, by a seed; see `ladders`."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from selfheal_remediator.node.annotation import EXCLUDE_KEY, Phase
from tests.simulation.cluster.people import Person
from tests.simulation.cluster.store import Backup, Change
from tests.simulation.remediator.faults import PERSON, Schedule
from tests.simulation.remediator.process import NAMESPACE
from tests.simulation.remediator.scenes import at_write
from tests.simulation.remediator.states import state_of


def add_ladder_faults(made: Schedule) -> None:
    """Nodes that only their ladder repairs, and things that go wrong meanwhile."""
    rules = [rule for rule in made.world.config.rules if rule.then]
    if not rules:
        return
    random = Random(f"{made.world.simulation.seed}/ladder faults")
    own = Schedule(made.world, made.network, random, made.length, made.entries)
    for _ in range(random.choice((1, 2, 2))):
        _bad(own, random.uniform(5.0, made.length * 0.4), random.choice(rules).condition)
    for _ in range(random.choice((0, 1, 1, 2))):
        random.choice(_FAULTS)(own, random.uniform(5.0, made.length * 0.5))


def _bad(made: Schedule, when: float, kind: str) -> None:
    """Until a step repairs it, or it boots again."""
    world, which = made.world, made.random.random()

    def begin() -> None:
        nodes = [name for name in world.nodes if not name.startswith("control-")]
        if not nodes:
            return  # the only machine is away
        node = nodes[int(which * len(nodes))]
        world.simulation.record("world", f"{node}: {kind} True")
        world.detectors.report(node, kind, "True")

    made.add(when, f"{kind} on a node, until it is repaired", begin)


# -- writes of steps -------------------------------------------------------------------------


def begins_step(change: Change) -> bool:
    """Whether a step is written down."""
    if change.key[0] != "nodes" or change.old is None or change.new is None:
        return False
    before, after = state_of(change.old), state_of(change.new)
    if after is None or after.phase is not Phase.REPAIRING:
        return False
    return before is None or before.phase is not Phase.REPAIRING or before.steps != after.steps


def creates_job(change: Change) -> bool:
    """Whether the Job of a step, or of a verification, is made."""
    return change.key[:2] == ("jobs", NAMESPACE) and change.old is None


def _ends_step(change: Change) -> bool:
    if change.key[0] != "nodes" or change.old is None or change.new is None:
        return False
    before, after = state_of(change.old), state_of(change.new)
    return bool(before and after and before.step_runs and not after.step_runs)


_WRITES = begins_step, creates_job, _ends_step


# -- faults ----------------------------------------------------------------------------------


def _killed(made: Schedule, when: float) -> None:
    writes, again = made.random.choice(_WRITES), made.random.choice((1.0, 60.0))

    def kill(change: Change) -> None:
        next(one for one in made.world.replicas if one.name == change.by).kill(again)

    at_write(made, when, "the leader is killed at a step", writes, kill)


def _frozen(made: Schedule, when: float) -> None:
    writes, seconds = made.random.choice(_WRITES), made.random.choice((12.0, 17.0, 40.0))

    def freeze(change: Change) -> None:
        process = next(one for one in made.world.replicas if one.name == change.by).process
        if process is not None:
            process.pause(seconds)

    at_write(made, when, f"the leader stands still at a step for {seconds:g} s", writes, freeze)


def _restored(made: Schedule, when: float) -> None:
    server, store = made.world.server, made.world.cluster.store
    backups: list[Backup] = []
    made.add(when, "etcd is backed up", lambda: backups.append(store.backup()))

    def restore(_: Change) -> None:
        if backups:
            server.restore(backups[0])

    at_write(made, when, "etcd is restored", made.random.choice(_WRITES), restore)


def _paused(made: Schedule, when: float) -> None:
    world = made.world

    def run(*arguments: str) -> Callable[[], None]:
        def do() -> None:
            world.console.run(*arguments)

        return do

    def pause(_: Change) -> None:
        world.simulation.after(0.0, run("pause", "--why", "test"))
        world.simulation.after(100.0, run("resume"))

    at_write(made, when, "a person pauses it at a step", made.random.choice(_WRITES), pause)
    made.add(made.length, "resume", run("resume"))


def _job_deleted(made: Schedule, when: float) -> None:
    world, wait = made.world, made.random.choice((0.0, 4.0))
    person = Person(world.cluster, name=PERSON)

    def delete(change: Change) -> None:
        def do() -> None:
            person.delete("jobs", change.key[1], change.key[2])

        world.simulation.after(wait, do)

    at_write(made, when, f"a person deletes the Job of a step in {wait:g} s", creates_job, delete)


def _excluded(made: Schedule, when: float) -> None:
    world, wait = made.world, made.random.choice((0.0, 20.0))
    person = Person(world.cluster, name=PERSON)

    def exclude(change: Change) -> None:
        node = change.key[2]

        def annotate(value: str | None) -> None:
            person.annotate("nodes", "", node, **{EXCLUDE_KEY: value})

        world.simulation.after(wait, lambda: annotate("test"))
        world.simulation.after(wait + 150.0, lambda: annotate(None))

    at_write(made, when, f"the node is excluded {wait:g} s after a step", begins_step, exclude)


def _answers_lost(made: Schedule, when: float) -> None:
    """Writes of Jobs take effect, and are answered by an error."""
    seconds = made.random.choice((10.0, 60.0))

    def lose(_: Change) -> None:
        made.world.server.fail(
            seconds,
            504,
            lambda request: request.method == "POST" and "/jobs" in request.path,
            after_it_took_effect=True,
        )

    at_write(made, when, f"answers about Jobs are lost for {seconds:g} s", begins_step, lose)


_FAULTS = (_killed, _killed, _frozen, _restored, _paused, _job_deleted, _excluded, _answers_lost)
