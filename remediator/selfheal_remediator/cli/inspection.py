"""Reads a cluster and says what the remediator makes of it: behind `plan` and `status`.

Read-only, but for dry-run evictions, which change nothing. A dry-run eviction does not use up
a disruption budget, so budgets are added up here, pod by pod in the order of the drain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from selfheal_remediator.cli import policy_view
from selfheal_remediator.cli.cordon_view import cordon_notes, cordon_plan
from selfheal_remediator.cli.drain_order import delay_notes, drain_began, numbered
from selfheal_remediator.cli.ladder_view import LadderPlan, ladder_plan
from selfheal_remediator.cli.reading import Reading
from selfheal_remediator.cli.refusals import Surges, ask_server, blocker, take_room
from selfheal_remediator.config import PODS_HUNG, Config, Group
from selfheal_remediator.drain.filters import Fate, Sorting, Surroundings, of_daemon_set, sort_pod
from selfheal_remediator.drain.free_capacity import Rooms
from selfheal_remediator.drain.node_pods import node_pod_from_json
from selfheal_remediator.drain.preflight import DaemonSetFacts, Departure, no_room, surroundings
from selfheal_remediator.drain.readiness import Readiness
from selfheal_remediator.drain.surge import NOTHING, Surge
from selfheal_remediator.drain.volume_claims import VolumeClaims, read_volume_claims
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube import observe_first
from selfheal_remediator.kube.budgets import Budget
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.kube.informer import Change
from selfheal_remediator.kube.lease import PAUSE_KEY, LeaseView, trusted_annotations
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.kube.pods import Pod
from selfheal_remediator.node.actions import Kind
from selfheal_remediator.node.annotation import Phase, Unreadable, read_state
from selfheal_remediator.node.conditions import NodeHistory, observe
from selfheal_remediator.node.drain_request import DRAIN_REQUESTED, drain_request
from selfheal_remediator.node.entry import Entry
from selfheal_remediator.node.planner import Planner
from selfheal_remediator.node.repair import ladder_text
from selfheal_remediator.node.taints import taint_planned
from selfheal_remediator.windows import window_open


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
class NodePlan:
    """What would be done to one node. action: cordon, drain, uncordon, annotate or none.

    group: what it belongs to, with its mode and windows. request: of a drain, by a person.
    headroom: what fits nowhere else (then a drain stays a cordon), empty = everything fits.
    ladder: what follows the drain, by the rule that acts; None = nothing. taint: what a cordon
    sets beside, or instead.
    """

    node: str
    state: str
    action: str
    why: str
    limit: str
    pods: tuple[PodPlan, ...] = ()
    headroom: str = ""
    notes: tuple[str, ...] = ()
    group: str = ""
    request: str = ""
    ladder: LadderPlan | None = None
    taint: str = ""


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """The whole answer of `plan`."""

    mode: str
    nodes: tuple[NodePlan, ...]
    limits: Mapping[str, int]
    notes: tuple[str, ...] = ()
    policies: int = 0
    pods: tuple[policy_view.PodPlan, ...] = ()
    #: Until when it only says what it would do (RFC 3339); empty = it does not observe first.
    observing_until: str = ""

    def to_json(self) -> dict[str, Any]:
        """For `-o json`."""
        raw = asdict(self)
        return {**raw, "nodes": [_without_unset(item) for item in raw["nodes"]]}


def _without_unset(item: dict[str, Any]) -> dict[str, Any]:
    """What only groups, requests and ladders have is left out where there are none."""
    optional = ("group", "groups", "request", "requests", "ladder", "taint")
    return {key: value for key, value in item.items() if value or key not in optional}


@dataclass(frozen=True, slots=True)
class CordonedNode:
    """One node that a remediator cordoned. Times are seconds since the epoch."""

    node: str
    phase: str
    condition: str
    reason: str
    since: int
    first_seen: int
    drain_started: int
    pods_left: int
    blockers: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """The whole answer of `status`."""

    lease: str
    leader: str
    renewed: str
    paused: str
    mode: str
    nodes: int
    cordoned: tuple[CordonedNode, ...] = ()
    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    now: float = 0.0
    policies: tuple[policy_view.PolicyStatus, ...] = ()
    notes: tuple[str, ...] = ()
    trusted_annotations: tuple[str, ...] = ()
    observing_until: str = ""
    #: Requests of drains, by node; the mode and windows of each group.
    requests: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For `-o json`."""
        return _without_unset(asdict(self))


