"""What must hold whatever happens; each with the sentence of the documentation that it is from.

`Watcher` checks every write as the store makes it, and every request as it is sent. `settled`
checks the world once faults have stopped for long enough. None of it uses what the remediator
thinks: it goes by the store, the machines and what people did.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from selfheal_remediator.config import Config
from selfheal_remediator.kube.lease import PAUSE_KEY
from selfheal_remediator.kube.objects import node_from_json
from selfheal_remediator.node.annotation import (
    EXCLUDE_KEY,
    MAX_BYTES,
    STATE_KEY,
    Phase,
    Unreadable,
    read_state,
)
from selfheal_remediator.quantities import Amount
from tests.simulation.cluster.messages import Answer, Json, Request
from tests.simulation.cluster.objects import ZONE
from tests.simulation.cluster.selectors import controller_of
from tests.simulation.cluster.store import Change
from tests.simulation.remediator.faults import PERSON
from tests.simulation.remediator.invariants_of_causes import Causes
from tests.simulation.remediator.invariants_of_pods import Evicted
from tests.simulation.remediator.invariants_of_recovery import Recovery
from tests.simulation.remediator.problems import Broken
from tests.simulation.remediator.process import NAMESPACE
from tests.simulation.remediator.states import (
    control_plane,
    cordoned,
    cordoned_by_us,
    holder_of,
    in_service,
    state_of,
)
from tests.simulation.remediator.world import World

PEAK_WINDOW = 3600.0
#: After a person's pause so long (seconds) at most something may still be begun: what was sent
#: before, and a watch that is dead without a sign is found out after 80 s.
PAUSE_HEARD = 125.0
#: Pods of one owner that are evicted from one node while it is cordoned: as many as an owner has
#: here, and those that returned until it is left alone.
MOST_EVICTIONS = 20
#: Requests that one process sends within ten seconds at most, in worlds as small as these.
MOST_REQUESTS = 400


@dataclass(slots=True)
class Watcher:
    """See the module. replicas: the names of the remediator's processes."""

    world: World
    replicas: frozenset[str]
    evicted: Evicted
    recovery: Recovery
    causes: Causes
    #: Who set spec.unschedulable of each node (uid) last; absent = it is not set.
    cordoned_by: dict[str, str] = field(default_factory=dict)
    #: How many nodes there were, when that changed.
    sizes: list[tuple[float, int]] = field(default_factory=list)
    paused_since: float | None = None
    #: Pods that the remediator had deleted, by node and owner (uid), since its cordon.
    evictions: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: When the last requests were sent, by process.
    requests: dict[str, deque[float]] = field(default_factory=dict)
    #: When it cordoned a node.
    cordons: list[float] = field(default_factory=list)
    #: The largest number of nodes that each zone ever had.
    zones: Counter[str] = field(default_factory=Counter)
    last_write: float = 0.0
    #: When the Lease was written last.
    renewed: float = 0.0
    #: Until when the Lease may name a former leader, as etcd went back in time.
    doubtful_until: float = 0.0
    #: The first thing that does not hold.
    broken: Broken | None = None

    @classmethod
    def of(cls, world: World) -> Watcher:
        """It watches from now on."""
        names = frozenset(replica.name for replica in world.replicas)
        parts = Evicted(world, _unheard), Recovery(world, _unheard), Causes(world, _unheard)
        made = cls(world, names, *parts)
        made.evicted.fail = made.recovery.fail = made.causes.fail = made.fail
        made.count_zones()
        made.sizes.append((world.simulation.now, len(world.cluster.store.all("nodes"))))
        world.cluster.store.subscribe(made.changed)
        world.cluster.store.on_restore(made.restored)
        world.cluster.api.on_request.append(made.answered)
        return made

    @property
    def _now(self) -> float:
        return self.world.simulation.now

    def fail(self, invariant: str, what: str) -> None:
        """End the run, from the scheduler: this may be called in a thread of the product, which
        would handle an exception as one of its own."""
        broken = Broken(invariant, f"at {self._now:.3f} s: {what}")
        if self.broken is None:
            self.broken = broken
            self.world.simulation.after(0.0, self._end)

    def _end(self) -> None:
        if self.broken is not None:
            raise self.broken

    def count_zones(self) -> None:
        """Take in the zones of the nodes that are there."""
        nodes = self.world.cluster.store.all("nodes")
        self.zones |= Counter(_zone(node) for node in nodes if not control_plane(node))

    def restored(self) -> None:
        """etcd has gone back in time: who cordoned what is only in the annotations."""
        self.doubtful_until = self._now + 20.0
        self.paused_since = None
        self.cordons.clear()
        self.causes.resumed()
        self.evicted.went_back()
        self.evicted.doubtful_until = self.doubtful_until
        self.cordoned_by = {
            node["metadata"]["uid"]: next(iter(sorted(self.replicas)))
            if cordoned_by_us(node)
            else PERSON
            for node in self.world.cluster.store.all("nodes")
            if cordoned(node)
        }

    # -- each write ---------------------------------------------------------------------------

    def changed(self, change: Change) -> None:
        """The store has changed."""
        if change.key[0] == "nodes":
            self._node_changed(change)
        elif change.key[0] == "pods":
            self._pod_changed(change)
        elif change.key == ("leases", NAMESPACE, self.world.config.lease.name):
            self._lease_changed(change)

    def _node_changed(self, change: Change) -> None:
        ours = change.by in self.replicas
        self.recovery.node(change.old, change.new)
        self.causes.node(change.old, change.new, change.by, ours=ours)
        if ours:
            self._our_write(change)
        if change.old is None or change.new is None:
            self.count_zones()
            self.sizes.append((self._now, len(self.world.cluster.store.all("nodes"))))
        before, after = cordoned(change.old), cordoned(change.new)
        uid = change.last["metadata"]["uid"]
        if ours and before and not after and self.cordoned_by.get(uid) not in self.replicas:
            # docs/traps.md: "Nodes that somebody else cordoned are left alone."
            self.fail(
                "foreign_cordons_stay",
                f"{change.by} uncordons {change.key[2]}, which it had not cordoned",
            )
        if after and not before:
            self.cordoned_by[uid] = change.by
            self.evicted.cordoned(change.key[2])
        elif not after:
            self.evicted.uncordoned(change.key[2])
            self.cordoned_by.pop(uid, None)
            for key in [key for key in self.evictions if key[0] == change.key[2]]:
                del self.evictions[key]
        if ours and after and not before:
            self._check_cordon(change)
        if ours and _drains(change.new) and not _drains(change.old):
            self.evicted.began(change.last, change.by)
        if ours and before and not after and change.old is not None and change.new is not None:
            states = state_of(change.old), state_of(change.new)
            self.recovery.uncordoned(change.new, *states, change.by)

    def _pod_changed(self, change: Change) -> None:
        """docs/traps.md: "An owner whose pods keep returning is reported and its pods stay."""
        old, owner = change.old, controller_of(change.last)
        if change.by not in self.replicas or old is None:
            return
        gone = change.new is None or change.new["metadata"].get("deletionTimestamp")
        if not gone or old["metadata"].get("deletionTimestamp"):
            return
        self.evicted.pod(old, change.by)
        if owner is None:
            return
        node = str(old["spec"].get("nodeName") or "")
        self.evicted.returned(old, owner, node, change.by)
        self.evictions[node, owner["uid"]] += 1
        if self.evictions[node, owner["uid"]] > MOST_EVICTIONS:
            self.fail(
                "no_eviction_loop",
                f"{change.by} evicts the pods of {owner['name']} from {node} in a loop",
            )

    def _our_write(self, change: Change) -> None:
        if not _takes_long(change):
            self.last_write = self._now
        self._check_annotation(change)
        self._check_left_alone(change)

    def _check_annotation(self, change: Change) -> None:
        """ARCHITECTURE: the annotation "contains everything about a node that must survive a
        restart", and design: at most 1 KiB."""
        if change.new is None:
            self.fail("nodes_are_not_deleted", f"{change.by} deletes the node {change.key[2]}")
            return
        text = (change.new["metadata"].get("annotations") or {}).get(STATE_KEY, "")
        if len(text.encode()) > MAX_BYTES:
            self.fail(
                "annotation_is_small",
                f"the annotation of {change.key[2]} has {len(text.encode())} bytes",
            )
        try:
            read_state(node_from_json(change.new))
        except Unreadable as error:
            self.fail(
                "annotation_is_readable",
                f"the annotation of {change.key[2]} cannot be read: {error}: {text}",
            )

    def _check_left_alone(self, change: Change) -> None:
        """features: excluded nodes and, by default, the control plane are left as they are."""
        if change.old is None or change.new is None:
            return
        annotations = change.old["metadata"].get("annotations") or {}
        cordons = cordoned(change.new) and not cordoned(change.old)
        if cordons and EXCLUDE_KEY in annotations:
            self.fail(
                "excluded_nodes_stay", f"{change.by} cordons {change.key[2]}, which is excluded"
            )
        if control_plane(change.old):
            self.fail(
                "control_plane_stays", f"{change.by} changes {change.key[2]} of the control plane"
            )

    def _check_cordon(self, change: Change) -> None:
        """README, limits: never more nodes out of service because of us than allowed."""
        nodes = self.world.cluster.store.all("nodes")
        scope = [node for node in nodes if not control_plane(node)]
        ours = [node for node in scope if cordoned_by_us(node)]
        allowed = budget(self.world.config, self._peak(len(scope)))
        if len(ours) > allowed:
            names = [node["metadata"]["name"] for node in ours]
            self.fail(
                "max_unavailable",
                f"{change.by} cordons {change.key[2]}: {names} are cordoned, {allowed} may",
            )
        left = [node for node in scope if in_service(node)]
        keep = kept(self.world.config)
        if len(left) < keep and change.old is not None and in_service(change.old):
            self.fail(
                "min_schedulable",
                f"{change.by} cordons {change.key[2]}: {len(left)} of {keep} nodes are left",
            )
        self._check_pause(change.by, f"cordons {change.key[2]}")
        self._check_zone(change, scope)
        self._check_pace(change)

    def _check_zone(self, change: Change, scope: Sequence[Json]) -> None:
        """README, limits: maxUnavailablePerZone."""
        limit = self.world.config.limits.max_unavailable_per_zone
        if limit is None:
            return
        zone = _zone(change.last)
        ours = [node for node in scope if _zone(node) == zone and cordoned_by_us(node)]
        allowed = max(limit.of(self.zones[zone]), 1)
        if len(ours) > allowed:
            self.fail(
                "max_unavailable_per_zone",
                f"{change.by} cordons {change.key[2]}: {len(ours)} of {allowed} in {zone}",
            )

    def _check_pace(self, change: Change) -> None:
        """README, limits: minInterval and rate. Cordons are written down in whole seconds."""
        limits, now = self.world.config.limits, self._now
        if self.cordons and now - self.cordons[-1] < limits.min_interval - 2.0:
            since = now - self.cordons[-1]
            self.fail(
                "min_interval",
                f"{change.by} cordons {change.key[2]} {since:.1f} s after another node",
            )
        self.cordons.append(now)
        if limits.rate is not None:
            recent = [when for when in self.cordons if when > now - limits.rate.window + 2.0]
            if len(recent) > limits.rate.count:
                self.fail(
                    "rate", f"{change.by} cordons {change.key[2]}: {len(recent)} cordons at a time"
                )

    def _peak(self, now: int) -> int:
        recent = [size for when, size in self.sizes if when > self._now - PEAK_WINDOW]
        older = [size for when, size in self.sizes if when <= self._now - PEAK_WINDOW][-1:]
        return max([now, *recent, *older])

    def _check_pause(self, who: str, what: str) -> None:
        """README: `pause` stops everything but uncordoning."""
        if self.paused_since is not None and self._now - self.paused_since > PAUSE_HEARD:
            self.fail(
                "paused", f"{who} {what} though paused for {self._now - self.paused_since:.0f} s"
            )

    def _lease_changed(self, change: Change) -> None:
        old, new = change.old, change.new
        if new is not None and (
            old is None or old["spec"].get("renewTime") != new["spec"].get("renewTime")
        ):
            self.renewed = self._now
        annotations = change.new["metadata"].get("annotations") or {} if change.new else {}
        if not annotations.get(PAUSE_KEY):
            if self.paused_since is not None:
                self.evicted.resumed = self._now
            self.paused_since = None
            self.causes.resumed()
        elif self.paused_since is None:
            self.paused_since = self._now

    # -- each request ---------------------------------------------------------------------------

    def sent(self, request: Request) -> None:
        """A process sends a request."""
        if request.process not in self.replicas:
            return
        self._check_rate(request)
        self.causes.sent(request)
        if request.method == "GET":
            return
        if not _acts(request):
            return
        self._check_dry_run(request)
        if self._now < self.doubtful_until:
            return
        # ARCHITECTURE: "Only the leader changes anything."
        holder = holder_of(self.world)
        if holder.rpartition("_")[0] != request.process:
            what = f"{request.method} {request.path}"
            self.fail(
                "only_the_leader_writes",
                f"{request.process} sends {what} while {holder or 'nobody'} leads",
            )

    def _check_dry_run(self, request: Request) -> None:
        """README: in the mode dryRun, and until observeFirst is over, nothing is changed."""
        config = self.world.config
        observes = self._now < config.observe_first - self.world.skew - 1.0
        if config.dry_run or (observes and not self.evicted.restored):
            self.fail("dry_run", f"{request.process} sends {request.method} {request.path}")

    def _check_rate(self, request: Request) -> None:
        """design: "idle <=0.3 requests/s", and docs/traps.md: nothing is tried again in a loop."""
        sent = self.requests.setdefault(request.process, deque(maxlen=MOST_REQUESTS))
        if len(sent) == MOST_REQUESTS and self._now - sent[0] < 10.0:
            what = f"{request.method} {request.path}"
            self.fail(
                "few_requests",
                f"{request.process} sends {MOST_REQUESTS} requests in 10 s, now {what}",
            )
        sent.append(self._now)

    def answered(self, request: Request, answer: Answer) -> None:
        """The API server has answered."""
        if request.process not in self.replicas:
            return
        self.causes.answered(request, answer)
        if request.path.endswith("/eviction") and request.method == "POST":
            self._evicted(request, answer)
        elif request.method == "DELETE" and "/pods/" in request.path:
            self._deleted(request)

    def _evicted(self, request: Request, answer: Answer) -> None:
        body = json.loads(request.body or b"{}")
        options = body.get("deleteOptions") or {}
        if not (options.get("preconditions") or {}).get("uid"):
            self.fail(
                "evictions_name_the_uid", f"{request.process} evicts {request.path} without a uid"
            )
        # SECURITY, README: never grace 0.
        if options.get("gracePeriodSeconds") == 0:
            self.fail(
                "grace_period", f"{request.process} evicts {request.path} with grace period 0"
            )
        if "All" in (options.get("dryRun") or ()) or request.query.get("dryRun"):
            return
        if 200 <= answer.status < 300:
            self.last_write = self._now
            self._check_pause(request.process, f"evicts {request.path}")

    def _deleted(self, request: Request) -> None:
        """README: "evicts pods through the Eviction API and never force-deletes them. With
        drain.onDeadline: delete it deletes the remaining pods after the deadline"."""
        if self.world.config.drain.on_deadline != "delete":
            self.fail(
                "no_deletion", f"{request.process} deletes {request.path} past the Eviction API"
            )
        body = json.loads(request.body or b"{}")
        if body.get("gracePeriodSeconds") == 0:
            self.fail("grace_period", f"{request.process} deletes {request.path} by force")
        self.last_write = self._now
        _, _, place = request.path.partition("/namespaces/")
        namespace, _, name = place.partition("/pods/")
        pod = self.world.cluster.store.get("pods", namespace, name)
        if pod is not None:
            node = str(pod["spec"].get("nodeName") or "")
            self.evicted.deleted(node, request.process, name)


