"""The pods of all policies: which one to restart now, and what to say of the others. Pure.

The caller feeds in policies, pods, what their owners want and how their work goes, and carries
out what `look` returns. A restart that was handed out is counted at once, in what the status
must remember too: it is written down before the eviction is asked for, so that whoever leads
next finds it, and taken back only when the eviction was surely not made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from remediator.pod_health import (
    Cause,
    Health,
    Reading,
    Sight,
    Stall,
    WatchedPod,
    diagnose,
    see,
    stalled,
)
from remediator.policies import (
    MAX_PODS,
    Condition,
    PodReport,
    Policy,
    Record,
    State,
    Status,
)
from remediator.snapshot import Change

#: Seconds of being well after which earlier restarts of an owner do not count any more.
FORGIVE_AFTER = 600.0
#: Seconds after which a restart counts as over although no well pod came of it.
RESTART_LIMIT = 600.0
#: Seconds past its deletion time before a pod counts as stuck: nobody waits for it any more.
STUCK_AFTER = 60.0
#: Seconds within which an accepted eviction must have shown on the watch.
UNSEEN_FOR = 60.0
#: Seconds for which pods are left to the rules for their node before they are healed one by one.
NODE_PATIENCE = 600.0
#: How long (seconds) a node's trouble is remembered after its end; longer than any symptom lasts.
TROUBLE_KEPT = 86400.0
#: Answers about progress count for so many looks.
ANSWER_LOOKS = 3.0
#: Seconds by which the API server's clock may be behind ours.
CLOCK_TOLERANCE = 5.0
#: Between two looks at a policy whose pods change all the time.
SOONEST = 1.0


@dataclass(frozen=True, slots=True)
class Owner:
    """What stands behind a pod: the topmost controller known (Deployment, StatefulSet, …).

    desired: pods that it wants, None = it has no such number. rolling: why its pods are in the
    middle of a change, empty = they are not. template: names its present pod template.
    """

    uid: str
    kind: str
    name: str
    api: str
    desired: int | None
    rolling: str = ""
    template: str = ""


@dataclass(frozen=True, slots=True)
class Around:
    """What a look needs beside the pods.

    node_trouble: why pods of a node are left alone, empty = they are not. node_path: whether a
    finding on the node would be acted upon by the rules for nodes. stopped: why nothing may be
    restarted at all (paused, API server ill), empty = it may.
    """

    node_trouble: Callable[[str], str]
    node_path: Callable[[str], bool]
    stopped: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """Why an ill pod is not restarted now. `cause` is a bounded label; `until`: when time alone
    lifts it."""

    cause: str
    text: str
    until: float | None = None


#: Every cause of a Block that the engine itself gives (refusals of the server add theirs).
BLOCKS = (
    *(
        "stale",
        "paused",
        "stopped",
        "other-policy",
        "unmanaged",
        "kept",
        "node",
        "siblings",
        "node-finding",
    ),
    *("under-way", "leaving", "owner-unknown", "rollout", "scale-in", "gave-up", "backoff"),
)


@dataclass(frozen=True, slots=True)
class Order:
    """One pod to restart. `status` is written down first; grace in seconds, None = its own."""

    policy: str
    pod: WatchedPod
    owner: Owner
    cause: Cause
    why: str
    grace: int | None
    at: float
    status: Status


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to say as an Event, on the policy and on the owner (None = the policy only)."""

    policy: str
    owner: Owner | None
    reason: str
    message: str
    warning: bool


@dataclass(frozen=True, slots=True)
class Ask:
    """A pod to be asked how its work goes."""

    policy: str
    uid: str
    address: str
    port: int
    path: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Pods of several owners are ill on one node and well elsewhere."""

    node: str
    since: float
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now. lookups: a pod each of controllers of which nothing is known."""

    orders: tuple[Order, ...] = ()
    notices: tuple[Notice, ...] = ()
    asks: tuple[Ask, ...] = ()
    lookups: tuple[WatchedPod, ...] = ()
    wake: float | None = None


@dataclass(slots=True)
class Group:
    """The pods of one owner under one policy, as of one look."""

    key: str
    owner: Owner | None
    pods: list[WatchedPod] = field(default_factory=list)
    alive: list[WatchedPod] = field(default_factory=list)
    ill: list[WatchedPod] = field(default_factory=list)
    under_way: bool = False
    everywhere: bool = False
    block: Block | None = None

    @property
    def desired(self) -> int:
        """Pods wanted; of an owner that has no number, those that are there."""
        if self.owner is not None and self.owner.desired is not None:
            return self.owner.desired
        return len(self.alive)

    def name(self) -> str:
        """For people."""
        return f"{self.owner.kind} {self.owner.name}" if self.owner else self.pods[0].name


