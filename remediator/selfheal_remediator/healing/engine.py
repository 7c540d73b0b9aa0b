"""The pods of all policies: which one to restart now, and what to report of the others. Pure.

The caller feeds in policies, pods, their owners and their progress, and carries out what
`evaluate` returns. A restart is counted at once, also in the status: the status is written before
the eviction is sent, so that the next leader finds it, and the restart is uncounted only if the
eviction was certainly not made.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from selfheal_remediator.healing.acting_policy import (
    acting_policies,
    hand_over_canaries,
    hand_over_of_deleted,
)
from selfheal_remediator.healing.node_findings import NodeFindings
from selfheal_remediator.healing.owner_evaluation import OwnerEvaluation
from selfheal_remediator.healing.owner_registry import Owners, has_pods_of
from selfheal_remediator.healing.plan import (
    Around,
    Finding,
    Notice,
    Owner,
    Plan,
    RestartAction,
)
from selfheal_remediator.healing.pod_evaluation import checks_needed, evaluate_pods
from selfheal_remediator.healing.pod_health import Reading, WatchedPod
from selfheal_remediator.healing.policy import Policy
from selfheal_remediator.healing.policy_state import PolicyState
from selfheal_remediator.healing.progress_reports import Probe
from selfheal_remediator.healing.restart_check import give_up_waiting
from selfheal_remediator.healing.restart_decisions import RestartDecisions, Surroundings
from selfheal_remediator.healing.restart_outcomes import note_accepted, note_refused
from selfheal_remediator.healing.status import status
from selfheal_remediator.kube.informer import Change
from selfheal_remediator.node.skip_reason import SkipReason

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
        self._interval, self._once = interval, once
        self.policy_states: dict[str, PolicyState] = {}
        self.owners = Owners()
        self._nodes = NodeFindings(interval, once=once)
        self._owner_evaluation = OwnerEvaluation(interval, rollout_deadline, self._nodes)
        self._decisions = RestartDecisions(interval, self._nodes)
        self._notices: list[Notice] = []

    @property
    def findings(self) -> Mapping[str, Finding]:
        """Nodes on which pods of several owners are unhealthy."""
        return self._nodes.by_node

    def node_gone(self, name: str) -> None:
        """The node was deleted: findings on a recreated node of its name start from scratch."""
        self._nodes.node_gone(name)

    # -- policies -----------------------------------------------------------------------

    def adopt(self, policy: Policy, now: float) -> None:
        """A policy is new or changed."""
        policy_state = self.policy_states.get(policy.key)
        if policy_state is None or not policy_state.continues(policy):
            self.policy_states[policy.key] = PolicyState.taken_over(policy, now)
        else:
            policy_state.replace_policy(policy)

    def drop(self, key: str) -> None:
        """The policy is gone: so is all that was known for it."""
        gone = self.policy_states.pop(key, None)
        if gone is not None:
            hand_over_of_deleted(gone, self.policy_states.values())

    def resumed(self) -> None:
        """A person has resumed the remediator: what gave up starts again."""
        for policy_state in self.policy_states.values():
            policy_state.begin_again()

    # -- pods ---------------------------------------------------------------------------

    def pod_changed(self, key: str, change: Change[WatchedPod]) -> None:
        """An event of the watch of the policy's pods."""
        policy_state = self.policy_states.get(key)
        if policy_state is None:
            return
        if change.new is None:
            assert change.old is not None
            policy_state.forget(change.old.uid)
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
        policy_state.owners.clear()  # they exist on: all of their pods would count as missing
        policy_state.known, policy_state.unlisted_at, policy_state.dirty = False, now, True

    def pods_known(self, key: str) -> None:
        """The policy's pods were listed completely."""
        policy_state = self.policy_states.get(key)
        if policy_state is not None:
            policy_state.known = policy_state.dirty = True
            policy_state.problem = ""

    def pods_unknown(self, key: str, problem: str, now: float) -> bool:
        """The policy's pods cannot be listed, or nothing was heard of them; empty = they can.

        Returns whether that is new.
        """
        policy_state = self.policy_states.get(key)
        if policy_state is None or policy_state.problem == problem:
            return False
        policy_state.problem, policy_state.dirty = problem, True
        if not policy_state.known:
            policy_state.status = status(policy_state, now)
        return True

    def answered(self, key: str, uid: str, reading: Reading | None, probed_at: float) -> None:
        """How the work of a pod goes; None = it gave no answer."""
        policy_state = self.policy_states.get(key)
        if policy_state is None or uid not in policy_state.pods:
            return
        observation = policy_state.observations.get(uid)
        limit = policy_state.policy.symptoms.no_progress_for
        if policy_state.progress.take_in(uid, reading, observation, limit, probed_at):
            policy_state.dirty = True

    # -- owners -------------------------------------------------------------------------

    def owner_known(self, controller: str, owner: Owner | None) -> None:
        """What the API says of a pod's controller; None = it is gone."""
        gone = self.owners.gone(controller) if owner is None else None
        changed = gone is not None or (owner is not None and self.owners.take_in(controller, owner))
        for policy_state in self.policy_states.values():
            if gone is not None:
                policy_state.owners.pop(gone.uid, None)
            policy_state.dirty = policy_state.dirty or changed

    def has_pods_of(self, controller: str) -> bool:
        """Whether any policy selects a pod of this controller (its uid)."""
        return has_pods_of(controller, self.policy_states.values())

    def retire(self, controller: str) -> bool:
        """Forget a controller that nobody needs; whether it was."""
        return self.owners.retire(controller, self.policy_states.values())

    # -- outcomes -----------------------------------------------------------------------

    def accepted(self, action: RestartAction, now: float) -> None:
        """The eviction was made, or may have been."""
        policy_state = self.policy_states.get(action.policy)
        if policy_state is not None:
            self._notices.append(note_accepted(policy_state, action, now))

    def refused(self, action: RestartAction, skip_reason: SkipReason, now: float) -> None:
        """The eviction was certainly not made: nothing was spent."""
        policy_state = self.policy_states.get(action.policy)
        if policy_state is not None:
            note_refused(policy_state, action, skip_reason, self._interval, now)

    def not_deleted(self, key: str, uid: str, again: float, now: float) -> None:
        """The pod of an accepted restart still exists: nothing waits for it any more."""
        policy_state = self.policy_states.get(key)
        if policy_state is None:
            return
        notice = give_up_waiting(policy_state, uid, again, now)
        if notice is not None:
            self._notices.append(notice)
            policy_state.status = status(policy_state, now)

    # -- evaluation -----------------------------------------------------------------------

    def evaluate(self, now: float, around: Around) -> Plan:
        """Evaluate what is due or has changed; return what to do."""
        policy_states = self.policy_states.values()
        self._nodes.begin_evaluation(around, now)
        for policy_state in policy_states:
            if policy_state.left_paused and not around.paused:
                policy_state.begin_again()
        evaluated = self._evaluate_due(now)
        probes = self._probes(now)
        if evaluated:
            self._nodes.update(evaluated, policy_states, around, now)
        recalls = self._decisions.recalls(policy_states, around, now)
        actions = self._decide(evaluated, around, now)
        notices, self._notices = tuple(self._notices), []
        return Plan(
            tuple(actions),
            recalls,
            notices,
            tuple(probes),
            self._unknown_owners(evaluated),
            wake=self._wake(now),
        )

    def _evaluate_due(self, now: float) -> list[PolicyState]:
        """Evaluate the policies that are due; all of them if something may be restarted.

        Whether a node is at fault depends on the pods of all policies at one moment.
        """
        in_flight = self._in_flight
        due = [one for one in self.policy_states.values() if _is_due(one, now, in_flight)]
        for policy_state in due:
            self._evaluate(policy_state, now)
        if not due or not (self.findings or in_flight or any(one.unhealthy for one in due)):
            return due
        known = [one for one in self.policy_states.values() if one.known]
        for policy_state in known:
            if policy_state not in due:
                self._evaluate(policy_state, now)
        return known

    def _evaluate(self, policy_state: PolicyState, now: float) -> None:
        evaluate_pods(policy_state, self.owners, self._interval, now, once=self._once)
        checks = checks_needed(policy_state)
        for group in policy_state.groups.values():
            self._notices += self._owner_evaluation.evaluate(policy_state, group, checks, now)

    def _probes(self, now: float) -> list[Probe]:
        probes: list[Probe] = []
        for one in self.policy_states.values():
            if one.known and now >= one.progress.next_probe:
                probes += one.progress.due(
                    one.policy, one.pods.values(), one.observations, self._interval, now
                )
        return probes

    def _unknown_owners(self, evaluated: Collection[PolicyState]) -> tuple[WatchedPod, ...]:
        """A pod of each controller that is still to be looked up."""
        pods = (pod for policy_state in evaluated for pod in policy_state.pods.values())
        return tuple(
            {
                pod.owner_uid: pod
                for pod in pods
                if pod.owner_uid and pod.owner_uid not in self.owners and not pod.finished
            }.values()
        )

    def _decide(
        self, evaluated: Collection[PolicyState], around: Around, now: float
    ) -> list[RestartAction]:
        policy_states = self.policy_states.values()
        acting = acting_policies(policy_states) if any(one.unhealthy for one in evaluated) else {}
        hand_over_canaries(self.policy_states, acting)
        given = Surroundings(around, policy_states, acting, self.owners)
        actions: list[RestartAction] = []
        for policy_state in evaluated:
            restarts, notices = self._decisions.decide(policy_state, given, now)
            actions += restarts
            self._notices += notices
        return actions

    @property
    def _in_flight(self) -> bool:
        """Whether any restart has been decided and not settled."""
        return any(policy_state.pending for policy_state in self.policy_states.values())

    def _wake(self, now: float) -> float | None:
        moments = []
        for policy_state in self.policy_states.values():
            if not policy_state.known:
                continue
            moments += [policy_state.next_evaluation, policy_state.progress.next_probe]
            if policy_state.dirty:
                moments.append(_soonest(policy_state, self._in_flight))
        return max(now, min(moments)) if moments else None


def _is_due(policy_state: PolicyState, now: float, in_flight: bool) -> bool:
    return policy_state.known and (
        now >= policy_state.next_evaluation
        or (policy_state.dirty and now >= _soonest(policy_state, in_flight))
    )


def _soonest(policy_state: PolicyState, in_flight: bool) -> float:
    """When a policy whose pods have changed may be evaluated again.

    New evidence may cancel a pending restart: that is evaluated at once.
    """
    return policy_state.evaluated_at + (0.0 if in_flight else SOONEST)
