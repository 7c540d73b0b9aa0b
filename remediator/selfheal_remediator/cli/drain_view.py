"""What a drain would do with a node's pods, for `plan` and `status`.

A dry-run eviction does not use up a disruption budget, so budgets are added up here, pod by pod in
the order of the drain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from selfheal_remediator.cli.drain_order import delay_notes, drain_began, numbered
from selfheal_remediator.cli.reading import Reading
from selfheal_remediator.cli.refusals import Surges, ask_server, take_room
from selfheal_remediator.config import Config
from selfheal_remediator.drain.filters import Fate, Sorting, Surroundings, sort_pod
from selfheal_remediator.drain.free_capacity import Rooms
from selfheal_remediator.drain.node_pods import node_pod_from_json
from selfheal_remediator.drain.preflight import Departure, no_room, surroundings
from selfheal_remediator.drain.readiness import Readiness
from selfheal_remediator.drain.surge import NOTHING, Surge
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.kube.pods import Pod
from selfheal_remediator.node.skip_reason import SkipReason
from selfheal_remediator.node.spans import span
from selfheal_remediator.node.taints import taint_planned


@dataclass(frozen=True, slots=True)
class PodPlan:
    """What a drain would do with one pod. fate: evict, ignore, stay or wait; wave None = not
    now."""

    pod: str
    fate: str
    wave: int | None
    reason: str
    waits: str = ""
    server: str = ""


@dataclass(frozen=True, slots=True)
class DrainPlan:
    """What a drain of one node would do. headroom, notes: see NodePlan."""

    pods: tuple[PodPlan, ...]
    headroom: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodePods:
    """The pods of a node, sorted as its drain would sort them, by wave."""

    departure: Departure
    pods: tuple[tuple[Sorting, Pod], ...]
    around: Surroundings
    notes: frozenset[str]


class Drains:
    """The drains of a plan. Those that are under way and those that begin now share the room on
    other nodes, and the latter share budgets; later ones find that room taken, but their budgets
    open again. nodes: all; own_uid: of the remediator's pod."""

    def __init__(
        self, reading: Reading, config: Config, nodes: tuple[Node, ...], own_uid: str, now: float
    ) -> None:
        self._reading, self._config, self._now = reading, config, now
        self._nodes, self._own_uid = nodes, own_uid
        self._allowed = {budget.uid: budget.allowed for budget in reading.budgets}
        self._left = dict(self._allowed)
        self._rooms = Rooms(reading.api, runtime=reading.api.runtime)

    def under_way(self, node: Node) -> None:
        """Keep the room that a drain which has begun is still to use. Raises ApiFailure."""
        if self._config.drain.headroom:
            self._no_room(self._read(node, self._now))

    def _read(self, node: Node, begins: float) -> NodePods:
        return read_pods(
            *(self._reading, self._config, node, self._nodes, self._now),
            begins=begins,
            own_uid=self._own_uid,
        )

    def _no_room(self, seen: NodePods) -> str:
        """What fits nowhere else; room that was found is kept."""
        pods = [pod for _, pod in seen.pods]
        return no_room(self._rooms, seen.departure, pods, seen.around, self._now)

    def planned(self, node: Node, waits: SkipReason | None, *, begins: bool) -> DrainPlan:
        """What a drain would do. begins: it is called for; waits: what it waits for, None = it
        begins now. Raises ApiFailure."""
        at = self._now if waits is None or waits.until is None else waits.until
        seen = self._read(node, at)
        headroom = self._no_room(seen)
        if waits is not None and not _opens(waits):
            seen = _without_times(seen, self._config)
        begins = begins and waits is None and not headroom
        if not begins:
            self._rooms.release(seen.departure.uid)
        budgets = self._left if begins else dict(self._allowed)
        plans, notes = self._pods(
            seen, budgets, Surges(self._reading.api, self._config, node, self._now)
        )
        return DrainPlan(plans, headroom, notes)

    def _pods(
        self, seen: NodePods, room: dict[str, int], surges: Surges
    ) -> tuple[tuple[PodPlan, ...], tuple[str, ...]]:
        plans: list[PodPlan] = []
        notes = set(seen.notes)
        reading = self._reading
        if any(s.fate is Fate.EVICT and pod.claims for s, pod in seen.pods):
            notes.add("how many volumes other nodes can still attach (CSINode) is not evaluated")
        blocked: int | None = None
        for sorting, pod in seen.pods:
            if sorting.fate is not Fate.EVICT:
                plans.append(PodPlan(pod.id, sorting.fate.value, None, sorting.reason))
                continue
            if pod.deletion is not None:
                stuck = f"finalizers {', '.join(pod.finalizers)}" if pod.finalizers else ""
                blocked = sorting.wave if stuck and blocked is None else blocked
                plans.append(PodPlan(pod.id, "evict", sorting.wave, sorting.reason, stuck))
                continue
            if blocked is not None and blocked < sorting.wave:
                waits = f"wave {blocked}, which is blocked"
                plans.append(PodPlan(pod.id, "evict", sorting.wave, sorting.reason, waits))
                continue
            covering = [budget for budget in reading.budgets if budget.covers(pod)]
            waits, server = take_room(pod, covering, room), ask_server(reading.api, pod, notes)
            surge = surges.of(pod, covering) if waits else NOTHING
            stays = (waits or server) and surge.surge not in (Surge.START, Surge.ROLLING)
            blocked = sorting.wave if stays and blocked is None else blocked
            waits = "; ".join(filter(None, (waits, surge.text)))
            plans.append(PodPlan(pod.id, "evict", sorting.wave, sorting.reason, waits, server))
            notes.update(
                f"PDB {budget.id} keeps pods that are not ready (unhealthyPodEvictionPolicy)"
                for budget in covering
                if not budget.always_allow_unhealthy and not pod.ready
            )
        return tuple(plans), tuple(sorted(notes | surges.notes))