@dataclass(slots=True)
class Refusal:
    """An owner's last restart was refused."""

    block: Block
    count: int = 1


@dataclass(slots=True)
class Ward:
    """One policy and its pods."""

    policy: Policy
    next_look: float
    restarts: int
    last_heal: float | None
    records: dict[str, Record]
    conditions: dict[str, tuple[str, float]]
    pods: dict[str, WatchedPod] = field(default_factory=dict)
    sights: dict[str, Sight] = field(default_factory=dict)
    stalls: dict[str, Stall] = field(default_factory=dict)
    answers: dict[str, tuple[float, float]] = field(default_factory=dict)
    ask_at: dict[str, float] = field(default_factory=dict)
    asking: set[str] = field(default_factory=set)
    next_ask: float = 0.0
    known: bool = False
    dirty: bool = True
    looked_at: float = 0.0
    groups: dict[str, Group] = field(default_factory=dict)
    owners: dict[str, Owner] = field(default_factory=dict)
    pending: dict[str, Order] = field(default_factory=dict)
    refusals: dict[str, Refusal] = field(default_factory=dict)
    well_since: dict[str, float] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    stuck_said: set[str] = field(default_factory=set)
    desired: int = 0
    healthy: int = 0
    status: Status | None = None
    problem: str = ""


