"""Exams of ladders: what follows a drain repairs the node, with one thing wrong; see `exams`."""

from __future__ import annotations

from random import Random

from selfheal_remediator.config import Rule
from selfheal_remediator.node.annotation import Phase, State
from tests.simulation.remediator.exam import SOON, Exam, Kind, free_pods
from tests.simulation.remediator.ladders import DOES, DOWN
from tests.simulation.remediator.problems import Problem
from tests.simulation.remediator.states import leader_of, state_of
from tests.simulation.remediator.world import World

#: design: a killed leader is replaced within 16 s.
TAKEOVER = 16.0
#: A Job's pod runs for at most so long, and is read every five seconds.
JOB = 30.0 + 5.0 + SOON
#: Pods that nothing keeps have gone within so long (seconds).
EMPTY = 60.0


def without_ladders(world: World) -> bool:
    """In half of the worlds with ladders the exam is about something else, and rules have none.
    Returns whether it is about ladders."""
    config = world.config
    if not any(rule.then or rule.verify for rule in config.rules):
        return False
    if Random(f"{world.simulation.seed}/exam/ladders").random() < 0.5:
        return True
    rules = [rule.model_copy(update={"then": (), "verify": None}) for rule in config.rules]
    world.config = config.model_copy(update={"rules": tuple(rules)})
    for replica in world.replicas:
        replica.config = world.config
        if replica.remediator is not None:
            replica.remediator.reconfigure(world.config)
    return False


def _repairing(exam: Exam) -> list[Rule]:
    """Rules whose first step repairs the node: of a latched condition only a reboot does."""
    found: list[Rule] = []
    for rule in exam.rules(drain=True):
        job = rule.then[0].job if rule.then else None
        does = job.template["metadata"]["labels"][DOES] if job is not None else ""
        if does == "reboot" or (does == "fix" and not rule.latched):
            found.append(rule)
    return found


def _state(exam: Exam, node: str) -> State | None:
    return state_of(exam.world.cluster.node(node))


def _ladder(exam: Exam) -> None:
    """A node is bad until its first step repairs it; the leader may be killed when it begins."""
    rule = exam.chance.choice(_repairing(exam))
    node = next(node for node in exam.healthy() if free_pods(exam, node))
    exam.bad(node, rule)
    exam.wait(rule.for_ + SOON)
    for _ in range(int(EMPTY)):
        state = _state(exam, node)
        if state is None or state.phase not in (Phase.CORDONED, Phase.DRAINING):
            break
        exam.wait(1.0)
    else:
        return  # a pod stays
    exam.wait(exam.chance.choice((0.0, 3.0, 12.0)))
    leader = leader_of(exam.world)
    if leader is not None and exam.chance.random() < 0.7:
        leader.kill(5.0)
    exam.wait(TAKEOVER + JOB + DOWN)
    if exam.world.detectors.status(node, rule.condition) != "False":
        what = f"{node}: its first step has not repaired it {TAKEOVER + JOB + DOWN:g} s later"
        exam.problems.append(Problem("steps_are_run_soon", what))
    recovery = exam.config.recovery
    window = max(recovery.stabilization_window, recovery.reset_stabilization_window)
    checks = rule.verify.timeout + SOON if rule.verify is not None else 0.0
    exam.expect_return(node, window + checks + SOON)


def _possible(exam: Exam) -> bool:
    pods = any(free_pods(exam, node) for node in exam.healthy())
    return exam.may_cordon(1) and bool(_repairing(exam)) and pods


OF_LADDERS = (Kind("a node is repaired by its first step", _possible, _ladder),)
