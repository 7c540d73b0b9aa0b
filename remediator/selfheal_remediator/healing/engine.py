"""The pods of all policies: which one to restart now, and what to say of the others. Pure.

The caller feeds in policies, pods, what their owners want and how their work goes, and carries
out what `look` returns. A restart that was handed out is counted at once, in what the status
must remember too: it is written down before the eviction is asked for, so that whoever leads
next finds it, and taken back only when the eviction was surely not made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from selfheal_remediator.healing.canary import Outcome
from selfheal_remediator.healing.canary_trial import (
    canary_of,
    everywhere_unhealthy,
    followed,
    hand_over,
    note_health,
    waiting_pod,
)
from selfheal_remediator.healing.correlation import correlate
from selfheal_remediator.healing.node_evidence import (
    complete,
    observations,
    unasked,
    undecided,
    unlisted,
)
from selfheal_remediator.healing.plan import (
    RECALLED,
    Around,
    Ask,
    Block,
    Finding,
    Notice,
    Order,
    Owner,
    Plan,
)
from selfheal_remediator.healing.pod_health import (
    Cause,
    Health,
    Reading,
    WatchedPod,
    diagnose,
    renewed,
    see,
    stalled,
)
from selfheal_remediator.healing.policy import Policy, Record, State, Status
from selfheal_remediator.healing.policy_state import (
    CLOCK_TOLERANCE,
    UNSEEN_FOR,
    Group,
    Refusal,
    Ward,
    urgency,
)
from selfheal_remediator.healing.restart_check import give_up_waiting
from selfheal_remediator.healing.restart_limits import blocked, spent, stuck
from selfheal_remediator.healing.rollouts import advance
from selfheal_remediator.healing.status import GIVEN_UP, UNSAID, status
from selfheal_remediator.kube.informer import Change

#: Seconds of being well after which earlier restarts of an owner do not count any more.
FORGIVE_AFTER = 600.0
#: Seconds for which pods are left to the rules for their node before they are healed one by one.
NODE_PATIENCE = 600.0
#: How long (seconds) a node's trouble is remembered after its end; longer than any symptom lasts.
TROUBLE_KEPT = 86400.0
#: Answers about progress count for so many looks.
ANSWER_LOOKS = 3.0
#: Between two looks at a policy whose pods change all the time.
SOONEST = 1.0


class Healing:
    """See the module. Not thread-safe: one thread owns it."""

    def __init__(
        self, interval: float, *, rollout_deadline: float = 600.0, once: bool = False
    ) -> None:
        """`once`: there will be a single look, which stands for those that were missed.

        rollout_deadline: seconds after which a roll-out without progress keeps nothing back.
        """
        self.interval, self.once, self.rollout_deadline = interval, once, rollout_deadline
        self.wards: dict[str, Ward] = {}
        #: uid of a pod's controller -> what stands behind it.
        self.owners: dict[str, Owner] = {}
        self.findings: dict[str, Finding] = {}
        #: When each node was last seen in trouble: what its pods show is old news for a while.
        self._troubled: dict[str, float] = {}
        #: When everything was last stopped; since when the policies are waited for.
        self._stopped_at = float("-inf")
        self._unlisted_since: float | None = None
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
                unlisted_at=now,
            )
            if saved.observed and saved.observed != policy.generation:
                ward.forgive_all()
            return
        before, ward.policy = ward.policy, policy
        if before.generation != policy.generation:
            ward.forgive_all()
            ward.refusals.clear()
        if before.symptoms != policy.symptoms:
            for known in (ward.sights, ward.stalls, ward.answers, ward.seen_at):
                known.clear()
            ward.groups.clear()  # until they are evaluated by the new symptoms
            ward.dirty = True
        ward.dirty = ward.dirty or before.generation != policy.generation

    def drop(self, key: str) -> None:
        """The policy is gone: so is all that was known for it."""
        gone = self.wards.pop(key, None)
        if gone is not None:
            for ward in self.wards.values():
                for uid in gone.records:
                    hand_over(gone, ward, uid)

    def pod_changed(self, key: str, change: Change[WatchedPod]) -> None:
        """The watch of the policy's pods saw something."""
        ward = self.wards.get(key)
        if ward is None:
            return
        if change.new is None:
            assert change.old is not None
            uid = change.old.uid
            ward.forget(uid)
        else:
            ward.pods[change.new.uid] = change.new
        ward.dirty = True

    def selector_changed(self, key: str, now: float) -> None:
        """The policy asks for other pods, of which nothing is known until they are listed."""
        ward = self.wards.get(key)
        if ward is None:
            return
        for uid in list(ward.pods):
            ward.forget(uid)
        ward.known, ward.unlisted_at, ward.dirty = False, now, True

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
            ward.status = status(ward, now)

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

    def has_pods_of(self, controller: str) -> bool:
        """Whether any policy looks after a pod of this controller (its uid)."""
        pods = (pod for ward in self.wards.values() for pod in ward.pods.values())
        return any(pod.owner_uid == controller for pod in pods)

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
        if ward.ordered(order):
            del ward.pending[order.owner.uid]
        ward.refusals.pop(order.owner.uid, None)
        ward.last_heal = now
        ward.dirty = True
        text = f"restarted {order.pod.name}: {order.why}"
        self._notices.append(Notice(order.policy, order.owner, "HealingTriggered", text, True))

    def refused(self, order: Order, block: Block, now: float) -> None:
        """The eviction was surely not made: nothing was spent."""
        ward = self.wards.get(order.policy)
        if ward is None or not ward.ordered(order):
            return
        del ward.pending[order.owner.uid]
        record = ward.records[order.owner.uid]
        ward.records[order.owner.uid] = replace(
            record,
            restarts=tuple(moment for moment in record.restarts if moment != order.at),
            failures=max(0, record.failures - 1),
            pod="",
            canary=order.before,
        )
        ward.restarts -= 1
        ward.dirty = True
        ward.status = status(ward, now)  # before the one that counts the restart is written
        if block.cause == RECALLED:
            return  # what called it back holds by itself, for as long as it does
        before = ward.refusals.get(order.owner.uid)
        count = before.count + 1 if before is not None else 1
        until = block.until
        if until is None:
            until = now + min(60.0, self.interval * 2.0 ** min(count - 1, 6))
        ward.refusals[order.owner.uid] = Refusal(replace(block, until=until), count)

    def not_deleted(self, key: str, uid: str, again: float, now: float) -> None:
        """The pod of an accepted restart is there as before: nothing waits for it any more."""
        ward = self.wards.get(key)
        notice = give_up_waiting(ward, uid, again, now) if ward is not None else None
        if ward is not None and notice is not None:
            self._notices.append(notice)
            ward.status = status(ward, now)

    def node_gone(self, name: str) -> None:
        """The node was deleted: what is found on one made anew under its name begins afresh."""
        self.findings = {node: found for node, found in self.findings.items() if node != name}

    # -- the look -----------------------------------------------------------------------

    def look(self, now: float, around: Around) -> Plan:
        """Look at what is due or has changed; say what to do."""
        asks: list[Ask] = []
        orders: list[Order] = []
        if around.stopped:
            self._stopped_at = now
        if around.listed:
            self._unlisted_since = None
        elif self._unlisted_since is None:
            self._unlisted_since = now
        looked = self._examine_due(now)
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
            self._correlate(around, now)
        recalls = self._recalls(around, now)
        claims = self._claims() if any(ward.ill for ward in looked) else {}
        self._hand_over(claims)
        for ward in looked:
            orders += self._treat(ward, around, claims, now)
        notices, self._notices = tuple(self._notices), []
        return Plan(
            tuple(orders),
            recalls,
            notices,
            tuple(asks),
            tuple(lookups.values()),
            wake=self._wake(now),
        )

    def _examine_due(self, now: float) -> list[Ward]:
        """Evaluate the policies that are due; all of them when something may be restarted.

        Whether a node is at fault is told from the pods of all policies at one moment.
        """
        due = [ward for ward in self.wards.values() if self._wants_look(ward, now)]
        for ward in due:
            self._examine(ward, now)
        if due and (self.findings or self._in_flight or any(ward.ill for ward in due)):
            for ward in self.wards.values():
                if ward.known and ward not in due:
                    self._examine(ward, now)
            return [ward for ward in self.wards.values() if ward.known]
        return due

    @property
    def _in_flight(self) -> bool:
        return any(ward.pending for ward in self.wards.values())

    def _recalls(self, around: Around, now: float) -> tuple[tuple[Order, Block], ...]:
        """Restarts that were ordered, and would not be ordered now."""
        found = []
        for ward in self.wards.values():
            for order in ward.pending.values():
                why = self._recalled(ward, order, around, now)
                if why:
                    found.append((order, Block(RECALLED, why)))
        return tuple(found)

    def _recalled(self, ward: Ward, order: Order, around: Around, now: float) -> str:
        if around.stopped or ward.policy.paused or ward.problem:
            return around.stopped or ward.problem or "the policy is paused"
        group, pod = ward.groups.get(order.owner.uid), ward.pods.get(order.pod.uid)
        if not ward.known or group is None or pod is None:
            return f"{order.pod.name} is not one of the policy's pods any more"
        if pod not in group.ill:
            return f"{pod.name} is not unhealthy any more" if ward.well(pod) else ""
        block = self._blocked_one(ward, group, pod, around, now)
        return block.text if block is not None else ""

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
        # News may call a restart back that is on its way: it is looked at at once.
        soonest = 0.0 if self._in_flight else SOONEST
        return now >= ward.next_look or (ward.dirty and now >= ward.looked_at + soonest)

    def _wake(self, now: float) -> float | None:
        moments = []
        for ward in self.wards.values():
            if not ward.known:
                continue
            moments += [ward.next_look, ward.next_ask]
            if ward.dirty:
                moments.append(ward.looked_at + (0.0 if self._in_flight else SOONEST))
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
            note = noted.get((pod.name, found.name))
            if note is not None and note < pod.created - CLOCK_TOLERANCE:
                note = None  # of a pod that had its name before, as in a StatefulSet
            owner = self.owners.get(pod.owner_uid)
            if owner is not None and owner.renews and pod.revision not in ("", owner.renews):
                found = renewed(found, symptoms)
            first = ward.seen_at.setdefault(pod.uid, now) == now
            sight = ward.sights[pod.uid] = see(
                ward.sights.get(pod.uid),
                found,
                now,
                counts=counts,
                noted=note,
            )
            if self.once and sight.failed:
                missed = int((now - sight.since) / self.interval)
                ward.sights[pod.uid] = sight = replace(sight, failed=1 + missed)
            note_health(ward, pod, first, now)
            if owner is not None:
                ward.owners[owner.uid] = owner
            key = owner.uid if owner is not None else pod.owner_uid or pod.uid
            group = ward.groups.setdefault(key, Group(key, owner))
            group.pods.append(pod)
            if sight.diagnosis.health not in (Health.OVER, Health.LEAVING):
                group.alive.append(pod)
        ward.keep_owners()
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
        group.ill.sort(key=lambda pod: urgency(ward.sights[pod.uid], pod))
        group.everywhere = everywhere_unhealthy(group)
        record = ward.records.get(group.key)
        template = group.template
        if record is not None and template not in ("", record.template):
            # Another template: a new chance, within the same hour's budget.
            changed = bool(record.template)
            record = replace(record, template=template)
            if changed:
                record = replace(record, failures=0, gave_up=None, canary=None)
            ward.records[group.key] = record
        record = self._follow_rollout(ward, group, record, now)
        group.under_way = record is not None and ward.under_way(group, record, now)
        if record is not None and record.pod and not group.under_way:
            self._restart_over(ward, group, record, now)
        self._follow_canary(ward, group, now)
        self._forgive(ward, group, now)

    def _follow_rollout(
        self, ward: Ward, group: Group, record: Record | None, now: float
    ) -> Record | None:
        """Note how far a change of the owner's pods has come, and whether it goes on."""
        owner = group.owner
        if owner is not None:
            before = record.rollout if record is not None else None
            rollout = advance(before, owner.rolling, owner.template, owner.progress, now)
            if rollout != before:
                known = record or Record(owner.uid, template=owner.template)
                record = replace(known, kind=owner.kind, name=owner.name, rollout=rollout)
                ward.records[group.key] = record
            group.stuck = stuck(owner, rollout, self.rollout_deadline, now)
        if len(group.alive) > group.desired:
            since = ward.surplus_since.setdefault(group.key, now)
            group.shrinking = now - since < self.rollout_deadline
        else:
            ward.surplus_since.pop(group.key, None)
        return record

    def _restart_over(self, ward: Ward, group: Group, record: Record, now: float) -> None:
        ignored = give_up_waiting(ward, record.pod, now + UNSEEN_FOR, now)
        if ignored is not None:
            self._notices.append(ignored)
            return
        ward.records[group.key] = replace(record, pod="")
        begun = max(record.restarts, default=now)
        if self._all_well(ward, group, now):
            text = f"{group.name()} is well again {now - begun:.0f}s after the restart"
            notice = Notice(ward.policy.key, group.owner, "HealingSucceeded", text, False)
            self._notices.append(notice)

    def _follow_canary(self, ward: Ward, group: Group, now: float) -> None:
        record = ward.records.get(group.key)
        if record is None or record.canary is None:
            return
        canary = followed(ward, group, record, self.interval, now)
        ward.records[group.key] = replace(record, canary=canary)
        if canary is not None and canary.outcome is Outcome.PASSED and record.canary.under_way:
            text = f"a restarted pod of {group.name()} stays well: the others that are ill follow"
            notice = Notice(ward.policy.key, group.owner, "HealingSucceeded", text, False)
            self._notices.append(notice)

    def _all_well(self, ward: Ward, group: Group, now: float) -> bool:
        """Whether the owner's pods are well, those apart whose node is in trouble."""
        lately = now - 2 * self.interval
        told = [pod for pod in group.alive if self._troubled.get(pod.node, 0.0) < lately]
        return bool(told) and all(ward.well(pod) for pod in told)

    def _forgive(self, ward: Ward, group: Group, now: float) -> None:
        well = (
            len(group.alive) + ward.occupied(group, now) >= group.desired
            and not group.under_way
            and self._all_well(ward, group, now)
        )
        if not well:
            ward.well_since.pop(group.key, None)
            return
        since = ward.well_since.setdefault(group.key, now)
        record = ward.records.get(group.key)
        if record is not None and now - since >= FORGIVE_AFTER:
            ward.records[group.key] = replace(record.forgiven(), canary=None)

    # -- several policies, several owners -------------------------------------------------

    def _claims(self) -> dict[str, str]:
        """Owner -> the policy that looks after it: of several, the oldest."""
        claims: dict[str, str] = {}
        for ward in sorted(self.wards.values(), key=lambda w: (w.policy.created, w.policy.key)):
            for key in ward.groups:
                claims.setdefault(key, ward.policy.key)
        return claims

    def _hand_over(self, claims: Mapping[str, str]) -> None:
        """Canaries of owners that another policy looks after now."""
        for ward in self.wards.values():
            for uid in ward.records:
                if uid in claims:
                    other = self.wards[claims[uid]]
                    if other is not ward:
                        hand_over(ward, other, uid)

    def _correlate(self, around: Around, now: float) -> None:
        """Nodes on which pods of several owners are ill whose siblings elsewhere are well."""
        wards = self.wards.values()
        self.findings = correlate(
            self.findings,
            observations(
                wards,
                self.findings,
                lambda ward, pod: self._settles(ward, pod, now),
                lambda ward, pod: unasked(ward, pod, now, self.interval),
                now,
                self.interval,
            ),
            now,
            complete=around.listed and complete(wards, now),
        )

    # -- treating -----------------------------------------------------------------------

    def _treat(
        self, ward: Ward, around: Around, claims: Mapping[str, str], now: float
    ) -> list[Order]:
        orders = []
        for group in ward.groups.values():
            group.block = None
            self._say_rollout(ward, group)
            if not group.ill:
                ward.said.pop(group.key, None)
                ward.refusals.pop(group.key, None)
                continue
            pod, block = self._choose(ward, group, around, claims, now)
            group.block = block
            if block is None and pod is not None and group.owner is not None:
                order = self._order(ward, group, group.owner, pod, now)
                orders.append(replace(order, stuck=group.stuck))
                group.under_way = True
                ward.said.pop(group.key, None)
            elif block is not None:
                self._say_block(ward, group, block)
        self._say_stuck(ward, around, now)
        ward.status = status(ward, now)
        return [replace(order, status=ward.status) for order in orders]

    def _choose(
        self, ward: Ward, group: Group, around: Around, claims: Mapping[str, str], now: float
    ) -> tuple[WatchedPod | None, Block | None]:
        """The pod to restart now, or why none of the group is."""
        block = blocked(ward, group, around, claims, self.interval, now)
        if block is not None:
            if block.cause != "under-way":
                for pod in group.pods:
                    ward.free_since.pop(pod.uid, None)
            return None, block
        first: Block | None = None
        record = ward.records.get(group.key)
        waiting = waiting_pod(ward, record.canary if record is not None else None)
        for pod in group.ill:
            if waiting is not None and pod.uid != waiting.uid:
                continue  # no other one before it is known what comes of that one
            block = self._blocked_one(ward, group, pod, around, now)
            if block is None:
                block = spent(ward, group, now)
                if block is None:
                    return pod, None
                ward.free_since.pop(pod.uid, None)
                return None, block
            first = first or block
        return None, first

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
        if finding is not None and now < max(finding.since, self._stopped_at) + NODE_PATIENCE:
            return Block("node-finding", f"node {pod.node}: {finding.text}")
        if finding is not None or self.once:
            return None
        since = ward.free_since.setdefault(pod.uid, now)
        wards = self.wards.values()
        text = unlisted(wards, around, now, self._unlisted_since or now) or undecided(
            wards, group, pod.node, now, since, self.interval
        )
        return Block("unobserved", f"node {pod.node}: {text}") if text else None

    def _order(self, ward: Ward, group: Group, owner: Owner, pod: WatchedPod, now: float) -> Order:
        sight = ward.sights[pod.uid]
        found = sight.diagnosis
        record = ward.records.get(owner.uid) or Record(owner.uid, template=group.template)
        canary = canary_of(ward, group, pod, record.canary, now)
        ward.records[owner.uid] = replace(
            record,
            canary=canary,
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
            before=record.canary,
            canary=canary if group.everywhere else None,
        )
        ward.pending[owner.uid] = order
        return order

    # -- saying -------------------------------------------------------------------------

    def _say_block(self, ward: Ward, group: Group, block: Block) -> None:
        if ward.said.get(group.key) == block.cause or block.cause in UNSAID:
            return
        ward.said[group.key] = block.cause
        reason = "HealingGaveUp" if block.cause in GIVEN_UP else "HealingThrottled"
        pod = group.ill[0]
        name = ward.sights[pod.uid].diagnosis.name
        text = f"{pod.name} is ill ({name}) and not restarted: {block.text}"
        self._notices.append(Notice(ward.policy.key, group.owner, reason, text, True))

    def _say_rollout(self, ward: Ward, group: Group) -> None:
        """Once for each template: its roll-out has stopped, with pods that are not well."""
        owner = group.owner
        whole = len(group.alive) >= group.desired and all(ward.well(pod) for pod in group.alive)
        if owner is None or not group.stuck or owner.unseen or whole:
            if not group.stuck:
                ward.rollouts_said.pop(group.key, None)
            return
        if ward.rollouts_said.get(group.key) != owner.template:
            ward.rollouts_said[group.key] = owner.template
            text = f"{group.stuck}: its pods are restarted all the same when they are ill"
            self._notices.append(Notice(ward.policy.key, owner, "RolloutStuck", text, True))

    def _say_stuck(self, ward: Ward, around: Around, now: float) -> None:
        """Pods that should be gone: what holds them. Nothing is forced."""
        for pod, sight in ward.overdue(now):
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


#: Stands in an order until the look has ended, which writes its status.
_NOTHING = Status(0, 0, 0, None, 0, State.HEALTHY, "", (), (), ())
