"""Reads whether the pods of accepted restarts are deleted (see restart_check.py).

`_read` runs in a worker, all else on the main thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.healing.engine import Healing
from selfheal_remediator.healing.pod_health import WatchedPod
from selfheal_remediator.healing.policy import Policy
from selfheal_remediator.healing.restart_check import RestartChecks
from selfheal_remediator.healing.term import Term
from selfheal_remediator.healing.unread_pods import watched_or_unread
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.threads import supervision
from selfheal_remediator.threads.pool import Purpose, Workers

log = logging.getLogger(__name__)


class DeletionReads:
    """See the module."""

    def __init__(
        self,
        api: KubernetesApi,
        workers: Workers,
        term: Term,
        healing: Healing,
        clock: Callable[[], float],
    ) -> None:
        self._api, self._workers, self._term = api, workers, term
        self._healing, self._clock = healing, clock
        self._checks = RestartChecks()

    def expect(self, policy_uid: str, pod_uid: str, now: float) -> None:
        """The pod's eviction was accepted, or may have been."""
        self._checks.accepted(policy_uid, pod_uid, now)

    def read_due(self, now: float) -> float | None:
        """Begin the reads that are due; returns when others will be."""
        due, wake = self._checks.due(self._healing.policy_states.values(), now)
        for policy_state, pod in due:
            read = partial(self._read, policy_state.policy, pod)
            self._workers.submit(read, Purpose.LOOKUPS)
        return wake

    def _read(self, policy: Policy, pod: WatchedPod) -> None:
        deleted = True
        try:
            what, runtime = f"the read of pod {pod.name}", self._workers.runtime
            with supervision.expected("worker", what, runtime=runtime):
                deleted = _is_deleted(self._api, pod)
        except ApiFailure as failure:
            log.warning("%s: %s, which was restarted: %s", policy.key, pod.name, failure)
        self._term.post(partial(self._settled, policy, pod, deleted))

    def _settled(self, policy: Policy, pod: WatchedPod, deleted: bool) -> None:
        now, policy_state = self._clock(), self._healing.policy_states.get(policy.key)
        again = self._checks.answered(policy.uid, pod.uid, now, deleted=deleted)
        if again is None or policy_state is None or policy_state.policy.uid != policy.uid:
            return
        self._healing.not_deleted(policy.key, pod.uid, again, now)


def _is_deleted(api: KubernetesApi, pod: WatchedPod) -> bool:
    """In a worker: whether the pod is gone, or on its way. Raises ApiFailure."""
    found = api.pod(pod.namespace, pod.name)
    if found is None:
        return True
    fresh = watched_or_unread(found)
    return fresh.uid != pod.uid or fresh.deletion is not None
