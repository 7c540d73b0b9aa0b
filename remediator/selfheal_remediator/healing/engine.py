"""The pods of all policies: which one to restart now, and what to report of the others. Pure.

The caller feeds in policies, pods, their owners and their progress, and carries out what `look`
returns. A restart is counted at once, also in the status: the status is written before the
eviction is sent, so that the next leader finds it, and the restart is uncounted only if the
eviction was certainly not made.
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
    Finding,
    Notice,
    Owner,
    Plan,
    RestartAction,
)
from selfheal_remediator.healing.pod_health import (
    Cause,
    Health,
    Reading,
    WatchedPod,
    diagnose,
    renewed,
    see,
)
from selfheal_remediator.healing.policy import Policy, Record, State, Status
from selfheal_remediator.healing.policy_state import (
    CLOCK_TOLERANCE,
    UNSEEN_FOR,
    Group,
    PolicyState,
    Refusal,
    urgency,
)
from selfheal_remediator.healing.progress_reports import Probe
from selfheal_remediator.healing.restart_check import give_up_waiting
from selfheal_remediator.healing.restart_limits import blocked, spent, stuck
from selfheal_remediator.healing.rollouts import advance
from selfheal_remediator.healing.status import GIVEN_UP, UNSAID, status
from selfheal_remediator.kube.informer import Change
from selfheal_remediator.node.skip_reason import SkipReason

#: Seconds of health after which earlier restarts of an owner no longer count.
FORGIVE_AFTER = 600.0
#: Seconds for which pods are left to the rules for their node before they are healed one by one.
NODE_PATIENCE = 600.0
#: How long (seconds) a node's trouble is remembered after its end; longer than any symptom lasts.
TROUBLE_KEPT = 86400.0
#: Between two evaluations of a policy whose pods change all the time.
SOONEST = 1.0


class Healing:
    """See the module. Not thread-safe: one thread owns it."""

    def __init__(
        self, interval: float, *, rollout_deadline: float = 600.0, once: bool = False
    ) -> None:
        """`once`: there will be a single evaluation, which stands for those that were missed.

        rollout_deadline: seconds after which a rollout without progress defers no restart.
        """
        self.interval, self.once, self.rollout_deadline = interval, once, rollout_deadline
        self.policy_states: dict[str, PolicyState] = {}
        #: uid of a pod's controller -> what stands behind it.
        self.owners: dict[str, Owner] = {}
        self.findings: dict[str, Finding] = {}
        #: When each node last had trouble: the state of its pods is outdated for a while.
        self._troubled: dict[str, float] = {}
        #: When everything was last stopped; since when the policies are waited for.
        self._stopped_at = float("-inf")
        self._unlisted_since: float | None = None
        self._notices: list[Notice] = []

    # -- what is known ------------------------------------------------------------------

    def adopt(self, policy: Policy, now: float) -> None:
        """A policy is new or changed."""
        policy_state = self.policy_states.get(policy.key)
        if policy_state is None or policy_state.policy.uid != policy.uid:
            saved = policy.saved.taken_over(now)
            policy_state = self.policy_states[policy.key] = PolicyState(
                policy,
                now,
                saved.restarts,
                saved.last_heal,
                {record.uid: record for record in saved.records},
                dict(saved.conditions),
                adopted_at=now,
                unlisted_at=now,
                left_paused=saved.paused,
            )
            if saved.observed and saved.observed != policy.generation:
                policy_state.begin_again()
            return
        before, policy_state.policy = policy_state.policy, policy
        if before.generation != policy.generation:
            policy_state.begin_again()
        if before.symptoms != policy.symptoms:
            policy_state.observations.clear()
            policy_state.seen_at.clear()
            policy_state.progress.forget_reports()
            policy_state.groups.clear()  # until they are evaluated by the new symptoms
            policy_state.dirty = True

    def resumed(self) -> None:
        """A person has resumed the remediator: what gave up starts again."""
        for policy_state in self.policy_states.values():
            policy_state.begin_again()

    def drop(self, key: str) -> None:
        """The policy is gone: so is all that was known for it."""
        gone = self.policy_states.pop(key, None)
        if gone is not None:
            for policy_state in self.policy_states.values():
                for uid in gone.records:
                    hand_over(gone, policy_state, uid)

    def pod_changed(self, key: str, change: Change[WatchedPod]) -> None:
        """An event of the watch of the policy's pods."""
        policy_state = self.policy_states.get(key)
        if policy_state is None:
            return
        if change.new is None:
            assert change.old is not None
            uid = change.old.uid
            policy_state.forget(uid)
        else:
            policy_state.take_in(change.new)
        policy_state.dirty = True

    def selector_changed(self, key: str, now: float) -> None:
        """The policy selects other pods, which are unknown until they are listed."""
        policy_state = self.policy_states.get(key)
        if policy_state is None:
            return
        for uid in list(policy_state.pods):
            policy_state.forget(uid)
        policy_state.known, policy_state.unlisted_at, policy_state.dirty = False, now, True

    def pods_known(self, key: str) -> None:
        """The policy's pods were listed completely."""
        policy_state = self.policy_states.get(key)
        if policy_state is not None:
            policy_state.known = policy_state.dirty = True
            policy_state.problem = ""

    def pods_unknown(self, key: str, problem: str, now: float) -> None:
        """The policy's pods cannot be listed, or nothing was heard of them; empty = they can."""
        policy_state = self.policy_states.get(key)
        if policy_state is None or policy_state.problem == problem:
            return
        policy_state.problem, policy_state.dirty = problem, True
        if not policy_state.known:
            policy_state.status = status(policy_state, now)

    def owner_known(self, controller: str, owner: Owner | None) -> None:
        """What the API says of a pod's controller; None = it is gone."""
        if owner is None:
            gone = self.owners.pop(controller, None)
            if gone is not None and gone not in self.owners.values():
                for policy_state in self.policy_states.values():
                    policy_state.owners.pop(gone.uid, None)
                    policy_state.dirty = True
            return
        before = self.owners.get(controller)
        for known, other in self.owners.items():
            if other.uid == owner.uid:
                self.owners[known] = owner
        self.owners[controller] = owner
        if before != owner:
            for policy_state in self.policy_states.values():
                policy_state.dirty = True

    def has_pods_of(self, controller: str) -> bool:
        """Whether any policy selects a pod of this controller (its uid)."""
        pods = (
            pod
            for policy_state in self.policy_states.values()
            for pod in policy_state.pods.values()
        )
        return any(pod.owner_uid == controller for pod in pods)

    def retire(self, controller: str) -> bool:
        """Forget a controller that nobody needs; whether it was.

        An old ReplicaSet has no pods, and its Deployment is known by another; but the last one
        known of an owner that a policy selects is kept, for its desired number of pods.
        """
        owner = self.owners.get(controller)
        policy_states = [
            policy_state
            for policy_state in self.policy_states.values()
            if owner and owner.uid in policy_state.owners
        ]
        if owner is None or any(
            pod.owner_uid == controller
            for policy_state in policy_states
            for pod in policy_state.pods.values()
        ):
            return False
        others = (known for known, one in self.owners.items() if one.uid == owner.uid)
        if policy_states and all(known == controller for known in others):
            return False
        del self.owners[controller]
        return True

    def answered(self, key: str, uid: str, reading: Reading | None, asked: float) -> None:
        """How the work of a pod goes; None = it did not say."""
        policy_state = self.policy_states.get(key)
        if policy_state is None or uid not in policy_state.pods:
            return
        observation = policy_state.observations.get(uid)
        limit = policy_state.policy.symptoms.no_progress_for
        if policy_state.progress.take_in(uid, reading, observation, limit, asked):
            policy_state.dirty = True

    # -- outcomes -----------------------------------------------------------------------

    def accepted(self, order: RestartAction, now: float) -> None:
        """The eviction was made, or may have been."""
        policy_state = self.policy_states.get(order.policy)
        if policy_state is None:
            return
        if policy_state.ordered(order):
            del policy_state.pending[order.owner.uid]
        policy_state.refusals.pop(order.owner.uid, None)
        policy_state.last_heal = now
        policy_state.dirty = True
        text = f"restarted {order.pod.name}: {order.why}"
        self._notices.append(Notice(order.policy, order.owner, "HealingTriggered", text, True))

    def refused(self, order: RestartAction, skip_reason: SkipReason, now: float) -> None:
        """The eviction was surely not made: nothing was spent."""
        policy_state = self.policy_states.get(order.policy)
        if policy_state is None or not policy_state.ordered(order):
            return
        del policy_state.pending[order.owner.uid]
        record = policy_state.records[order.owner.uid]
        policy_state.records[order.owner.uid] = replace(
            record,
            restarts=tuple(moment for moment in record.restarts if moment != order.at),
            failures=max(0, record.failures - 1),
            pod="",
            canary=order.before,
        )
        policy_state.restarts -= 1
        policy_state.dirty = True
        policy_state.status = status(
            policy_state, now
        )  # before the one that counts the restart is written
        if skip_reason.cause == RECALLED:
            return  # the reason for the cancellation applies until it ends by itself
        before = policy_state.refusals.get(order.owner.uid)
        count = before.count + 1 if before is not None else 1
        until = skip_reason.until
        if until is None:
            until = now + min(60.0, self.interval * 2.0 ** min(count - 1, 6))
        policy_state.refusals[order.owner.uid] = Refusal(replace(skip_reason, until=until), count)

    def not_deleted(self, key: str, uid: str, again: float, now: float) -> None:
        """The pod of an accepted restart still exists: nothing waits for it any more."""
        policy_state = self.policy_states.get(key)
        notice = (
            give_up_waiting(policy_state, uid, again, now) if policy_state is not None else None
        )
        if policy_state is not None and notice is not None:
            self._notices.append(notice)
            policy_state.status = status(policy_state, now)

    def node_gone(self, name: str) -> None:
        """The node was deleted: findings on a recreated node of its name start from scratch."""
        self.findings = {node: found for node, found in self.findings.items() if node != name}

    # -- evaluation -------------------------------------------------------------------

    def look(self, now: float, around: Around) -> Plan:
        """Evaluate what is due or has changed; return what to do."""
        probes: list[Probe] = []
        orders: list[RestartAction] = []
        if around.stopped:
            self._stopped_at = now
        for policy_state in self.policy_states.values():
            if policy_state.left_paused and not around.paused:
                policy_state.begin_again()
        if around.listed:
            self._unlisted_since = None
        elif self._unlisted_since is None:
            self._unlisted_since = now
        looked = self._examine_due(now)
        for policy_state in self.policy_states.values():
            if policy_state.known and now >= policy_state.progress.next_probe:
                probes += policy_state.progress.due(
                    policy_state.policy,
                    policy_state.pods.values(),
                    policy_state.observations,
                    self.interval,
                    now,
                )
        lookups = {
            pod.owner_uid: pod
            for policy_state in looked
            for pod in policy_state.pods.values()
            if pod.owner_uid and pod.owner_uid not in self.owners and not pod.finished
        }
        if looked:
            self._note_trouble(looked, around, now)
            self._correlate(around, now)
        recalls = self._recalls(around, now)
        claims = self._claims() if any(policy_state.unhealthy for policy_state in looked) else {}
        self._hand_over(claims)
        for policy_state in looked:
            orders += self._treat(policy_state, around, claims, now)
        notices, self._notices = tuple(self._notices), []
        return Plan(
            tuple(orders),
            recalls,
            notices,
            tuple(probes),
            tuple(lookups.values()),
            wake=self._wake(now),
        )

    def _examine_due(self, now: float) -> list[PolicyState]:
        """Evaluate the policies that are due; all of them if something may be restarted.

        Whether a node is at fault depends on the pods of all policies at one moment.
        """
        due = [
            policy_state
            for policy_state in self.policy_states.values()
            if self._wants_look(policy_state, now)
        ]
        for policy_state in due:
            self._examine(policy_state, now)
        if due and (
            self.findings or self._in_flight or any(policy_state.unhealthy for policy_state in due)
        ):
            for policy_state in self.policy_states.values():
                if policy_state.known and policy_state not in due:
                    self._examine(policy_state, now)
            return [
                policy_state for policy_state in self.policy_states.values() if policy_state.known
            ]
        return due

    @property
    def _in_flight(self) -> bool:
        return any(policy_state.pending for policy_state in self.policy_states.values())

    def _recalls(self, around: Around, now: float) -> tuple[tuple[RestartAction, SkipReason], ...]:
        """Restarts that were ordered, and would not be ordered now."""
        found = []
        for policy_state in self.policy_states.values():
            for order in policy_state.pending.values():
                why = self._recalled(policy_state, order, around, now)
                if why:
                    found.append((order, SkipReason(RECALLED, why)))
        return tuple(found)

    def _recalled(
        self, policy_state: PolicyState, order: RestartAction, around: Around, now: float
    ) -> str:
        if around.stopped or policy_state.policy.paused or policy_state.problem:
            return around.stopped or policy_state.problem or "the policy is paused"
        group, pod = policy_state.groups.get(order.owner.uid), policy_state.pods.get(order.pod.uid)
        if not policy_state.known or group is None or pod is None:
            return f"{order.pod.name} is no longer selected by the policy"
        if pod not in group.unhealthy:
            return f"{pod.name} is no longer unhealthy" if policy_state.is_healthy(pod) else ""
        skip_reason = self._blocked_one(policy_state, group, pod, around, now)
        return skip_reason.text if skip_reason is not None else ""

    def _note_trouble(self, looked: Iterable[PolicyState], around: Around, now: float) -> None:
        for node in {pod.node for policy_state in looked for pod in policy_state.pods.values()}:
            if around.node_trouble(node):
                self._troubled[node] = now
        for node, when in list(self._troubled.items()):
            if now - when > TROUBLE_KEPT:
                del self._troubled[node]

    def _settles(self, policy_state: PolicyState, pod: WatchedPod, now: float) -> bool:
        """Whether the pod's node had trouble so recently that the pod must be evaluated again.

        When a lost node is back, its pods still count as unready for the time of its outage.
        """
        until = self._troubled.get(pod.node)
        if until is None:
            return False
        lasting = policy_state.observations[pod.uid].diagnosis.lasting
        return now < until + lasting + policy_state.policy.failure_threshold * self.interval

    def _wants_look(self, policy_state: PolicyState, now: float) -> bool:
        if not policy_state.known:
            return False
        # New evidence may cancel a pending restart: evaluate at once.
        soonest = 0.0 if self._in_flight else SOONEST
        return now >= policy_state.next_evaluation or (
            policy_state.dirty and now >= policy_state.looked_at + soonest
        )

    def _wake(self, now: float) -> float | None:
        moments = []
        for policy_state in self.policy_states.values():
            if not policy_state.known:
                continue
            moments += [policy_state.next_evaluation, policy_state.progress.next_probe]
            if policy_state.dirty:
                moments.append(policy_state.looked_at + (0.0 if self._in_flight else SOONEST))
        return max(now, min(moments)) if moments else None

    def _examine(self, policy_state: PolicyState, now: float) -> None:
        """Evaluate every pod, and group them by owner."""
        counts = now >= policy_state.next_evaluation
        while policy_state.next_evaluation <= now:
            policy_state.next_evaluation = (
                max(policy_state.next_evaluation, now - self.interval) + self.interval
            )
        policy_state.dirty, policy_state.looked_at = False, now
        policy_state.progress.probe_soon(now)
        symptoms, noted = policy_state.policy.symptoms, policy_state.policy.saved.since
        policy_state.groups = {
            uid: Group(uid, owner) for uid, owner in policy_state.owners.items() if owner.desired
        }
        for pod in policy_state.pods.values():
            stall = policy_state.progress.valid_stall(pod.uid, self.interval, now)
            found = diagnose(pod, symptoms, stall, now)
            note = noted.get((pod.name, found.name))
            if note is not None and note < pod.created - CLOCK_TOLERANCE:
                note = None  # of a pod that had its name before, as in a StatefulSet
            owner = self.owners.get(pod.owner_uid)
            if owner is not None and owner.renews and pod.revision not in ("", owner.renews):
                found = renewed(found, symptoms)
            policy_state.seen_at.setdefault(pod.uid, now)
            observation = policy_state.observations[pod.uid] = see(
                policy_state.observations.get(pod.uid),
                found,
                now,
                counts=counts,
                noted=note,
            )
            if self.once and observation.failed:
                missed = int((now - observation.since) / self.interval)
                policy_state.observations[pod.uid] = observation = replace(
                    observation, failed=1 + missed
                )
            note_health(policy_state, pod, now)
            if owner is not None:
                policy_state.owners[owner.uid] = owner
            key = owner.uid if owner is not None else pod.owner_uid or pod.uid
            group = policy_state.groups.setdefault(key, Group(key, owner))
            group.pods.append(pod)
            if observation.diagnosis.health not in (Health.FINISHED, Health.LEAVING):
                group.alive.append(pod)
        policy_state.keep_owners()
        policy_state.desired = sum(group.desired for group in policy_state.groups.values())
        policy_state.healthy = sum(
            observation.diagnosis.health is Health.HEALTHY
            for observation in policy_state.observations.values()
        )
        looks = (
            1
            if policy_state.healthy < self.limit(policy_state)
            else policy_state.policy.failure_threshold
        )
        for group in policy_state.groups.values():
            self._judge(policy_state, group, looks, now)

    def limit(self, policy_state: PolicyState) -> int:
        """Pods that must be healthy: the threshold, at most the desired number."""
        return min(policy_state.desired, policy_state.policy.threshold.of(policy_state.desired))

    def _judge(self, policy_state: PolicyState, group: Group, looks: int, now: float) -> None:
        group.unhealthy = [
            pod for pod in group.alive if policy_state.observations[pod.uid].certain(looks, now)
        ]
        group.unhealthy.sort(key=lambda pod: urgency(policy_state.observations[pod.uid], pod))
        group.everywhere = everywhere_unhealthy(group)
        record = policy_state.records.get(group.key)
        template = group.template
        if record is not None and template not in ("", record.template):
            # Another template: a new chance, within the same hour's budget.
            changed = bool(record.template)
            record = replace(record, template=template)
            if changed:
                record = replace(record, failures=0, gave_up=None, canary=None)
                policy_state.refusals.pop(group.key, None)
            policy_state.records[group.key] = record
        record = self._follow_rollout(policy_state, group, record, now)
        group.under_way = record is not None and policy_state.under_way(group, record, now)
        if record is not None and record.pod and not group.under_way:
            self._restart_over(policy_state, group, record, now)
        self._follow_canary(policy_state, group, now)
        self._forgive(policy_state, group, now)

    def _follow_rollout(
        self, policy_state: PolicyState, group: Group, record: Record | None, now: float
    ) -> Record | None:
        """Record the progress of a change of the owner's pods, and whether it continues."""
        owner = group.owner
        if owner is not None:
            before = record.rollout if record is not None else None
            rollout = advance(before, owner.rolling, owner.template, owner.progress, now)
            if rollout != before:
                known = record or Record(owner.uid, template=owner.template)
                record = replace(known, kind=owner.kind, name=owner.name, rollout=rollout)
                policy_state.records[group.key] = record
            group.stuck = stuck(owner, rollout, self.rollout_deadline, now)
        if len(group.alive) > group.desired:
            since = policy_state.surplus_since.setdefault(group.key, now)
            group.shrinking = now - since < self.rollout_deadline
        else:
            policy_state.surplus_since.pop(group.key, None)
        return record

    def _restart_over(
        self, policy_state: PolicyState, group: Group, record: Record, now: float
    ) -> None:
        ignored = give_up_waiting(policy_state, record.pod, now + UNSEEN_FOR, now)
        if ignored is not None:
            self._notices.append(ignored)
            return
        policy_state.records[group.key] = replace(record, pod="")
        begun = max(record.restarts, default=now)
        if self._all_healthy(policy_state, group, now):
            text = f"{group.name()} is healthy again {now - begun:.0f}s after the restart"
            notice = Notice(policy_state.policy.key, group.owner, "HealingSucceeded", text, False)
            self._notices.append(notice)

    def _follow_canary(self, policy_state: PolicyState, group: Group, now: float) -> None:
        record = policy_state.records.get(group.key)
        if record is None or record.canary is None:
            return
        canary = followed(policy_state, group, record, self.interval, now)
        policy_state.records[group.key] = replace(record, canary=canary)
        if canary is not None and canary.outcome is Outcome.PASSED and record.canary.under_way:
            text = f"a restarted pod of {group.name()} stays healthy: the unhealthy ones follow"
            notice = Notice(policy_state.policy.key, group.owner, "HealingSucceeded", text, False)
            self._notices.append(notice)

    def _all_healthy(self, policy_state: PolicyState, group: Group, now: float) -> bool:
        """Whether the owner's pods are healthy, except those whose node has trouble."""
        lately = now - 2 * self.interval
        told = [pod for pod in group.alive if self._troubled.get(pod.node, 0.0) < lately]
        return bool(told) and all(policy_state.is_healthy(pod) for pod in told)

    def _forgive(self, policy_state: PolicyState, group: Group, now: float) -> None:
        all_healthy = (
            len(group.alive) + policy_state.occupied(group, now) >= group.desired
            and not group.under_way
            and self._all_healthy(policy_state, group, now)
        )
        if not all_healthy:
            policy_state.owner_healthy_since.pop(group.key, None)
            return
        since = policy_state.owner_healthy_since.setdefault(group.key, now)
        record = policy_state.records.get(group.key)
        if record is not None and now - since >= FORGIVE_AFTER:
            policy_state.records[group.key] = replace(record.forgiven(), canary=None)

    # -- several policies, several owners -------------------------------------------------

    def _claims(self) -> dict[str, str]:
        """Owner -> the policy that acts on it: of several, the oldest."""
        claims: dict[str, str] = {}
        for policy_state in sorted(
            self.policy_states.values(), key=lambda w: (w.policy.created, w.policy.key)
        ):
            for key in policy_state.groups:
                claims.setdefault(key, policy_state.policy.key)
        return claims

    def _hand_over(self, claims: Mapping[str, str]) -> None:
        """Canaries of owners that another policy now selects."""
        for policy_state in self.policy_states.values():
            for uid in policy_state.records:
                if uid in claims:
                    other = self.policy_states[claims[uid]]
                    if other is not policy_state:
                        hand_over(policy_state, other, uid)

    def _correlate(self, around: Around, now: float) -> None:
        """Nodes with unhealthy pods of several owners whose siblings elsewhere are healthy."""
        policy_states = self.policy_states.values()
        self.findings = correlate(
            self.findings,
            observations(
                policy_states,
                self.findings,
                lambda policy_state, pod: self._settles(policy_state, pod, now),
                lambda policy_state, pod: unasked(policy_state, pod, now, self.interval),
                now,
                self.interval,
            ),
            now,
            complete=around.listed and complete(policy_states, now),
        )

    # -- treating -----------------------------------------------------------------------

    def _treat(
        self, policy_state: PolicyState, around: Around, claims: Mapping[str, str], now: float
    ) -> list[RestartAction]:
        orders = []
        for group in policy_state.groups.values():
            group.skip_reason = None
            self._say_rollout(policy_state, group)
            if not group.unhealthy:
                policy_state.said.pop(group.key, None)
                policy_state.refusals.pop(group.key, None)
                continue
            pod, skip_reason = self._choose(policy_state, group, around, claims, now)
            group.skip_reason = skip_reason
            if skip_reason is None and pod is not None and group.owner is not None:
                order = self._order(policy_state, group, group.owner, pod, now)
                orders.append(replace(order, stuck=group.stuck))
                group.under_way = True
                policy_state.said.pop(group.key, None)
            elif skip_reason is not None:
                self._say_skip_reason(policy_state, group, skip_reason)
        self._say_stuck(policy_state, around, now)
        policy_state.status = status(policy_state, now)
        return [replace(order, status=policy_state.status) for order in orders]

    def _choose(
        self,
        policy_state: PolicyState,
        group: Group,
        around: Around,
        claims: Mapping[str, str],
        now: float,
    ) -> tuple[WatchedPod | None, SkipReason | None]:
        """The pod to restart now, or why none of the group is."""
        skip_reason = blocked(policy_state, group, around, claims, self.interval, now)
        if skip_reason is not None:
            if skip_reason.cause != "under-way":
                for pod in group.pods:
                    policy_state.free_since.pop(pod.uid, None)
            return None, skip_reason
        first: SkipReason | None = None
        record = policy_state.records.get(group.key)
        waiting = waiting_pod(policy_state, record.canary if record is not None else None)
        for pod in group.unhealthy:
            if waiting is not None and pod.uid != waiting.uid:
                continue  # no other one before it is known what comes of that one
            skip_reason = self._blocked_one(policy_state, group, pod, around, now)
            if skip_reason is None:
                skip_reason = spent(policy_state, group, now)
                if skip_reason is None:
                    return pod, None
                policy_state.free_since.pop(pod.uid, None)
                return None, skip_reason
            first = first or skip_reason
        return None, first

    def _blocked_one(
        self, policy_state: PolicyState, group: Group, pod: WatchedPod, around: Around, now: float
    ) -> SkipReason | None:
        if pod.kept or pod.mirror:
            why = "annotation selfheal.dev/evict=false" if pod.kept else "it is bound to its node"
            return SkipReason("kept", f"{pod.name}: {why}")
        trouble = around.node_trouble(pod.node)
        if not trouble and self._settles(policy_state, pod, now):
            trouble = "it was unhealthy until a moment ago"
        if trouble:
            return SkipReason("node", f"node {pod.node}: {trouble}")
        if not around.node_path(pod.node):
            return None
        finding = self.findings.get(pod.node)
        if finding is not None and now < max(finding.since, self._stopped_at) + NODE_PATIENCE:
            return SkipReason("node-finding", f"node {pod.node}: {finding.text}")
        if finding is not None or self.once:
            return None
        since = policy_state.free_since.setdefault(pod.uid, now)
        policy_states = self.policy_states.values()
        text = unlisted(policy_states, around, now, self._unlisted_since or now) or undecided(
            policy_states, group, pod.node, now, since, self.interval
        )
        return SkipReason("unobserved", f"node {pod.node}: {text}") if text else None

    def _order(
        self, policy_state: PolicyState, group: Group, owner: Owner, pod: WatchedPod, now: float
    ) -> RestartAction:
        observation = policy_state.observations[pod.uid]
        found = observation.diagnosis
        record = policy_state.records.get(owner.uid) or Record(owner.uid, template=group.template)
        canary = canary_of(policy_state, group, pod, record.canary, now)
        policy_state.records[owner.uid] = replace(
            record,
            canary=canary,
            kind=owner.kind,
            name=owner.name,
            restarts=(*record.recent(now), now),
            failures=record.failures + 1,
            pod=pod.uid,
        )
        policy_state.restarts += 1
        hung = found.cause is Cause.NO_PROGRESS
        why = f"{found.name} for {now - observation.since:.0f}s"
        if found.detail:
            why += f" ({found.detail})"
        order = RestartAction(
            policy=policy_state.policy.key,
            pod=pod,
            owner=owner,
            cause=found.cause,
            why=why,
            grace=max(1, round(policy_state.policy.restart.grace)) if hung else None,
            at=now,
            status=_NOTHING,
            before=record.canary,
            canary=canary if group.everywhere else None,
        )
        policy_state.pending[owner.uid] = order
        return order

    # -- saying -------------------------------------------------------------------------

    def _say_skip_reason(
        self, policy_state: PolicyState, group: Group, skip_reason: SkipReason
    ) -> None:
        if policy_state.said.get(group.key) == skip_reason.cause or skip_reason.cause in UNSAID:
            return
        policy_state.said[group.key] = skip_reason.cause
        reason = "HealingGaveUp" if skip_reason.cause in GIVEN_UP else "HealingThrottled"
        pod = group.unhealthy[0]
        name = policy_state.observations[pod.uid].diagnosis.name
        text = f"{pod.name} is unhealthy ({name}) and not restarted: {skip_reason.text}"
        self._notices.append(Notice(policy_state.policy.key, group.owner, reason, text, True))

    def _say_rollout(self, policy_state: PolicyState, group: Group) -> None:
        """Once for each template: its rollout is stuck, with unhealthy pods."""
        owner = group.owner
        whole = len(group.alive) >= group.desired and all(
            policy_state.is_healthy(pod) for pod in group.alive
        )
        if owner is None or not group.stuck or owner.unseen or whole:
            if not group.stuck:
                policy_state.rollouts_reported.pop(group.key, None)
            return
        if policy_state.rollouts_reported.get(group.key) != owner.template:
            policy_state.rollouts_reported[group.key] = owner.template
            text = f"{group.stuck}: its pods are still restarted when they are unhealthy"
            self._notices.append(Notice(policy_state.policy.key, owner, "RolloutStuck", text, True))

    def _say_stuck(self, policy_state: PolicyState, around: Around, now: float) -> None:
        """Pods that should have been deleted: what blocks the deletion. Nothing is forced."""
        for pod, observation in policy_state.overdue(now):
            held = ", ".join(pod.finalizers)
            text = f"it has the finalizers {held}" if held else ""
            trouble = around.node_trouble(pod.node)
            if not text and trouble:
                text = f"node {pod.node}: {trouble}"
            elif not text:
                text = f"node {pod.node} is healthy: the pod's process or volume does not stop"
            policy_state.observations[pod.uid] = replace(
                observation, diagnosis=replace(observation.diagnosis, detail=text)
            )
            if pod.uid not in policy_state.stuck_reported:
                policy_state.stuck_reported.add(pod.uid)
                owner = self.owners.get(pod.owner_uid)
                said = f"{pod.name} should have been deleted: {text}"
                self._notices.append(Notice(policy_state.policy.key, owner, "PodStuck", said, True))


#: Placeholder in an order until the evaluation has ended, which writes its status.
_NOTHING = Status(0, 0, 0, None, 0, State.HEALTHY, "", (), (), ())
