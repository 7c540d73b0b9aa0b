"""Restarts that are on their way: handed to a worker, called back, and settled.

`_carry_out` runs in a worker (see restart_errand.py), all else on the main thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from selfheal_remediator.healing.callbacks import Callbacks
from selfheal_remediator.healing.deletion_reads import DeletionReads
from selfheal_remediator.healing.engine import Healing
from selfheal_remediator.healing.permits import Permit
from selfheal_remediator.healing.plan import RECALLED, Owner, RestartAction
from selfheal_remediator.healing.restart_errand import Errand, Result, carry_out
from selfheal_remediator.healing.status_writer import StatusWriter
from selfheal_remediator.healing.term import Term
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.node.skip_reason import SkipReason
from selfheal_remediator.threads.pool import Purpose, Workers

log = logging.getLogger(__name__)


class RestartRequests:
    """All restarts on their way, by policy, owner and moment."""

    def __init__(
        self,
        api: KubernetesApi,
        workers: Workers,
        term: Term,
        healing: Healing,
        statuses: StatusWriter,
        deletions: DeletionReads,
        callbacks: Callbacks,
        clock: Callable[[], float],
    ) -> None:
        self._api, self._workers, self._term, self._healing = api, workers, term, healing
        self._statuses, self._deletions = statuses, deletions
        self._callbacks, self._clock = callbacks, clock
        self._permits: dict[tuple[str, str, float], Permit] = {}

    @property
    def in_flight(self) -> int:
        """How many are on their way."""
        return len(self._permits)

    def submit(self, action: RestartAction) -> None:
        """Have it sent."""
        policy = self._healing.policy_states[action.policy].policy
        restores = self._statuses.begin_restart(action.policy)
        permit = Permit(runtime=self._workers.runtime)
        errand = Errand(action, policy, permit, self._api.dry_run, restores)
        self._permits[_key(action)] = errand.permit
        self._workers.submit(partial(self._carry_out, errand), Purpose.RESTARTS, action.policy)

    def recall(self, action: RestartAction, skip_reason: SkipReason) -> None:
        """Call one back, if it was not sent yet."""
        permit = self._permits.get(_key(action))
        if permit is not None and permit.recall(skip_reason):
            log.debug("%s: %s not restarted: %s", action.policy, action.pod.name, skip_reason.text)

    def recall_all(self, why: str, policy: str = "") -> None:
        """Call back what is on its way under the policy (its key), empty = under all."""
        for (key, *_), permit in self._permits.items():
            if not policy or key == policy:
                permit.recall(SkipReason(RECALLED, why))

    def _carry_out(self, errand: Errand) -> None:
        owner_known = partial(self._post_owner, errand.action.pod.owner_uid)
        result = carry_out(self._api, errand, owner_known, self._clock)
        self._term.post(partial(self._settled, errand, result))

    def _post_owner(self, controller: str, owner: Owner) -> None:
        """In a worker."""
        self._term.post(partial(self._healing.owner_known, controller, owner))

    def _settled(self, errand: Errand, result: Result) -> None:
        action, skip_reason, now = errand.action, result.skip_reason, self._clock()
        self._permits.pop(_key(action), None)
        policy_state = self._healing.policy_states.get(action.policy)
        if policy_state is None or policy_state.policy.uid != errand.policy.uid:
            # Deleted meanwhile, or recreated under its name: the new one has restarted nothing.
            done = "restarted" if skip_reason is None else f"not restarted: {skip_reason.text}"
            log.info("%s: %s %s; the policy was deleted", action.policy, action.pod.name, done)
            return
        self._statuses.end_restart(errand.policy, action.status, result.version, errand.restores)
        if skip_reason is None:
            log.info("%s: restarted %s: %s", action.policy, action.pod.name, action.why)
            self._callbacks.restarted(action)
            self._healing.accepted(action, now)
            self._deletions.expect(errand.policy.uid, action.pod.uid, now)
            return
        if skip_reason.cause != RECALLED:
            self._callbacks.refused(skip_reason.cause)
        log.info("%s: %s not restarted: %s", action.policy, action.pod.name, skip_reason.text)
        self._healing.refused(action, skip_reason, now)


def _key(action: RestartAction) -> tuple[str, str, float]:
    return action.policy, action.owner.uid, action.at
