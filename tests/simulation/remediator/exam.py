"""A healthy world, in which one thing is to go wrong; see `exams`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from selfheal_remediator.config import Config, Rule
from selfheal_remediator.node.annotation import EXCLUDE_KEY, Phase
from tests.simulation.cluster.messages import Json
from tests.simulation.cluster.people import Person
from tests.simulation.cluster.selectors import controller_of
from tests.simulation.remediator.faults import PERSON
from tests.simulation.remediator.invariants import Watcher, budget, kept
from tests.simulation.remediator.pods import app_of
from tests.simulation.remediator.problems import Problem
from tests.simulation.remediator.states import control_plane, cordoned, in_service, state_of
from tests.simulation.remediator.world import KINDS, World

#: So long (seconds) after all is repaired each node must be in service again: longer than any
#: stabilization window, a detector's reset, and flaps that a person ends.
REPAIRED = 260.0
#: A detector writes within a second, and the remediator has so many to act.
SOON = 8.0


@dataclass(slots=True)
class Exam:
    """See the module. problems: what did not hold."""

    world: World
    watcher: Watcher
    chance: Random
    problems: list[Problem] = field(default_factory=list)

    @property
    def config(self) -> Config:
        """Of the remediator."""
        return self.world.config

    @property
    def person(self) -> Person:
        """Somebody with kubectl."""
        return Person(self.world.cluster, name=PERSON)

    def wait(self, seconds: float) -> None:
        """So long."""
        self.world.simulation.run(self.world.simulation.now + seconds)

    def later(self, seconds: float, do: Callable[[], object]) -> None:
        """Do it then."""

        def run() -> None:
            do()

        self.world.simulation.after(seconds, run)

    def nodes(self) -> list[Json]:
        """Those that are not of the control plane, the one with the most pods first."""
        store = self.world.cluster.store
        found = [node for node in store.all("nodes") if not control_plane(node)]
        return sorted(found, key=lambda node: -len(store.pods_on(node["metadata"]["name"])))

    def repair_all(self) -> None:
        """People repair everything, and wait."""
        world, detectors = self.world, self.world.detectors
        if self.watcher.paused_since is not None:
            world.console.run("resume")
        for node in self.nodes():
            name, state = node["metadata"]["name"], state_of(node)
            if EXCLUDE_KEY in (node["metadata"].get("annotations") or {}):
                self.person.annotate("nodes", "", name, **{EXCLUDE_KEY: None})
            if state is not None and state.latched and name in world.cluster.kubelets.of:
                world.cluster.kubelets.of[name].reboot(5.0)
                self.later(10.0, lambda name=name: detectors.start(name))  # type: ignore[misc]
            for kind in KINDS:
                if detectors.status(name, kind) == "True":
                    detectors.report(name, kind, "False")
        self.wait(REPAIRED)
        for node in self.nodes():
            if cordoned(node):
                self.person.uncordon(node["metadata"]["name"])
        self.wait(10.0)

    def healthy(self) -> list[str]:
        """The nodes that a rule may act on now; none unless each is in service."""
        nodes = self.nodes()
        if not all(in_service(node) and not node["spec"].get("taints") for node in nodes):
            return []
        states = [(node["metadata"]["name"], state_of(node)) for node in nodes]
        fine = (None, Phase.HEALED)
        return [name for name, state in states if (state and state.phase) in fine]

    def may_cordon(self, number: int, *, slowly: bool = False) -> bool:
        """Whether so many nodes may be cordoned at a time, or, slowly, within a minute."""
        limits, nodes = self.config.limits, self.nodes()
        by_place = limits.max_unavailable_per_zone, limits.max_unavailable_per_group
        paced = limits.min_interval > 0 or limits.rate is not None
        if slowly:
            paced = limits.rate is not None and limits.rate.count < number
        if number > 1 and (by_place != (None, None) or paced):
            return False
        enough = len(nodes) - number >= kept(self.config)
        return (
            budget(self.config, len(nodes)) >= number and enough and len(self.healthy()) >= number
        )

    def rules(self, *, drain: bool = False, shortest: float = 0.0) -> list[Rule]:
        """Those of the detectors that cordon."""
        return [
            rule
            for rule in self.config.rules
            if rule.cordons and rule.condition in KINDS and rule.for_ >= shortest
            if rule.action == "drain" or not drain
        ]

    def bad(self, node: str, rule: Rule) -> None:
        """The node has what the rule is about from now on."""
        self.world.simulation.record("world", f"{node}: {rule.condition} True")
        self.world.detectors.report(node, rule.condition, "True")

    def is_cordoned(self, node: str) -> bool:
        """Whether anybody did it."""
        return cordoned(self.world.cluster.store.get("nodes", "", node))

    def expect_cordon(self, node: str, seconds: float) -> None:
        """README: a node is cordoned when its condition is bad for `for`."""
        self.wait(seconds)
        if not self.is_cordoned(node):
            what = f"{node} is not cordoned within {seconds:g} s, with nothing else wrong"
            self.problems.append(Problem("bad_nodes_are_cordoned_soon", what))

    def expect_return(self, node: str, seconds: float) -> None:
        """README: it is uncordoned when that is good for the stabilization window, unless it was
        cordoned so often that a person must do it."""
        self.wait(seconds)
        state = state_of(self.world.cluster.node(node))
        flaps = len(state.cordons) if state is not None else 0
        if self.is_cordoned(node) and flaps < self.config.recovery.max_flaps:
            what = f"{node} is not uncordoned within {seconds:g} s, with nothing else wrong"
            self.problems.append(Problem("recovered_nodes_return_soon", what))


@dataclass(frozen=True, slots=True)
class Kind:
    """One exam: whether it is possible, and how it goes. weight: larger where few worlds can have
    it."""

    name: str
    possible: Callable[[Exam], bool]
    take: Callable[[Exam], None]
    weight: int = 1

    def draw(self, seed: int) -> float:
        """The largest is taken: so that one more exam changes no more seeds than it gets."""
        drawn: float = Random(f"{seed}/exam/{self.name}").random() ** (1 / self.weight)
        return drawn


def free_pods(exam: Exam, node: str) -> list[Json]:
    """Its pods that nothing keeps there: no budget, volume or toleration of the cordon, and an
    owner that puts others elsewhere."""
    limited = _limited(exam)
    found: list[Json] = []
    for pod in exam.world.cluster.store.pods_on(node):
        owner, spec = controller_of(pod), pod["spec"]
        tolerates = any(
            one.get("operator") == "Exists" and not one.get("key")
            for one in spec.get("tolerations") or ()
        )
        if owner is None or owner["kind"] not in ("ReplicaSet", "StatefulSet"):
            continue
        if not (tolerates or spec.get("volumes") or app_of(pod) in limited):
            found.append(pod)
    return found


def has_budgets(exam: Exam, node: str) -> bool:
    """Whether a budget may refuse one of its pods: later waves wait for that until the deadline."""
    limited = _limited(exam)
    return any(app_of(pod) in limited for pod in exam.world.cluster.store.pods_on(node))


def _limited(exam: Exam) -> set[str]:
    budgets = exam.world.cluster.store.all("poddisruptionbudgets")
    return {one["spec"]["selector"]["matchLabels"]["app"] for one in budgets}
