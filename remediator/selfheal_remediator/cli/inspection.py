"""Reads a cluster and says what the remediator makes of it: behind `plan` and `status`.

Read-only, but for dry-run evictions, which change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from selfheal_remediator.cli import policy_view
from selfheal_remediator.cli.cordon_view import cordon_notes, cordon_plan
from selfheal_remediator.cli.drain_view import Drains, PodPlan, read_pods
from selfheal_remediator.cli.ladder_view import LadderPlan, ladder_plan
from selfheal_remediator.cli.reading import Reading
from selfheal_remediator.cli.refusals import Surges, blocker
from selfheal_remediator.config import PODS_HUNG, Config, Group
from selfheal_remediator.controller.peers import Peers
from selfheal_remediator.drain.filters import Fate
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube import observe_first
from selfheal_remediator.kube.budgets import Budget
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.kube.informer import Change
from selfheal_remediator.kube.lease import PAUSE_KEY, LeaseView, trusted_annotations
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.node.actions import Action, Kind
from selfheal_remediator.node.annotation import Phase, Unreadable, known_state, read_state
from selfheal_remediator.node.conditions import NodeHistory, observe
from selfheal_remediator.node.drain_request import DRAIN_REQUESTED, drain_request
from selfheal_remediator.node.entry import Entry
from selfheal_remediator.node.foresight import later_waits, waiting_drains
from selfheal_remediator.node.planner import Planner
from selfheal_remediator.node.repair import ladder_text, needs_detached
from selfheal_remediator.node.skip_reason import SkipReason
from selfheal_remediator.windows import window_open


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What would be done to one node. action: cordon, drain, repair (a step of its ladder),
    uncordon, annotate or none.

    limit: what that waits for, or will when its rule's `for` is over; empty = nothing.
    drain_waits: what the drain waits for, of a node that would be cordoned now. group: what it
    belongs to, with its mode and windows. request: of a drain, by a person. headroom: what fits
    nowhere else (then a drain stays a cordon), empty = everything fits. ladder: what follows the
    drain, by the rule that acts; None = nothing. taint: what a cordon sets beside, or instead.
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
    drain_waits: str = ""


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
    optional = ("group", "groups", "request", "requests", "ladder", "taint", "drain_waits")
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
    own_uid: str = "",
) -> ClusterPlan:
    """What would be done to the nodes as they are now, and to the pods of those to be drained.

    trusted: conditions that a person marked as trusted; own_uid: of the leader's pod.
    """
    reading = Reading(api)
    notes = list(config.warnings)
    planner = _planner(reading, config, owner, now, notes)
    planner.trust(trusted)
    made = planner.plan(now, paused=paused)
    nodes = tuple(entry.expected for entry in planner.entries.values())
    drains = Drains(reading, config, nodes, own_uid, now)
    for entry in planner.entries.values():
        state = known_state(entry.node)
        if state is not None and state.phase is Phase.DRAINING and state.by == owner:
            drains.under_way(entry.node)
    waiting, later = waiting_drains(planner, now), later_waits(planner)
    found = []
    for entry in _in_order(planner, made.actions, waiting):
        uid = entry.node.uid
        item = _node_plan(entry, config, now, waits=entry.blocked or later.get(uid))
        item = replace(item, drain_waits=_waits(waiting.get(uid)))
        if only and item.node not in only:
            continue
        if item.action == "drain" or (only and item.action == "none"):
            waits = entry.blocked or waiting.get(uid)
            seen = drains.planned(entry.node, waits, begins=item.action == "drain")
            item = replace(item, pods=seen.pods, headroom=seen.headroom, notes=seen.notes)
        found.append(item)
    chosen = sorted(found, key=lambda item: item.node)
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


def _in_order(
    planner: Planner, actions: Sequence[Action], waiting: Mapping[str, SkipReason]
) -> list[Entry]:
    """Drains that begin now come first: what they use up is not there for the others. waiting:
    nodes (uids) whose drains do not."""
    order = {action.uid: place for place, action in enumerate(actions)}

    def place(entry: Entry) -> tuple[bool, int, str]:
        later = entry.blocked is not None or entry.node.uid in waiting
        return later, order.get(entry.node.uid, len(order)), entry.node.name

    return sorted(planner.entries.values(), key=place)


def _planner(reading: Reading, config: Config, owner: str, now: float, notes: list[str]) -> Planner:
    """A planner that trusts the nodes' clocks: a single evaluation has no other."""
    planner = Planner(config, owner, 0.0)  # with nothing of the pace used up
    planner.leave_out(reading.unread_nodes if reading.nodes else 0)
    for node in reading.nodes:
        planner.apply(Change(node.name, None, node), now)
        entry = planner.entries[node.uid]
        history = observe(NodeHistory(), None, node, config.rules_for(node.labels), now)
        observations = {
            key: replace(observation, since=min(now, observation.transition or now))
            for key, observation in history.observations.items()
        }
        entry.history = replace(history, observations=observations)
    claims = reading.external_claims(now)
    if claims is not None:
        planner.mark(claims.marks)
        peers = Peers(owner)
        first = peers.first(claims.leases, now, claims.unread)
        planner.owners_live(peers.live)
        notes += [peers.reason(first)] if first else []
    planner.volumes(reading.attached(_wait_for_volumes(planner, config), now))
    return planner


def _wait_for_volumes(planner: Planner, config: Config) -> dict[str, str]:
    """The drained nodes whose first step waits until no volume is attached to them."""
    return {
        uid: entry.node.name
        for uid, entry in planner.entries.items()
        if (state := known_state(entry.node)) is not None
        and needs_detached(config.for_node(entry.node.labels), state)
    }


def _node_plan(entry: Entry, config: Config, now: float, *, waits: SkipReason | None) -> NodePlan:
    seen = entry.assessment
    action = entry.pending or seen.limited_action or seen.action
    does = "none"
    if action is not None and action.kind in (Kind.CORDON, Kind.DRAIN):
        state = action.state
        does = "drain" if state is not None and state.action == "drain" else "cordon"
    elif action is not None and action.kind in (Kind.UNCORDON, Kind.REPAIR):
        does = action.kind.value
    elif action is not None and action.message:
        does = "annotate"
    group = config.group_of(entry.node.labels)
    return NodePlan(
        entry.node.name,
        seen.standing,
        does,
        seen.why,
        _waits(waits),
        group=f"{group.name} ({group_state(group, now)})" if group is not None else "",
        request=_request(entry.node),
        ladder=ladder_plan(
            config.for_node(entry.node.labels),
            action.state if action is not None else seen.state,
            seen.state,
        ),
        taint=cordon_plan(entry.node, action, config.taint),
    )


def _waits(reason: SkipReason | None) -> str:
    """What something waits for, and until when where that is known; empty = for nothing."""
    if reason is None:
        return ""
    until = time_text(reason.until) if reason.until is not None else ""
    text = f"{reason.cause}: {reason.text}"
    return f"{text}, not before {until}" if until not in text else text


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
        seen = read_pods(reading, config, node, reading.nodes, now, begins=now)
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
