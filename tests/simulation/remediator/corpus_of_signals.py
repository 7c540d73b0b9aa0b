"""More field reports: of detectors that are wrong, of watches that end, of others' cordons.

As in `corpus`: nothing is copied; each world has the same cause in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from tests.simulation.cluster.faulty_server import reads
from tests.simulation.cluster.messages import Answer, Request
from tests.simulation.cluster.people import Person
from tests.simulation.remediator.corpus import Field, Report, wanted

#: Lists and watches of nodes in three minutes, by two replicas, that are no loop.
_FEW = 60


def _faulty_component(made: Field) -> None:
    """A faulty component calls every node bad within seconds, and for long; the limits would let
    all of them go."""
    nodes = [f"node-{number}" for number in range(4)]
    made.at(10.0, lambda: made.world.detectors.wave(nodes, "KernelDeadlock", 5.0, 900.0))
    for at in range(20, 900, 20):
        made.count(at, "out of service", lambda: sum(made.cordoned(node) for node in nodes))


def _at_most_one(made: Field) -> Iterator[str]:
    most = max(made.samples["out of service"])
    if most > 1:
        yield f"{most} nodes were out of service for what one component said"


def _not_a_recovery(made: Field) -> None:
    """The check itself fails (Unknown), and later its daemon restarts: neither says that the fault
    is over. Good news of a check that has run does."""
    made.report(10.0, "node-1", "True")
    made.report(120.0, "node-1", "Unknown", "PluginFailed")
    made.note(700.0, "cordoned while unknown", lambda: made.cordoned("node-1"))
    made.report(710.0, "node-1", "True")
    made.at(720.0, lambda: made.world.detectors.restart("node-1"))
    made.note(900.0, "cordoned after a restart", lambda: made.cordoned("node-1"))
    made.report(905.0, "node-1", "True")
    made.report(910.0, "node-1", "False", "Checked")
    made.note(1100.0, "cordoned when checked", lambda: made.cordoned("node-1"))


def _restarts_often(made: Field) -> None:
    """The detector restarts again and again on a bad node: each time it says False, until its check
    has run."""
    made.report(10.0, "node-1", "True")
    for start in range(100, 1000, 150):
        made.at(float(start), lambda: made.world.detectors.restart("node-1"))
        made.report(start + 40.0, "node-1", "True")
    for at in range(60, 1000, 10):
        made.count(at, "cordoned", lambda: int(made.cordoned("node-1")))


def _always_cordoned(made: Field) -> Iterator[str]:
    if not all(made.samples["cordoned"]):
        yield f"the node was put back into service: {made.samples['cordoned']}"


def _dead_writer(made: Field) -> None:
    """Who writes a condition is dead: its last word ages, good or bad, and counts no more."""
    made.report(10.0, "node-1", "True")
    made.report(10.0, "node-2", "True")
    made.at(12.0, lambda: made.world.detectors.stop("node-2"))
    made.report(500.0, "node-1", "False")
    made.at(503.0, lambda: made.world.detectors.stop("node-1"))
    made.note(480.0, "cordoned by a live one", lambda: made.cordoned("node-1"))
    made.note(1500.0, "still cordoned", lambda: made.cordoned("node-1"))
    made.note(1501.0, "cordoned by a dead one", lambda: made.cordoned("node-2"))
    made.at(1510.0, lambda: made.world.detectors.start("node-1"))
    made.note(2400.0, "cordoned when it writes again", lambda: made.cordoned("node-1"))


def _old_version(made: Field) -> None:
    """The history is compacted while the cache of the server that answers stands still: a watch
    from the version of its list has always expired."""
    server = made.world.server
    made.at(20.0, lambda: server.fall_behind(200.0))
    made.at(30.0, lambda: made.versions(400))
    made.at(40.0, server.compact)
    made.at(41.0, server.cut_watches)
    made.report(60.0, "node-1", "True")

    def asked(request: Request, _answer: Answer) -> None:
        if request.path == "/api/v1/nodes" and 40.0 < made.now < 220.0:
            made.seen["asked"] = made.seen["asked"] + 1  # type: ignore[operator]

    made.seen["asked"] = 0
    made.cluster.api.on_request.append(asked)
    made.note(400.0, "cordoned", lambda: made.cordoned("node-1"))


def _few_requests(made: Field) -> Iterator[str]:
    yield from wanted(cordoned=True)(made)
    asked = made.seen["asked"]
    assert isinstance(asked, int)
    if asked > _FEW:
        yield f"nodes were listed or watched {asked} times in 180 s"


def _watch_ends(made: Field) -> None:
    """Each watch ends, and cannot begin again for a while: nothing may be deaf afterwards."""
    server = made.world.server
    made.at(20.0, server.cut_watches)
    made.at(30.0, lambda: server.fail(20.0, 503, reads))
    made.at(30.5, server.cut_watches)
    made.at(60.0, lambda: server.refuse_token(20.0, reads))
    made.at(60.5, server.cut_watches)
    made.report(100.0, "node-1", "True")
    made.note(180.0, "cordoned", lambda: made.cordoned("node-1"))
    made.at(200.0, server.cut_watches)
    made.report(201.0, "node-1", "False")
    made.note(400.0, "cordoned when it is over", lambda: made.cordoned("node-1"))


def _uncordons_with_a_restart(made: Field) -> None:
    """A person has drained a node, and the operator's pods restart: the node stays cordoned. And
    the operator uncordons one of ours, by an apply, whose fault is still there."""
    person, operator = Person(made.cluster), Person(made.cluster, "k8s-driver-manager", "operator")
    made.at(5.0, lambda: person.drain("node-1"))
    made.report(10.0, "node-2", "True")
    made.at(100.0, lambda: operator.uncordon("node-2", applied=True))
    made.note(200.0, "ours, uncordoned by the operator", lambda: made.cordoned("node-2"))
    for replica in made.world.replicas:
        made.at(300.0, partial(replica.kill, 5.0))
    made.note(500.0, "of a person", lambda: made.cordoned("node-1"))
    made.report(510.0, "node-2", "False")
    made.note(800.0, "ours, healthy", lambda: made.cordoned("node-2"))


_ALL_MAY_GO = {"maxUnavailable": "100%", "maxDraining": 4, "minSchedulable": 0}

REPORTS: Sequence[Report] = (
    Report(
        "kubernetes-sigs/karpenter#2811",
        "a faulty component calls healthy nodes bad, and too many of them are terminated",
        920.0,
        _faulty_component,
        _at_most_one,
        settings={"limits": _ALL_MAY_GO},
    ),
    Report(
        "NVIDIA/NVSentinel#1876",
        "Unknown, and the reset of a detector that restarts, are taken for a recovery",
        1110.0,
        _not_a_recovery,
        wanted(
            **{
                "cordoned while unknown": True,
                "cordoned after a restart": True,
                "cordoned when checked": False,
            }
        ),
    ),
    Report(
        "kubernetes/node-problem-detector#645",
        "a detector that restarts often makes a condition change between True and False",
        1010.0,
        _restarts_often,
        _always_cordoned,
        settings={"recovery": {"stabilizationWindow": "30s", "resetStabilizationWindow": "300s"}},
    ),
    Report(
        "kubernetes-sigs/node-readiness-controller#357",
        "a condition counts for ever though its writer is dead",
        2410.0,
        _dead_writer,
        wanted(
            **{
                "cordoned by a live one": True,
                "still cordoned": True,
                "cordoned by a dead one": False,
                "cordoned when it writes again": False,
            }
        ),
        rule={"for": "400s", "heartbeat": "330s"},
        settings={
            "limits": {"maxUnavailable": 2},
            "recovery": {"stabilizationWindow": "400s", "resetStabilizationWindow": "600s"},
        },
    ),
    Report(
        "kubernetes/kubernetes#133810",
        "after a compaction a client lists the same old version for ever, and never watches",
        410.0,
        _old_version,
        _few_requests,
    ),
    Report(
        "nolar/kopf#1145",
        "a watch ends, and the operator lives on without it",
        410.0,
        _watch_ends,
        wanted(**{"cordoned": True, "cordoned when it is over": False}),
    ),
    Report(
        "NVIDIA/gpu-operator#304",
        "nodes that a person has cordoned and drained are uncordoned when its pods start again",
        810.0,
        _uncordons_with_a_restart,
        wanted(
            **{
                "ours, uncordoned by the operator": True,
                "of a person": True,
                "ours, healthy": False,
            }
        ),
        settings={"limits": {"maxUnavailable": 2}},
    ),
)