def _unheard(_invariant: str, _what: str) -> None:
    """Until the watcher listens."""


def _drains(raw: Json | None) -> bool:
    state = None if raw is None else state_of(raw)
    return state is not None and state.phase is Phase.DRAINING


def _takes_long(change: Change) -> bool:
    """Whether it is about a ladder, or notes how much of its deadline a drain has used: both may
    take longer than all else."""
    states = [state_of(raw) for raw in (change.old, change.new) if raw is not None]
    ladder = any(state is not None and (state.steps or state.step_began) for state in states)
    return ladder or all(state is not None and state.phase is Phase.DRAINING for state in states)


def _acts(request: Request) -> bool:
    """Whether it changes nodes or pods, and not only as a dry run."""
    if request.query.get("dryRun"):
        return False
    return request.path.startswith("/api/v1/nodes/") or "/pods/" in request.path


def _zone(raw: Json) -> str:
    return str((raw["metadata"].get("labels") or {}).get(ZONE, ""))


def kept(config: Config) -> int:
    """README, limits: minSchedulable is 1, unless it is set, and 0 where maxUnavailable is 100%."""
    limits = config.limits
    default = 0 if limits.max_unavailable == Amount(100, percent=True) else 1
    return default if limits.min_schedulable is None else limits.min_schedulable


def budget(config: Config, nodes: int) -> int:
    """How many nodes may be cordoned: the README's sentence on limits, in other words."""
    amount = config.limits.max_unavailable
    share = nodes * amount.number // 100 if amount.percent else amount.number
    share = max(int(share), config.limits.min_allowed)
    return share if config.limits.max_allowed is None else min(share, config.limits.max_allowed)