# -- plan ----------------------------------------------------------------------------------


def plan(
    api: KubernetesApi,
    config: Config,
    owner: str,
    paused: str,
    now: float,
    only: Sequence[str] = (),
    trusted: frozenset[str] = frozenset(),
) -> ClusterPlan:
    """What would be done to the nodes as they are now, and to the pods of those to be drained.

    trusted: conditions that a person marked as trusted.
    """
    reading = Reading(api)
    planner = _planner(reading, config, owner, now)
    planner.trust(trusted)
    made = planner.plan(now, paused=paused)
    room = {budget.uid: budget.allowed for budget in reading.budgets}
    notes = list(config.warnings)
    rooms = Rooms(api, runtime=api.runtime)
    chosen = []
    for entry in sorted(planner.entries.values(), key=lambda entry: entry.node.name):
        item = _node_plan(entry, config, now)
        if only and item.node not in only:
            continue
        drains = item.action == "drain" or (only and item.action == "none")
        if drains:
            nodes = tuple(e.node for e in planner.entries.values())
            seen = _read_pods(reading, config, entry.node, nodes, now)
            surges = Surges(reading.api, config, entry.node, now)
            item = _with_pods(reading, item, seen, room, surges)
            item = replace(item, headroom=_headroom(seen, rooms, now))
        chosen.append(item)
    if paused:
        notes.append(f"paused: {paused}")
    pods: tuple[policy_view.PodPlan, ...] = ()
    policies = 0
    if not only:
        try:
            pods, policies, unread = policy_view.policies_plan(api, config, planner, paused, now)
            notes += unread
        except ApiFailure as failure:
            notes.append(f"HealingPolicies cannot be read and are not shown: {failure}")
    return ClusterPlan(
        config.mode,
        tuple(chosen),
        dict(made.limited_by),
        (*reading.notes, *notes),
        policies,
        pods,
    )


def _planner(reading: Reading, config: Config, owner: str, now: float) -> Planner:
    """A planner that trusts the nodes' clocks: a single evaluation has no other."""
    planner = Planner(config, owner, 0.0)  # with nothing of the pace used up
    for node in reading.nodes:
        planner.apply(Change(node.name, None, node), now)
        entry = planner.entries[node.uid]
        history = observe(NodeHistory(), None, node, config.rules_for(node.labels), now)
        observations = {
            key: replace(observation, since=min(now, observation.transition or now))
            for key, observation in history.observations.items()
        }
        entry.history = replace(history, observations=observations)
    return planner


def _node_plan(entry: Entry, config: Config, now: float) -> NodePlan:
    seen = entry.assessment
    action = entry.pending or seen.limited_action or seen.action
    does = "none"
    if action is not None and action.kind in (Kind.CORDON, Kind.DRAIN):
        state = action.state
        does = "drain" if state is not None and state.action == "drain" else "cordon"
    elif action is not None and action.kind is Kind.UNCORDON:
        does = "uncordon"
    elif action is not None and action.message:
        does = "annotate"
    limit = f"{entry.blocked.cause}: {entry.blocked.text}" if entry.blocked else ""
    group = config.group_of(entry.node.labels)
    return NodePlan(
        entry.node.name,
        seen.standing,
        does,
        seen.why,
        limit,
        group=f"{group.name} ({group_state(group, now)})" if group is not None else "",
        request=_request(entry.node),
        ladder=ladder_plan(
            config.for_node(entry.node.labels),
            action.state if action is not None else seen.state,
        ),
        taint=cordon_plan(entry.node, action, config.taint),
    )


