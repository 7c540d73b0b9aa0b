"""How many nodes may be out of service, and how fast they may go. Pure.

Limits pace the work: each cordon and each drain is checked, and the result names the limit that
is reached. Uncordoning is never limited.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from selfheal_remediator.config import DisruptionLimits
from selfheal_remediator.node.skip_reason import SkipReason

#: Percentage and number of not-answering nodes at which a whole zone, or the control plane, is
#: suspected instead of its nodes (the node controller's thresholds for a disrupted zone).
OUTAGE_PERCENT = 55
OUTAGE_MINIMUM = 3


@dataclass(frozen=True, slots=True)
class CountedNode:
    """One node of the population, as the limits count it.

    cordoned: by us, so out of service; unavailable: out of service for any other reason
    (not Ready, cordoned by somebody else, being deleted, about to be removed); silent: it does
    not answer at all (Ready Unknown); tainted: closed to pods that do not tolerate its taints;
    group: the value of the label limits.groupLabel; group_name: of the group in `groups` that it
    belongs to; repairing: a step of its ladder was begun; step_runs: and has not ended.
    """

    zone: str = ""
    group: str = ""
    group_name: str = ""
    control_plane: bool = False
    cordoned: bool = False
    unavailable: bool = False
    draining: bool = False
    silent: bool = False
    tainted: bool = False
    repairing: bool = False
    step_runs: bool = False

    @property
    def in_service(self) -> bool:
        """Whether the scheduler may use it."""
        return not (self.cordoned or self.unavailable)


@dataclass(slots=True)
class Tally:
    """The counts that limits are checked against; `add_*` when something was allowed.

    cordon_times: when the last cordons began (our clock), needed as far back as the rate's window.
    peak: the largest population of the last hour, so that an autoscaler that removes drained
    nodes does not shrink the budget.
    named: the same counts of each group in `groups`, with its limits.
    """

    population: int = 0
    cordoned: int = 0
    unavailable: int = 0
    draining: int = 0
    repairing: int = 0
    steps: int = 0
    #: Control-plane nodes that are out of service, because of us or not.
    control_plane_out: int = 0
    silent: int = 0
    #: Nodes that the scheduler may use for any pod.
    open_to_all: int = 0
    zones: Counter[str] = field(default_factory=Counter)
    zones_cordoned: Counter[str] = field(default_factory=Counter)
    zones_draining: Counter[str] = field(default_factory=Counter)
    zones_silent: Counter[str] = field(default_factory=Counter)
    groups: Counter[str] = field(default_factory=Counter)
    groups_cordoned: Counter[str] = field(default_factory=Counter)
    groups_draining: Counter[str] = field(default_factory=Counter)
    cordon_times: list[float] = field(default_factory=list)
    peak: int = 0
    named: dict[str, GroupTally] = field(default_factory=dict)

    @classmethod
    def of(cls, nodes: Iterable[CountedNode], cordon_times: Iterable[float], peak: int) -> Tally:
        """Counts over the population."""
        tally = cls(cordon_times=sorted(cordon_times), peak=peak)
        for node in nodes:
            tally.count(node, 1)
        return tally

    def count(self, node: CountedNode, sign: int) -> None:
        """Take a node in (1) or out (-1)."""
        self.population += sign
        self.open_to_all += sign * (node.in_service and not node.tainted)
        _add(self.zones, node.zone, sign)
        _add(self.groups, node.group, sign)
        if node.cordoned:
            self._count_cordoned(node, sign)
        elif node.unavailable:
            self.unavailable += sign
        if node.cordoned or node.unavailable:
            self.control_plane_out += sign * node.control_plane
        if node.draining:
            self._count_drain(node, sign)
        self.repairing += sign * node.repairing
        self.steps += sign * node.step_runs
        if node.silent:
            self.silent += sign
            _add(self.zones_silent, node.zone, sign)
        self.count_in_group(node, sign)

    def count_in_group(self, node: CountedNode, sign: int) -> None:
        """Take a node into its group (1) or out of it (-1)."""
        if node.group_name in self.named:
            self.named[node.group_name].tally.count(_in_group(node), sign)

    def _count_cordoned(self, node: CountedNode, sign: int) -> None:
        self.cordoned += sign
        _add(self.zones_cordoned, node.zone, sign)
        _add(self.groups_cordoned, node.group, sign)

    def _count_drain(self, node: CountedNode, sign: int) -> None:
        self.draining += sign
        _add(self.zones_draining, node.zone, sign)
        _add(self.groups_draining, node.group, sign)

    def copy(self, cordon_times: Iterable[float], peak: int) -> Tally:
        """The same counts, to be changed on their own."""
        counters = {
            name: getattr(self, name).copy()
            for name in self.__slots__
            if isinstance(getattr(self, name), Counter)
        }
        return replace(self, **counters, cordon_times=list(cordon_times), peak=peak, named={})

    def add_cordon(self, node: CountedNode, now: float) -> None:
        """Count a cordon that was just allowed."""
        self._count_cordoned(node, 1)
        self.open_to_all -= node.in_service and not node.tainted
        if node.unavailable:
            self.unavailable -= 1
        else:
            self.control_plane_out += node.control_plane
        self.cordon_times.append(now)
        if node.group_name in self.named:
            self.named[node.group_name].tally.add_cordon(_in_group(node), now)

    def add_drain(self, node: CountedNode, sign: int = 1) -> None:
        """Count a drain that was just allowed (or, with -1, one that is over)."""
        self._count_drain(node, sign)
        if node.group_name in self.named:
            self.named[node.group_name].tally.add_drain(_in_group(node), sign)

    def add_repair(self, node: CountedNode) -> None:
        """Count a step that was just allowed."""
        self.repairing += not node.repairing
        self.steps += not node.step_runs
        if node.group_name in self.named:
            self.named[node.group_name].tally.add_repair(_in_group(node))


def _add(counts: Counter[str], key: str, sign: int) -> None:
    """Zones and groups come and go: nothing is kept of one without nodes."""
    counts[key] += sign
    if not counts[key]:
        del counts[key]


@dataclass(slots=True)
class GroupTally:
    """What the limits of one group are checked against: the counts of its nodes alone."""

    limits: DisruptionLimits
    tally: Tally


def _in_group(node: CountedNode) -> CountedNode:
    """The node as its group counts it. What is suspected of a zone or of the control plane is
    decided over all nodes."""
    return replace(node, group_name="", silent=False, control_plane=False)


def _named(name: str, skip_reason: SkipReason | None) -> SkipReason | None:
    if skip_reason is None:
        return None
    return replace(skip_reason, text=f"group {name}: {skip_reason.text}")


def budget(limits: DisruptionLimits, population: int) -> int:
    """How many of `population` nodes may be cordoned: amount, at least floor, at most ceiling."""
    nodes = max(limits.max_unavailable.of(population), limits.min_allowed)
    return nodes if limits.max_allowed is None else min(nodes, limits.max_allowed)


def check_cordon(
    limits: DisruptionLimits, tally: Tally, node: CountedNode, now: float
) -> SkipReason | None:
    """None if the node may be cordoned now, otherwise the limit that is reached: over all nodes,
    or of the node's group."""
    group = tally.named.get(node.group_name)
    skip_reason = _check_cordon(limits, tally, node, now)
    if skip_reason is not None or group is None:
        return skip_reason
    mine = _check_cordon(group.limits, group.tally, _in_group(node), now)
    return _named(node.group_name, mine)


