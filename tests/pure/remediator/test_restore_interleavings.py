"""Whatever an uninstall, an upgrade and we do between each other's calls: nothing survives an
uninstall, and after an upgrade there is what the upgrade wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from hypothesis import example, given, settings
from hypothesis import strategies as st

from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.restore.engine import SETTLED, Action, Restoring
from selfheal_remediator.restore.errand import Outcome, Result, carry_out
from tests.pure.remediator.restore_world import Api, World, config_map, deployment, key_of, manifest

NOW, GRACE = 1e9, 10.0
ACCOUNT = manifest("ServiceAccount", "r-worker")
BUDGET = manifest("PodDisruptionBudget", "r-worker", maxUnavailable=1)
SCALER = manifest("ScaledObject", "r-worker", maxReplicaCount=5)
AUTOSCALER = manifest("HorizontalPodAutoscaler", "r-worker", maxReplicas=5)
OLD = (ACCOUNT, BUDGET, deployment("worker:1", None), SCALER)
NEW = (ACCOUNT, BUDGET, deployment("worker:2", None), AUTOSCALER)

Step = Callable[[], object]


def controller(world: World) -> Restoring:
    """A leader that knows all objects."""
    made = Restoring(GRACE)
    made.listed = {"ServiceAccount", "PodDisruptionBudget", "Deployment", "ScaledObject"}
    made.listed.add("HorizontalPodAutoscaler")
    made.release, made.live = world.release(), world.live()
    return made


def due(restoring: Restoring, now: float) -> list[Action]:
    """What is done once the grace period is over, by what is known now."""
    restoring.decide(now)
    return restoring.decide(now + GRACE)


def do(world: World, action: Action) -> Result:
    return carry_out(cast(KubernetesApi, Api(world)), action, None)


def interleave(world: World, steps: Sequence[Step], gaps: Sequence[int]) -> Step:
    """Before each of our calls as many of the others' steps are done as the gap says; returns what
    does the rest."""
    remaining = list(steps)

    def before(number: int) -> None:
        for _ in range(gaps[(number - 1) % len(gaps)] if gaps else 0):
            if remaining:
                remaining.pop(0)()

    def rest() -> None:
        world.before = lambda _: None
        while remaining:
            remaining.pop(0)()

    world.before = before
    return rest


class Uninstall:
    """Helm deletes the objects in some order, the ConfigMap among them."""

    def __init__(self, world: World, order: Sequence[str]) -> None:
        self.steps: list[Step] = [
            partial(world.delete, key) if key else partial(self._delete_config_map, world)
            for key in order
        ]

    @staticmethod
    def _delete_config_map(world: World) -> None:
        world.config = None


gaps = st.lists(st.integers(0, 5), min_size=1, max_size=8)
missing = st.sets(st.sampled_from([key_of(raw) for raw in OLD]), min_size=1)
# At most one of these: a process that is gone gets no answers.
kills = st.one_of(st.none(), st.integers(1, 12))
losses = st.frozensets(st.integers(1, 12), max_size=2)


@settings(max_examples=300)
@given(
    order=st.permutations(["", *(key_of(raw) for raw in OLD)]),
    gaps=gaps,
    missing=missing,
    collects=st.lists(st.integers(0, 9), max_size=2),
    killed_at=kills,
    lost=losses,
)
def test_nothing_survives_an_uninstall(
    order: list[str],
    gaps: list[int],
    missing: set[str],
    collects: list[int],
    killed_at: int | None,
    lost: frozenset[int],
) -> None:
    world = World(*OLD, config=config_map(*OLD))
    for key in missing:
        world.delete(key)
    restoring = controller(world)
    steps = Uninstall(world, order).steps
    for at in collects:
        steps.insert(min(at, len(steps)), world.collect_garbage)
    finish = interleave(world, steps, gaps)
    world.killed_at, world.lost = killed_at, lost
    for action in due(restoring, NOW):
        do(world, action)
    finish()
    world.collect_garbage()
    assert world.objects == {}
    # The next leader, or this one: it does nothing more.
    world.killed_at = None
    after = controller(world)
    for later in (0.0, GRACE, SETTLED, 10 * SETTLED):
        assert after.decide(NOW + later) == []


class Upgrade:
    """Helm applies the new objects in its order of kinds, then deletes those that are no more."""

    ORDER = ("PodDisruptionBudget", "ServiceAccount", "ConfigMap", "Service", "Deployment")

    def __init__(self, world: World, old: Sequence[Any], new: Sequence[Any]) -> None:
        first = [raw for raw in new if raw["kind"] in self.ORDER[:2]]
        then = [raw for raw in new if raw["kind"] not in self.ORDER[:2]]
        gone = {key_of(raw) for raw in old} - {key_of(raw) for raw in new}
        self.steps: list[Step] = [partial(world.make, raw) for raw in first]
        self.steps.append(partial(self._config_map, world, new))
        for raw in then:
            self.steps.append(partial(world.make, raw))
        self.steps += [partial(world.delete, key) for key in sorted(gone)]

    @staticmethod
    def _config_map(world: World, new: Sequence[Any]) -> None:
        world.config = config_map(*new)


@settings(max_examples=300)
@given(gaps=gaps, missing=missing, lost=losses, back=st.booleans())
# The upgrade makes the Deployment between our last read and our apply, which overwrites it.
@example(gaps=[2, 0, 2], missing={"Deployment/r-worker"}, lost=frozenset(), back=False)
def test_after_an_upgrade_or_rollback_there_is_what_it_wants(
    gaps: list[int], missing: set[str], lost: frozenset[int], back: bool
) -> None:
    old, new = (NEW, OLD) if back else (OLD, NEW)
    world = World(*old, config=config_map(*old))
    for key in missing & world.objects.keys():
        world.delete(key)
    restoring = controller(world)
    finish = interleave(world, Upgrade(world, old, new).steps, gaps)
    world.lost = lost
    results = [(action, do(world, action)) for action in due(restoring, NOW)]
    finish()
    unwanted = {action.wanted.key for action, result in results if "delete it" in result.text}
    unknown = {a.wanted.key for a, result in results if result.outcome is Outcome.FAILED}
    found = {key: raw["spec"] for key, raw in world.objects.items()}
    wanted = {key_of(raw): raw["spec"] for raw in new}
    for key, spec in wanted.items():
        assert found[key] == spec or key in unknown
    assert found.keys() - wanted.keys() <= unwanted | unknown


def test_nothing_is_made_of_an_old_release_once_the_upgrade_has_changed_it() -> None:
    """Deleted by hand, taken out of the release: the ConfigMap decides, not what was known."""
    world = World(*OLD[:3], config=config_map(*OLD))
    restoring = controller(world)
    [action] = due(restoring, NOW)
    world.config = config_map(*NEW)
    assert do(world, action).outcome is Outcome.OVERTAKEN
    assert "ScaledObject/r-worker" not in world.objects