def group_state(group: Group, now: float) -> str:
    """Its mode, and whether a maintenance window is open."""
    text = "only observes" if group.mode == "observe" else "enforces"
    if not group.maintenance_windows:
        return text
    opening = window_open(group.maintenance_windows, now)
    until = f" until {time_text(opening.change)}" if opening.change is not None else ""
    return f"{text}, {'window' if opening.open else 'no window'} open{until}"


def _request(node: Node) -> str:
    request = drain_request(node)
    return "" if request is None else request.text


@dataclass(frozen=True, slots=True)
class _NodePods:
    """The pods of a node, sorted as its drain would sort them, by wave."""

    departure: Departure
    pods: tuple[tuple[Sorting, Pod], ...]
    around: Surroundings
    notes: frozenset[str]


def _read_pods(
    reading: Reading, config: Config, node: Node, nodes: tuple[Node, ...], now: float
) -> _NodePods:
    """Reads the node's pods and what sorting them needs. Raises ApiFailure."""
    pages = reading.api.pods_of(node.name).pages()
    pods = [node_pod_from_json(raw) for raws, _ in pages for raw in raws]
    notes: set[str] = delay_notes(node, config, now)
    stop = reading.api.runtime.event()  # nobody sets it
    departure = Departure(node.name, node.uid, nodes, config.drain.headroom, stop)
    facts, claims = _daemon_sets(reading, pods, notes), _claims(reading, pods, notes)
    taint = taint_planned(node, config.taint)
    around = surroundings(config.drain, departure, facts, claims, taint=taint)
    ready = not Readiness().lost(node, now)
    sorting = replace(around, drain_began=drain_began(node, now), ready=ready)
    found = sorted(((sort_pod(pod, sorting, now), pod) for pod in pods), key=_wave)
    if config.drain.order == "priority":
        found = numbered(found)
    return _NodePods(departure, tuple(found), around, frozenset(notes))


def _wave(sorted_pod: tuple[Sorting, Pod]) -> int:
    return sorted_pod[0].wave


def _with_pods(
    reading: Reading, item: NodePlan, seen: _NodePods, room: dict[str, int], surges: Surges
) -> NodePlan:
    plans: list[PodPlan] = []
    notes = set(seen.notes)
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
    return replace(item, pods=tuple(plans), notes=tuple(sorted(notes | surges.notes)))


def _headroom(seen: _NodePods, rooms: Rooms, now: float) -> str:
    """What fits on no other node, as the drain itself would check it."""
    crowded = no_room(rooms, seen.departure, [pod for _, pod in seen.pods], seen.around, now)
    rooms.release(seen.departure.uid)  # each node is evaluated as if it were the only one
    return crowded


def _daemon_sets(reading: Reading, pods: list[Pod], notes: set[str]) -> DaemonSetFacts:
    """What is known of the pods' DaemonSets; that they cannot be read is noted."""
    ours = frozenset(pod.owner_uid for pod in pods if of_daemon_set(pod))
    if not ours:
        return DaemonSetFacts()
    found = reading.daemon_sets
    if isinstance(found, ApiFailure):
        notes.add(f"DaemonSets cannot be read, so it is unknown which pods stay: {found}")
        return DaemonSetFacts(frozenset(), unknown=ours)
    return DaemonSetFacts(found.known, unknown=ours if found.unread else frozenset())


def _claims(reading: Reading, pods: list[Pod], notes: set[str]) -> VolumeClaims:
    """The pods' claims; which cannot be read is noted."""
    found = read_volume_claims(reading.api, pods)
    for (namespace, claim), why in found.failed.items():
        notes.add(f"claim {namespace}/{claim} cannot be read, so its pods stay: {why}")
    return found


# -- status --------------------------------------------------------------------------------


