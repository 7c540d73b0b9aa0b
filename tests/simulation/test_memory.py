"""A remediator that runs for hours does not grow: what it holds is what the cluster has now."""

from __future__ import annotations

import gc
import types
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest

from tests.simulation.cluster import objects
from tests.simulation.cluster.people import Person
from tests.simulation.remediator.corpus import Field, Report, run

#: Seconds of one turn: a fault with its drain and recovery, a machine that comes and goes under a
#: name of its own, a rollout, an unhealthy pod.
TURN = 1200.0
#: The turns at whose ends all is counted. Until the first one the past has its size: an hour of
#: cluster sizes, half an hour of cordons.
FIRST, LAST = 4, 12
#: A key per turn that is kept for ever is more than this.
SLACK = LAST - FIRST - 2
_LEFT_OUT = (
    int,
    float,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.CodeType,
    type,
)


def reachable(root: object) -> Counter[str]:
    """How many objects are reachable from it, by type; modules, functions, classes and what the
    simulation is made of are not followed, and numbers do not count: equal ones may be one."""
    seen, found, todo = {id(root)}, Counter[str](), [root]
    while todo:
        one = todo.pop()
        found[type(one).__qualname__] += 1
        for other in gc.get_referents(one):
            foreign = type(other).__module__.startswith("tests.")
            if id(other) not in seen and not foreign and not isinstance(other, _LEFT_OUT):
                seen.add(id(other))
                todo.append(other)
    return found


def _timeline(made: Field) -> None:
    made.cluster.add(objects.deployment("default", "web", 4))
    policy = objects.healing_policy(
        "default",
        "web",
        {"app": "web"},
        {"notReadyFor": "30s"},
        restart={"backoff": "5s", "maxBackoff": "60s", "maxPerHour": 6},
    )
    made.cluster.add(policy)
    made.world.policies["web"] = policy["spec"]
    for turn in range(LAST):
        _turn(made, turn * TURN, turn)
    made.count(450.0 + (LAST - 1) * TURN, "cordoned", lambda: made.cordoned(f"extra-{LAST - 1}"))
    for turn in (FIRST, LAST):
        made.note(turn * TURN - 1.0, f"turn {turn}", partial(_counted, made))


def _turn(made: Field, start: float, turn: int) -> None:
    node, extra = f"node-{turn % 4}", f"extra-{turn}"
    made.report(start + 20.0, node, "True")
    made.report(start + 200.0, node, "False")
    made.at(start + 400.0, lambda: made.cluster.add_node(extra))
    made.at(start + 401.0, lambda: made.world.detectors.start(extra))
    made.report(start + 410.0, extra, "True")
    made.at(start + 520.0, lambda: _leaves(made, extra))
    made.at(start + 600.0, lambda: Person(made.cluster).restart("deployments", "default", "web"))
    made.at(start + 700.0, lambda: made.world.pods.break_ready(made.pods("web")[0]))


def _leaves(made: Field, node: str) -> None:
    made.world.detectors.stop(node)
    made.cluster.kubelets.vanish(node)
    made.cluster.store.remove(("nodes", "", node), "cloud-controller")


def _counted(made: Field) -> list[Counter[str]]:
    return [reachable(replica.remediator) for replica in made.world.replicas]


def _grown(made: Field) -> Iterator[str]:
    if not made.samples["cordoned"][0]:
        yield "it does not act any more"
    before, after = made.seen[f"turn {FIRST}"], made.seen[f"turn {LAST}"]
    assert isinstance(before, list)
    assert isinstance(after, list)
    for number, (first, last) in enumerate(zip(before, after, strict=True)):
        assert first["KnownNodes"], "what it knows of nodes is among what is counted"
        more = {name: last[name] - first[name] for name in last if last[name] > first[name]}
        if sum(last.values()) - sum(first.values()) > SLACK:
            yield f"remediator-{number} holds more after {LAST - FIRST} turns: {more}"


def test_what_the_remediator_holds_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    # The status page's Events have their number before the first turn that is counted.
    monkeypatch.setattr("selfheal_remediator.kube.events.MOST_RECENT", 10)
    report = Report(
        "docs/simulation.md: bounded memory",
        "a program that runs for long holds more and more",
        LAST * TURN,
        _timeline,
        _grown,
        settings={
            "limits": {"maxUnavailable": 1},
            "recovery": {
                "stabilizationWindow": "60s",
                "resetStabilizationWindow": "120s",
                "flapWindow": "30m",
            },
        },
    )
    assert run(report) == []
