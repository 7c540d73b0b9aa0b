"""A Deployment's only pod, which a budget keeps, leaves its node without a gap, whoever is killed.

The whole remediator runs in a modelled cluster. It is killed at each of its requests, in three
ways: the request never arrives, its answer is not heard, it takes effect when the next one leads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from selfheal_remediator.config import Config
from selfheal_remediator.node.annotation import Phase
from tests.simulation.cluster import objects
from tests.simulation.cluster.cluster import Cluster
from tests.simulation.cluster.detectors import Detectors
from tests.simulation.cluster.faulty_server import FaultyServer
from tests.simulation.cluster.messages import Json, Request
from tests.simulation.cluster.store import Change
from tests.simulation.remediator.pods import Pods
from tests.simulation.remediator.process import Replica, Surroundings, logged
from tests.simulation.remediator.states import state_of
from tests.simulation.remediator.wire import Fault, Trouble
from tests.simulation.remediator.world import KINDS
from tests.simulation.scheduler import Simulation

FAULT = "KernelDeadlock"
WAYS = (Fault.LOST_BEFORE, Fault.LOST_AFTER, Fault.LATE)
#: Seconds: the fault is there, a process that was killed is started again, the end.
BAD, AGAIN, END = 60.0, 20.0, 400.0
MARKED = "selfheal.dev/surged"


def is_ready(pod: Json) -> bool:
    """Whether a Service sends requests to the pod."""
    conditions = pod["status"].get("conditions") or ()
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return ready and not pod["metadata"].get("deletionTimestamp")


class Scene:
    """Three nodes, one remediator, `web` with one replica behind minAvailable 1.

    killed_at: number of the request, of those from BAD on; way: what becomes of it.
    """

    def __init__(
        self, killed_at: int = 0, way: Fault = Fault.LOST_BEFORE, **deployment: Any
    ) -> None:
        self.killed_at, self.way = killed_at, way
        self.requests: list[str] = []
        self.gaps: list[float] = []
        self.served = False
        self.most = 0
        self.simulation = Simulation(1, detail=False)
        cluster = self.cluster = Cluster(self.simulation)
        for number in range(3):
            cluster.add_node(f"node-{number}")
        self.pods = Pods(cluster)
        raw = objects.deployment("default", "web", 1)
        raw["metadata"]["annotations"] = {"selfheal.dev/surge": "true"}
        raw["spec"] |= deployment
        cluster.add(raw)
        cluster.add(objects.budget("default", "web", {"app": "web"}, minAvailable=1))
        cluster.store.subscribe(self._changed)
        self.detectors = Detectors(cluster, KINDS)
        settings: dict[str, Any] = {
            "observeFirst": "0s",
            "rules": [{"condition": FAULT, "for": "5s", "action": "drain"}],
            "signal": {"enabled": False},
            "limits": {"maxUnavailable": 1},
            "drain": {"surge": True},
        }
        around = Surroundings(
            self.simulation, FaultyServer(cluster.api), self._disturb, self.pods.progress
        )
        self.replica = Replica(around, "remediator", Config.model_validate(settings))
        self.bad = ""
        self.unexpected: list[str] = []

    def _changed(self, change: Change) -> None:
        if change.key[0] != "pods":
            return
        pods = self.pods.of("web")
        ready = sum(map(is_ready, pods))
        self.served = self.served or ready > 0
        self.most = max(self.most, len(pods))
        if self.served and not ready:
            self.gaps.append(self.simulation.now)

    def _disturb(self, request: Request) -> Trouble:
        if self.simulation.now < BAD:
            return Trouble()
        self.requests.append(f"{request.method} {request.path}")
        if len(self.requests) != self.killed_at:
            return Trouble()
        before = self.way is Fault.LOST_BEFORE
        self.simulation.after(0.0 if before else 1.0, lambda: self.replica.kill(AGAIN))
        return Trouble(self.way, 5.0)

    def run(self, *more: tuple[float, Callable[[], object]], end: float = END) -> None:
        """All of it; more: what happens then, too."""

        def report() -> None:
            [pod] = self.pods.of("web")
            self.bad = pod["spec"]["nodeName"]
            self.detectors.report(self.bad, FAULT, "True", "")

        with logged(self.simulation), self.simulation:
            for number in range(3):
                self.detectors.start(f"node-{number}")
            self.replica.start()
            self.simulation.at(BAD, report)
            for when, do in more:
                self.simulation.at(when, partial(_done, do))
            self.simulation.run(end)
            self.unexpected = [x for x in self.simulation.trace if ": unexpected " in x]

    # -- what came of it --------------------------------------------------------------------

    @property
    def phase(self) -> Phase | None:
        """Of the bad node."""
        state = state_of(self.cluster.node(self.bad))
        return None if state is None else state.phase

    def deployment(self) -> Json:
        """As it is."""
        found = self.cluster.store.get("deployments", "default", "web")
        assert found is not None
        return found

    @property
    def rollouts(self) -> int:
        """How many pod templates there have been beside the first."""
        return len(self.cluster.store.all("replicasets", "default")) - 1

    def events(self, reason: str) -> set[str]:
        """What kinds of objects there are Events about."""
        events = self.cluster.store.all("events")
        return {e["involvedObject"]["kind"] for e in events if e["reason"] == reason}

    def where(self) -> list[str]:
        """The nodes of the pods."""
        return [pod["spec"].get("nodeName", "") for pod in self.pods.of("web")]


def _done(do: Callable[[], object]) -> None:
    do()


def check(scene: Scene) -> None:
    """What must hold, whatever happened."""
    assert scene.phase is Phase.DRAINED
    assert scene.gaps == []
    assert scene.rollouts == 1
    assert len(scene.where()) == 1
    assert scene.where() != [scene.bad]
    assert scene.most <= 2
    assert scene.unexpected == []


def test_the_new_pod_is_ready_before_the_old_one_stops() -> None:
    scene = Scene()
    scene.run()
    check(scene)
    assert scene.events("SurgeStarted") == {"Node", "Deployment"}
    patches = [line for line in scene.requests if line.endswith("/deployments/web")]
    assert sum(line.startswith("PATCH") for line in patches) == 1


def test_without_the_setting_nothing_is_read_and_the_budget_keeps_the_pod() -> None:
    scene = Scene()
    scene.replica.config = scene.replica.config.model_copy(
        update={"drain": scene.replica.config.drain.model_copy(update={"surge": False})}
    )
    scene.run()
    assert scene.phase is Phase.DRAINING
    assert scene.where() == [scene.bad]
    assert not [line for line in scene.requests if "/apps/v1/namespaces" in line]


@pytest.mark.parametrize(
    "strategy",
    [
        {"type": "Recreate"},
        {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}},
    ],
)
def test_a_strategy_that_stops_the_old_pod_first_is_left_alone(strategy: Json) -> None:
    scene = Scene(strategy=strategy)
    scene.run()
    assert (scene.gaps, scene.rollouts, scene.where()) == ([], 0, [scene.bad])
    messages = [e["message"] for e in scene.cluster.store.all("events")]
    assert any("no surge of Deployment default/web: its " in text for text in messages)


def test_another_deployments_pod_behind_the_same_budget_does_not_pay_for_it() -> None:
    """While the new pod is ready beside the old one, the budget would let the other one go."""
    scene, few = Scene(), list[float]()
    near = {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": objects.HOSTNAME}
    affinity = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [near]}}
    other = objects.deployment("default", "api", 1, affinity=affinity)
    both: Json = {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "api"]}]}

    def share(budget: Json) -> None:
        budget["spec"] = {"selector": both, "minAvailable": 2}

    def changed(_: Change) -> None:
        ready = sum(map(is_ready, scene.pods.of("web") + scene.pods.of("api")))
        if scene.simulation.now >= BAD and ready < 2:
            few.append(scene.simulation.now)

    scene.cluster.store.change(("poddisruptionbudgets", "default", "web"), share, "somebody")
    scene.cluster.store.subscribe(changed)
    scene.run((BAD / 2, lambda: scene.cluster.add(other)))
    assert (few, scene.rollouts) == ([], 1)  # the other Deployment's first one
    messages = [e["message"] for e in scene.cluster.store.all("events")]
    assert any("its PDB counts other pods, too" in text for text in messages)


@pytest.mark.parametrize("way", WAYS, ids=[way.name for way in WAYS])
def test_killed_at_any_request_nothing_is_left_behind(way: Fault) -> None:
    whole = Scene()
    whole.run(end=150.0)
    surge = [i for i, line in enumerate(whole.requests, 1) if "/apps/v1/namespaces" in line]
    for number in range(1, surge[-1] + 10):
        scene = Scene(number, way)
        scene.run()
        check(scene)


def failing(killed_at: int = 0, way: Fault = Fault.LOST_BEFORE) -> Scene:
    """The new pod is never ready."""
    scene = Scene(killed_at, way, progressDeadlineSeconds=60)
    scene.run((BAD - 1, lambda: scene.pods.unready.add("web")), end=600.0)
    return scene


def check_undone(scene: Scene) -> None:
    """The old pod serves on, and the Deployment is as it was."""
    assert scene.phase is Phase.DRAINING
    assert scene.gaps == []
    assert scene.rollouts == 1
    assert scene.where() == [scene.bad]
    assert MARKED not in scene.deployment()["spec"]["template"]["metadata"].get("annotations", {})
    assert scene.unexpected == []


def test_a_rollout_that_fails_is_undone_and_not_begun_again() -> None:
    scene = failing()
    check_undone(scene)
    assert scene.events("SurgeUndone") == {"Node", "Deployment"}
    messages = [e["message"] for e in scene.cluster.store.all("events")]
    assert any("its rollout for this cordon failed and was undone" in text for text in messages)


def test_a_rollout_that_fails_after_its_node_recovered_is_undone_by_the_next_drain() -> None:
    scene = Scene(progressDeadlineSeconds=300)

    def report(status: str) -> None:
        scene.detectors.report(scene.bad, FAULT, status, "")

    scene.run(
        (BAD - 1, lambda: scene.pods.unready.add("web")),
        (BAD + 60, lambda: report("False")),
        (BAD + 900, lambda: scene.pods.unready.clear()),
        (BAD + 900, lambda: report("True")),
        end=BAD + 1200,
    )
    assert scene.events("SurgeUndone") == {"Node", "Deployment"}
    assert (scene.gaps, scene.rollouts) == ([], 2)
    assert scene.phase is Phase.DRAINED
    assert scene.where() != [scene.bad]
    assert scene.unexpected == []


@pytest.mark.parametrize("way", WAYS, ids=[way.name for way in WAYS])
def test_killed_while_it_is_undone_the_next_one_undoes_it(way: Fault) -> None:
    whole = failing()
    last = [i for i, line in enumerate(whole.requests, 1) if line.startswith("PATCH /apis/apps")][1]
    for number in range(last - 4, last + 5):
        check_undone(failing(number, way))
