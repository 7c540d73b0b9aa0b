"""One thing goes wrong in a healthy world: what must follow has a deadline.

While much goes wrong at a time, nothing can be expected within seconds. So all is repaired at the
end of each world; then one fault follows, or one beside something that lasts, and what the
remediator does about it is checked to the second. Exams have chances of their own.
"""

from __future__ import annotations

from collections import Counter
from math import ceil
from random import Random

from selfheal_remediator.node.annotation import Phase
from tests.simulation.cluster import conditions, objects
from tests.simulation.cluster.faulty_server import evictions, of
from tests.simulation.cluster.messages import Json, Request
from tests.simulation.remediator.exam import SOON, Exam, Kind, free_pods, has_budgets
from tests.simulation.remediator.exams_of_ladders import OF_LADDERS, without_ladders
from tests.simulation.remediator.exams_of_requests import OF_REQUESTS
from tests.simulation.remediator.exams_of_workloads import OF_WORKLOADS
from tests.simulation.remediator.invariants import Watcher, budget, kept
from tests.simulation.remediator.invariants_of_causes import MOST, cordons
from tests.simulation.remediator.problems import Problem
from tests.simulation.remediator.states import leader_of, state_of
from tests.simulation.remediator.world import World

#: design: a killed leader is replaced within 16 s.
TAKEOVER = 16.0


def examine(world: World, watcher: Watcher) -> list[Problem]:
    """Repair everything, and hold one of the exams that are possible in this world."""
    exam = Exam(world, watcher, Random(f"{world.simulation.seed}/exam"))
    if world.config.dry_run:
        return []
    of_ladders = without_ladders(world)
    exam.repair_all()
    possible = [one for one in (OF_LADDERS if of_ladders else EXAMS) if one.possible(exam)]
    if possible:
        one = max(possible, key=lambda one: one.draw(world.simulation.seed))
        world.simulation.record("world", f"exam: {one.name}")
        one.take(exam)
    return exam.problems


def _one(exam: Exam) -> bool:
    return exam.may_cordon(1) and bool(exam.rules())


def _bad(exam: Exam) -> None:
    """A node is bad, for reasons that alternate."""
    node, rule = exam.chance.choice(exam.healthy()), exam.chance.choice(exam.rules())
    every = max(2.0, rule.for_ / 4)
    findings = [("True", reason, "") for reason in ("FirstCheck", "SecondCheck")]
    times = 1 + int((rule.for_ + SOON) / every)  # none after it is expected to be cordoned
    exam.world.simulation.record("world", f"{node}: {rule.condition} True, for two reasons")
    exam.world.detectors.alternate(node, rule.condition, findings, every, times)
    exam.expect_cordon(node, rule.for_ + SOON)
    if not rule.latched:
        exam.wait(every)
        exam.world.detectors.report(node, rule.condition, "False")
        exam.expect_return(node, exam.config.recovery.stabilization_window + SOON)


def _restored(exam: Exam) -> None:
    """etcd is restored, after its API server was started again; then a node is bad."""
    server, store = exam.world.server, exam.world.cluster.store
    # Old watches break, too: their server ends them by itself after 240 s at the earliest.
    age = Random(f"{exam.world.simulation.seed}/exam/restored").choice((20.0, 220.0))
    node, rule = exam.chance.choice(exam.healthy()), exam.chance.choice(exam.rules())
    backup = store.backup()
    exam.wait(250.0)
    server.cut_watches()
    exam.wait(age)
    exam.world.simulation.record("world", "etcd is restored")
    server.restore(backup)
    exam.wait(5.0)
    if node not in exam.healthy():
        return  # an autoscaler has removed a machine meanwhile
    exam.bad(node, rule)
    exam.expect_cordon(node, rule.for_ + SOON + TAKEOVER)


def _caught_up(exam: Exam) -> None:
    """While the API server is away, etcd is restored from before a cordon, and so much is written
    that its version is later than what was heard of."""
    server, store = exam.world.server, exam.world.cluster.store
    rule = exam.chance.choice(exam.rules(shortest=10.0))
    node, other = exam.healthy()[0], exam.healthy()[-1]
    exam.bad(node, rule)
    exam.wait(3.0)
    backup = store.backup()
    exam.wait(rule.for_ + SOON)
    server.fail(3.0, 503)
    server.cut_watches()
    heard = store.version
    exam.world.simulation.record("world", "etcd is restored")
    server.restore(backup)
    while store.version <= heard + 5:
        exam.person.label("nodes", "", other, written=str(store.version))
    exam.expect_cordon(node, rule.for_ + SOON + TAKEOVER)


def _again(exam: Exam) -> bool:
    """Whether a node may be cordoned twice in a row."""
    limits = exam.config.limits
    return _one(exam) and limits.rate is None and not limits.min_interval