class Healing:
    """See the module. Not thread-safe: one thread owns it."""

    def __init__(self, interval: float, *, once: bool = False) -> None:
        """`once`: there will be a single look, which stands for those that were missed."""
        self.interval, self.once = interval, once
        self.wards: dict[str, Ward] = {}
        #: uid of a pod's controller -> what stands behind it.
        self.owners: dict[str, Owner] = {}
        self.findings: dict[str, Finding] = {}
        #: When each node was last seen in trouble: what its pods show is old news for a while.
        self._troubled: dict[str, float] = {}
        self._notices: list[Notice] = []

    # -- what is known ------------------------------------------------------------------

    def adopt(self, policy: Policy, now: float) -> None:
        """A policy is new or changed."""
        ward = self.wards.get(policy.key)
        if ward is None or ward.policy.uid != policy.uid:
            saved = policy.saved
            ward = self.wards[policy.key] = Ward(
                policy,
                now,
                saved.restarts,
                saved.last_heal,
                {record.uid: record for record in saved.records},
                dict(saved.conditions),
            )
            if saved.observed and saved.observed != policy.generation:
                _forgive_all(ward)
            return
        before, ward.policy = ward.policy, policy
        if before.generation != policy.generation:
            _forgive_all(ward)
            ward.refusals.clear()
        if before.symptoms != policy.symptoms:
            ward.sights.clear()
            ward.stalls.clear()
        ward.dirty = ward.dirty or before.generation != policy.generation

    def drop(self, key: str) -> None:
        """The policy is gone: so is all that was known for it."""
        self.wards.pop(key, None)

    def pod_changed(self, key: str, change: Change[WatchedPod]) -> None:
        """The watch of the policy's pods saw something."""
        ward = self.wards.get(key)
        if ward is None:
            return
        if change.new is None:
            assert change.old is not None
            uid = change.old.uid
            for known in (ward.pods, ward.sights, ward.stalls, ward.answers, ward.ask_at):
                known.pop(uid, None)
            ward.asking.discard(uid)
            ward.stuck_said.discard(uid)
            for group in ward.groups.values():
                for pods in (group.pods, group.alive, group.ill):
                    pods[:] = [pod for pod in pods if pod.uid != uid]
        else:
            ward.pods[change.new.uid] = change.new
        ward.dirty = True

    def pods_known(self, key: str) -> None:
        """The policy's pods were listed completely."""
        ward = self.wards.get(key)
        if ward is not None:
            ward.known = ward.dirty = True
            ward.problem = ""

    def pods_unknown(self, key: str, problem: str, now: float) -> None:
        """The policy's pods cannot be listed, or nothing was heard of them; empty = they can."""
        ward = self.wards.get(key)
        if ward is None or ward.problem == problem:
            return
        ward.problem, ward.dirty = problem, True
        if not ward.known:
            ward.status = self._status(ward, now)

    def owner_known(self, controller: str, owner: Owner | None) -> None:
        """What the API says of a pod's controller; None = it is gone."""
        if owner is None:
            gone = self.owners.pop(controller, None)
            if gone is not None and gone not in self.owners.values():
                for ward in self.wards.values():
                    ward.owners.pop(gone.uid, None)
                    ward.dirty = True
            return
        before = self.owners.get(controller)
        for known, other in self.owners.items():
            if other.uid == owner.uid:
                self.owners[known] = owner
        self.owners[controller] = owner
        if before != owner:
            for ward in self.wards.values():
                ward.dirty = True

    def retire(self, controller: str) -> bool:
        """Forget a controller that nobody needs; whether it was.

        An old ReplicaSet has no pods, and its Deployment is known by another; but the last one
        known of an owner that a policy looks after stays, to tell how many pods it wants.
        """
        owner = self.owners.get(controller)
        wards = [ward for ward in self.wards.values() if owner and owner.uid in ward.owners]
        if owner is None or any(
            pod.owner_uid == controller for ward in wards for pod in ward.pods.values()
        ):
            return False
        others = (known for known, one in self.owners.items() if one.uid == owner.uid)
        if wards and all(known == controller for known in others):
            return False
        del self.owners[controller]
        return True

    def answered(self, key: str, uid: str, reading: Reading | None, asked: float) -> None:
        """How the work of a pod goes; None = it did not say."""
        ward = self.wards.get(key)
        if ward is None or uid not in ward.pods:
            return
        ward.asking.discard(uid)
        if reading is None:
            return
        _, mark = ward.answers.get(uid, (0.0, -1.0))
        found = stalled(ward.stalls.get(uid), mark, reading, asked)
        ward.answers[uid] = (asked, reading.mark)
        limit = ward.policy.symptoms.no_progress_for
        if found is None or limit is None:
            ward.stalls.pop(uid, None)
            sight = ward.sights.get(uid)
            ward.dirty = ward.dirty or sight is None or sight.diagnosis.health is Health.ILL
            return
        ward.stalls[uid] = found
        due = found.since + limit
        if due <= asked:
            ward.dirty = True
            return
        # Asked again when it may just be hung, not only in its turn.
        ward.ask_at[uid] = min(ward.ask_at.get(uid, due), max(due + 0.05, asked + SOONEST))
        ward.next_ask = min(ward.next_ask, ward.ask_at[uid])

    # -- outcomes -----------------------------------------------------------------------

    def accepted(self, order: Order, now: float) -> None:
        """The eviction was made, or may have been."""
        ward = self.wards.get(order.policy)
        if ward is None:
            return
        ward.pending.pop(order.owner.uid, None)
        ward.refusals.pop(order.owner.uid, None)
        ward.last_heal = now
        ward.dirty = True
        text = f"restarted {order.pod.name}: {order.why}"
        self._notices.append(Notice(order.policy, order.owner, "HealingTriggered", text, True))

    def refused(self, order: Order, block: Block, now: float) -> None:
        """The eviction was surely not made: nothing was spent."""
        ward = self.wards.get(order.policy)
        if ward is None or ward.pending.pop(order.owner.uid, None) is None:
            return
        record = ward.records[order.owner.uid]
        ward.records[order.owner.uid] = replace(
            record,
            restarts=tuple(moment for moment in record.restarts if moment != order.at),
            failures=max(0, record.failures - 1),
            pod="",
        )
        ward.restarts -= 1
        before = ward.refusals.get(order.owner.uid)
        count = before.count + 1 if before is not None else 1
        until = block.until
        if until is None:
            until = now + min(60.0, self.interval * 2.0 ** min(count - 1, 6))
        ward.refusals[order.owner.uid] = Refusal(replace(block, until=until), count)
        ward.dirty = True

    # -- the look -----------------------------------------------------------------------

    def look(self, now: float, around: Around) -> Plan:
        """Look at what is due or has changed; say what to do."""
        asks: list[Ask] = []
        orders: list[Order] = []
        looked = [ward for ward in self.wards.values() if self._wants_look(ward, now)]
        for ward in looked:
            self._examine(ward, now)
        for ward in self.wards.values():
            if ward.known and now >= ward.next_ask:
                asks += self._asks(ward, now)
        lookups = {
            pod.owner_uid: pod
            for ward in looked
            for pod in ward.pods.values()
            if pod.owner_uid and pod.owner_uid not in self.owners and not pod.finished
        }
        if looked:
            self._note_trouble(looked, around, now)
            self._correlate(now)
        claims = self._claims() if any(_ill(ward) for ward in looked) else {}
        for ward in looked:
            orders += self._treat(ward, around, claims, now)
        notices, self._notices = tuple(self._notices), []
        return Plan(
            tuple(orders), notices, tuple(asks), tuple(lookups.values()), wake=self._wake(now)
        )

    def _note_trouble(self, looked: Iterable[Ward], around: Around, now: float) -> None:
        for node in {pod.node for ward in looked for pod in ward.pods.values()}:
            if around.node_trouble(node):
                self._troubled[node] = now
        for node, when in list(self._troubled.items()):
            if now - when > TROUBLE_KEPT:
                del self._troubled[node]

    def _settles(self, ward: Ward, pod: WatchedPod, now: float) -> bool:
        """Whether the pod's node was in trouble so lately that the pod must be looked at anew.

        When a lost node is back its pods still count as unready, for as long as it was away.
        """
        until = self._troubled.get(pod.node)
        if until is None:
            return False
        lasting = ward.sights[pod.uid].diagnosis.lasting
        return now < until + lasting + ward.policy.failure_threshold * self.interval

    def _wants_look(self, ward: Ward, now: float) -> bool:
        if not ward.known:
            return False
        return now >= ward.next_look or (ward.dirty and now >= ward.looked_at + SOONEST)

    def _wake(self, now: float) -> float | None:
        moments = []
        for ward in self.wards.values():
            if not ward.known:
                continue
            moments += [ward.next_look, ward.next_ask]
            if ward.dirty:
                moments.append(ward.looked_at + SOONEST)
        return max(now, min(moments)) if moments else None

    def _asks(self, ward: Ward, now: float) -> Iterable[Ask]:
        """Whom to ask now: each pod once in an interval, sooner when it may just be hung."""
        progress = ward.policy.progress
        found: list[Ask] = []
        ward.next_ask = now + self.interval
        if progress is None:
            return found
        for pod in ward.pods.values():
            sight = ward.sights.get(pod.uid)
            if pod.uid in ward.asking or not pod.address or sight is None:
                continue
            if sight.diagnosis.health in (Health.OVER, Health.LEAVING, Health.BEGINNING):
                ward.ask_at.pop(pod.uid, None)
                continue
            # Spread over the interval by the pod's uid, so that they are not asked all at once.
            first = now + (hash(pod.uid) % 1000) / 1000 * self.interval
            port = progress.port if isinstance(progress.port, int) else pod.ports.get(progress.port)
            if now >= ward.ask_at.setdefault(pod.uid, first):
                ward.ask_at[pod.uid] = now + self.interval
                if port is not None:
                    ward.asking.add(pod.uid)
                    found.append(Ask(ward.policy.key, pod.uid, pod.address, port, progress.path))
            ward.next_ask = min(ward.next_ask, ward.ask_at[pod.uid])
        return found

    def _examine(self, ward: Ward, now: float) -> None:
        """See every pod again, and put them together by owner."""
        counts = now >= ward.next_look
        while ward.next_look <= now:
            ward.next_look = max(ward.next_look, now - self.interval) + self.interval
        ward.dirty, ward.looked_at = False, now
        ward.next_ask = min(ward.next_ask, now)  # pods may have come that are to be asked
        symptoms, noted = ward.policy.symptoms, ward.policy.saved.since
        ward.groups = {
            uid: Group(uid, owner) for uid, owner in ward.owners.items() if owner.desired
        }
        for pod in ward.pods.values():
            stall = ward.stalls.get(pod.uid)
            if stall is not None and now - stall.asked > ANSWER_LOOKS * self.interval:
                del ward.stalls[pod.uid]  # it does not answer: nothing is known
                stall = None
            found = diagnose(pod, symptoms, stall, now)
            sight = ward.sights[pod.uid] = see(
                ward.sights.get(pod.uid),
                found,
                now,
                counts=counts,
                noted=noted.get((pod.name, found.name)),
            )
            if self.once and sight.failed:
                missed = int((now - sight.since) / self.interval)
                ward.sights[pod.uid] = sight = replace(sight, failed=1 + missed)
            owner = self.owners.get(pod.owner_uid)
            if owner is not None:
                ward.owners[owner.uid] = owner
            key = owner.uid if owner is not None else pod.owner_uid or pod.uid
            group = ward.groups.setdefault(key, Group(key, owner))
            group.pods.append(pod)
            if sight.diagnosis.health not in (Health.OVER, Health.LEAVING):
                group.alive.append(pod)
        ward.desired = sum(group.desired for group in ward.groups.values())
        ward.healthy = sum(sight.diagnosis.health is Health.WELL for sight in ward.sights.values())
        looks = 1 if ward.healthy < self.limit(ward) else ward.policy.failure_threshold
        for group in ward.groups.values():
            self._judge(ward, group, looks, now)

    def limit(self, ward: Ward) -> int:
        """Pods that must be healthy: the threshold, at most the desired number."""
        return min(ward.desired, ward.policy.threshold.of(ward.desired))

    def _judge(self, ward: Ward, group: Group, looks: int, now: float) -> None:
        group.ill = [pod for pod in group.alive if ward.sights[pod.uid].certain(looks, now)]
        group.ill.sort(key=lambda pod: _urgency(ward.sights[pod.uid], pod))
        nodes = {pod.node for pod in group.alive}
        group.everywhere = (
            len(group.alive) >= 2 and len(nodes) >= 2 and len(group.ill) == len(group.alive)
        )
        record = ward.records.get(group.key)
        owner = group.owner
        if record is not None and owner is not None and record.template != owner.template:
            # Another template: a new chance, within the same hour's budget.
            changed = bool(record.template)
            record = replace(record, template=owner.template)
            if changed:
                record = replace(record, failures=0, gave_up=None)
            ward.records[group.key] = record
        group.under_way = record is not None and self._under_way(ward, group, record, now)
        if record is not None and record.pod and not group.under_way:
            self._restart_over(ward, group, record, now)
        self._forgive(ward, group, now)

    def _under_way(self, ward: Ward, group: Group, record: Record, now: float) -> bool:
        """Whether the owner's last restart is not over: the old pod goes, or the new one comes."""
        if group.key in ward.pending:
            return True
        if not record.pod:
            return False
        begun = max(record.restarts, default=now - RESTART_LIMIT)
        old = ward.pods.get(record.pod)
        if old is not None and not old.finished:
            if old.deletion is None:
                return now - begun < UNSEEN_FOR
            if now <= max(old.deletion, begun) + STUCK_AFTER:
                return True
        comes = len(group.alive) < group.desired or any(
            _unsettled(ward, group, pod, begun) for pod in group.alive
        )
        return comes and now - begun <= RESTART_LIMIT

    def _restart_over(self, ward: Ward, group: Group, record: Record, now: float) -> None:
        ward.records[group.key] = replace(record, pod="")
        begun = max(record.restarts, default=now)
        if group.alive and all(_well(ward, pod) for pod in group.alive):
            text = f"{group.name()} is well again {now - begun:.0f}s after the restart"
            notice = Notice(ward.policy.key, group.owner, "HealingSucceeded", text, False)
            self._notices.append(notice)

    def _forgive(self, ward: Ward, group: Group, now: float) -> None:
        well = (
            bool(group.alive)
            and len(group.alive) >= group.desired
            and not group.under_way
            and all(_well(ward, pod) for pod in group.alive)
        )
        if not well:
            ward.well_since.pop(group.key, None)
            return
        since = ward.well_since.setdefault(group.key, now)
        record = ward.records.get(group.key)
        if record is not None and now - since >= FORGIVE_AFTER:
            ward.records[group.key] = replace(record, failures=0, gave_up=None)

    # -- several policies, several owners -------------------------------------------------

    def _claims(self) -> dict[str, str]:
        """Owner -> the policy that looks after it: of several, the oldest."""
        claims: dict[str, str] = {}
        for ward in sorted(self.wards.values(), key=lambda w: (w.policy.created, w.policy.key)):
            for key in ward.groups:
                claims.setdefault(key, ward.policy.key)
        return claims

    def _correlate(self, now: float) -> None:
        """Nodes on which pods of two owners are ill whose siblings elsewhere are well."""
        found: dict[str, dict[str, str]] = {}
        for ward in self.wards.values():
            if ward.policy.paused or ward.problem:
                continue
            for group in ward.groups.values():
                for pod in group.ill:
                    if pod.node not in self.findings and self._settles(ward, pod, now):
                        continue
                    if group.owner is not None and _only_here(ward, group, pod.node):
                        name = ward.sights[pod.uid].diagnosis.name
                        found.setdefault(pod.node, {})[group.key] = f"{pod.name} ({name})"
        findings = {}
        for node, owners in found.items():
            if len(owners) < 2:
                continue
            before = self.findings.get(node)
            text = (
                f"pods of {len(owners)} owners are ill here and well elsewhere: "
                f"{', '.join(sorted(owners.values())[:5])}"
            )
            findings[node] = Finding(node, before.since if before else now, text)
        self.findings = findings

    def _suspected(self, node: str, owner: str, now: float) -> bool:
        """Whether another owner's pod on the node begins to look ill too, and only there."""
        for ward in self.wards.values():
            for group in ward.groups.values():
                if group.key == owner or group.owner is None:
                    continue
                for pod in group.alive:
                    sight = ward.sights[pod.uid]
                    half = sight.since + sight.diagnosis.lasting / 2
                    if (
                        pod.node == node
                        and sight.diagnosis.cause is not Cause.NONE
                        and now >= half
                        and _only_here(ward, group, node)
                    ):
                        return True
        return False

    # -- treating -----------------------------------------------------------------------

    def _treat(
        self, ward: Ward, around: Around, claims: Mapping[str, str], now: float
    ) -> list[Order]:
        orders = []
        for group in ward.groups.values():
            group.block = None
            if not group.ill:
                ward.said.pop(group.key, None)
                ward.refusals.pop(group.key, None)
                continue
            pod, block = self._choose(ward, group, around, claims, now)
            group.block = block
            if block is None and pod is not None and group.owner is not None:
                orders.append(self._order(ward, group.owner, pod, now))
                group.under_way = True
                ward.said.pop(group.key, None)
            elif block is not None:
                self._say_block(ward, group, block)
        self._say_stuck(ward, around, now)
        ward.status = self._status(ward, now)
        return [replace(order, status=ward.status) for order in orders]

    def _choose(
        self, ward: Ward, group: Group, around: Around, claims: Mapping[str, str], now: float
    ) -> tuple[WatchedPod | None, Block | None]:
        """The pod to restart now, or why none of the group is."""
        block = self._blocked_all(ward, group, around, claims, now)
        if block is not None:
            return None, block
        first: Block | None = None
        for pod in group.ill:
            block = self._blocked_one(ward, group, pod, around, now)
            if block is None:
                return self._within_budget(ward, group, pod, now)
            first = first or block
        return None, first

    def _blocked_all(
        self, ward: Ward, group: Group, around: Around, claims: Mapping[str, str], now: float
    ) -> Block | None:
        policy, owner = ward.policy, group.owner
        claimed = claims.get(group.key, policy.key)
        refusal = ward.refusals.get(group.key)
        record = ward.records.get(group.key)
        leaving = [
            pod
            for pod in group.pods
            if pod.deletion is not None and not pod.finished and now <= pod.deletion + STUCK_AFTER
        ]
        checks: tuple[tuple[object, str, str], ...] = (
            (ward.problem, "stale", ward.problem),
            (policy.paused, "paused", "the policy is paused"),
            (around.stopped, "stopped", around.stopped),
            (claimed != policy.key, "other-policy", f"policy {claimed} looks after it"),
            (
                not group.ill[0].owner_uid,
                "unmanaged",
                "no controller would replace it",
            ),
            (owner is None, "owner-unknown", "its owner is not known yet"),
            (group.under_way, "under-way", "a restart is under way"),
            (
                record is not None and record.gave_up,
                "gave-up",
                f"{policy.restart.max_per_hour} restarts within an hour did not help",
            ),
            (
                group.everywhere,
                "siblings",
                f"all {len(group.alive)} pods are ill, on every node: the image, or something "
                "that they need, is at fault; none is restarted",
            ),
            (leaving, "leaving", f"{leaving[0].name if leaving else ''} is still terminating"),
            (owner is not None and owner.rolling, "rollout", owner.rolling if owner else ""),
            (
                len(group.alive) > group.desired,
                "scale-in",
                f"{len(group.alive)} pods, {group.desired} wanted: it is being scaled in",
            ),
        )
        for holds, cause, text in checks:
            if holds:
                return Block(cause, text)
        if refusal is not None and (refusal.block.until or 0.0) > now:
            return refusal.block
        return None

    def _blocked_one(
        self, ward: Ward, group: Group, pod: WatchedPod, around: Around, now: float
    ) -> Block | None:
        if pod.kept or pod.mirror:
            why = "annotation selfheal.dev/evict=false" if pod.kept else "it belongs to its node"
            return Block("kept", f"{pod.name}: {why}")
        trouble = around.node_trouble(pod.node)
        if not trouble and self._settles(ward, pod, now):
            trouble = "it was in trouble until a moment ago"
        if trouble:
            return Block("node", f"node {pod.node}: {trouble}")
        if not around.node_path(pod.node):
            return None
        finding = self.findings.get(pod.node)
        if finding is not None and now < finding.since + NODE_PATIENCE:
            return Block("node-finding", f"node {pod.node}: {finding.text}")
        sight = ward.sights[pod.uid]
        looks = ward.policy.failure_threshold
        certain_at = max(sight.due, sight.since + looks * self.interval)
        young = now < certain_at + 2 * self.interval
        if (
            young
            and _only_here(ward, group, pod.node)
            and self._suspected(pod.node, group.key, now)
        ):
            return Block("node-finding", f"node {pod.node}: another owner's pod looks ill too")
        return None

    def _within_budget(
        self, ward: Ward, group: Group, pod: WatchedPod, now: float
    ) -> tuple[WatchedPod | None, Block | None]:
        record = ward.records.get(group.key)
        if record is None:
            return pod, None
        restart = ward.policy.restart
        recent = record.recent(now)
        if len(recent) >= restart.max_per_hour:
            ward.records[group.key] = replace(record, gave_up=now)
            text = f"{len(recent)} restarts within the hour did not help"
            return None, Block("gave-up", text)
        opens = max(record.restarts, default=0.0) + restart.wait(record.failures)
        if opens > now:
            return None, Block("backoff", f"{record.failures} restarts did not help", opens)
        return pod, None

    def _order(self, ward: Ward, owner: Owner, pod: WatchedPod, now: float) -> Order:
        sight = ward.sights[pod.uid]
        found = sight.diagnosis
        record = ward.records.get(owner.uid) or Record(owner.uid, template=owner.template)
        ward.records[owner.uid] = replace(
            record,
            kind=owner.kind,
            name=owner.name,
            restarts=(*record.recent(now), now),
            failures=record.failures + 1,
            pod=pod.uid,
        )
        ward.restarts += 1
        hung = found.cause is Cause.NO_PROGRESS
        why = f"{found.name} for {now - sight.since:.0f}s"
        if found.detail:
            why += f" ({found.detail})"
        order = Order(
            policy=ward.policy.key,
            pod=pod,
            owner=owner,
            cause=found.cause,
            why=why,
            grace=max(1, round(ward.policy.restart.grace)) if hung else None,
            at=now,
            status=_NOTHING,
        )
        ward.pending[owner.uid] = order
        return order

    # -- saying -------------------------------------------------------------------------

    def _say_block(self, ward: Ward, group: Group, block: Block) -> None:
        if ward.said.get(group.key) == block.cause or block.cause in _UNSAID:
            return
        ward.said[group.key] = block.cause
        reason = "HealingGaveUp" if block.cause in _GIVEN_UP else "HealingThrottled"
        pod = group.ill[0]
        name = ward.sights[pod.uid].diagnosis.name
        text = f"{pod.name} is ill ({name}) and not restarted: {block.text}"
        self._notices.append(Notice(ward.policy.key, group.owner, reason, text, True))

    def _say_stuck(self, ward: Ward, around: Around, now: float) -> None:
        """Pods that should be gone: what holds them. Nothing is forced."""
        for pod, sight in _overdue(ward, now):
            held = ", ".join(pod.finalizers)
            text = f"held by its finalizers {held}" if held else ""
            trouble = around.node_trouble(pod.node)
            if not text and trouble:
                text = f"node {pod.node}: {trouble}"
            elif not text:
                text = f"node {pod.node} is well: a process or volume of the pod does not end there"
            ward.sights[pod.uid] = replace(sight, diagnosis=replace(sight.diagnosis, detail=text))
            if pod.uid not in ward.stuck_said:
                ward.stuck_said.add(pod.uid)
                owner = self.owners.get(pod.owner_uid)
                said = f"{pod.name} should be gone: {text}"
                self._notices.append(Notice(ward.policy.key, owner, "PodStuck", said, True))

    def _status(self, ward: Ward, now: float) -> Status:
        blocks = [group.block for group in ward.groups.values() if group.block is not None]
        given_up = [block for block in blocks if block.cause in _GIVEN_UP]
        waiting = [block for block in blocks if block.cause not in (*_GIVEN_UP, "under-way")]
        under_way = [group for group in ward.groups.values() if group.under_way]
        reports = _reports(ward, now)
        state, message = State.HEALTHY, ""
        if ward.problem or ward.policy.problem:
            state, message = State.DEGRADED, ward.problem or ward.policy.problem
        elif ward.policy.paused:
            state = State.PAUSED
        elif ward.desired == 0 and not any(group.alive for group in ward.groups.values()):
            state = State.IDLE
        elif given_up:
            state, message = State.GAVE_UP, given_up[0].text
        elif under_way:
            state = State.HEALING
            message = ", ".join(f"{group.name()} is being restarted" for group in under_way[:3])
        elif waiting:
            state, message = State.THROTTLED, waiting[0].text
        elif reports or ward.healthy < ward.desired:
            state = State.DEGRADED
        if not message and reports:
            first = reports[0]
            message = f"{first.name}: {first.cause}" + (f", {first.detail}" if first.detail else "")
        healthy = state in (State.HEALTHY, State.IDLE) or (
            state is State.PAUSED and ward.healthy >= ward.desired and not reports
        )
        raw = ward.policy.threshold.of(ward.desired)
        above = 0 < ward.desired < raw
        above_text = f"healthThreshold {raw} counts as {ward.desired}, the desired number"
        facts = (
            ("Healthy", healthy, "AllHealthy" if healthy else "PodsUnhealthy", message),
            ("Healing", bool(under_way), "Restarting" if under_way else "NothingToDo", ""),
            ("Throttled", bool(waiting), _reason(waiting), waiting[0].text if waiting else ""),
            ("GaveUp", bool(given_up), _reason(given_up), given_up[0].text if given_up else ""),
            ("ThresholdAboveDesired", above, "Above" if above else "Within", above_text * above),
        )
        return Status(
            observed=ward.policy.generation,
            replicas=ward.desired,
            healthy=ward.healthy,
            last_heal=ward.last_heal,
            restarts=ward.restarts,
            state=state,
            message=message,
            pods=reports,
            records=_remembered(ward, now),
            conditions=tuple(_condition(ward, *fact, now=now) for fact in facts),
        )


