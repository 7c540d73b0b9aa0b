"""The pods under one policy, by owner, and what follows from them alone. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from selfheal_remediator.healing.plan import Owner, RestartAction
from selfheal_remediator.healing.pod_health import Cause, Health, Observation, WatchedPod
from selfheal_remediator.healing.policy import Policy, Record, Status
from selfheal_remediator.healing.progress_reports import ProgressReports
from selfheal_remediator.node.skip_reason import SkipReason

#: Seconds after which a restart counts as over although no healthy pod replaced it.
RESTART_LIMIT = 600.0
#: Seconds past its deletion time before a pod counts as stuck: nobody waits for it any more.
STUCK_AFTER = 60.0
#: Seconds within which an accepted eviction must have shown on the watch.
UNSEEN_FOR = 60.0
#: Part of the time after which it counts as hung, after which a pod without progress is doubtful.
DOUBTFUL_AFTER = 0.25
#: Seconds by which the API server's clock may be behind ours.
CLOCK_TOLERANCE = 5.0


@dataclass(slots=True)
class Group:
    """The pods of one owner under one policy, as of one evaluation."""

    key: str
    owner: Owner | None
    pods: list[WatchedPod] = field(default_factory=list)
    alive: list[WatchedPod] = field(default_factory=list)
    unhealthy: list[WatchedPod] = field(default_factory=list)
    #: A restart of one of its pods is not over.
    under_way: bool = False
    #: Nearly all of its pods are, on several nodes.
    everywhere_unhealthy: bool = False
    #: It has more pods than desired, and not for longer than a rollout may make no progress.
    shrinking: bool = False
    #: Why a change of its pods makes no progress, empty = it does, or there is none.
    stuck: str = ""
    skip_reason: SkipReason | None = None

    @property
    def desired(self) -> int:
        """Desired pods; for an owner without a number, its existing pods."""
        if self.owner is not None and self.owner.desired is not None:
            return self.owner.desired
        return len(self.alive)

    @property
    def template(self) -> str:
        """Which template its pods are of, empty = not known.

        Of an owner that does not say, the revision that all its pods have.
        """
        if self.owner is not None and self.owner.template:
            return self.owner.template
        revisions = {pod.revision for pod in self.alive}
        return revisions.pop() if len(revisions) == 1 else ""

    def name(self) -> str:
        """For people."""
        return f"{self.owner.kind} {self.owner.name}" if self.owner else self.pods[0].name


@dataclass(slots=True)
class Refusal:
    """An owner's last restart was refused."""

    skip_reason: SkipReason
    count: int = 1