def read_pods(
    reading: Reading,
    config: Config,
    node: Node,
    nodes: tuple[Node, ...],
    now: float,
    *,
    begins: float,
    own_uid: str = "",
) -> NodePods:
    """Reads the node's pods and what sorting them needs. begins: when a drain that has not begun
    would. Raises ApiFailure."""
    pages = reading.api.pods_of(node.name).pages()
    pods = [node_pod_from_json(raw) for raws, _ in pages for raw in raws]
    notes: set[str] = delay_notes(node, config, now, begins)
    stop = reading.api.runtime.event()  # nobody sets it
    departure = Departure(node.name, node.uid, nodes, config.drain.headroom, stop)
    facts, claims = reading.daemon_set_facts(pods, notes), reading.volume_claims(pods, notes)
    taint = taint_planned(node, config.taint)
    around = surroundings(config.drain, departure, facts, claims, own_uid, taint)
    ready = not Readiness().lost(node, now)
    sorting = replace(around, drain_began=drain_began(node, now, begins), ready=ready)
    found = sorted(((sort_pod(pod, sorting, now), pod) for pod in pods), key=_wave)
    if config.drain.order == "priority":
        found = numbered(found)
    return NodePods(departure, tuple(found), around, frozenset(notes))


def _opens(waits: SkipReason) -> bool:
    """Whether it is known when the drain begins: a window opens for all, unlike a pace that lets
    one node go, which may be another."""
    return waits.cause == "paused" and waits.until is not None


def _without_times(seen: NodePods, config: Config) -> NodePods:
    """Of a drain of which nobody knows when it begins: of pods that may complete it is not known
    either until when."""
    longest = span(config.drain.wait_for_completion.max)

    def told(sorting: Sorting) -> Sorting:
        if sorting.fate is not Fate.WAIT:
            return sorting
        why = sorting.reason.partition(": ")[2]
        return replace(sorting, reason=f"may complete for {longest} from its drain on: {why}")

    return replace(seen, pods=tuple((told(sorting), pod) for sorting, pod in seen.pods))


def _wave(sorted_pod: tuple[Sorting, Pod]) -> int:
    return sorted_pod[0].wave