_NOTHING = Status(0, 0, 0, None, 0, State.HEALTHY, "", (), (), ())
_GIVEN_UP = ("gave-up", "siblings")
#: Blocks that are no news: the work goes on.
_UNSAID = ("under-way", "leaving", "owner-unknown", "scale-in", "rollout", "backoff")


def _urgency(sight: Sight, pod: WatchedPod) -> tuple[bool, float, str]:
    """What holds work first, then the oldest."""
    return (sight.diagnosis.cause is not Cause.NO_PROGRESS, sight.since, pod.name)


def _ill(ward: Ward) -> bool:
    return any(group.ill for group in ward.groups.values())


def _well(ward: Ward, pod: WatchedPod) -> bool:
    return ward.sights[pod.uid].diagnosis.health is Health.WELL


def _unsettled(ward: Ward, group: Group, pod: WatchedPod, begun: float) -> bool:
    """Whether a pod that came after a restart has not shown yet what becomes of it."""
    found = ward.sights[pod.uid].diagnosis
    if found.health is Health.BEGINNING:
        return True
    young = pod.created >= begun - CLOCK_TOLERANCE
    return young and found.name == "NotReady" and pod not in group.ill


def _only_here(ward: Ward, group: Group, node: str) -> bool:
    """Whether the owner has pods elsewhere, and all of those are well."""
    elsewhere = [pod for pod in group.alive if pod.node != node]
    return bool(elsewhere) and all(_well(ward, pod) for pod in elsewhere)


