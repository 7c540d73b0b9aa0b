"""Exams of applications: pods that ask to stay, and those of policies; see `exams`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from selfheal_remediator.config import PODS_HUNG, Rule
from selfheal_remediator.node.annotation import Phase
from tests.simulation.cluster import objects
from tests.simulation.cluster.autoscaler import ClusterAutoscaler
from tests.simulation.cluster.eviction import is_ready
from tests.simulation.cluster.messages import Json
from tests.simulation.remediator.exam import SOON, Exam, Kind
from tests.simulation.remediator.problems import Problem
from tests.simulation.remediator.states import leader_of, state_of

#: What TopoLVM's volumes name their node by.
TOPOLOGY = "topology.topolvm.io/node"
DEVICE = "example.com/device"
#: Seconds after which a StatefulSet's rollout without progress is stuck, and those until its pod is
#: restarted.
ROLLOUT_DEADLINE, RESTARTED = 600.0, 90.0
Make = Callable[[str, str, int], Json]


def _drains(exam: Exam) -> bool:
    return exam.may_cordon(1) and bool(exam.rules(drain=True))


def _stays(exam: Exam) -> None:
    """Pods ask to stay, by a duration or by a volume that is of this node alone."""
    cluster, number = exam.world.cluster, 2 * len(exam.healthy())
    node, rule = exam.healthy()[0], exam.chance.choice(exam.rules(drain=True))
    asks = {"karpenter.sh/do-not-disrupt": "4h"}
    cluster.add(objects.deployment("default", "careful", number, annotations=asks))
    exam.person.label("nodes", "", node, **{TOPOLOGY: node})
    cluster.add(objects.volume("of-one-node", node, TOPOLOGY))
    cluster.add(objects.claim("default", "of-one-node", "of-one-node"))
    volumes = objects.claimed("of-one-node")
    cluster.add(objects.deployment("default", "local", 1, volumes=volumes))
    exam.wait(10.0)
    there = _pods(exam, node, "careful", "local")
    exam.bad(node, rule)
    exam.wait(rule.for_ + SOON + 30.0)
    gone = sorted(there - _pods(exam, node, "careful", "local"))
    if gone:
        # features: "Pods may refuse"; traps: a pod whose volume no other node can use stays.
        what = f"{gone} were evicted from {node}, though they ask to stay or their volume does"
        exam.problems.append(Problem("pods_that_stay", what))


def _pods(exam: Exam, node: str, *apps: str) -> set[str]:
    """The names of those that are there and not being deleted."""
    return {
        pod["metadata"]["name"]
        for pod in exam.world.cluster.store.pods_on(node)
        if (pod["metadata"].get("labels") or {}).get("app") in apps
        if not pod["metadata"].get("deletionTimestamp")
    }


def _makes_room(exam: Exam) -> None:
    """Large pods fit on no other node, but an autoscaler is there: the drain begins."""
    cluster, number = exam.world.cluster, len(exam.healthy())
    ClusterAutoscaler(cluster, most=number + 3, unneeded=100_000.0)
    rule = exam.chance.choice(exam.rules(drain=True))
    cluster.add(objects.deployment("default", "large", number, cpu="2500m"))
    exam.wait(10.0)
    node = next((node for node in exam.healthy() if _pods(exam, node, "large")), None)
    if node is None:
        return
    exam.bad(node, rule)
    exam.wait(rule.for_ + SOON + 60.0)
    state = state_of(cluster.node(node))
    if state is not None and state.phase is Phase.CORDONED:
        what = f"the drain of {node} does not begin, though an autoscaler makes room"
        exam.problems.append(Problem("drains_begin", what))


def _has_no_room(exam: Exam) -> None:
    """One node alone has devices that pods use: it is cordoned, and not drained."""
    cluster, node = exam.world.cluster, exam.healthy()[0]
    rule = exam.chance.choice(exam.rules(drain=True))

    def plug(raw: Json) -> None:
        for size in (raw["status"]["capacity"], raw["status"]["allocatable"]):
            size[DEVICE] = "2"

    cluster.store.change(("nodes", "", node), plug)
    cluster.add(objects.deployment("default", "device", 2, requests={DEVICE: "1"}))
    exam.wait(10.0)
    there = _pods(exam, node, "device")
    exam.bad(node, rule)
    exam.wait(rule.for_ + SOON + 30.0)
    gone = sorted(there - _pods(exam, node, "device"))
    if gone:
        # features: "The pods must fit elsewhere."
        what = f"{gone} were evicted from {node}, and fit on no other node"
        exam.problems.append(Problem("pods_have_room", what))


def _alone(exam: Exam) -> bool:
    autoscalers = any("autoscaler" in line for line in exam.world.story)
    return _has_headroom(exam) and not autoscalers


def _has_headroom(exam: Exam) -> bool:
    return _drains(exam) and exam.config.drain.headroom


def _flaps(exam: Exam) -> None:
    """A node is bad again and again, for a long reason: at last it waits for a person."""
    rules = [rule for rule in exam.rules() if not rule.latched]
    node, rule = exam.healthy()[0], min(rules, key=lambda rule: rule.for_)
    recovery, detectors = exam.config.recovery, exam.world.detectors
    for _ in range(recovery.max_flaps):
        detectors.report(node, rule.condition, "True", "Reason" * 150)
        exam.wait(rule.for_ + SOON)
        detectors.report(node, rule.condition, "False")
        exam.wait(recovery.stabilization_window + SOON)
    state = state_of(exam.world.cluster.node(node))
    if not exam.is_cordoned(node) or state is None:
        what = f"{node} was uncordoned after {recovery.max_flaps} cordons"
        exam.problems.append(Problem("flaps_are_counted", what))


def _may_flap(exam: Exam) -> bool:
    recovery, limits = exam.config.recovery, exam.config.limits
    paced = limits.rate is not None or limits.min_interval > 0
    short = recovery.max_flaps <= 3
    healthy = exam.may_cordon(1) and any(not rule.latched for rule in exam.rules())
    return short and healthy and not paced


def _app(
    exam: Exam, name: str, unhealthy: Json, make: Make = objects.deployment, **more: Any
) -> bool:
    """Three pods of an application with a policy. Returns whether all are ready: there is room."""
    limits = {"backoff": "20s", "maxBackoff": "60s", "maxPerHour": 6}
    policy = objects.healing_policy(
        *("default", name, {"app": name}, unhealthy), failureThreshold=1, restart=limits, **more
    )
    exam.world.policies[name] = policy["spec"]
    exam.world.cluster.add(make("default", name, 3))
    exam.world.cluster.add(policy)
    exam.wait(30.0)
    return [is_ready(pod) for pod in exam.world.pods.of(name)] == 3 * [True]


def _hopeless(exam: Exam) -> None:
    """Each new pod of an application is unhealthy: restarts are ever rarer."""
    pods, name = exam.world.pods, "hopeless"
    if not _app(exam, name, {"notReadyFor": "10s"}):
        return
    pods.unready.add(name)
    pods.break_ready(pods.of(name)[0])
    exam.wait(150.0)


def _all_hang(exam: Exam) -> None:
    """All pods of an application hang, as after a fail-over of their broker: one is restarted to
    see whether that helps."""
    pods, name = exam.world.pods, "hanging"
    if not _app(exam, name, {"noProgressFor": "60s"}, progress={"port": 8080}):
        return
    before = {pod["metadata"]["uid"] for pod in pods.of(name)}
    for pod in pods.of(name):
        pods.hang(pod)
    exam.wait(60.0 + 60.0)
    if before <= {pod["metadata"]["uid"] for pod in pods.of(name)}:
        # features: "Hung pods are restarted."
        exam.problems.append(Problem("hung_pods_are_restarted", f"none of {name} is restarted"))


def _stuck_rollout(exam: Exam) -> None:
    """A StatefulSet waits for a broken pod, also once its template is repaired
    (kubernetes#67250)."""
    pods, name = exam.world.pods, "rolled"
    if not _app(exam, name, {"notReadyFor": "10s"}, objects.stateful_set):
        return
    pods.unready.add(name)
    exam.person.restart("statefulsets", "default", name)
    exam.wait(15.0)
    pods.unready.discard(name)
    exam.person.restart("statefulsets", "default", name)
    exam.wait(ROLLOUT_DEADLINE + RESTARTED)
    broken = [pod["metadata"]["name"] for pod in pods.of(name) if not is_ready(pod)]
    if broken:
        # features: "Hung pods are restarted", also where a rollout waits for them for ever.
        what = f"{broken} are not restarted, for which a rollout waits"
        exam.problems.append(Problem("hung_pods_are_restarted", what))


def _node_at_fault(exam: Exam) -> None:
    """Pods of two applications are unhealthy on one node, and well elsewhere: the node is at fault,
    and they are not restarted one by one. Its rule waits for longer than the exam lasts."""
    pods, names = exam.world.pods, ("first", "second")
    if not all(_app(exam, name, {"notReadyFor": "10s"}) for name in names):
        return
    places = [{pod["spec"]["nodeName"]: pod for pod in pods.of(name)} for name in names]
    shared = sorted(set(places[0]) & set(places[1]))
    if not shared or min(map(len, places)) < 2:
        return
    _follow_hung_pods(exam)
    broken = [place[shared[0]] for place in places]
    for pod in broken:
        pods.break_ready(pod)
    exam.wait(90.0)
    there = {pod["metadata"]["uid"] for name in names for pod in pods.of(name)}
    gone = [pod["metadata"]["name"] for pod in broken if pod["metadata"]["uid"] not in there]
    if gone:
        # features: "Unhealthy pods count against their node."
        what = f"{gone} are restarted, though {shared[0]} is at fault"
        exam.problems.append(Problem("pods_of_a_node_at_fault_stay", what))


def _follow_hung_pods(exam: Exam) -> None:
    """Other values: a rule is about nodes whose pods hang."""
    rule = Rule.model_validate({"condition": PODS_HUNG, "for": "10m", "action": "drain"})
    config = exam.config.model_copy(update={"rules": (*exam.config.rules, rule)})
    exam.world.config = config
    for replica in exam.world.replicas:
        replica.config = config
        if replica.remediator is not None:
            replica.remediator.reconfigure(config)
    exam.wait(5.0)


def _policy_goes(exam: Exam) -> None:
    """A policy is deleted: its series in the metrics end."""
    name = "forgotten"
    if not _app(exam, name, {"notReadyFor": "10s"}):
        return
    exam.person.delete("healingpolicies", "default", name)
    exam.wait(30.0)
    leader = leader_of(exam.world)
    if leader is None or leader.remediator is None:
        return
    series = [
        sample
        for family in leader.remediator.metrics.healing.restarts.collect()
        for sample in family.samples
        if sample.labels.get("policy") == f"default/{name}"
    ]
    if series:
        what = f"{len(series)} series of HealingPolicy default/{name}, which is deleted"
        exam.problems.append(Problem("series_end_with_their_policy", what))


OF_WORKLOADS = (
    Kind("pods ask to stay", _drains, _stays),
    Kind("devices are on one node alone", _alone, _has_no_room),
    Kind("an autoscaler makes room", _has_headroom, _makes_room),
    Kind("a node flaps", _may_flap, _flaps, weight=2),
    Kind("no restart helps", lambda _: True, _hopeless),
    Kind("all pods hang", lambda _: True, _all_hang),
    Kind("a rollout is stuck", lambda _: True, _stuck_rollout),
    Kind("a policy is deleted", lambda _: True, _policy_goes),
    Kind("a node is at fault for its pods", lambda exam: len(exam.healthy()) > 2, _node_at_fault),
)