def _killed(exam: Exam) -> None:
    """The leader is killed when a node is bad."""
    node, rule = exam.chance.choice(exam.healthy()), exam.chance.choice(exam.rules())
    exam.bad(node, rule)
    exam.wait(exam.chance.choice((0.5, 1.5, rule.for_)))
    leader = leader_of(exam.world)
    if leader is not None:
        leader.kill(60.0)
    exam.expect_cordon(node, rule.for_ + SOON + TAKEOVER)


def _frozen(exam: Exam) -> None:
    """The leader stands still while a node is about to be cordoned; another one leads."""
    node, rule = exam.chance.choice(exam.healthy()), exam.chance.choice(exam.rules(shortest=10.0))
    exam.bad(node, rule)
    exam.wait(2.0)
    leader = leader_of(exam.world)
    if leader is not None and leader.process is not None:
        leader.process.pause(max(40.0, rule.for_ + 20.0))
    exam.expect_cordon(node, max(40.0, rule.for_ + 20.0) + SOON)


def _replicas(exam: Exam) -> bool:
    others = [replica for replica in exam.world.replicas if replica.runs]
    return _one(exam) and len(others) > 1


def _two(exam: Exam) -> bool:
    return exam.may_cordon(2) and bool(exam.rules(drain=True))


def _throttling_webhook(exam: Exam) -> None:
    """A webhook has each eviction of a drain wait; another node is bad."""
    rule = exam.chance.choice(exam.rules(drain=True))
    first = _with_pods(exam)
    second = next(node for node in exam.healthy() if node != first)
    exam.bad(first, rule)
    exam.wait(max(0.0, rule.for_ - 1.0))
    exam.world.server.deny(rule.for_ + 60.0, code=429, retry_after=30)
    exam.wait(10.0)
    exam.bad(second, rule)
    exam.expect_cordon(second, rule.for_ + SOON)


def _paused(exam: Exam) -> None:
    """A person pauses, and the watch of the Lease is late: nothing is begun until `resume`."""
    node, rule = exam.chance.choice(exam.healthy()), min(exam.rules(), key=lambda rule: rule.for_)
    exam.world.server.delay("leases", rule.for_ + 25.0)
    exam.wait(7.0)
    exam.world.console.run("pause", "--why", "test")
    exam.wait(8.0)
    exam.bad(node, rule)
    exam.wait(rule.for_ + 20.0)
    if exam.is_cordoned(node):
        exam.problems.append(Problem("paused", f"{node} is cordoned though it is paused"))
    exam.world.console.run("resume")
    exam.expect_cordon(node, SOON + 2.0)


def _drains(exam: Exam) -> bool:
    drains = exam.may_cordon(1) and bool(exam.rules(drain=True))
    return drains and any(free_pods(exam, node) for node in exam.healthy())


def _with_pods(exam: Exam) -> str:
    """A healthy node that has pods to evict."""
    return next(node for node in exam.healthy() if free_pods(exam, node))


def _expect_gone(exam: Exam, node: str, pods: list[Json], why: str) -> None:
    """features: a drain evicts each pod that may go; another one that is stuck does not stop it."""
    uids = {pod["metadata"]["uid"] for pod in pods}
    left = [
        pod["metadata"]["name"]
        for pod in exam.world.cluster.store.pods_on(node)
        if pod["metadata"]["uid"] in uids and not pod["metadata"].get("deletionTimestamp")
    ]
    if left and exam.is_cordoned(node):
        exam.problems.append(Problem("drains_go_on", f"{left} stay on {node}: {why}"))


def _ignored(exam: Exam) -> None:
    """A webhook makes evictions dry runs, for a while."""
    rule = exam.chance.choice(exam.rules(drain=True))
    node = _with_pods(exam)
    pods = free_pods(exam, node)
    exam.bad(node, rule)
    exam.wait(max(0.0, rule.for_ - 1.0))
    exam.world.server.evictions_delete_nothing(15.0)
    exam.wait(60.0)
    _expect_gone(exam, node, pods, "its eviction was accepted, and deleted nothing")


def _system(name: str, replicas: int) -> Json:
    critical = {"priorityClassName": "system-cluster-critical"}
    return objects.deployment("kube-system", name, replicas, **critical)


def _stuck(exam: Exam) -> None:
    """A finalizer that nobody removes keeps a pod; a system pod goes in a later wave."""
    store, rule = exam.world.cluster.store, exam.chance.choice(exam.rules(drain=True))
    node = _with_pods(exam)
    number = 2 * len(exam.healthy())
    exam.world.cluster.add(objects.deployment("default", "web", number))
    exam.world.cluster.add(_system("dns", number))
    exam.wait(10.0)
    pods = free_pods(exam, node)
    if not pods or has_budgets(exam, node):
        return
    system = [pod for pod in pods if pod["metadata"]["namespace"] == "kube-system"]
    kept = next((pod for pod in pods if pod not in system), pods[0])

    def hold(raw: Json) -> None:
        raw["metadata"]["finalizers"] = ["example.com/forgotten"]

    store.change(("pods", kept["metadata"]["namespace"], kept["metadata"]["name"]), hold)
    exam.bad(node, rule)
    exam.wait(rule.for_ + SOON + 30.0 + 30.0 + 30.0)
    _expect_gone(exam, node, system, f"{kept['metadata']['name']} hangs in Terminating")