def _forgive_all(ward: Ward) -> None:
    """A changed policy is a new chance, within the same hour's budget."""
    for uid, record in ward.records.items():
        ward.records[uid] = replace(record, failures=0, gave_up=None)


def _overdue(ward: Ward, now: float) -> list[tuple[WatchedPod, Sight]]:
    found = []
    for pod in ward.pods.values():
        sight = ward.sights.get(pod.uid)
        if sight is not None and sight.diagnosis.due is not None and sight.diagnosis.due <= now:
            found.append((pod, sight))
    return found


def _reports(ward: Ward, now: float) -> tuple[PodReport, ...]:
    """The worst pods: ill ones first, then those merely not well, the oldest first."""
    overdue = {pod.uid for pod, _ in _overdue(ward, now)}
    found = []
    for pod in ward.pods.values():
        sight = ward.sights.get(pod.uid)
        if sight is None:
            continue
        health = sight.diagnosis.health
        if health not in (Health.ILL, Health.POOR) and pod.uid not in overdue:
            continue
        report = PodReport(pod.name, sight.diagnosis.name, sight.diagnosis.detail, sight.since)
        found.append((health is not Health.ILL, sight.since, pod.name, report))
    return tuple(report for *_, report in sorted(found, key=lambda item: item[:3])[:MAX_PODS])


def _remembered(ward: Ward, now: float) -> tuple[Record, ...]:
    """What is worth writing down; owners that are gone are forgotten with their last hour."""
    kept = []
    for uid, record in list(ward.records.items()):
        trimmed = replace(record, restarts=record.recent(now))
        if uid not in ward.groups and not trimmed.restarts:
            del ward.records[uid]
            continue
        ward.records[uid] = trimmed
        if not trimmed.idle:
            kept.append(trimmed)
    return tuple(sorted(kept, key=lambda record: record.uid))


def _condition(
    ward: Ward, kind: str, holds: bool, reason: str, message: str, *, now: float
) -> Condition:
    status = "True" if holds else "False"
    before = ward.conditions.get(kind)
    if before is None or before[0] != status:
        before = ward.conditions[kind] = (status, now)
    return Condition(kind, holds, reason, message if holds or kind == "Healthy" else "", before[1])


def _reason(blocks: list[Block]) -> str:
    """A block's cause as the API's conditions name reasons."""
    if not blocks:
        return "No"
    return "".join(word.capitalize() for word in blocks[0].cause.split("-"))