def _check_cordon(
    limits: DisruptionLimits, tally: Tally, node: CountedNode, now: float
) -> SkipReason | None:
    population = max(tally.population, tally.peak)
    limit = budget(limits, population)
    if tally.cordoned >= limit:
        return SkipReason(
            "maxUnavailable", f"{tally.cordoned} of {population} nodes cordoned, allowed {limit}"
        )
    out = tally.cordoned + tally.unavailable + (not node.unavailable)
    if out > limit and not node.unavailable:
        return SkipReason(
            "unavailable",
            f"{tally.cordoned} nodes cordoned, {tally.unavailable} unavailable for other reasons, "
            f"allowed together {limit} of {population}",
        )
    last = _check_last(limits, tally, node)
    if last is not None:
        return last
    others_out = tally.control_plane_out - (node.control_plane and node.unavailable)
    if node.control_plane and others_out >= 1:
        return SkipReason("controlPlane", "one control-plane node is out of service already")
    return _check_zone(limits, tally, node) or _check_pace(limits, tally, now)


def _check_last(limits: DisruptionLimits, tally: Tally, node: CountedNode) -> SkipReason | None:
    """Enough others stay that the scheduler may use: a cluster's only node is never cordoned.

    A node that is open to all pods is replaced only by such ones. One that is not ready counts
    too: it may come back, and would be the only one then.
    """
    keep = limits.keep_schedulable
    if node.tainted:
        others = tally.population - tally.cordoned - tally.unavailable - node.in_service
    else:
        others = tally.open_to_all - node.in_service
    if others >= keep:
        return None
    return SkipReason(
        "unavailable",
        f"{others} other nodes are ready and schedulable, {keep} must stay (minSchedulable)",
    )


