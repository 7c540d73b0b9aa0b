"""Whether the pods of accepted restarts are deleted, and what follows if they are not. Pure.

An eviction that was answered with success may delete nothing (see deletion_check.py). Its owner is
then not left waiting: that is reported, the restart stays counted against the policy's limits, and
the next one waits ever longer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from selfheal_remediator.healing.plan import Notice
from selfheal_remediator.healing.pod_health import WatchedPod
from selfheal_remediator.healing.policy_state import PolicyState, Refusal
from selfheal_remediator.kube.deletion_check import NOT_DELETED, DeletionCheck
from selfheal_remediator.moments import earliest
from selfheal_remediator.node.skip_reason import SkipReason

#: Cause of the block, and reason of the Event.
CAUSE = "not-deleted"
REASON = "EvictionIgnored"


@dataclass(slots=True)
class RestartChecks:
    """The checks under way, by the uids of policy and pod."""

    _all: dict[tuple[str, str], DeletionCheck] = field(default_factory=dict)

    def accepted(self, policy_uid: str, pod_uid: str, now: float) -> None:
        """An eviction was accepted, or may have been."""
        self._all.setdefault((policy_uid, pod_uid), DeletionCheck()).accepted(now)

    def due(
        self, policy_states: Iterable[PolicyState], now: float
    ) -> tuple[list[tuple[PolicyState, WatchedPod]], float | None]:
        """The pods to read now, and when to check for others.

        Those whose restart a predecessor recorded are checked too.
        """
        found, wakes, there = [], [], set()
        for policy_state in policy_states:
            there |= {
                (policy_state.policy.uid, uid)
                for uid, pod in policy_state.pods.items()
                if _stays(pod)
            }
            for pod, begun in _waited_for(policy_state):
                key = (policy_state.policy.uid, pod.uid)
                check = self._all.get(key)
                if check is None:
                    check = self._all[key] = DeletionCheck()
                    check.accepted(begun)
                if check.check_at is not None and check.check_at <= now:
                    check.begin_read()
                    found.append((policy_state, pod))
                wakes.append(check.check_at)
        for key in self._all.keys() - there:
            del self._all[key]
        return found, earliest(*wakes)

    def answered(self, policy_uid: str, pod_uid: str, now: float, *, deleted: bool) -> float | None:
        """The pod was read; deleted: it is on its way, gone, or could not be read. Returns when
        the restart may be tried again, None = it is waited for."""
        check = self._all.get((policy_uid, pod_uid))
        if check is None:
            return None
        if not deleted:
            return check.not_deleted(now)
        check.deleted(now)
        return None

    def clear(self) -> None:
        """Everything is read again."""
        self._all.clear()


def _stays(pod: WatchedPod) -> bool:
    return pod.deletion is None and not pod.finished


def _waited_for(policy_state: PolicyState) -> list[tuple[WatchedPod, float]]:
    """The restarted pods that still exist, each with the time of its restart."""
    found = []
    for key, record in policy_state.records.items():
        pod = policy_state.pods.get(record.pod)
        if pod is not None and _stays(pod) and key not in policy_state.pending:
            found.append((pod, max(record.restarts, default=policy_state.evaluated_at)))
    return found


def give_up_waiting(
    policy_state: PolicyState, pod_uid: str, again: float, now: float
) -> Notice | None:
    """The pod of a restart is not deleted: its owner may be restarted again from `again` on.

    Returns the message, None if nothing waits for that pod.
    """
    for key, record in policy_state.records.items():
        pod = policy_state.pods.get(pod_uid)
        if record.pod != pod_uid or key in policy_state.pending or pod is None or not _stays(pod):
            continue
        policy_state.records[key] = replace(record, pod="")
        ago = now - max(record.restarts, default=now)
        text = f"{pod.name} was to be restarted {ago:.0f}s ago: {NOT_DELETED}"
        before = policy_state.refusals.get(key)
        count = before.count + 1 if before is not None else 1
        policy_state.refusals[key] = Refusal(SkipReason(CAUSE, text, again), count)
        policy_state.reported[key] = CAUSE  # by the notice
        policy_state.dirty = True
        group = policy_state.groups.get(key)
        tried = f"; tried again in {again - now:.0f}s, within the limits of the policy"
        owner = group.owner if group is not None else None
        return Notice(policy_state.policy.key, owner, REASON, text + tried, True)
    return None