def _paused_drain(exam: Exam) -> None:
    """A person pauses while a webhook denies the evictions of a drain; then it allows them."""
    rule, node = exam.chance.choice(exam.rules(drain=True)), _with_pods(exam)
    pods = free_pods(exam, node)
    exam.bad(node, rule)
    exam.wait(max(0.0, rule.for_ - 1.0))
    exam.world.server.deny(25.0)
    exam.wait(6.0)
    exam.world.console.run("pause", "--why", "test")
    exam.wait(80.0)
    exam.world.console.run("resume")
    exam.wait(SOON + 70.0)
    _expect_gone(exam, node, pods, "it was paused for 80 s")


def _late_daemon(exam: Exam) -> None:
    """A DaemonSet is made while a node is being drained: its pods stay."""
    rule, node = exam.chance.choice(exam.rules(drain=True)), _with_pods(exam)
    late = objects.daemon_set("kube-system", "late", tolerations=[{"operator": "Exists"}])
    exam.bad(node, rule)
    exam.wait(max(0.0, rule.for_ - 1.0))
    exam.world.server.deny(20.0)
    exam.wait(5.0)
    exam.world.cluster.add(late)
    exam.wait(60.0)
    about = [str(event["message"]) for event in exam.world.cluster.store.all("events")]
    if any("kube-system/late-" in text for text in about):
        # features: pods that stay on the node are reported; those of DaemonSets belong there.
        exam.problems.append(Problem("daemon_pods_stay", "they are reported as left behind"))


def _returning(exam: Exam) -> None:
    """Pods that tolerate a cordon, one on each node, return to theirs: see returns_end."""
    labels = {"app": "tolerant"}
    apart = {"labelSelector": {"matchLabels": labels}, "topologyKey": objects.HOSTNAME}
    tolerant = objects.deployment(
        *("default", "tolerant", len(exam.world.cluster.store.all("nodes"))),
        tolerations=[{"operator": "Exists"}],
        affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}},
    )
    exam.world.cluster.add(tolerant)
    node, rule = exam.healthy()[0], exam.chance.choice(exam.rules(drain=True))
    exam.wait(10.0)
    exam.bad(node, rule)
    exam.wait(rule.for_ + 60.0)


def _standstill(exam: Exam) -> None:
    """The drain of a node makes no progress; another one has a turn all the same."""
    rule = exam.chance.choice(exam.rules(drain=True))
    first, second = [node for node in exam.healthy() if free_pods(exam, node)][:2]

    def of_first(request: Request) -> bool:
        there = exam.world.cluster.store.pods_on(first)
        names = {pod["metadata"]["name"] for pod in there}
        return evictions(request) and request.path.split("/")[-2] in names

    exam.world.server.deny(400.0, of_first)
    exam.bad(first, rule)
    exam.wait(30.0)
    exam.bad(second, rule)
    exam.wait(rule.for_ + 60.0 + 60.0)
    state = state_of(exam.world.cluster.node(second))
    if state is None or state.phase not in (Phase.DRAINING, Phase.DRAINED):
        what = f"{second} waits behind {first}, from which no pod can go"
        exam.problems.append(Problem("drains_begin", what))


def _stands_still(exam: Exam) -> bool:
    of_pods = [node for node in exam.healthy() if free_pods(exam, node)]
    one_place = exam.config.limits.max_draining == 1 and exam.config.drain.deadline >= 300.0
    two = exam.may_cordon(2, slowly=True) and bool(exam.rules(drain=True))
    return two and len(of_pods) > 1 and one_place


def _unheard(exam: Exam) -> None:
    """More nodes are bad than may be cordoned. The leader is killed after a cordon of which its
    successor has not heard."""
    rules = sorted(exam.rules(shortest=10.0), key=lambda rule: rule.for_)
    short, long = rules[0], rules[-1]
    later, sooner = exam.healthy()[:2]
    exam.bad(later, long)
    exam.wait(max(1.0, long.for_ - short.for_ - 8.0))
    exam.bad(sooner, short)
    first: list[Request] = []

    def behind(request: Request) -> None:
        """Before it takes effect: watches do not tell of it."""
        leader = leader_of(exam.world)
        if not first and cordons(request):
            first.append(request)
            exam.world.server.fall_behind(60.0)
            if leader is not None:
                exam.later(0.0, lambda: leader.kill(60.0))

    exam.world.server.fault("not heard of", 400.0, behind, of("nodes"))
    exam.wait(long.for_ + 60.0)


