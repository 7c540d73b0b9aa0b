"""More field reports: of what is held back, by a pause, a limit or a budget, and let go again.

As in `corpus`: nothing is copied; each world has the same cause in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.simulation.cluster import objects
from tests.simulation.cluster.people import Person
from tests.simulation.remediator.corpus import FAULT, Field, Report, wanted


def _old_faults(made: Field) -> None:
    """A person stops everything for long; meanwhile two nodes are bad and good again, and one gets
    bad. What is bad when work is resumed counts, not what was."""
    console = made.world.console
    made.at(5.0, lambda: console.run("pause", "--why", "test"))
    for node, since, until in (("node-1", 10.0, 300.0), ("node-2", 100.0, 700.0)):
        made.report(since, node, "True")
        made.report(until, node, "False")
    made.report(900.0, "node-3", "True")
    for at in range(10, 1300, 5):
        made.count(at, "of old faults", lambda: sum(map(made.cordoned, ("node-1", "node-2"))))
    made.note(990.0, "cordoned in the pause", lambda: made.cordoned("node-3"))
    made.at(1000.0, lambda: console.run("resume"))
    made.note(1100.0, "cordoned after it", lambda: made.cordoned("node-3"))


def _only_what_is_bad_now(made: Field) -> Iterator[str]:
    yield from wanted(**{"cordoned in the pause": False, "cordoned after it": True})(made)
    if any(made.samples["of old faults"]):
        yield "a node was cordoned for a fault that was over"


def _more_than_allowed(made: Field) -> None:
    """More nodes are bad than may be out of service: one after the other gets its turn."""
    for number, since in ((1, 10.0), (2, 200.0), (3, 400.0)):
        made.report(since, f"node-{number}", "True")
    nodes = ("node-1", "node-2", "node-3")
    made.note(600.0, "out of service", lambda: sum(map(made.cordoned, nodes)))
    made.report(610.0, "node-1", "False")
    made.note(800.0, "the next", lambda: [made.cordoned(node) for node in nodes])


def _refused_first(made: Field) -> None:
    """A budget refuses the eviction, and allows it later: it is sent then, not a round later."""
    made.cluster.add(objects.deployment("default", "web", 2))
    made.cluster.add(objects.budget("default", "web", {"app": "web"}, minAvailable=2))

    def bad() -> None:
        made.seen["node"] = node = made.pods("web")[0]["spec"]["nodeName"]
        made.world.detectors.report(node, FAULT, "True")

    made.at(20.0, bad)
    made.note(290.0, "left before", lambda: _left(made))
    person = Person(made.cluster)
    made.at(300.0, lambda: person.scale("deployments", "default", "web", 4))
    made.note(330.0, "left after", lambda: _left(made))


def _left(made: Field) -> int:
    """Pods on the node that is drained and that do not end."""
    pods = [pod for pod in made.pods("web") if not pod["metadata"].get("deletionTimestamp")]
    return sum(pod["spec"].get("nodeName") == made.seen["node"] for pod in pods)


def _evicted_when_allowed(made: Field) -> Iterator[str]:
    if not made.seen["left before"]:
        yield "a pod was evicted that its budget protects"
    if made.seen["left after"]:
        yield f"{made.seen['left after']} pods are left 30 s after the budget allows their eviction"


REPORTS: Sequence[Report] = (
    Report(
        "NVIDIA/NVSentinel#450",
        "when its breaker is closed again after days, nodes are cordoned for faults long over",
        1310.0,
        _old_faults,
        _only_what_is_bad_now,
    ),
    Report(
        "kubernetes-sigs/cluster-api#10722",
        "as soon as more machines are unhealthy than allowed, none is repaired any more",
        810.0,
        _more_than_allowed,
        wanted(**{"out of service": 1, "the next": [False, True, False]}),
    ),
    Report(
        "kubernetes-sigs/descheduler#996",
        "an eviction that a budget refuses is not sent again when the budget allows it",
        340.0,
        _refused_first,
        _evicted_when_allowed,
    ),
)
