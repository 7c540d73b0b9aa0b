"""Exams of requests that hang or cannot be made, and of room that two drains need; see `exams`."""

from __future__ import annotations

from selfheal_remediator.node.annotation import Phase
from tests.simulation.cluster import objects
from tests.simulation.cluster.faulty_server import evictions
from tests.simulation.cluster.messages import Answer, Json, Request
from tests.simulation.remediator.exam import SOON, Exam, Kind
from tests.simulation.remediator.problems import Problem
from tests.simulation.remediator.states import state_of

#: More pods than requests of one kind that are sent at a time (api.maxInFlight), and for how long
#: (seconds) each of their evictions hangs.
MANY, HANGS = 60, 30.0
DEVICE = "example.com/device"
#: Seconds in which it was checked twice whether a node's pods fit elsewhere.
CHECKED_AGAIN = 90.0


def _one(exam: Exam) -> bool:
    return exam.may_cordon(1) and bool(exam.rules())


def _token(exam: Exam) -> None:
    """The token file cannot be read for some seconds, in which watches have to begin again."""
    node, rule = exam.chance.choice(exam.healthy()), exam.chance.choice(exam.rules())

    def unreadable(_: Request) -> Answer | None:
        raise OSError("the token file is empty")

    exam.world.simulation.record("world", "the token file cannot be read")
    exam.world.server.fault("token file", 5.0, unreadable)
    exam.world.server.cut_watches()
    exam.wait(20.0)
    if node in exam.healthy():
        exam.bad(node, rule)
        exam.expect_cordon(node, rule.for_ + SOON)


def _many_hang(exam: Exam) -> None:
    """The evictions of many pods hang; another node is bad."""
    rule = exam.chance.choice(exam.rules(drain=True))
    first, second = exam.healthy()[:2]
    others = [node for node in exam.healthy() if node != first]
    for node in others:
        exam.person.cordon(node)
    exam.world.cluster.add(objects.deployment("default", "many", MANY, cpu="10m"))
    exam.wait(20.0)
    for node in others:
        exam.person.uncordon(node)
    exam.wait(5.0)

    def hang(_: Request) -> None:
        thread = exam.world.simulation.current
        if thread is not None:
            thread.process.sleep(HANGS)

    exam.world.server.fault("hangs", rule.for_ + 120.0, hang, evictions)
    exam.bad(first, rule)
    exam.wait(10.0)
    exam.bad(second, rule)
    exam.expect_cordon(second, rule.for_ + SOON)


def _hangs(exam: Exam) -> bool:
    return exam.may_cordon(2) and bool(exam.rules(drain=True)) and not exam.config.drain.headroom


def _room_for_one(exam: Exam) -> None:
    """There is room for the pods of one node. The first that needs it cannot use it, as it has
    devices of its own; the second can."""
    cluster, nodes = exam.world.cluster, exam.healthy()
    rule = exam.chance.choice(exam.rules(drain=True))
    cluster.add(objects.deployment("default", "large", len(nodes) - 1, cpu="2500m"))
    exam.wait(10.0)
    full = [node for node in nodes if _has(exam, node, "large")]
    if len(full) != len(nodes) - 1:
        return
    first, second = full[:2]

    def plug(raw: Json) -> None:
        for size in (raw["status"]["capacity"], raw["status"]["allocatable"]):
            size[DEVICE] = "2"

    cluster.store.change(("nodes", "", first), plug)
    cluster.add(objects.deployment("default", "device", 2, requests={DEVICE: "1"}))
    exam.wait(10.0)
    exam.bad(first, rule)
    exam.wait(rule.for_ + CHECKED_AGAIN)
    exam.bad(second, rule)
    exam.wait(rule.for_ + SOON + 20.0)
    state = state_of(cluster.node(second))
    if state is not None and state.phase is Phase.CORDONED and state.no_room:
        what = f"the drain of {second} waits for room that nothing uses"
        exam.problems.append(Problem("room_is_used", what))


def _has(exam: Exam, node: str, app: str) -> bool:
    pods = exam.world.cluster.store.pods_on(node)
    return any((pod["metadata"].get("labels") or {}).get("app") == app for pod in pods)


def _two_need_room(exam: Exam) -> bool:
    two = exam.may_cordon(2, slowly=True) and bool(exam.rules(drain=True))
    autoscalers = any("autoscaler" in line for line in exam.world.story)
    return two and exam.config.drain.headroom and not autoscalers and _several(exam)


def _several(exam: Exam) -> bool:
    return len(exam.healthy()) > 2 and len(exam.healthy()) == len(exam.nodes())


OF_REQUESTS = (
    Kind("the token file cannot be read", _one, _token),
    Kind("many evictions hang", _hangs, _many_hang, weight=2),
    Kind("two drains need room", _two_need_room, _room_for_one, weight=4),
)