def status(
    api: KubernetesApi, config: Config, lease: LeaseView | None, now: float
) -> ClusterStatus:
    """The nodes cordoned now, and what blocks the drains."""
    reading = Reading(api)
    nodes, budgets = reading.nodes, reading.budgets
    cordoned: list[CordonedNode] = []
    others: dict[str, list[str]] = {}
    for node in sorted(nodes, key=lambda node: node.name):
        try:
            state = read_state(node)
        except Unreadable as error:
            others.setdefault("unreadable", []).append(f"{node.name} ({error})")
            continue
        if state is not None and state.phase.cordoned:
            cordoned.append(_cordoned(reading, config, node, budgets, now))
        elif state is not None:
            others.setdefault(state.phase.value, []).append(node.name)
        elif node.unschedulable:
            others.setdefault("foreign-cordon", []).append(node.name)
    notes: tuple[str, ...] = ()
    policies: tuple[policy_view.PolicyStatus, ...] = ()
    try:
        policies, notes = policy_view.policies_status(api, config)
    except ApiFailure as failure:
        notes = (f"HealingPolicies cannot be read: {failure}",)
    return ClusterStatus(
        lease=f"{lease.namespace}/{lease.name}" if lease else "",
        leader=lease.holder if lease else "",
        renewed=lease.renewed if lease else "",
        paused=lease.annotations.get(PAUSE_KEY, "") if lease else "",
        mode=config.mode,
        nodes=len(nodes),
        cordoned=tuple(cordoned),
        others={key: tuple(names) for key, names in sorted(others.items())},
        now=now,
        policies=policies,
        notes=(*reading.notes, *notes),
        trusted_annotations=tuple(sorted(trusted_annotations(lease.annotations))) if lease else (),
        observing_until=observing_until(config, lease, now) if lease else "",
        requests={node.name: text for node in nodes if (text := _request(node))},
        groups={group.name: group_state(group, now) for group in config.groups},
    )


def _cordoned(
    reading: Reading, config: Config, node: Node, budgets: Iterable[Budget], now: float
) -> CordonedNode:
    state = read_state(node)
    assert state is not None
    left = 0
    notes = cordon_notes(node, state)
    condition = node.conditions.get(state.condition)
    changed = condition is None or condition.status != state.status
    if changed and state.condition not in (PODS_HUNG, DRAIN_REQUESTED):  # no node has these
        notes.add(f"{state.condition} is {condition.status if condition else 'gone'} now")
    step = ladder_text(config.for_node(node.labels), state)
    notes |= {step} if step else set()
    blockers: dict[str, int] = {}
    if state.phase is Phase.DRAINING:
        surges = Surges(reading.api, config, node, now)
        seen = _read_pods(reading, config, node, reading.nodes, now)
        notes |= seen.notes
        for sorting, pod in seen.pods:
            if sorting.fate is Fate.EVICT:
                left += 1
                text = blocker(pod, budgets, now, surges)
                if text:
                    blockers[text] = blockers.get(text, 0) + 1
            elif sorting.fate is Fate.WAIT and sorting.until is not None:
                left += 1
                text = f"may complete until {time_text(sorting.until)}"
                blockers[text] = blockers.get(text, 0) + 1
        notes |= surges.notes
    return CordonedNode(
        node=node.name,
        phase=state.phase.value,
        condition=state.condition,
        reason=state.reason,
        since=state.since,
        first_seen=state.first_seen,
        drain_started=state.drain_started,
        pods_left=left,
        blockers=tuple(f"{text} ({count} pods)" for text, count in sorted(blockers.items())),
        note="; ".join(sorted(notes)),
    )


def observing_until(config: Config, lease: LeaseView, now: float) -> str:
    """Until when the remediator of this Lease only observes (RFC 3339); empty = it does not."""
    first = observe_first.first_start(lease.annotations)
    until = None if first is None else observe_first.observing_until(config, min(first, now))
    return time_text(until) if until is not None and until > now else ""