@dataclass(slots=True)
class PolicyState:
    """One policy and its pods."""

    policy: Policy
    next_evaluation: float
    restarts: int
    last_heal: float | None
    records: dict[str, Record]
    conditions: dict[str, tuple[bool, float]]
    #: The same before the restarts that are pending were decided.
    conditions_before: dict[str, tuple[bool, float]] = field(default_factory=dict)
    pods: dict[str, WatchedPod] = field(default_factory=dict)
    observations: dict[str, Observation] = field(default_factory=dict)
    progress: ProgressReports = field(default_factory=ProgressReports)
    known: bool = False
    #: Whether it is known what was restarted before: nothing is restarted until it is.
    history_known: bool = True
    #: Since when we follow it.
    adopted_at: float = 0.0
    #: Since when its pods are not known (while they are not).
    unlisted_at: float = 0.0
    #: When each pod was first evaluated, and since when it could have been restarted.
    observed_since: dict[str, float] = field(default_factory=dict)
    free_since: dict[str, float] = field(default_factory=dict)
    #: Since when each pod has been healthy.
    healthy_since: dict[str, float] = field(default_factory=dict)
    dirty: bool = True
    evaluated_at: float = 0.0
    groups: dict[str, Group] = field(default_factory=dict)
    owners: dict[str, Owner] = field(default_factory=dict)
    pending: dict[str, RestartAction] = field(default_factory=dict)
    refusals: dict[str, Refusal] = field(default_factory=dict)
    owner_healthy_since: dict[str, float] = field(default_factory=dict)
    #: The cause of the skip reason that was reported last, by owner.
    reported: dict[str, str] = field(default_factory=dict)
    stuck_reported: set[str] = field(default_factory=set)
    #: Owners that were reported as stuck, with the template that is rolled out.
    rollouts_reported: dict[str, str] = field(default_factory=dict)
    #: Since when each owner has had more pods than it wants.
    surplus_since: dict[str, float] = field(default_factory=dict)
    #: When this process decided each owner's canary, and which pods (uids) existed then.
    before_canary: dict[str, tuple[float, frozenset[str]]] = field(default_factory=dict)
    desired: int = 0
    healthy: int = 0
    status: Status | None = None
    problem: str = ""
    #: Whether a predecessor saw the remediator paused last: then it may have been resumed since.
    left_paused: bool = False

    @classmethod
    def taken_over(cls, policy: Policy, now: float) -> PolicyState:
        """Of a policy that is new to this process: from what a predecessor wrote, if any did."""
        saved = policy.saved.taken_over(now)
        made = cls(
            policy,
            now,
            saved.restarts,
            saved.last_heal,
            {record.uid: record for record in saved.records},
            {item.type: (item.holds, item.since) for item in saved.conditions},
            adopted_at=now,
            unlisted_at=now,
            left_paused=saved.paused,
            history_known=not policy.history_lost,
        )
        if saved.observed and saved.observed != policy.generation:
            made.begin_again()
        return made

    def continues(self, policy: Policy) -> bool:
        """Whether what is known here still counts: not of another policy of the same name, nor
        when what was restarted before could not be read until now."""
        same = policy.uid == self.policy.uid
        return same and (self.history_known or bool(policy.history_lost))

    def replace_policy(self, policy: Policy) -> None:
        """The policy, or its status, has changed."""
        before, self.policy = self.policy, policy
        if before.generation != policy.generation:
            self.begin_again()
        if before.symptoms != policy.symptoms:
            self.observations.clear()
            self.observed_since.clear()
            self.progress.forget_reports()
            self.groups.clear()  # until they are evaluated by the new symptoms
            self.dirty = True

    @property
    def unhealthy(self) -> bool:
        """Whether any pod is certainly unhealthy."""
        return any(group.unhealthy for group in self.groups.values())

    def is_healthy(self, pod: WatchedPod) -> bool:
        """Whether the last evaluation found nothing wrong with the pod."""
        return self.observations[pod.uid].diagnosis.health is Health.HEALTHY

    def under_way(self, group: Group, record: Record, now: float) -> bool:
        """Whether the owner's last restart is not over: the old pod goes, or the new one comes."""
        if group.key in self.pending:
            return True
        if not record.pod:
            return False
        begun = max(record.restarts, default=now - RESTART_LIMIT)
        lasts = now - max(begun, self.adopted_at)  # who decided it may have another clock
        old = self.pods.get(record.pod)
        if old is not None and not old.finished:
            if old.deletion is None:
                return lasts < UNSEEN_FOR
            if now <= max(old.deletion, begun) + STUCK_AFTER:
                return True
        comes = len(group.alive) + self.blocked_places(group, now) < group.desired or any(
            self.undecided(group, pod, begun) for pod in group.alive
        )
        return comes and lasts <= RESTART_LIMIT

    def blocked_places(self, group: Group, now: float) -> int:
        """Places in which no pod can come, because the old one cannot go: its node is dead."""
        if group.owner is None or group.owner.kind not in ("StatefulSet", "DaemonSet"):
            return 0  # others put the new pod elsewhere
        return sum(
            pod.deletion is not None and not pod.finished and now > pod.deletion + STUCK_AFTER
            for pod in group.pods
        )

    def undecided(self, group: Group, pod: WatchedPod, begun: float) -> bool:
        """Whether a pod that came after a restart has not shown yet what becomes of it."""
        found = self.observations[pod.uid].diagnosis
        if found.health is Health.BEGINNING:
            return True
        young = self.observed_since[pod.uid] > begun
        return young and found.name == "NotReady" and pod not in group.unhealthy

    def certainly_healthy(self, pod: WatchedPod) -> bool:
        """Whether nothing is wrong with the pod, and it does not seem to begin to hang either."""
        stall, lasting = self.progress.stall(pod.uid), self.policy.symptoms.no_progress_for or 0.0
        hangs = stall is not None and stall.probed_at - stall.since >= lasting * DOUBTFUL_AFTER
        return self.is_healthy(pod) and not hangs

    def healthy_for(self, pod: WatchedPod, seconds: float, now: float) -> bool:
        """Whether the pod is certainly healthy, and has been for so long."""
        since = self.healthy_since.get(pod.uid)
        return since is not None and now - since >= seconds and self.certainly_healthy(pod)

    def elsewhere(self, group: Group, pod: WatchedPod) -> list[WatchedPod]:
        """The owner's pods on other nodes; none if they are no evidence about the pod's node.

        They are evidence if all are healthy and one existed before the pod became unhealthy:
        later pods may be healthy because they are new.
        """
        found = [other for other in group.alive if other.node != pod.node]
        begun = self.observations[pod.uid].since
        if any(other.created <= begun for other in found) and all(map(self.is_healthy, found)):
            return found
        return []

    def overdue(self, now: float) -> list[tuple[WatchedPod, Observation]]:
        """Pods that should be gone by now."""
        found = []
        for pod in self.pods.values():
            observation = self.observations.get(pod.uid)
            if (
                observation is not None
                and observation.diagnosis.due is not None
                and observation.diagnosis.due <= now
            ):
                found.append((pod, observation))
        return found

    def is_pending(self, action: RestartAction) -> bool:
        """Whether it is this very restart that is on its way."""
        known = self.pending.get(action.owner.uid)
        return known is not None and (known.pod.uid, known.at) == (action.pod.uid, action.at)

    def forget(self, uid: str) -> None:
        """The pod is gone, or is not one of the policy's any more."""
        for known in (
            self.pods,
            self.observations,
            self.observed_since,
            self.free_since,
            self.healthy_since,
        ):
            known.pop(uid, None)
        self.progress.forget(uid)
        self.stuck_reported.discard(uid)
        for group in self.groups.values():
            for pods in (group.pods, group.alive, group.unhealthy):
                pods[:] = [pod for pod in pods if pod.uid != uid]

    def take_in(self, pod: WatchedPod) -> None:
        """The pod is as it says. Between two evaluations it may crash and be ready again."""
        before = self.pods.get(pod.uid)
        if before is not None and pod.unread:
            deletion = pod.deletion or before.deletion
            pod = replace(before, unread=pod.unread, deletion=deletion)
        if before is not None and (pod.unread or pod.interrupted(before)):
            self.healthy_since.pop(pod.uid, None)
        self.pods[pod.uid] = pod

    def keep_owners(self) -> None:
        """Forget owners that are gone, but for what the status must remember of them."""
        by_owner: tuple[dict[str, Any], ...] = (
            self.owner_healthy_since,
            self.reported,
            self.refusals,
            self.rollouts_reported,
            self.surplus_since,
            self.before_canary,
        )
        for known in by_owner:
            for key in known.keys() - self.groups.keys():
                del known[key]
        for key in self.records.keys() - self.groups.keys():
            if self.records[key].idle and key not in self.pending:
                del self.records[key]

    def begin_again(self) -> None:
        """A person has changed the policy or resumed the remediator, which is a new chance.

        It is within the same hour's budget, and a canary under way stays so.
        """
        for uid, record in self.records.items():
            self.records[uid] = record.forgiven()
        self.refusals.clear()
        self.left_paused, self.dirty = False, True


def urgency(observation: Observation, pod: WatchedPod) -> tuple[bool, float, str]:
    """Pods with work in flight first, then the oldest."""
    return (observation.diagnosis.cause is not Cause.NO_PROGRESS, observation.since, pod.name)
