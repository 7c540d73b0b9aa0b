"""What must hold once faults have stopped for long enough; see `invariants`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from selfheal_remediator.config import Rule
from selfheal_remediator.node.annotation import EXCLUDE_KEY, Phase, State
from tests.simulation.cluster import conditions
from tests.simulation.cluster.messages import Json
from tests.simulation.cluster.selectors import controller_of
from tests.simulation.remediator.invariants import Watcher, budget, kept
from tests.simulation.remediator.problems import Problem
from tests.simulation.remediator.states import control_plane, holder_of, in_service, state_of
from tests.simulation.remediator.world import World

#: So long (seconds) nothing is changed any more, once the world has settled.
STILL = 300.0
#: A node that is to be drained has a turn within so long (seconds).
LONG_WAIT = 600.0


def settled(world: World, watcher: Watcher, quiet: float) -> Iterator[Problem]:
    """What does not hold though nothing has gone wrong for so many seconds."""
    yield from _led(world, watcher)
    nodes = [node for node in world.cluster.store.all("nodes") if not control_plane(node)]
    yield from _recovered(world, nodes, quiet)
    yield from _acted_on(world, watcher, nodes, quiet)
    yield from _drains_ended(world, nodes)
    yield from _drained_of_all(world, nodes, quiet)
    yield from _drains_begun(world, watcher, nodes)
    for outcome in world.console.outcomes:
        if outcome.status in (None, 2):  # has not ended; wrong usage or configuration
            yield Problem(
                "commands_end",
                f"the command {' '.join(outcome.arguments)} ended with {outcome.status}",
            )
    if watcher.last_write > world.simulation.now - STILL:
        last = watcher.last_write
        yield Problem(
            "it_comes_to_rest",
            f"it does not come to rest: nodes or pods were changed at {last:.0f} s",
        )


def _led(world: World, watcher: Watcher) -> Iterator[Problem]:
    """design: a killed leader is replaced within 16 s: so one that renews no more is another."""
    holder, since = holder_of(world), world.simulation.now - watcher.renewed
    if not any(
        holder.startswith(f"{replica.name}_") and replica.runs for replica in world.replicas
    ):
        yield Problem("somebody_leads", f"nobody leads: the Lease names {holder!r}")
    elif since > world.config.lease.renew_deadline:
        yield Problem(
            "somebody_leads", f"nobody leads: {holder} has not renewed the Lease for {since:.0f} s"
        )


def rules_of(world: World, node: Json) -> list[Rule]:
    """The rules by which the node is bad now, that cordon."""
    return [
        rule
        for rule in world.config.rules
        if rule.cordons and conditions.status_of(node, rule.condition) in rule.status
    ]


def _recovered(world: World, nodes: Iterable[Json], quiet: float) -> Iterator[Problem]:
    """README: a node whose condition is good for the stabilization window is uncordoned."""
    recovery = world.config.recovery
    window = max(recovery.stabilization_window, recovery.reset_stabilization_window)
    if quiet < window + 180 or world.config.dry_run:
        return
    for node in nodes:
        state, name = state_of(node), node["metadata"]["name"]
        if state is None or not state.phase.cordoned or rules_of(world, node):
            continue
        waits_for_person = len(state.cordons) >= recovery.max_flaps
        if state.latched or waits_for_person or state.unverified or _excluded(node):
            continue
        yield Problem(
            "recovered_nodes_return",
            f"{name} is healthy and still {state.phase.value} for {state.condition}",
        )


def _acted_on(
    world: World, watcher: Watcher, nodes: Sequence[Json], quiet: float
) -> Iterator[Problem]:
    """README: a bad node within the limits is cordoned."""
    limits = world.config.limits
    simple = (
        not world.config.dry_run
        and limits.max_unavailable_per_zone is None
        and limits.max_unavailable_per_group is None
        and limits.rate is None
        and not limits.min_interval
        and watcher.paused_since is None
    )
    out = [node for node in nodes if not in_service(node)]
    free = [node for node in nodes if in_service(node)]
    allowed = budget(world.config, len(nodes))
    if world.config.dry_run or not simple or len(out) >= allowed or len(free) <= kept(world.config):
        return
    for node in free:
        state = state_of(node)
        if _excluded(node) or (state is not None and not _may_begin(state)):
            continue
        for rule in rules_of(world, node):
            if quiet > rule.for_ + 300:
                yield Problem(
                    "bad_nodes_are_cordoned",
                    f"{node['metadata']['name']} is not cordoned: {rule.condition} is bad, "
                    f"{len(out)} of {allowed} are out of service",
                )
                break


def _excluded(node: Json) -> bool:
    """Whether a person keeps the remediator away: what was begun there stays as it is."""
    return EXCLUDE_KEY in (node["metadata"].get("annotations") or {})


def _may_begin(state: State) -> bool:
    return state.phase not in (Phase.CANCELLED, Phase.SUSPECT)


REPORTED = frozenset(
    {"DrainBlocked", "DrainDeadlinePassed", "DrainStalled", "PodsLeftOnNode", "DrainPaused"}
    | {"DrainWaiting"}
)


def _drains_ended(world: World, nodes: Iterable[Json]) -> Iterator[Problem]:
    """docs/traps.md: a drain that cannot end is reported."""
    now = world.cluster.store.clock()
    events = world.cluster.store.all("events")
    for node in nodes:
        state, name = state_of(node), node["metadata"]["name"]
        if state is None or state.phase is not Phase.DRAINING or _excluded(node):
            continue
        if now - state.drain_started < world.config.drain.deadline + 120:
            continue
        about = {e["reason"] for e in events if e["involvedObject"].get("name") == name}
        if not about & REPORTED:
            yield Problem(
                "drains_are_reported",
                f"{name} is being drained for {now - state.drain_started:.0f} s without a report",
            )


def _drained_of_all(world: World, nodes: Iterable[Json], quiet: float) -> Iterator[Problem]:
    """README: drained means that each pod that may go has gone, whatever became of its first
    eviction. Of pods that nothing keeps: no budget, volume, toleration, and an owner that
    replaces them."""
    store, drain = world.cluster.store, world.config.drain
    limited = set(_apps_with_budgets(world))
    draining = [n for n in nodes if (state := state_of(n)) and state.phase is Phase.DRAINING]
    if (
        len(draining) != 1
        or _excluded(draining[0])
        or world.config.dry_run
        or quiet < drain.deadline + 300
    ):
        return
    state, name = state_of(draining[0]), draining[0]["metadata"]["name"]
    if state is None or store.clock() - state.drain_started < drain.deadline + 300:
        return
    for pod in store.pods_on(name):
        meta, spec = pod["metadata"], pod["spec"]
        app = (meta.get("labels") or {}).get("app")
        kept = spec.get("volumes") or any(
            one.get("operator") == "Exists" and not one.get("key")
            for one in spec.get("tolerations") or ()
        )
        if kept or app is None or app in limited or controller_of(pod) is None:
            continue
        if meta.get("deletionTimestamp") or meta["namespace"] != "default":
            continue
        yield Problem("drained_nodes_are_empty", f"{meta['name']} stays on {name}")


def _apps_with_budgets(world: World) -> Iterator[str]:
    for budget_of in world.cluster.store.all("poddisruptionbudgets"):
        yield budget_of["spec"]["selector"]["matchLabels"]["app"]


def _drains_begun(world: World, watcher: Watcher, nodes: Sequence[Json]) -> Iterator[Problem]:
    """features: a drain without progress yields its slot to one that waits."""
    now = world.simulation.now
    evicted = watcher.evicted.drained.values()
    if world.config.dry_run or watcher.paused_since is not None:
        return
    if any(now - when < STILL for when, _ in evicted):
        return
    states = {node["metadata"]["name"]: state_of(node) for node in nodes}
    draining = [name for name, state in states.items() if state and state.phase is Phase.DRAINING]
    for node in nodes:
        name, state = node["metadata"]["name"], states[node["metadata"]["name"]]
        if state is None or state.phase is not Phase.CORDONED or state.action != "drain":
            continue
        waits = world.cluster.store.clock() - state.since
        if draining and not state.no_room and rules_of(world, node) and waits > LONG_WAIT:
            yield Problem(
                "drains_begin", f"{name} waits for {waits:.0f} s for a drain, behind {draining}"
            )
