"""Drains that people request in a world, by a seed: by annotations or by the command."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from selfheal_remediator.kube.objects import DRAIN_KEY
from selfheal_remediator.node.drain_request import UNTIL_KEY
from tests.simulation.cluster.messages import stamp
from tests.simulation.cluster.people import Person
from tests.simulation.remediator.faults import PERSON, Schedule
from tests.simulation.remediator.world import World


def add_requests(made: Schedule) -> None:
    """One or two in half of the seeds that have any."""
    chance = Random(f"{made.world.simulation.seed}/requests")
    if not made.world.wide or chance.random() < 0.5:
        return
    nodes = [name for name in made.world.nodes if not name.startswith("control-")]
    for _ in range(chance.choice((1, 1, 2))):
        when, lasts = chance.uniform(5.0, made.length * 0.6), chance.choice((40.0, 150.0, 400.0))
        chance.choice((_annotated, _annotated, _until, _command))(
            made, when, chance.choice(nodes), lasts
        )


def withdraw_all(world: World) -> None:
    """Faults stop."""
    for node in world.cluster.store.all("nodes"):
        if DRAIN_KEY in (node["metadata"].get("annotations") or {}):
            _annotate(world, node["metadata"]["name"], None)()


def _annotate(world: World, node: str, why: str | None, until: float = 0.0) -> Callable[[], None]:
    """until: seconds from then, 0 = until it is withdrawn."""
    person = Person(world.cluster, name=PERSON)

    def annotate() -> None:
        end = stamp(world.cluster.store.clock() + until) if until else None
        person.annotate("nodes", "", node, **{DRAIN_KEY: why, UNTIL_KEY: end})

    return annotate


def _annotated(made: Schedule, when: float, node: str, lasts: float) -> None:
    made.add(when, f"a person requests the drain of {node}", _annotate(made.world, node, "test"))
    end = min(made.length, when + lasts)
    made.add(end, f"the request for {node} is withdrawn", _annotate(made.world, node, None))


def _until(made: Schedule, when: float, node: str, lasts: float) -> None:
    text = f"a person requests the drain of {node} for {lasts:g} s"
    made.add(when, text, _annotate(made.world, node, "test", lasts))


def _command(made: Schedule, when: float, node: str, lasts: float) -> None:
    world = made.world

    def request() -> None:
        world.console.run("drain", node, "--why", "test")

    made.add(when, f"drain {node}", request)
    end = min(made.length, when + lasts)
    made.add(end, f"the request for {node} is withdrawn", _annotate(world, node, None))