def _one_may(exam: Exam) -> bool:
    one = budget(exam.config, len(exam.nodes())) == 1 and len(exam.healthy()) > 2
    return one and _replicas(exam) and bool(exam.rules(shortest=10.0))


def _silent(exam: Exam) -> None:
    """Most nodes do not answer, in each zone about as many: none of them is cordoned."""
    kubelets = exam.world.cluster.kubelets
    names, places = exam.healthy(), Counter[str]()
    spread: list[tuple[int, str]] = []
    for name in names:
        zone = exam.world.cluster.node(name)["metadata"]["labels"].get(objects.ZONE, "")
        places[zone] += 1
        spread.append((places[zone], name))
    silent = [name for _, name in sorted(spread)][: max(3, ceil(MOST * len(names)))]
    for name in silent:  # too slowly for a wave
        kubelets.of[name].die()
        exam.wait(10.0)
    exam.wait(50.0 + 120.0 + 40.0)
    out = [name for name in names if exam.is_cordoned(name)]
    if out:
        what = f"{out} are cordoned while {len(silent)} of {len(names)} nodes do not answer"
        exam.problems.append(Problem("no_cordon_while_most_are_silent", what))
    for name in silent:
        kubelets.of[name].revive()


def _many_there(exam: Exam) -> bool:
    number, left = len(exam.healthy()), kept(exam.config)
    return number == len(exam.nodes()) and number - left >= 3 < number


def _one_after_the_other(exam: Exam) -> None:
    """Too slowly for a wave, and more than any limit allows; their evictions wait."""
    rules = exam.rules(drain=True) or exam.rules()
    exam.world.server.deny(max(rule.for_ for rule in rules) + 100.0)
    for place, node in enumerate(exam.healthy()[:5]):
        exam.bad(node, rules[place % len(rules)])
        exam.wait(25.0)
    exam.wait(100.0)


def _believed_no_more(exam: Exam) -> None:
    """Another program, which is removed, has reported a second fault of a cordoned node."""
    world, node = exam.world, exam.healthy()[0]
    first, second = [rule for rule in exam.rules() if not rule.latched][:2]
    exam.bad(node, first)
    exam.wait(first.for_ + SOON)
    world.detectors.of[node].findings.pop(second.condition)

    def report(raw: Json) -> None:
        now = world.cluster.store.clock()
        conditions.put(raw, second.condition, "True", now, heartbeat=True, moved=True)

    world.cluster.store.change(("nodes", "", node), report, "another-detector")
    exam.wait(30.0)
    world.detectors.report(node, first.condition, "False")
    longest = max(second.max_heartbeat_age or 0.0, exam.config.recovery.stabilization_window)
    exam.expect_return(node, longest + SOON)


def _two_rules(exam: Exam) -> bool:
    return _one(exam) and len([rule for rule in exam.rules() if not rule.latched]) > 1


EXAMS = (
    Kind("a node is bad for two reasons in turn", _one, _bad),
    Kind("etcd is restored", _one, _restored),
    Kind(
        "a restored etcd catches up",
        lambda exam: _again(exam) and bool(exam.rules(shortest=10.0)),
        _caught_up,
    ),
    Kind("the leader is killed", _replicas, _killed),
    Kind(
        "the leader is killed, and cordons have a pace",
        lambda exam: _replicas(exam) and exam.config.limits.rate is not None,
        _killed,
        weight=4,
    ),
    Kind(
        "the leader stands still",
        lambda exam: _replicas(exam) and bool(exam.rules(shortest=10.0)),
        _frozen,
    ),
    Kind(
        "a webhook throttles evictions",
        lambda exam: _two(exam) and _drains(exam),
        _throttling_webhook,
        weight=8,
    ),
    Kind("the watch of the Lease is late", _one, _paused),
    Kind("evictions delete nothing", _drains, _ignored, weight=2),
    Kind("a pod hangs in Terminating", _drains, _stuck),
    Kind("it is paused during a drain", _drains, _paused_drain),
    Kind("a DaemonSet is made during a drain", _drains, _late_daemon, weight=2),
    Kind(
        "pods return to a cordoned node",
        lambda exam: _drains(exam) and not exam.config.drain.headroom,
        _returning,
    ),
    Kind("a drain makes no progress", _stands_still, _standstill, weight=8),
    Kind("a successor has not heard of a cordon", _one_may, _unheard, weight=4),
    Kind("most nodes are silent", _many_there, _silent),
    Kind("nodes are bad one after the other", _many_there, _one_after_the_other, weight=4),
    Kind("a second fault is believed no more", _two_rules, _believed_no_more),
    *OF_WORKLOADS,
    *OF_REQUESTS,
)