def _check_zone(limits: DisruptionLimits, tally: Tally, node: CountedNode) -> SkipReason | None:
    """The zone and the group of the node have room, and the zone is not down as a whole."""
    outage = zone_outage(tally, node.zone)
    if outage is not None:
        return outage
    for what, key, limit, size, cordoned in (
        ("zone", node.zone, limits.max_unavailable_per_zone, tally.zones, tally.zones_cordoned),
        (
            "group",
            node.group,
            limits.max_unavailable_per_group,
            tally.groups,
            tally.groups_cordoned,
        ),
    ):
        if limit is None:
            continue
        allowed = max(limit.of(size[key]), 1)
        if cordoned[key] >= allowed:
            place = _place(what, key)
            return SkipReason(what, f"{cordoned[key]} nodes cordoned in {place}, allowed {allowed}")
    return None


def _place(what: str, key: str) -> str:
    return f"{what} {key}" if key else f"no {what}"


def zone_outage(tally: Tally, zone: str) -> SkipReason | None:
    """Most of a zone silent at once is the zone's fault (the network's, the power's), not theirs.

    The node controller's rule for a disrupted zone; the other zones continue. Nodes without a
    zone are evaluated all together, by the planner.
    """
    silent, nodes = tally.zones_silent[zone], tally.zones[zone]
    if not zone or silent < OUTAGE_MINIMUM or 100 * silent < OUTAGE_PERCENT * nodes:
        return None
    return SkipReason("zoneOutage", f"{silent} of {nodes} nodes of zone {zone} do not answer")


def _check_pace(limits: DisruptionLimits, tally: Tally, now: float) -> SkipReason | None:
    if tally.cordon_times and limits.min_interval:
        opens = tally.cordon_times[-1] + limits.min_interval
        if opens > now:
            return SkipReason("minInterval", f"{limits.min_interval:g}s between two cordons", opens)
    if limits.rate is not None:
        recent = [moment for moment in tally.cordon_times if moment > now - limits.rate.window]
        if len(recent) >= limits.rate.count:
            opens = recent[-limits.rate.count] + limits.rate.window
            return SkipReason(
                "rate", f"{len(recent)} cordons within {limits.rate.window:g}s", opens
            )
    return None


def check_drain(limits: DisruptionLimits, tally: Tally, node: CountedNode) -> SkipReason | None:
    """None when one more drain may begin now, else the limit that is reached: over all nodes, or
    of the node's group."""
    group = tally.named.get(node.group_name)
    skip_reason = _check_drain(limits, tally, node)
    if skip_reason is not None or group is None:
        return skip_reason
    return _named(node.group_name, _check_drain(group.limits, group.tally, _in_group(node)))


def _check_drain(limits: DisruptionLimits, tally: Tally, node: CountedNode) -> SkipReason | None:
    if tally.draining >= limits.max_draining:
        return SkipReason("maxDraining", f"{tally.draining} drains, allowed {limits.max_draining}")
    outage = zone_outage(tally, node.zone)
    if outage is not None:
        return outage
    for what, key, limit, draining in (
        ("zone", node.zone, limits.max_draining_per_zone, tally.zones_draining),
        ("group", node.group, limits.max_draining_per_group, tally.groups_draining),
    ):
        if limit is not None and draining[key] >= limit:
            message = f"{draining[key]} drains in {_place(what, key)}, allowed {limit}"
            return SkipReason("maxDraining", message)
    return None


def check_repair(limits: DisruptionLimits, tally: Tally, node: CountedNode) -> SkipReason | None:
    """None when the next step of the node's ladder may begin now, else the limit that is reached:
    over all nodes, or of the node's group.

    A node keeps its place from its first step to the end of its ladder, but for the time in which
    nothing continues that (Assessment.yields). Back from it there may be more than are allowed:
    never more of their steps run.
    """
    group = tally.named.get(node.group_name)
    skip_reason = _check_repair(limits, tally, node)
    if skip_reason is not None or group is None:
        return skip_reason
    return _named(node.group_name, _check_repair(group.limits, group.tally, _in_group(node)))


def _check_repair(limits: DisruptionLimits, tally: Tally, node: CountedNode) -> SkipReason | None:
    others = tally.steps - node.step_runs if node.repairing else tally.repairing
    if others >= limits.max_repairing:
        message = f"{others} nodes are being repaired, allowed {limits.max_repairing}"
        return SkipReason("maxRepairing", message)
    return zone_outage(tally, node.zone)
